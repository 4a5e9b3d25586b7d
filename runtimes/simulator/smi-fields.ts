/** Fields of `nvidia-smi --query-gpu`, with nvidia-smi's own units and spellings. */
import type { Rehearsal } from '../../src/core/runtime.ts'
import { gpuUuid, type Reading } from './gpu.ts'

export const DRIVER_VERSION = '580.95.05'
export const CUDA_VERSION = '13.0'

export type Gpu = {
  readonly index: number
  readonly count: number
  readonly rehearsal: Rehearsal
  readonly reading: Reading
}

/** Text of a field and its unit; `nounits` leaves the unit out. */
type Field = { readonly unit: string; readonly read: (gpu: Gpu) => string }

const MiB = 2 ** 20
const mib = (bytes: number): string => String(Math.round(bytes / MiB))
const text = (read: (gpu: Gpu) => string): Field => ({ unit: '', read })
const fixed = (value: string, unit = ''): Field => ({ unit, read: () => value })
const percent = (read: (gpu: Gpu) => number): Field => ({
  unit: ' %',
  read: (gpu) => String(Math.round(read(gpu))),
})
const memory = (read: (gpu: Gpu) => number): Field => ({ unit: ' MiB', read: (g) => mib(read(g)) })
const watts = (read: (gpu: Gpu) => number): Field => ({
  unit: ' W',
  read: (gpu) => read(gpu).toFixed(2),
})

const total = ({ rehearsal }: Gpu): number => rehearsal.memoryBytes
const used = ({ rehearsal, reading }: Gpu): number =>
  Math.min(rehearsal.memoryBytes, reading.memoryBytes)
const busId = ({ index }: Gpu): string =>
  `00000000:${(0x0f + index * 0x10).toString(16).toUpperCase().padStart(2, '0')}:00.0`

export const FIELDS: Readonly<Record<string, Field>> = {
  timestamp: text(() => stamp(new Date())),
  driver_version: fixed(DRIVER_VERSION),
  count: text(({ count }) => String(count)),
  index: text(({ index }) => String(index)),
  name: text(({ rehearsal }) => rehearsal.gpuName),
  gpu_name: text(({ rehearsal }) => rehearsal.gpuName),
  uuid: text(({ rehearsal, index }) => gpuUuid(rehearsal.node, index)),
  gpu_uuid: text(({ rehearsal, index }) => gpuUuid(rehearsal.node, index)),
  serial: text(({ index }) => `165${String(1_000_000 + index * 7919).padStart(10, '0')}`),
  'pci.bus_id': text(busId),
  gpu_bus_id: text(busId),
  'utilization.gpu': percent(({ reading }) => reading.utilizationRatio * 100),
  'utilization.memory': percent(({ reading }) => reading.utilizationRatio * 70),
  'memory.total': memory(total),
  'memory.used': memory(used),
  'memory.free': memory((gpu) => total(gpu) - used(gpu)),
  'memory.reserved': memory(() => 512 * MiB),
  'power.draw': watts(({ reading }) => reading.powerWatts),
  'power.draw.average': watts(({ reading }) => reading.powerWatts),
  'power.draw.instant': watts(({ reading }) => reading.powerWatts),
  'power.limit': watts(({ rehearsal }) => rehearsal.powerLimitWatts),
  'enforced.power.limit': watts(({ rehearsal }) => rehearsal.powerLimitWatts),
  'temperature.gpu': text(({ reading }) => String(reading.temperatureCelsius)),
  'temperature.memory': text(({ reading }) => String(reading.temperatureCelsius + 6)),
  'fan.speed': fixed('[N/A]'),
  pstate: text(({ reading }) => (reading.utilizationRatio > 0 || reading.pid > 0 ? 'P0' : 'P8')),
  'clocks.sm': fixed('1980', ' MHz'),
  'clocks.current.sm': fixed('1980', ' MHz'),
  'clocks.mem': fixed('2619', ' MHz'),
  'clocks.current.memory': fixed('2619', ' MHz'),
  'clocks.max.sm': fixed('1980', ' MHz'),
  'ecc.mode.current': fixed('Enabled'),
  'ecc.errors.corrected.volatile.total': fixed('0'),
  'ecc.errors.uncorrected.volatile.total': fixed('0'),
  'ecc.errors.corrected.aggregate.total': fixed('0'),
  'ecc.errors.uncorrected.aggregate.total': fixed('0'),
  'retired_pages.pending': fixed('No'),
  'remapped_rows.pending': fixed('No'),
  'remapped_rows.failure': fixed('No'),
  'clocks_throttle_reasons.active': fixed('0x0000000000000000'),
  'clocks_event_reasons.active': fixed('0x0000000000000000'),
  compute_mode: fixed('Default'),
  persistence_mode: fixed('Enabled'),
  'mig.mode.current': fixed('Disabled'),
  compute_cap: fixed('9.0'),
  'pcie.link.gen.current': fixed('5'),
  'pcie.link.width.current': fixed('16'),
}

const two = (value: number, digits = 2): string => String(value).padStart(digits, '0')

/** 2026/11/24 06:03:12.345 */
export const stamp = (now: Date): string =>
  `${now.getFullYear()}/${two(now.getMonth() + 1)}/${two(now.getDate())} ` +
  `${two(now.getHours())}:${two(now.getMinutes())}:${two(now.getSeconds())}.` +
  two(now.getMilliseconds(), 3)

/** What a running engine looks like under --query-compute-apps. */
export const APP_FIELDS: Readonly<Record<string, Field>> = {
  timestamp: text(() => stamp(new Date())),
  gpu_name: text(({ rehearsal }) => rehearsal.gpuName),
  gpu_uuid: text(({ rehearsal, index }) => gpuUuid(rehearsal.node, index)),
  gpu_bus_id: text(busId),
  pid: text(({ reading }) => String(reading.pid)),
  process_name: text(({ reading }) => reading.processName),
  name: text(({ reading }) => reading.processName),
  used_memory: memory(used),
  used_gpu_memory: memory(used),
}
