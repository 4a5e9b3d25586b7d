/** The last hour for the charts: what the server kept, and what has come in since. */
import type { Series } from '../../core/admin.ts'
import { STALE_MS } from '../../core/signals.ts'
import type { FleetView, Reading } from '../../core/view.ts'

export const HOUR_MS = 3_600_000
/** A live point each five seconds is 720 an hour: as dense as a chart has pixels. */
const STEP_MS = 5000
/** No point for this long is a gap, drawn as one. */
const GAP_MS = 45_000

type Point = readonly [number, number]

/** One drawn line: epoch seconds and values, null where nothing was known. */
export type Line = {
  readonly replica: string
  readonly times: readonly number[]
  readonly values: readonly (number | null)[]
}

const fresh = (reading: Reading | undefined): number | null =>
  reading === undefined || reading.ageMs > STALE_MS ? null : reading.value

const keyOf = (name: string, replica: string): string => `${name} ${replica}`

/** What one picture of the fleet adds to each series; unknown adds nothing. */
const readings = (fleet: FleetView): readonly { name: string; replica: string; value: number }[] =>
  fleet.deployments
    .flatMap(({ replicas }) => replicas)
    .flatMap(({ id, signals, generationTokensPerSecond }) => [
      { name: 'kvCacheUsageRatio', replica: id, value: fresh(signals.kvCacheUsageRatio) },
      { name: 'requestsRunning', replica: id, value: fresh(signals.requestsRunning) },
      { name: 'requestsWaiting', replica: id, value: fresh(signals.requestsWaiting) },
      { name: 'generationTokensPerSecond', replica: id, value: generationTokensPerSecond },
    ])
    .flatMap(({ name, replica, value }) => (value === null ? [] : [{ name, replica, value }]))

const keep = (points: readonly Point[], nowMs: number): readonly Point[] =>
  points[0] !== undefined && points[0][0] < nowMs - HOUR_MS
    ? points.filter(([atMs]) => atMs >= nowMs - HOUR_MS)
    : points

/** The series with this picture's values; the same array when nothing was added. */
export const withPicture = (series: readonly Series[], fleet: FleetView): readonly Series[] => {
  const { nowMs } = fleet
  const added = new Map(
    readings(fleet).map((found) => [keyOf(found.name, found.replica), found] as const),
  )
  let changed = false
  const grown = series.map((one) => {
    const key = keyOf(one.name, one.labels.replica ?? '')
    const found = added.get(key)
    added.delete(key)
    const lastMs = one.points.at(-1)?.[0] ?? 0
    if (found === undefined || nowMs - lastMs < STEP_MS) return one
    changed = true
    const points = [...keep(one.points, nowMs), [nowMs, found.value] as const]
    return { ...one, points }
  })
  const begun = [...added.values()].map(({ name, replica, value }) => ({
    name,
    labels: { replica },
    points: [[nowMs, value] as const],
  }))
  return changed || begun.length > 0 ? [...grown, ...begun] : series
}

/** Lines of one name, by replica, with a null in the middle of each gap. */
export const linesOf = (series: readonly Series[], name: string): readonly Line[] =>
  series
    .filter((one) => one.name === name && one.points.length > 0)
    .map((one) => ({ replica: one.labels.replica ?? '', ...withGaps(one.points) }))
    .toSorted((a, b) => (a.replica < b.replica ? -1 : 1))

const withGaps = (points: readonly Point[]): Omit<Line, 'replica'> => {
  const times: number[] = []
  const values: (number | null)[] = []
  let lastMs: number | null = null
  for (const [atMs, value] of points) {
    if (lastMs !== null && atMs - lastMs > GAP_MS) {
      times.push((lastMs + atMs) / 2000)
      values.push(null)
    }
    times.push(atMs / 1000)
    values.push(value)
    lastMs = atMs
  }
  return { times, values }
}

/** The value at a moment, as the chart draws it: the nearest point, null in a gap. */
export const valueAt = ({ times, values }: Line, seconds: number | null): number | null => {
  if (seconds === null) return values.at(-1) ?? null
  let best: number | null = null
  let distance = GAP_MS / 1000
  for (const [index, time] of times.entries()) {
    if (Math.abs(time - seconds) >= distance) continue
    distance = Math.abs(time - seconds)
    best = values[index] ?? null
  }
  return best
}
