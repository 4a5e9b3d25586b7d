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
  /** When it was asked. */
  readonly now: Date
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

/** An uncorrectable error's row is remapped with the next reset; until then that is pending. */
const isBroken = ({ reading }: Gpu): boolean => (reading.eccUncorrected ?? 0) > 0

/** All errors are DRAM's here; SRAM's stay at 0. */
const eccFields = (
  kind: 'corrected' | 'uncorrected',
  count: (gpu: Gpu) => number,
): Readonly<Record<string, Field>> =>
  Object.fromEntries(
    ['volatile', 'aggregate'].flatMap((span) => {
      const errors = text((gpu) => String(count(gpu)))
      const name = `ecc.errors.${kind}.${span}`
      return [
        [`${name}.dram`, errors],
        [`${name}.device_memory`, errors],
        [`${name}.sram`, fixed('0')],
        [`${name}.total`, errors],
      ]
    }),
  )

/** Bit 0 of the mask is "GPU idle" (nvml.h, nvmlClocksEventReasonGpuIdle). */
const reasonFields = (family: string): Readonly<Record<string, Field>> => {
  const isIdle = ({ reading }: Gpu) => reading.utilizationRatio === 0
  const never = ['applications_clocks_setting', 'sw_power_cap', 'hw_slowdown', 'sync_boost']
  const thermal = ['hw_thermal_slowdown', 'hw_power_brake_slowdown', 'sw_thermal_slowdown']
  return {
    [`${family}.active`]: text((gpu) => `0x${(isIdle(gpu) ? '1' : '0').padStart(16, '0')}`),
    [`${family}.gpu_idle`]: text((gpu) => (isIdle(gpu) ? 'Active' : 'Not Active')),
    ...Object.fromEntries(
      [...never, ...thermal].map((name) => [`${family}.${name}`, fixed('Not Active')]),
    ),
  }
}

export const FIELDS: Readonly<Record<string, Field>> = {
  timestamp: text(({ now }) => stamp(now)),
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
  'power.default_limit': watts(({ rehearsal }) => rehearsal.powerLimitWatts),
  'power.max_limit': watts(({ rehearsal }) => rehearsal.powerLimitWatts),
  'enforced.power.limit': watts(({ rehearsal }) => rehearsal.powerLimitWatts),
  'temperature.gpu': text(({ reading }) => String(reading.temperatureCelsius)),
  'temperature.memory': text(({ reading }) => String(reading.temperatureCelsius + 6)),
  'fan.speed': fixed('[N/A]'),
  pstate: text(({ reading }) => (reading.utilizationRatio > 0 || reading.pid > 0 ? 'P0' : 'P8')),
  'clocks.gr': fixed('1980', ' MHz'),
  'clocks.sm': fixed('1980', ' MHz'),
  'clocks.current.sm': fixed('1980', ' MHz'),
  'clocks.mem': fixed('2619', ' MHz'),
  'clocks.current.memory': fixed('2619', ' MHz'),
  'clocks.max.sm': fixed('1980', ' MHz'),
  'ecc.mode.current': fixed('Enabled'),
  'ecc.mode.pending': fixed('Enabled'),
  ...eccFields('corrected', ({ reading }) => reading.eccCorrected ?? 0),
  ...eccFields('uncorrected', ({ reading }) => reading.eccUncorrected ?? 0),
  'retired_pages.single_bit_ecc.count': fixed('[N/A]'),
  'retired_pages.double_bit.count': fixed('[N/A]'),
  'remapped_rows.correctable': fixed('0'),
  'remapped_rows.uncorrectable': text((gpu) => (isBroken(gpu) ? '1' : '0')),
  'retired_pages.pending': fixed('[N/A]'),
  'remapped_rows.pending': text((gpu) => (isBroken(gpu) ? 'Yes' : 'No')),
  'remapped_rows.failure': fixed('No'),
  ...reasonFields('clocks_throttle_reasons'),
  ...reasonFields('clocks_event_reasons'),
  compute_mode: fixed('Default'),
  persistence_mode: fixed('Enabled'),
  'mig.mode.current': fixed('Disabled'),
  compute_cap: fixed('9.0'),
  'pcie.link.gen.max': fixed('5'),
  'pcie.link.width.max': fixed('16'),
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
  timestamp: text(({ now }) => stamp(now)),
  gpu_name: text(({ rehearsal }) => rehearsal.gpuName),
  gpu_uuid: text(({ rehearsal, index }) => gpuUuid(rehearsal.node, index)),
  gpu_bus_id: text(busId),
  pid: text(({ reading }) => String(reading.pid)),
  process_name: text(({ reading }) => reading.processName),
  name: text(({ reading }) => reading.processName),
  used_memory: memory(used),
  used_gpu_memory: memory(used),
}
