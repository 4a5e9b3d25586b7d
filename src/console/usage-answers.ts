/** The shapes of usage and of its reconciliation, for the OpenAPI document. */
import { z } from 'zod'
import type { Money, Unused } from '../core/cost.ts'
import type { ReconciledRun, Reconciliation, TokenPair } from '../core/reconcile.ts'
import {
  USAGE_DIMENSIONS,
  type UsageGroup,
  type UsageReport,
  type UsageSums,
} from '../core/usage-report.ts'

const count = z.int().nonnegative()
const number = z.number()
const text = z.string()

const MoneySchema = z.strictObject({
  currency: text.describe('ISO 4217; amounts of different currencies are never added'),
  amount: number,
}) satisfies z.ZodType<Money>

const UnusedSchema = z.strictObject({
  currency: text,
  amount: number.describe('sum of the parts below'),
  idle: number.describe('held by a replica that answered nobody'),
  free: number.describe('held by nothing'),
  away: number.describe('while no Penstock ran'),
  unserved: number.describe('busy, but no answer of that day named its tokens'),
}) satisfies z.ZodType<Unused>

const SUMS = {
  requests: count,
  outcomes: z.strictObject({
    ok: count,
    refused: count,
    client_gone: count,
    upstream_error: count,
    interrupted: count,
    timeout: count,
  }),
  spilled: count.describe('answered by a stand-in'),
  unmetered: count.describe('reached an engine, and nobody said how many tokens that took'),
  promptTokens: count,
  cachedTokens: count.describe('of promptTokens'),
  completionTokens: count,
  reasoningTokens: count.describe('of completionTokens'),
  queueMs: number.describe('sum over the `queued` requests that waited for their turn'),
  queued: count,
  ttftMs: number.describe('sum over the `ttftKnown` requests that got a first token'),
  ttftKnown: count,
  durationMs: number.describe('sum over all requests'),
  cost: z.array(MoneySchema).describe('share of the busy cost of the machines, by tokens'),
} as const

const Dimension = z.enum(USAGE_DIMENSIONS)

const GroupSchema = z.strictObject({
  by: z
    .partialRecord(Dimension, text.nullable())
    .describe('the dimensions asked for; null: there was none'),
  ...SUMS,
}) satisfies z.ZodType<UsageGroup>

const TotalSchema = z.strictObject(SUMS) satisfies z.ZodType<UsageSums>

export const UsageReportSchema = z.strictObject({
  from: text.describe('first day, UTC'),
  to: text.describe('last day, UTC'),
  by: z.array(Dimension),
  rehearsal: z.boolean().describe('true: simulated engines, simulated seconds'),
  rows: z.array(GroupSchema),
  total: TotalSchema,
  unused: z.array(UnusedSchema).describe('cost that no token carries, one entry a currency'),
  spent: z.array(MoneySchema).describe('cost of the total and unused cost together'),
}) satisfies z.ZodType<UsageReport>

const TokensSchema = z.strictObject({
  prompt: number,
  completion: number,
}) satisfies z.ZodType<TokenPair>

const RunSchema = z.strictObject({
  replica: text,
  openedAtMs: number.describe('when our books on this run of the engine began'),
  readAtMs: number.nullable().describe('last reading of its counters'),
  current: z.boolean(),
  inFlight: count,
  engine: TokensSchema.describe('what its counters gained since then'),
  ours: TokensSchema.describe('what the answers of finished requests named'),
  probes: TokensSchema.describe('what our own smoke probes took'),
  difference: TokensSchema.describe('engine less ours less probes'),
  requests: count,
  cut: count.describe('ended otherwise than ok'),
  unmetered: count,
  resets: count.describe('how often the counters fell to 0 within this run'),
  kills: count.describe('how often a Penstock was killed during this run'),
  why: z.array(text).describe('what may account for a difference'),
}) satisfies z.ZodType<ReconciledRun>

export const ReconciliationSchema = z.strictObject({
  runs: z.array(RunSchema).describe('by replica, newest run first'),
}) satisfies z.ZodType<Reconciliation>
