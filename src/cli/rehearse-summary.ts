/** The end of `penstock rehearse load`, for people. */
import type { Percentiles, Row, SummaryView } from '../load/summary.ts'
import { table } from './output.ts'

/** Consumers that get a line; the heaviest come first and `--json` has them all. */
const CONSUMERS_SHOWN = 10
const TEXTS_SHOWN = 12

const seconds = (value: number | null): string => {
  if (value === null) return '–'
  return value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)
}
const milliseconds = (value: number | null): string =>
  value === null ? '–' : (value * 1000).toFixed(value < 0.01 ? 1 : 0)
const perSecond = (value: number): string => value.toFixed(value < 10 ? 1 : 0)

const three = ({ p50, p90, p99 }: Percentiles, shown: (value: number | null) => string): string[] =>
  [p50, p90, p99].map(shown)

const HEAD = [
  ...['REQUESTS', 'OK', 'SPILLED', 'REFUSED', 'FAILED'],
  ...['TTFT s p50', 'p90', 'p99', 'TPOT ms p50', 'p90', 'p99', 'tok/s IN', 'OUT'],
]

const cells = (row: Row): string[] => {
  const { ok, refused, error, cut, timeout } = row.outcomes
  return [
    row.name,
    ...[row.requests, ok, row.spilled, refused, error + cut + timeout].map(String),
    ...three(row.ttftSeconds, seconds),
    ...three(row.tpotSeconds, milliseconds),
    perSecond(row.promptTokensPerSecond),
    perSecond(row.completionTokensPerSecond),
  ]
}

/** `table` with its figures to the right, where they can be compared. */
const figures = (first: string, rows: readonly Row[]): string => {
  const all = [[first, ...HEAD], ...rows.map(cells)]
  const widths = (all[0] ?? []).map((_, column) =>
    Math.max(...all.map((row) => row[column]?.length ?? 0)),
  )
  const padded = all.map((row) =>
    row.map((cell, column) => (column === 0 ? cell : cell.padStart(widths[column] ?? 0))),
  )
  return table(padded)
}

const counts = (title: string, texts: Readonly<Record<string, number>>): readonly string[] => {
  const entries = Object.entries(texts)
  const rest = entries.slice(TEXTS_SHOWN).reduce((sum, [, count]) => sum + count, 0)
  return [
    ...entries.slice(0, TEXTS_SHOWN).map(([text, count]) => `${title}  ${count} x ${text}`),
    ...(rest === 0 ? [] : [`${title}  ${rest} x other`]),
  ]
}

/** What a reader of the table has to know not to be misled by it. */
const notes = (view: SummaryView): readonly string[] => {
  const { total, speed, retryAfterSeconds: wait, lateSeconds: late } = view
  const { left } = total.outcomes
  const cached = total.promptTokens === 0 ? 0 : total.cachedTokens / total.promptTokens
  return [
    ...(total.cachedTokens === 0
      ? []
      : [`${Math.round(cached * 100)} % of the prompt tokens came from a prefix cache.`]),
    ...(wait === null
      ? []
      : [`retry-after said ${wait.least} to ${wait.most} s; nothing retried.`]),
    ...(left === 0 ? [] : [`${left} still open when it was ended.`]),
    ...(total.withoutUsage === 0
      ? []
      : [`${total.withoutUsage} answers told no usage and are missing in tok/s and TPOT.`]),
    ...((late.p99 ?? 0) < LATE_SECONDS ? [] : [lateNote(seconds(late.p99))]),
    ...(speed === 1 ? [] : [speedNote(speed)]),
  ]
}

/** Simulated seconds by which sending may lag before the times above are in doubt. */
const LATE_SECONDS = 0.25

const lateNote = (late: string): string =>
  `One request in a hundred was sent ${late} s late or more: this machine was too busy, or ` +
  '--open\ntoo low. A rehearsed fleet on a busy machine is slow too: lower --rehearsal-speed.'

const speedNote = (speed: number): string =>
  `Seconds are simulated, ${speed} to a real one. What keeps real time weighs ${speed} times as ` +
  `much here:\na limit of 60000 tokens a minute lets ${Math.round(60_000 / speed)} through, and ` +
  `a millisecond on the way counts as ${speed}.\nTo rehearse limits start Penstock with ` +
  `--rehearsal-speed 1.`

export const summaryText = (view: SummaryView, title: string): string => {
  const took = `${seconds(view.durationSeconds)} s`
  const real = view.speed === 1 ? '' : ` (${seconds(view.realSeconds)} s by the clock)`
  const shown = view.consumers.slice(0, CONSUMERS_SHOWN)
  const more = view.consumers.length - shown.length
  const models = view.models.length === 1 ? view.models : [...view.models, view.total]
  return [
    `${title}; took ${took}${real}`,
    '',
    figures('MODEL', models),
    ...(view.consumers.length < 2 ? [] : ['', figures('CONSUMER', shown)]),
    ...(more === 0 ? [] : [`${more} more with --json`]),
    '',
    ...counts('refused', view.refusals),
    ...counts('failed ', view.failures),
    ...counts('spilled', view.spills),
    ...notes(view),
  ]
    .join('\n')
    .trimEnd()
}
