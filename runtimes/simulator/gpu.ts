/**
 * What the simulated nvidia-smi shows: each simulator process writes its GPUs' readings once a
 * second to a small file per GPU; a file older than five seconds counts as nobody's.
 */

import { createHash } from 'node:crypto'
import type { Rehearsal } from '../../src/core/runtime.ts'
import { isRecord } from './rehearsal.ts'
import type { World } from './world.ts'

export type Reading = {
  readonly pid: number
  readonly processName: string
  readonly memoryBytes: number
  readonly utilizationRatio: number
  readonly powerWatts: number
  readonly temperatureCelsius: number
  /** What nvidia-smi runs into: NVML cannot start, or this GPU fell off the bus. */
  readonly failure?: 'nvml' | 'lost'
  /** ECC errors of DRAM since the driver was loaded. */
  readonly eccCorrected?: number
  readonly eccUncorrected?: number
}

/** What stays on a GPU after its process, a zombie's memory or a fallen GPU, until a Unix time. */
type Hold = {
  readonly memoryBytes: number
  readonly lost: boolean
  readonly untilMs: number
}

const STALE_MS = 5000
const PUBLISH_MS = 1000

/** An idle H20's figures, as nvidia-smi shows them. */
export const IDLE: Reading = {
  pid: 0,
  processName: '',
  memoryBytes: 4 * 2 ** 20,
  utilizationRatio: 0,
  powerWatts: 74,
  temperatureCelsius: 33,
}

/** Who reads needs the files and the time; who writes, its own end as well. */
export type Readable = {
  readonly gpus: Pick<World['gpus'], 'read'>
  readonly clock: Pick<World['clock'], 'epochMs'>
}
type Around = Pick<World, 'gpus' | 'clock' | 'pid' | 'stderr' | 'onExit'>

/** The same for a node and an index wherever it is asked. */
export const gpuUuid = (node: string, gpu: number): string => {
  const hex = createHash('sha256').update(`${node}/${gpu}`).digest('hex')
  const part = (from: number, to: number) => hex.slice(from, to)
  return `GPU-${part(0, 8)}-${part(8, 12)}-${part(12, 16)}-${part(16, 20)}-${part(20, 32)}`
}

const holdOf = (value: Readonly<Record<string, unknown>> | null, nowMs: number): Hold | null => {
  const hold = value?.hold
  if (!isRecord(hold)) return null
  const { memoryBytes, lost, untilMs } = hold
  if (typeof memoryBytes !== 'number' || typeof untilMs !== 'number') return null
  return nowMs < untilMs ? { memoryBytes, lost: lost === true, untilMs } : null
}

/** What earlier processes left on a GPU, for the one that starts on it. */
export const heldOn = (
  { gpus, clock }: Readable,
  node: string,
  gpu: number,
): { readonly memoryBytes: number; readonly lost: boolean } =>
  holdOf(gpus.read(node, gpu), clock.epochMs()) ?? { memoryBytes: 0, lost: false }

export const readGpu = ({ gpus, clock }: Readable, node: string, gpu: number): Reading => {
  const value = gpus.read(node, gpu)
  const nowMs = clock.epochMs()
  if (value === null || typeof value.at !== 'number') return IDLE
  const number = (key: string, fallback: number): number => {
    const found = value[key]
    return typeof found === 'number' ? found : fallback
  }
  if (nowMs - value.at > STALE_MS || value.pid === 0) {
    const hold = holdOf(value, nowMs)
    if (hold === null) return IDLE
    return {
      ...IDLE,
      memoryBytes: Math.max(IDLE.memoryBytes, hold.memoryBytes),
      ...(hold.lost ? { failure: 'lost' as const } : {}),
    }
  }
  return {
    pid: number('pid', 0),
    processName: typeof value.processName === 'string' ? value.processName : '',
    memoryBytes: number('memoryBytes', IDLE.memoryBytes),
    utilizationRatio: number('utilizationRatio', 0),
    powerWatts: number('powerWatts', IDLE.powerWatts),
    temperatureCelsius: number('temperatureCelsius', IDLE.temperatureCelsius),
    eccCorrected: number('eccCorrected', 0),
    eccUncorrected: number('eccUncorrected', 0),
    ...(value.failure === 'nvml' || value.failure === 'lost' ? { failure: value.failure } : {}),
  }
}

/** What a rank tells of its GPUs; faults of a rehearsal come with it. */
export type Published = Pick<Reading, 'failure' | 'eccCorrected' | 'eccUncorrected'> & {
  readonly processName: string
  readonly memoryBytes: number
  readonly busyRatio: number
  /** Real milliseconds for which the memory stays taken after the process; null: it is freed. */
  readonly keepMemoryMs?: number | null
  /** The GPU that fell off the bus, and for how many real milliseconds it stays lost. */
  readonly lost?: { readonly gpu: number | null; readonly ms: number }
}

/** Publishes until the process ends. `read` gives memory and how busy the GPUs were. */
export class GpuPublisher {
  readonly #rehearsal: Rehearsal
  readonly #world: Around
  readonly #read: () => Published
  readonly #stop: () => void
  #temperature = IDLE.temperatureCelsius
  readonly #before: ReadonlyMap<number, Hold | null>
  #writing = false

  constructor(rehearsal: Rehearsal, world: Around, read: () => Published) {
    this.#rehearsal = rehearsal
    this.#world = world
    this.#read = read
    const { node, gpus } = rehearsal
    const nowMs = world.clock.epochMs()
    this.#before = new Map(gpus.map((gpu) => [gpu, holdOf(world.gpus.read(node, gpu), nowMs)]))
    this.#stop = world.clock.every(PUBLISH_MS, () => void this.publish())
    world.onExit(() => this.#remove())
  }

  async publish(): Promise<void> {
    if (this.#writing) return
    this.#writing = true
    const { node, gpus } = this.#rehearsal
    const published = this.#read()
    // Heat follows the load slowly; 33 degrees idle, some 70 when busy all the time.
    const goal = IDLE.temperatureCelsius + 37 * published.busyRatio
    this.#temperature += (goal - this.#temperature) * 0.1
    try {
      for (const gpu of gpus) {
        await this.#world.gpus.write(node, gpu, this.#reading(gpu, published))
      }
    } catch (error) {
      this.#world.stderr(`simulator: GPU readings cannot be written: ${String(error)}\n`)
    }
    this.#writing = false
  }

  #reading(gpu: number, published: Published): Reading & { at: number; hold: Hold | null } {
    const { busyRatio, failure, eccCorrected, eccUncorrected } = published
    const fails = failure === 'lost' && gpu !== published.lost?.gpu ? undefined : failure
    const before = this.#stillHeld(gpu)
    const memoryBytes = Math.round(published.memoryBytes + (before?.memoryBytes ?? 0))
    return {
      at: this.#world.clock.epochMs(),
      pid: this.#world.pid,
      processName: published.processName,
      memoryBytes,
      utilizationRatio: Math.round(busyRatio * 100) / 100,
      powerWatts: Math.round((0.2 + 0.7 * busyRatio) * this.#rehearsal.powerLimitWatts * 100) / 100,
      temperatureCelsius: Math.round(this.#temperature),
      ...(eccCorrected === undefined ? {} : { eccCorrected }),
      ...(eccUncorrected === undefined ? {} : { eccUncorrected }),
      ...(fails === undefined ? (before?.lost ? { failure: 'lost' } : {}) : { failure: fails }),
      hold: this.#hold(gpu, published, memoryBytes) ?? before,
    }
  }

  #stillHeld(gpu: number): Hold | null {
    const before = this.#before.get(gpu) ?? null
    return before !== null && this.#world.clock.epochMs() < before.untilMs ? before : null
  }

  #hold(gpu: number, published: Published, memoryBytes: number): Hold | null {
    const { keepMemoryMs = null } = published
    const lostMs = gpu === published.lost?.gpu ? published.lost.ms : 0
    const lost = lostMs > 0
    if (keepMemoryMs === null && !lost) return null
    const untilMs = this.#world.clock.epochMs() + Math.max(keepMemoryMs ?? 0, lostMs)
    return { memoryBytes: keepMemoryMs === null ? 0 : memoryBytes, lost, untilMs }
  }

  /** The process ends: what it leaves behind stays in the file, without an owner. */
  #remove(): void {
    this.#stop()
    const published = this.#read()
    const { node, gpus } = this.#rehearsal
    for (const gpu of gpus) {
      const { hold } = this.#reading(gpu, published)
      const at = this.#world.clock.epochMs()
      this.#world.gpus.leave(node, gpu, hold === null ? null : { ...IDLE, at, hold })
    }
  }
}
