/**
 * The shapes that the admin API answers with, for its OpenAPI document. The types live in core/;
 * `satisfies` makes the compiler refuse a schema here that has drifted from them.
 */
import { z } from 'zod'
import type {
  ApplyEvent,
  CreatedKey,
  FaultAnswer,
  Issue,
  KeyView,
  PlanAnswer,
  Series,
} from '../core/admin.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import type { ErrorBody } from '../errors.ts'
import { PhaseSchema, PlanSchema } from './planned.ts'

const count = z.int().nonnegative()
const number = z.number()
const text = z.string()

export const ErrorSchema = z.strictObject({
  error: z.strictObject({
    message: text,
    type: text,
    param: text.nullable(),
    code: text.nullable(),
  }),
}) satisfies z.ZodType<ErrorBody>

export const IssueSchema = z.strictObject({
  file: text,
  line: count,
  column: count,
  path: text,
  message: text,
}) satisfies z.ZodType<Issue>

export const PlanAnswerSchema = z.discriminatedUnion('ok', [
  z.strictObject({
    ok: z.literal(true),
    plan: PlanSchema,
    text: text.describe('the plan as `penstock plan` prints it'),
    rehearsal: z.boolean(),
  }),
  z.strictObject({ ok: z.literal(false), issues: z.array(IssueSchema) }),
]) satisfies z.ZodType<PlanAnswer>

export const ApplyEventSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('plan'), text, actions: count }),
  z.strictObject({
    kind: z.literal('rank'),
    replica: text,
    rank: count,
    node: text,
    phase: PhaseSchema,
    ratio: number.nullable(),
    note: text,
  }),
  z.strictObject({ kind: z.literal('replica'), replica: text, state: text, reason: text }),
  z.strictObject({ kind: z.literal('issues'), issues: z.array(IssueSchema) }),
  z.strictObject({ kind: z.literal('done'), message: text }),
  z.strictObject({ kind: z.literal('failed'), message: text }),
]) satisfies z.ZodType<ApplyEvent>

const Setting = z.record(z.string(), z.union([text, number, z.null()]))

const FaultAnswerSchema = z.strictObject({
  replica: text,
  rank: count,
  node: text,
  problem: text.nullable().describe('null: done'),
  speed: number.describe('clock factor; 0: the rank did not say'),
  count: count.describe('how many faults were added or cleared'),
  faults: z
    .array(z.strictObject({ id: count, on: z.boolean(), fault: Setting }))
    .describe('on or to come; `startMs` counts from now'),
}) satisfies z.ZodType<FaultAnswer>

export const FaultAnswersSchema = z.strictObject({ ranks: z.array(FaultAnswerSchema) })

export const ReplicasSchema = z.strictObject({ replicas: z.array(text) })

export const KeyViewSchema = z.strictObject({
  id: text,
  role: z.enum(['consumer', 'admin']),
  consumer: text,
  prefix: text,
  models: z.array(text).nullable(),
  createdAtMs: number,
  revokedAtMs: number.nullable(),
}) satisfies z.ZodType<KeyView>

export const KeysSchema = z.strictObject({ keys: z.array(KeyViewSchema) })

export const CreatedKeySchema = z.strictObject({
  key: text.describe('shown once, here; only its hash is kept'),
  view: KeyViewSchema,
}) satisfies z.ZodType<CreatedKey>

export const FinishedRequestSchema = z.strictObject({
  id: text,
  acceptedAtMs: number,
  path: text,
  consumer: text.nullable(),
  key: text.nullable(),
  modelAsked: text.nullable(),
  route: text.exactOptional().describe('of the route that was found, as gateway.yaml names it'),
  modelServed: text.nullable(),
  deployment: text.nullable(),
  replica: text.nullable(),
  stream: z.boolean(),
  status: count,
  outcome: z.enum(['ok', 'refused', 'client_gone', 'upstream_error', 'interrupted', 'timeout']),
  reason: text,
  promptTokens: number.nullable(),
  completionTokens: number.nullable(),
  cachedTokens: number.nullable(),
  reasoningTokens: number.nullable(),
  ttftMs: number.nullable(),
  durationMs: number,
  spillover: z
    .enum(['tokens', 'saturation', 'latency', 'unavailable'])
    .exactOptional()
    .describe('why a stand-in answered; absent: none did'),
  queueMs: number.exactOptional().describe('time in the queue of the gateway; absent: none'),
  retries: count.exactOptional().describe('attempts that failed before this one; absent: none'),
  continuations: count.exactOptional().describe('times that another replica went on with it'),
  decision: text.exactOptional().describe('what decided, in words'),
}) satisfies z.ZodType<FinishedRequest>

export const RequestsSchema = z.strictObject({ requests: z.array(FinishedRequestSchema) })

export const SeriesSchema = z.strictObject({
  name: text,
  labels: z.record(text, text),
  points: z.array(z.tuple([number, number])).describe('[epoch milliseconds, value]'),
}) satisfies z.ZodType<Series>

export const HistorySchema = z.strictObject({ series: z.array(SeriesSchema) })

export const HealthSchema = z.strictObject({ status: z.enum(['ok', 'ready', 'starting']) })
