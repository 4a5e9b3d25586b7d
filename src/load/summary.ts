/** What callers saw, in simulated seconds: per model asked for, per consumer, over all. Pure. */
import { Histogram } from './histogram.ts'
import type { Outcome } from './request.ts'
import type { Finished } from './run.ts'

/** Seconds; null: nothing was measured. */
export type Percentiles = {
  readonly p50: number | null
  readonly p90: number | null
  readonly p99: number | null
}

export type Row = {
  readonly name: string
  readonly requests: number
  readonly outcomes: Readonly<Record<Outcome, number>>
  readonly spilled: number
  readonly ttftSeconds: Percentiles
  readonly tpotSeconds: Percentiles
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly completionTokens: number
  readonly promptTokensPerSecond: number
  readonly completionTokensPerSecond: number
  /** Whole answers that did not say their usage: not in the token sums. */
  readonly withoutUsage: number
}

export type SummaryView = {
  /** Simulated: from the first request to the last answer. */
  readonly durationSeconds: number
  readonly realSeconds: number
  readonly speed: number
  readonly total: Row
  readonly models: readonly Row[]
  /** Most requests first. */
  readonly consumers: readonly Row[]
  /** `429 rate_limit_exceeded` to how often; most often first. */
  readonly refusals: Readonly<Record<string, number>>
  readonly failures: Readonly<Record<string, number>>
  /** `deepseek-r1 -> qwq-32b: tokens` to how often. */
  readonly spills: Readonly<Record<string, number>>
  /** Real seconds, as the header said; null: no header was seen. */
  readonly retryAfterSeconds: { readonly least: number; readonly most: number } | null
  /** How much later than planned requests were sent, simulated seconds. */
  readonly lateSeconds: Percentiles
}

/** Distinct texts that are counted one by one; what comes after them is `other`. */
const TEXTS_MAX = 100

export class Summary {
  readonly #total = new Tally()
  readonly #models = new Map<string, Tally>()
  readonly #consumers = new Map<string, Tally>()
  readonly #refusals = new Map<string, number>()
  readonly #failures = new Map<string, number>()
  readonly #spills = new Map<string, number>()
  readonly #late = new Histogram()
  readonly #nameOf: (consumer: number) => string
  #retryAfter: { least: number; most: number } | null = null

  /** Models and consumers are as many as were asked for, so the maps are bounded by the caller. */
  constructor(nameOf: (consumer: number) => string) {
    this.#nameOf = nameOf
  }

  get total(): Pick<Row, 'requests' | 'outcomes' | 'spilled'> {
    return this.#total
  }

  add(finished: Finished): void {
    this.#total.add(finished)
    tallyOf(this.#models, finished.model).add(finished)
    tallyOf(this.#consumers, this.#nameOf(finished.consumer)).add(finished)
    this.#late.add(finished.lateMs)
    const { outcome, detail, spilled, answeredBy, retryAfterSeconds: wait } = finished
    if (outcome === 'refused') count(this.#refusals, detail)
    else if (outcome !== 'ok' && outcome !== 'left') count(this.#failures, `${outcome}, ${detail}`)
    if (spilled !== null) {
      count(this.#spills, `${finished.model} -> ${answeredBy ?? 'another'}: ${spilled}`)
    }
    if (wait === null) return
    const { least, most } = this.#retryAfter ?? { least: wait, most: wait }
    this.#retryAfter = { least: Math.min(least, wait), most: Math.max(most, wait) }
  }

  view(elapsedMs: number, speed: number): SummaryView {
    const scale = { speed, seconds: Math.max(0.001, (elapsedMs / 1000) * speed) }
    const rows = (tallies: ReadonlyMap<string, Tally>): Row[] =>
      [...tallies].map(([name, tally]) => tally.row(name, scale))
    return {
      durationSeconds: scale.seconds,
      realSeconds: elapsedMs / 1000,
      speed,
      total: this.#total.row('all', scale),
      models: rows(this.#models).sort((a, b) => (a.name < b.name ? -1 : 1)),
      consumers: rows(this.#consumers).sort((a, b) => b.requests - a.requests),
      refusals: ordered(this.#refusals),
      failures: ordered(this.#failures),
      spills: ordered(this.#spills),
      retryAfterSeconds: this.#retryAfter,
      lateSeconds: percentiles(this.#late, speed),
    }
  }
}

type Scale = { readonly speed: number; readonly seconds: number }

class Tally {
  requests = 0
  spilled = 0
  readonly outcomes = { ok: 0, refused: 0, error: 0, cut: 0, timeout: 0, left: 0 }
  readonly #ttft = new Histogram()
  readonly #tpot = new Histogram()
  #promptTokens = 0
  #cachedTokens = 0
  #completionTokens = 0
  #withoutUsage = 0

  add(finished: Finished): void {
    const { outcome, ttftMs, tpotMs } = finished
    this.requests += 1
    this.outcomes[outcome] += 1
    if (finished.spilled !== null) this.spilled += 1
    if (ttftMs !== null) this.#ttft.add(ttftMs)
    if (tpotMs !== null) this.#tpot.add(tpotMs)
    this.#promptTokens += finished.promptTokens ?? 0
    this.#cachedTokens += finished.cachedTokens ?? 0
    this.#completionTokens += finished.completionTokens ?? 0
    if (outcome === 'ok' && finished.completionTokens === null) this.#withoutUsage += 1
  }

  row(name: string, { speed, seconds }: Scale): Row {
    return {
      name,
      requests: this.requests,
      outcomes: { ...this.outcomes },
      spilled: this.spilled,
      ttftSeconds: percentiles(this.#ttft, speed),
      tpotSeconds: percentiles(this.#tpot, speed),
      promptTokens: this.#promptTokens,
      cachedTokens: this.#cachedTokens,
      completionTokens: this.#completionTokens,
      promptTokensPerSecond: this.#promptTokens / seconds,
      completionTokensPerSecond: this.#completionTokens / seconds,
      withoutUsage: this.#withoutUsage,
    }
  }
}

const percentiles = (histogram: Histogram, speed: number): Percentiles => {
  const at = (share: number): number | null => {
    const ms = histogram.percentile(share)
    return ms === null ? null : (ms * speed) / 1000
  }
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) }
}

const tallyOf = (tallies: Map<string, Tally>, name: string): Tally => {
  const known = tallies.get(name)
  if (known !== undefined) return known
  const tally = new Tally()
  tallies.set(name, tally)
  return tally
}

const count = (counts: Map<string, number>, text: string): void => {
  const key = counts.has(text) || counts.size < TEXTS_MAX ? text : 'other'
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

const ordered = (counts: ReadonlyMap<string, number>): Readonly<Record<string, number>> =>
  Object.fromEntries([...counts].sort(([, a], [, b]) => b - a))
