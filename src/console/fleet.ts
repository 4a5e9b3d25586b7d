/** `GET /admin/v1/fleet` as a schema; the type is core/view.ts, the compiler compares the two. */
import { z } from 'zod'
import type { EngineSignal } from '../core/runtime.ts'
import type { DeploymentView, FleetView, GpuView, NodeView, ReplicaView } from '../core/view.ts'
import { FitSchema, PhaseSchema } from './planned.ts'

const count = z.int().nonnegative()
const number = z.number()
const text = z.string()
const unknown = z.number().nullable().describe('null: unknown, which is not zero')
const age = z.number().describe('milliseconds since this was read')

export const GpuSchema = z.strictObject({
  index: count,
  uuid: text,
  name: text,
  utilizationRatio: unknown,
  memoryUsedBytes: unknown,
  memoryTotalBytes: unknown,
  powerWatts: unknown,
  temperatureCelsius: unknown,
  ageMs: age,
}) satisfies z.ZodType<GpuView>

export const NodeSchema = z.strictObject({
  name: text,
  address: text,
  driver: text,
  rehearsal: z.boolean(),
  reachable: z.boolean(),
  reason: text.describe('why it is not reachable; empty when it is'),
  ageMs: age,
  facts: z
    .strictObject({ engine: text, hostname: text, cpus: number, memoryBytes: number })
    .nullable(),
  profile: text.nullable(),
  gpuCount: count,
  allocated: z.record(text, text).describe('GPU index to the replica that holds it'),
  gpus: z.array(GpuSchema),
}) satisfies z.ZodType<NodeView>

const RankSchema = z.strictObject({
  rank: count,
  node: text,
  gpus: z.array(count),
  container: text,
  state: z.enum(['missing', 'created', 'running', 'exited', 'unknown']),
  exitCode: z.int().nullable(),
  phase: PhaseSchema.nullable(),
  phaseRatio: z.number().nullable().describe('0..1 of this phase'),
  error: text.nullable(),
})

const SignalSchema = z.enum([
  'requestsRunning',
  'requestsWaiting',
  'kvCacheUsageRatio',
  'kvCapacityTokens',
  'promptTokensTotal',
  'generationTokensTotal',
  'preemptionsTotal',
  'prefixCacheHitTokensTotal',
  'prefixCacheQueryTokensTotal',
  'stepsTotal',
]) satisfies z.ZodType<EngineSignal>

const ReadingSchema = z.strictObject({ value: number, ageMs: age })

export const ReplicaSchema = z.strictObject({
  id: text,
  state: z.enum(['pending', 'starting', 'ready', 'draining', 'stopped', 'failed']),
  sinceMs: number.describe('epoch milliseconds'),
  reason: text,
  endpoint: text,
  restarts: count,
  inFlight: count,
  breaker: z.enum(['closed', 'open', 'half-open']),
  ceiling: count.describe('requests that the gateway gives it at a time'),
  saturation: number.describe('1 is full'),
  ranks: z.array(RankSchema),
  signals: z.partialRecord(SignalSchema, ReadingSchema).describe('a missing one is unknown'),
  promptTokensPerSecond: unknown,
  generationTokensPerSecond: unknown,
}) satisfies z.ZodType<ReplicaView>

export const DeploymentSchema = z.strictObject({
  name: text,
  engine: text,
  weights: text,
  context: count,
  replicasWanted: count,
  removed: z.boolean().describe('its manifest is gone: it drains and stops'),
  fit: FitSchema.nullable(),
  refusals: z.array(text),
  waiting: count.describe("requests in the gateway's queue"),
  saturation: number.nullable().describe('1 is full; null: no replica is ready'),
  replicas: z.array(ReplicaSchema),
}) satisfies z.ZodType<DeploymentView>

export const FleetSchema = z.strictObject({
  version: text,
  rehearsal: z.boolean().describe('true: a number here comes from the flight simulator'),
  rehearsalSpeed: number.describe('how many times faster than real rehearsed engines run'),
  nowMs: number.describe('epoch milliseconds of this view'),
  generation: count,
  config: z.strictObject({
    problem: text.nullable().describe('the files on disk are broken, or wait for an apply'),
    broken: z.boolean().describe('they cannot be used; what was in use before still is'),
    reloads: count,
    failures: count,
    reloadedAtMs: number.nullable().describe('epoch milliseconds; null: not since the start'),
  }),
  gateway: z.strictObject({
    url: text,
    threads: count,
    inFlight: count,
    limits: z.strictObject({
      overflows: count.describe('times that a subject had to share a bucket with others'),
      redis: z
        .strictObject({
          shared: count.describe('threads that ask Redis'),
          local: count.describe("threads that decide by this gateway's share of each limit"),
          gateways: count.describe('alive when Redis was last heard'),
          localDecisions: count,
        })
        .nullable(),
    }),
  }),
  nodes: z.array(NodeSchema),
  deployments: z.array(DeploymentSchema),
  routes: z.array(z.strictObject({ model: text, to: text })),
}) satisfies z.ZodType<FleetView>
