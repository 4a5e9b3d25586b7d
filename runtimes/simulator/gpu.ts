/**
 * What the simulated nvidia-smi shows: each simulator process writes its GPUs' readings once a
 * second to a small file per GPU; a file older than five seconds counts as nobody's.
 */

import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Rehearsal } from '../../src/core/runtime.ts'
import { isRecord } from './rehearsal.ts'

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

/** What stays on a GPU after its process, a zombie's memory or a fallen GPU, until `Date.now()`. */
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

const directory = (node: string): string =>
  join(process.env.TMPDIR ?? tmpdir(), 'penstock-rehearsal', encodeURIComponent(node))

const file = (node: string, gpu: number): string => join(directory(node), `gpu-${gpu}.json`)

/** The same for a node and an index wherever it is asked. */
export const gpuUuid = (node: string, gpu: number): string => {
  const hex = createHash('sha256').update(`${node}/${gpu}`).digest('hex')
  const part = (from: number, to: number) => hex.slice(from, to)
  return `GPU-${part(0, 8)}-${part(8, 12)}-${part(12, 16)}-${part(16, 20)}-${part(20, 32)}`
}

const readFile = (node: string, gpu: number): Readonly<Record<string, unknown>> | null => {
  try {
    const value: unknown = JSON.parse(readFileSync(file(node, gpu), 'utf8'))
    return isRecord(value) ? value : null
  } catch {
    // No file, or half a file of a process that was killed: nobody uses this GPU.
    return null
  }
}

const holdOf = (value: Readonly<Record<string, unknown>> | null): Hold | null => {
  const hold = value?.hold
  if (!isRecord(hold)) return null
  const { memoryBytes, lost, untilMs } = hold
  if (typeof memoryBytes !== 'number' || typeof untilMs !== 'number') return null
  return Date.now() < untilMs ? { memoryBytes, lost: lost === true, untilMs } : null
}

/** What earlier processes left on a GPU, for the one that starts on it. */
export const heldOn = (
  node: string,
  gpu: number,
): { readonly memoryBytes: number; readonly lost: boolean } =>
  holdOf(readFile(node, gpu)) ?? { memoryBytes: 0, lost: false }

export const readGpu = (node: string, gpu: number): Reading => {
  const value = readFile(node, gpu)
  if (value === null || typeof value.at !== 'number') return IDLE
  const number = (key: string, fallback: number): number => {
    const found = value[key]
    return typeof found === 'number' ? found : fallback
  }
  if (Date.now() - value.at > STALE_MS || value.pid === 0) {
    const hold = holdOf(value)
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
  readonly memoryBytes: number
  readonly busyRatio: number
  /** Real milliseconds for which the memory stays taken after the process; null: it is freed. */
  readonly keepMemoryMs?: number | null
  /** Real milliseconds for which the first GPU stays lost. */
  readonly lostMs?: number
}

/** Publishes until the process ends. `read` gives memory and how busy the GPUs were. */
export class GpuPublisher {
  readonly #rehearsal: Rehearsal
  readonly #processName: string
  readonly #read: () => Published
  readonly #timer: NodeJS.Timeout
  #temperature = IDLE.temperatureCelsius
  readonly #before: ReadonlyMap<number, Hold | null>
  #writing = false

  constructor(rehearsal: Rehearsal, processName: string, read: () => Published) {
    this.#rehearsal = rehearsal
    this.#processName = processName
    this.#read = read
    const { node, gpus } = rehearsal
    this.#before = new Map(gpus.map((gpu) => [gpu, holdOf(readFile(node, gpu))]))
    this.#timer = setInterval(() => void this.publish(), PUBLISH_MS)
    this.#timer.unref()
    process.once('exit', () => this.#remove())
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
      await mkdir(directory(node), { recursive: true })
      for (const gpu of gpus) {
        const path = file(node, gpu)
        await writeFile(`${path}.${process.pid}`, JSON.stringify(this.#reading(gpu, published)))
        await rename(`${path}.${process.pid}`, path)
      }
    } catch (error) {
      process.stderr.write(`simulator: GPU readings cannot be written: ${String(error)}\n`)
    }
    this.#writing = false
  }

  #reading(gpu: number, published: Published): Reading & { at: number; hold: Hold | null } {
    const { busyRatio, failure, eccCorrected, eccUncorrected } = published
    const fails = failure === 'lost' && gpu !== this.#rehearsal.gpus[0] ? undefined : failure
    const before = this.#stillHeld(gpu)
    const memoryBytes = Math.round(published.memoryBytes + (before?.memoryBytes ?? 0))
    return {
      at: Date.now(),
      pid: process.pid,
      processName: this.#processName,
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
    return before !== null && Date.now() < before.untilMs ? before : null
  }

  #hold(gpu: number, published: Published, memoryBytes: number): Hold | null {
    const { keepMemoryMs = null, lostMs = 0 } = published
    const lost = lostMs > 0 && gpu === this.#rehearsal.gpus[0]
    if (keepMemoryMs === null && !lost) return null
    const untilMs = Date.now() + Math.max(keepMemoryMs ?? 0, lost ? lostMs : 0)
    return { memoryBytes: keepMemoryMs === null ? 0 : memoryBytes, lost, untilMs }
  }

  /** The process ends: what it leaves behind stays in the file, without an owner. */
  #remove(): void {
    clearInterval(this.#timer)
    const published = this.#read()
    const { node, gpus } = this.#rehearsal
    for (const gpu of gpus) {
      const path = file(node, gpu)
      rmSync(`${path}.${process.pid}`, { force: true })
      const { hold } = this.#reading(gpu, published)
      if (hold === null) {
        rmSync(path, { force: true })
        continue
      }
      mkdirSync(directory(node), { recursive: true })
      writeFileSync(path, JSON.stringify({ ...IDLE, at: Date.now(), hold }))
    }
  }
}
