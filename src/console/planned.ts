/** A plan as the admin API answers with it; the types are core/plan.ts and core/fit.ts. */
import { z } from 'zod'
import type { Fit } from '../core/fit.ts'
import { ArchitectureSchema } from '../core/manifest.ts'
import type { Plan } from '../core/plan.ts'
import type { Phase, RankSpec, Rehearsal } from '../core/runtime.ts'

const count = z.int().nonnegative()
const number = z.number()
const text = z.string()

export const PhaseSchema = z.enum([
  'pull',
  'start',
  'rendezvous',
  'weights',
  'profile',
  'graphs',
  'ready',
]) satisfies z.ZodType<Phase>

export const FitSchema = z.strictObject({
  ok: z.boolean(),
  profile: text.nullable().describe('null: not checked, a cpu node'),
  parallel: z.strictObject({ nodes: count, tensor: count, pipeline: count }),
  context: count,
  memoryBytes: number,
  memoryFraction: number,
  budgetBytes: number,
  weightsBytesPerGpu: number,
  overheadBytesPerGpu: number,
  overhead: z.array(z.strictObject({ what: text, bytes: number })),
  kvBytesPerGpu: number.describe('may be negative'),
  kvBytesPerTokenPerGpu: number,
  kvPoolTokens: number.describe('tokens that the KV pool of one replica holds'),
  fullContextRequests: number,
  reasons: z.array(text),
  remedies: z.array(text),
}) satisfies z.ZodType<Fit>

const LabelsSchema = z.strictObject({
  deployment: text,
  replica: count,
  rank: count,
  size: count,
  specHash: text,
  engine: text,
  node: text,
  gpus: z.array(count),
  port: count,
  rehearsal: z.boolean(),
})

const RehearsalSchema = z.strictObject({
  node: text,
  gpus: z.array(count),
  gpuName: text,
  memoryBytes: number,
  bandwidthBytesPerSecond: number,
  bf16Flops: number,
  fp8Flops: number,
  interconnectBytesPerSecond: number,
  powerLimitWatts: number,
  architecture: ArchitectureSchema,
  speed: number,
}) satisfies z.ZodType<Rehearsal>

const RankSpecSchema = z.strictObject({
  name: text,
  node: text,
  image: text,
  command: z.array(text),
  environment: z.record(text, text),
  gpus: z.array(count),
  mounts: z.array(z.strictObject({ host: text, inside: text, readOnly: z.boolean() })),
  ipc: z.enum(['host', 'private']),
  shmBytes: count,
  memlock: z.enum(['unlimited', 'default']),
  privileged: z.boolean(),
  capabilities: z.array(text),
  devices: z.array(text),
  stopGraceMs: count,
  labels: LabelsSchema,
  rehearsal: RehearsalSchema.nullable().describe('null: the real engine runs'),
}) satisfies z.ZodType<RankSpec>

const PlannedReplicaSchema = z.strictObject({
  id: text,
  deployment: text,
  replica: count,
  ranks: z.array(RankSpecSchema),
  specHash: text,
  endpoint: text,
  reason: text,
  rejected: z.array(z.strictObject({ node: text, reason: text })),
})

const action = (kind: 'start' | 'replace' | 'stop') =>
  z.strictObject({ kind: z.literal(kind), id: text, reason: text })

const ActionSchema = z.discriminatedUnion('kind', [
  action('start'),
  action('replace'),
  action('stop'),
])

export const PlanSchema = z.strictObject({
  deployments: z.array(
    z.strictObject({
      name: text,
      engine: text,
      fit: FitSchema,
      replicas: z.array(PlannedReplicaSchema),
      unplaced: z.array(z.strictObject({ replica: count, reasons: z.array(text) })),
      refusals: z.array(text),
    }),
  ),
  actions: z.array(ActionSchema),
  unchanged: z.array(text),
}) satisfies z.ZodType<Plan>
