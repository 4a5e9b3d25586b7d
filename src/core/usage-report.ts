/**
 * Who used what: finished requests summed by consumer, key, model and day of acceptance (UTC),
 * with what that cost. What an engine did not say is counted as not known, never as nothing.
 */
import { addMoney, addUnused, type CostRow, charge, type Money, type Unused } from './cost.ts'
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

type Mutable<Value> = { -readonly [Key in keyof Value]: Value[Key] }
type Sums = Mutable<Omit<UsageSums, 'outcomes'>> & { outcomes: Record<Outcome, number> }

export const noUsage = (): Sums => ({
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

/** In place: a report adds up hundreds of thousands of rows while others wait. */
const addTo = (sums: Sums, more: UsageSums): void => {
  for (const outcome of OUTCOMES) sums.outcomes[outcome] += more.outcomes[outcome]
  sums.requests += more.requests
  sums.spilled += more.spilled
  sums.unmetered += more.unmetered
  sums.promptTokens += more.promptTokens
  sums.cachedTokens += more.cachedTokens
  sums.completionTokens += more.completionTokens
  sums.reasoningTokens += more.reasoningTokens
  sums.queueMs += more.queueMs
  sums.queued += more.queued
  sums.ttftMs += more.ttftMs
  sums.ttftKnown += more.ttftKnown
  sums.durationMs += more.durationMs
}

export const addUsage = (all: readonly UsageSums[]): UsageSums => {
  const sums = noUsage()
  for (const one of all) addTo(sums, one)
  return sums
}

type Group = {
  readonly by: UsageGroup['by']
  readonly sums: Sums
  readonly cost: Map<string, number>
}

/** A report in the making: fed with one day after the other, as large as its groups. */
export class UsageSheet {
  readonly #ask: UsageAsk
  readonly #groups = new Map<string, Group>()
  #unused: readonly Unused[] = []

  constructor(ask: UsageAsk) {
    this.#ask = ask
  }

  /** Rows that the report has by now. */
  get size(): number {
    return this.#groups.size
  }

  /** All rows and costs of some days: none of these days may come again. */
  add(rows: readonly UsageRow[], costs: readonly CostRow[]): void {
    const charged = charge(costs, rows)
    for (const row of rows) this.#row(row, charged.costOf(row))
    this.#unused = addUnused([...this.#unused, ...charged.unused])
  }

  #row(row: UsageRow, cost: readonly Money[]): void {
    const key = JSON.stringify(this.#ask.by.map((dimension) => row[dimension]))
    const group = this.#groups.get(key) ?? {
      by: byOf(row, this.#ask.by),
      sums: noUsage(),
      cost: new Map<string, number>(),
    }
    for (const { currency, amount } of cost) {
      group.cost.set(currency, (group.cost.get(currency) ?? 0) + amount)
    }
    addTo(group.sums, row)
    this.#groups.set(key, group)
  }

  /** Rows in the order of their dimensions. */
  report(rehearsal: boolean): UsageReport {
    const { by, fromDay, toDay } = this.#ask
    const rows = [...this.#groups]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([, group]): UsageGroup => {
        const cost = [...group.cost].map(([currency, amount]) => ({ currency, amount }))
        return { by: group.by, ...group.sums, cost: addMoney(cost) }
      })
    const cost = addMoney(...rows.map((row) => row.cost))
    const total = { ...addUsage(rows), cost }
    const [from, to] = [dayName(fromDay), dayName(toDay)]
    const spent = addMoney(cost, this.#unused)
    return { from, to, by, rehearsal, rows, total, unused: this.#unused, spent }
  }
}

const byOf = (row: UsageRow, dimensions: readonly UsageDimension[]): UsageGroup['by'] =>
  Object.fromEntries(
    dimensions.map((name) => [name, name === 'day' ? dayName(row.day) : row[name]]),
  )
