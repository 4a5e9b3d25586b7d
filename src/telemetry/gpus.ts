/**
 * GPU readings through each node's driver: one long-lived `nvidia-smi -l 1` a rank (or a node,
 * where it sees the whole machine), its lines mapped to GPU indices of the node. It is started
 * again, later each time, when it ends. A reading carries its time; how old is too old is not
 * said here.
 */
import type { Clock } from '../clock.ts'
import { GPU_QUERY, parseGpuLine } from '../core/gpu.ts'
import type { GpuView } from '../core/view.ts'
import type { Driver } from '../drivers/driver.ts'
import { errorLine } from '../errors.ts'

/** A running rank that holds GPUs. `name` is its container. */
export type GpuRank = {
  readonly name: string
  readonly node: string
  readonly gpus: readonly number[]
}

/** `index` counts on the node. */
export type NodeGpuReading = Omit<GpuView, 'ageMs'> & { readonly readAtMs: number }

export type GpuWatchOptions = {
  /** Running ranks, asked anew at each beat. */
  readonly ranks: () => readonly GpuRank[]
  readonly driverOf: (node: string) => Driver | null
  readonly clock: Clock
  readonly onReading: (node: string, reading: NodeGpuReading) => void
  /** It ended or cannot be started; each distinct message of a watch once in a row. */
  readonly onError: (node: string, rank: string, message: string) => void
}

export type GpuWatch = { stop(): Promise<void> }

const BEAT_MS = 1000
const BACKOFF_MIN_MS = 1000
const BACKOFF_MAX_MS = 60_000
/** One process a rank; nodes of 64 single-GPU ranks over a hundred machines stay within it. */
const WATCHES_MAX = 8192

/** One nvidia-smi: in `rank`'s place, for these GPUs of the node. */
type Watch = {
  readonly rank: string
  readonly node: string
  readonly gpus: readonly number[]
  readonly driver: Driver
}

export const createGpuWatch = (options: GpuWatchOptions): GpuWatch => {
  const running = new Map<string, { readonly abort: AbortController; done: Promise<void> }>()
  const ending = new Set<Promise<void>>()

  const follow = (): void => {
    const wanted = new Map(watches(options).map((watch) => [keyOf(watch), watch]))
    for (const [key, { abort, done }] of running) {
      if (wanted.has(key)) continue
      abort.abort()
      running.delete(key)
      ending.add(done)
      void done.finally(() => ending.delete(done))
    }
    for (const [key, watch] of wanted) {
      if (running.has(key) || running.size >= WATCHES_MAX) continue
      const abort = new AbortController()
      running.set(key, { abort, done: keepRunning(watch, options, abort.signal) })
    }
  }

  const stopBeat = options.clock.every(BEAT_MS, follow)
  return {
    stop: async () => {
      stopBeat()
      for (const { abort } of running.values()) abort.abort()
      await Promise.all([...ending, ...[...running.values()].map(({ done }) => done)])
    },
  }
}

const keyOf = ({ rank, node, gpus }: Watch): string => `${node}\n${rank}\n${gpus.join(',')}`

const watches = ({ ranks, driverOf }: GpuWatchOptions): readonly Watch[] => {
  const found: Watch[] = []
  const byNode = Map.groupBy(
    ranks().filter(({ gpus }) => gpus.length > 0),
    ({ node }) => node,
  )
  for (const [node, onNode] of byNode) {
    const driver = driverOf(node)
    if (driver === null) continue
    const sorted = onNode.toSorted((a, b) => (a.name < b.name ? -1 : 1))
    const [first] = sorted
    if (driver.visibleGpus === 'host' && first !== undefined) {
      // It sees the whole machine, so one process answers for all ranks: run it beside the first.
      const gpus = [...new Set(sorted.flatMap((rank) => rank.gpus))].sort((a, b) => a - b)
      found.push({ rank: first.name, node, gpus, driver })
      continue
    }
    for (const { name, gpus } of sorted) {
      // Inside a container GPUs are renumbered from 0 in the order of the node's own numbers.
      found.push({ rank: name, node, gpus: gpus.toSorted((a, b) => a - b), driver })
    }
  }
  return found
}

const command = ({ driver, gpus }: Watch): readonly string[] => [
  'nvidia-smi',
  `--query-gpu=${GPU_QUERY}`,
  '--format=csv,noheader,nounits',
  ...(driver.visibleGpus === 'host' ? ['-i', gpus.join(',')] : []),
  '-l',
  '1',
]

const keepRunning = async (
  watch: Watch,
  options: GpuWatchOptions,
  signal: AbortSignal,
): Promise<void> => {
  let backoffMs = BACKOFF_MIN_MS
  let said = ''
  while (!signal.aborted) {
    const ended = await readOnce(watch, options, signal)
    if (signal.aborted) return
    if (ended.readings > 0) backoffMs = BACKOFF_MIN_MS
    if (ended.message !== said || ended.readings > 0) {
      options.onError(watch.node, watch.rank, ended.message)
    }
    said = ended.message
    // Only an abort ends this sleep early, and that ends the loop.
    await options.clock.sleep(backoffMs, signal).catch(() => undefined)
    backoffMs = Math.min(BACKOFF_MAX_MS, backoffMs * 2)
  }
}

type Ended = { readonly readings: number; readonly message: string }

/** Runs nvidia-smi until it ends; says why it did and how much came. */
const readOnce = async (
  watch: Watch,
  { clock, onReading }: GpuWatchOptions,
  signal: AbortSignal,
): Promise<Ended> => {
  let readings = 0
  let message: string | null = null
  let position = -1
  try {
    for await (const text of watch.driver.exec(watch.rank, command(watch), signal)) {
      if (signal.aborted) break
      const line = parseGpuLine(text)
      if (line?.kind === 'none') message = 'nvidia-smi sees no GPU here'
      if (line?.kind === 'failure') message = `nvidia-smi: ${line.message}`
      if (line?.kind !== 'reading') continue
      const { reading } = line
      position = place(watch, reading.index, position)
      const index = watch.gpus[position]
      if (index === undefined) continue
      const [uuid, name] = [reading.uuid ?? '', reading.name ?? '']
      onReading(watch.node, { ...reading, index, uuid, name, readAtMs: clock.now() })
      readings += 1
    }
  } catch (error) {
    // What it printed says more than that it exited with some number.
    message ??= errorLine(error)
  }
  return { readings, message: message ?? 'nvidia-smi ended' }
}

/** Which of the watch's GPUs a line is about. */
const place = ({ driver, gpus }: Watch, index: number | null, before: number): number => {
  // A GPU that fell off the bus may not even say its number: it comes after the one before.
  if (index === null) return (before + 1) % gpus.length
  return driver.visibleGpus === 'host' ? gpus.indexOf(index) : index
}
