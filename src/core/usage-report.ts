/**
 * Who used what: finished requests summed by consumer, key, model and day of acceptance (UTC),
 * with what that cost. What an engine did not say is counted as not known, never as nothing.
 */
import { addMoney, type CostRow, charge, type Money, type Unused } from './cost.ts'
import { dayName } from './day.ts'
import type { Outcome } from './snapshot.ts'

/** `model` is what was asked for, `served` what answered: a stand-in has another name. */
export const USAGE_DIMENSIONS = ['day', 'consumer', 'key', 'model', 'served', 'deployment'] as const
export type UsageDimension = (typeof USAGE_DIMENSIONS)[number]

export const OUTCOMES = [
  'ok',
  'refused',
  'client_gone',
  'upstream_error',
  'interrupted',
  'timeout',
] as const satisfies readonly Outcome[]

export type UsageSums = {
  readonly requests: number
  readonly outcomes: Readonly<Record<Outcome, number>>
  /** Answered by a stand-in. */
  readonly spilled: number
  /** Requests that reached an engine and of which nobody said how many tokens they were. */
  readonly unmetered: number
  readonly promptTokens: number
  /** Of `promptTokens`. */
  readonly cachedTokens: number
  readonly completionTokens: number
  /** Of `completionTokens`. */
  readonly reasoningTokens: number
  /** Sum over the `queued` requests that waited for their turn, milliseconds. */
  readonly queueMs: number
  readonly queued: number
  /** Sum over the `ttftKnown` requests that got a first token, milliseconds. */
  readonly ttftMs: number
  readonly ttftKnown: number
  readonly durationMs: number
}

/** Of one day and one deployment; dimensions that were not asked for are null. */
export type UsageRow = UsageSums & {
  readonly day: number
  readonly consumer: string | null
  readonly key: string | null
  readonly model: string | null
  readonly served: string | null
  readonly deployment: string | null
}

export type UsageAsk = {
  /** Days, both included. */
  readonly fromDay: number
  readonly toDay: number
  readonly by: readonly UsageDimension[]
}

export type UsageGroup = UsageSums & {
  /** The dimensions asked for; null: there was none, such as no deployment for a refusal. */
  readonly by: Readonly<Partial<Record<UsageDimension, string | null>>>
  readonly cost: readonly Money[]
}

export type UsageReport = {
  /** `2026-11-24`, UTC, both included. */
  readonly from: string
  readonly to: string
  readonly by: readonly UsageDimension[]
  /** Nothing here was real: simulated engines, simulated seconds. */
  readonly rehearsal: boolean
  readonly rows: readonly UsageGroup[]
  readonly total: UsageSums & { readonly cost: readonly Money[] }
  /** What the machines cost beside that, by currency and why no token carries it. */
  readonly unused: readonly Unused[]
  /** All that the machines cost: the total's cost and what is unused. */
  readonly spent: readonly Money[]
}

const noOutcomes = (): Record<Outcome, number> => ({
  ok: 0,
  refused: 0,
  client_gone: 0,
  upstream_error: 0,
  interrupted: 0,
  timeout: 0,
})

export const noUsage = (): UsageSums => ({
  requests: 0,
  outcomes: noOutcomes(),
  spilled: 0,
  unmetered: 0,
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  reasoningTokens: 0,
  queueMs: 0,
  queued: 0,
  ttftMs: 0,
  ttftKnown: 0,
  durationMs: 0,
})

export const addUsage = (a: UsageSums, b: UsageSums): UsageSums => {
  const outcomes = noOutcomes()
  for (const outcome of OUTCOMES) outcomes[outcome] = a.outcomes[outcome] + b.outcomes[outcome]
  return {
    requests: a.requests + b.requests,
    outcomes,
    spilled: a.spilled + b.spilled,
    unmetered: a.unmetered + b.unmetered,
    promptTokens: a.promptTokens + b.promptTokens,
    cachedTokens: a.cachedTokens + b.cachedTokens,
    completionTokens: a.completionTokens + b.completionTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
    queueMs: a.queueMs + b.queueMs,
    queued: a.queued + b.queued,
    ttftMs: a.ttftMs + b.ttftMs,
    ttftKnown: a.ttftKnown + b.ttftKnown,
    durationMs: a.durationMs + b.durationMs,
  }
}

export type UsageMaterial = {
  readonly ask: UsageAsk
  readonly rows: readonly UsageRow[]
  readonly costs: readonly CostRow[]
  readonly rehearsal: boolean
}

/** Rows in the order of their dimensions, as asked; all of `rows` are in the total. */
export const usageReport = ({ ask, rows, costs, rehearsal }: UsageMaterial): UsageReport => {
  const charged = charge(costs, rows)
  const groups = new Map<string, UsageGroup>()
  for (const row of rows) {
    const by = byOf(row, ask.by)
    const key = JSON.stringify(ask.by.map((dimension) => by[dimension] ?? null))
    const old = groups.get(key)
    const cost = addMoney(old?.cost ?? [], charged.costOf(row))
    groups.set(key, { by, ...addUsage(old ?? noUsage(), row), cost })
  }
  const sorted = [...groups].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group)
  const total = {
    ...sorted.reduce<UsageSums>(addUsage, noUsage()),
    cost: addMoney(...sorted.map(({ cost }) => cost)),
  }
  return {
    from: dayName(ask.fromDay),
    to: dayName(ask.toDay),
    by: ask.by,
    rehearsal,
    rows: sorted,
    total,
    unused: charged.unused,
    spent: addMoney(total.cost, charged.unused),
  }
}

const byOf = (row: UsageRow, dimensions: readonly UsageDimension[]): UsageGroup['by'] =>
  Object.fromEntries(
    dimensions.map((name) => [name, name === 'day' ? dayName(row.day) : row[name]]),
  )
