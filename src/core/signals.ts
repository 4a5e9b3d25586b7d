/**
 * Samples of one engine to our signals, by that engine's alias table. Decides what counts as a
 * reading; refuses to guess: what is absent, not finite or of another unit is left out.
 */
import type { Sample } from './prometheus.ts'
import type { EngineSignal, MetricAlias, Runtime } from './runtime.ts'

export type Signals = Readonly<Partial<Record<EngineSignal, number>>>
export type MetricTable = Runtime['metrics']

export const SIGNALS = [
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
] as const satisfies readonly EngineSignal[]

/** A reading older than this is unknown: ten missed scrapes, the design's "unknown is not zero". */
export const STALE_MS = 5000

/** Rounding may lift a full cache a hair above 1; more than that is another unit (percent). */
const RATIO_MAX = 1.01

/** Every metric name that the table can read: all that a scrape has to keep. */
export const metricNames = (table: MetricTable): ReadonlySet<string> =>
  new Set(SIGNALS.flatMap((signal) => table[signal].map((alias) => alias.metric)))

/** The first alias of a signal that yields a number counts. */
export const readSignals = (samples: readonly Sample[], table: MetricTable): Signals => {
  const byName = Map.groupBy(samples, (sample) => sample.name)
  const signals: Partial<Record<EngineSignal, number>> = {}
  for (const signal of SIGNALS) {
    for (const alias of table[signal]) {
      const value = combined(byName.get(alias.metric) ?? [], alias)
      if (value === null || (signal === 'kvCacheUsageRatio' && value > RATIO_MAX)) continue
      signals[signal] = signal === 'kvCacheUsageRatio' ? Math.min(value, 1) : value
      break
    }
  }
  return signals
}

const combined = (samples: readonly Sample[], alias: MetricAlias): number | null => {
  const values = samples
    .filter((sample) => matches(sample, alias.where ?? {}))
    .map((sample) => numberIn(sample, alias))
    // No signal of ours can be negative; NaN is how engines say "no value yet".
    .filter((value) => Number.isFinite(value) && value >= 0)
  if (values.length === 0) return null
  return alias.combine === 'sum'
    ? values.reduce((sum, value) => sum + value, 0)
    : values.reduce((most, value) => Math.max(most, value), 0)
}

/** An absent label equals an empty one, as in PromQL. */
const matches = (sample: Sample, where: Readonly<Record<string, string>>): boolean =>
  Object.entries(where).every(([label, value]) => (sample.labels.get(label) ?? '') === value)

const numberIn = (sample: Sample, alias: MetricAlias): number => {
  const labels = alias.product ?? (alias.label === undefined ? [] : [alias.label])
  if (labels.length === 0) return sample.value
  return labels.reduce((product, label) => product * labelNumber(sample.labels.get(label)), 1)
}

/** vLLM prints a field that is not known yet as `None`. */
const labelNumber = (text: string | undefined): number =>
  text !== undefined && /^\d{1,15}(\.\d{1,15})?$/.test(text) ? Number(text) : Number.NaN
