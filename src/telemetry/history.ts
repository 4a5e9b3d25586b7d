/**
 * The last hour, in memory: for each series one mean per slot. A slot in which nothing was known
 * has no point. Bounded: `SERIES_MAX` series of `slots` points, the longest silent one makes room.
 */
import type { Series } from '../core/admin.ts'
import { STALE_MS } from '../core/signals.ts'
import type { FleetView, NodeView } from '../core/view.ts'
import { fresh } from './export.ts'

export type History = {
  /** Call it as often as views come; once a second is plenty. */
  record(view: FleetView): void
  /** Points at or after `sinceMs` (epoch); series without any are left out. */
  since(sinceMs: number): readonly Series[]
}

export type HistoryOptions = {
  readonly slotMs?: number
  readonly slots?: number
  readonly seriesMax?: number
}

const SLOT_MS = 5000
const SLOTS = 720
/** Five a replica and one a node; at 20 bytes a slot 2,000 series are 29 MB. */
const SERIES_MAX = 2000

export const createHistory = (options: HistoryOptions = {}): History => {
  const { slotMs = SLOT_MS, slots = SLOTS, seriesMax = SERIES_MAX } = options
  const rings = new Map<string, Ring>()

  let newest = 0

  const add = (slot: number, reading: Named): void => {
    if (reading.value === null || !Number.isFinite(reading.value)) return
    const key = keyOf(reading)
    // Insertion order is order of the last reading: the first is the one that is silent longest.
    const [silent] = rings
    if (!rings.has(key) && rings.size >= seriesMax && silent !== undefined) {
      if (silent[1].newest >= slot) return
      rings.delete(silent[0])
    }
    const ring = rings.get(key) ?? new Ring(reading, slots)
    ring.add(slot, reading.value)
    rings.delete(key)
    rings.set(key, ring)
  }

  const oldest = (): number => newest - slots + 1

  return {
    record: (view) => {
      newest = Math.floor(view.nowMs / slotMs)
      for (const reading of readings(view)) add(newest, reading)
    },
    since: (sinceMs) =>
      [...rings.values()]
        .map((ring) => ring.series(Math.max(0, Math.ceil(sinceMs / slotMs), oldest()), slotMs))
        .filter(({ points }) => points.length > 0)
        .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)),
  }
}

type Named = {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number | null
}

const keyOf = ({ name, labels }: Omit<Named, 'value'>): string =>
  [name, ...Object.values(labels)].join('\n')

const readings = (view: FleetView): readonly Named[] => [
  ...view.nodes.map((node) => ({
    name: 'gpuUtilizationRatio',
    labels: { node: node.name },
    value: utilization(node),
  })),
  ...view.deployments.flatMap((deployment) =>
    deployment.replicas.flatMap((replica) => {
      const labels = { deployment: deployment.name, replica: replica.id }
      const { kvCacheUsageRatio, requestsRunning, requestsWaiting } = replica.signals
      return [
        { name: 'kvCacheUsageRatio', labels, value: fresh(kvCacheUsageRatio) },
        { name: 'requestsRunning', labels, value: fresh(requestsRunning) },
        { name: 'requestsWaiting', labels, value: fresh(requestsWaiting) },
        { name: 'promptTokensPerSecond', labels, value: replica.promptTokensPerSecond },
        { name: 'generationTokensPerSecond', labels, value: replica.generationTokensPerSecond },
      ]
    }),
  ),
]

/** Mean over the GPUs that said something lately; null when none did. */
const utilization = (node: NodeView): number | null => {
  const known = node.gpus
    .filter(({ ageMs }) => ageMs <= STALE_MS)
    .map(({ utilizationRatio }) => utilizationRatio)
    .filter((ratio) => ratio !== null)
  if (known.length === 0) return null
  return known.reduce((sum, ratio) => sum + ratio, 0) / known.length
}

/** One series: slot number modulo length is the place, `#slots` says which slot lies there. */
class Ring {
  readonly #of: Omit<Named, 'value'>
  readonly #means: Float64Array
  readonly #counts: Uint32Array
  readonly #slots: Float64Array
  newest = -1

  constructor(of: Omit<Named, 'value'>, length: number) {
    this.#of = of
    this.#means = new Float64Array(length)
    this.#counts = new Uint32Array(length)
    this.#slots = new Float64Array(length).fill(-1)
  }

  add(slot: number, value: number): void {
    const place = slot % this.#slots.length
    const known = this.#slots[place] === slot
    const count = known ? (this.#counts[place] ?? 0) + 1 : 1
    const mean = known ? (this.#means[place] ?? 0) : 0
    this.#means[place] = mean + (value - mean) / count
    this.#counts[place] = count
    this.#slots[place] = slot
    this.newest = slot
  }

  /** Points from slot `first` on, oldest first. */
  series(first: number, slotMs: number): Series {
    const points: [number, number][] = []
    for (let slot = first; slot <= this.newest; slot += 1) {
      const place = slot % this.#slots.length
      if (this.#slots[place] === slot) points.push([slot * slotMs, this.#means[place] ?? 0])
    }
    return { name: this.#of.name, labels: this.#of.labels, points }
  }
}
