/**
 * What the simulated nvidia-smi shows: each simulator process writes its GPUs' readings once a
 * second to a small file per GPU; a file older than five seconds counts as nobody's.
 */

import { createHash } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
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

export const readGpu = (node: string, gpu: number): Reading => {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(file(node, gpu), 'utf8'))
  } catch {
    // No file, or half a file of a process that was killed: nobody uses this GPU.
    return IDLE
  }
  if (!isRecord(value) || typeof value.at !== 'number') return IDLE
  if (Date.now() - value.at > STALE_MS) return IDLE
  const number = (key: string, fallback: number): number => {
    const found = value[key]
    return typeof found === 'number' ? found : fallback
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
}

/** Publishes until the process ends. `read` gives memory and how busy the GPUs were. */
export class GpuPublisher {
  readonly #rehearsal: Rehearsal
  readonly #processName: string
  readonly #read: () => Published
  readonly #timer: NodeJS.Timeout
  #temperature = IDLE.temperatureCelsius
  #writing = false

  constructor(rehearsal: Rehearsal, processName: string, read: () => Published) {
    this.#rehearsal = rehearsal
    this.#processName = processName
    this.#read = read
    this.#timer = setInterval(() => void this.publish(), PUBLISH_MS)
    this.#timer.unref()
    process.once('exit', () => this.#remove())
  }

  async publish(): Promise<void> {
    if (this.#writing) return
    this.#writing = true
    const { memoryBytes, busyRatio, ...faults } = this.#read()
    const { node, gpus, powerLimitWatts } = this.#rehearsal
    // Heat follows the load slowly; 33 degrees idle, some 70 when busy all the time.
    this.#temperature += (IDLE.temperatureCelsius + 37 * busyRatio - this.#temperature) * 0.1
    const reading: Reading & { readonly at: number } = {
      ...faults,
      at: Date.now(),
      pid: process.pid,
      processName: this.#processName,
      memoryBytes: Math.round(memoryBytes),
      utilizationRatio: Math.round(busyRatio * 100) / 100,
      powerWatts: Math.round((0.2 + 0.7 * busyRatio) * powerLimitWatts * 100) / 100,
      temperatureCelsius: Math.round(this.#temperature),
    }
    const text = JSON.stringify(reading)
    try {
      await mkdir(directory(node), { recursive: true })
      for (const gpu of gpus) {
        const path = file(node, gpu)
        await writeFile(`${path}.${process.pid}`, text)
        await rename(`${path}.${process.pid}`, path)
      }
    } catch (error) {
      process.stderr.write(`simulator: GPU readings cannot be written: ${String(error)}\n`)
    }
    this.#writing = false
  }

  #remove(): void {
    clearInterval(this.#timer)
    for (const gpu of this.#rehearsal.gpus) {
      const path = file(this.#rehearsal.node, gpu)
      rmSync(path, { force: true })
      rmSync(`${path}.${process.pid}`, { force: true })
    }
  }
}
