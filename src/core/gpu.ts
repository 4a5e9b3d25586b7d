/**
 * One line of `nvidia-smi --query-gpu=<GPU_QUERY> --format=csv,noheader,nounits` to a reading.
 * A figure that the driver does not give is null, never zero. The name comes last because it is
 * the one field that may hold a comma, and nvidia-smi does not quote.
 */
export const GPU_FIELDS = [
  'index',
  'uuid',
  'utilization.gpu',
  'memory.used',
  'memory.total',
  'power.draw',
  'temperature.gpu',
  'name',
] as const

export const GPU_QUERY = GPU_FIELDS.join(',')

export type GpuReading = {
  /** As that nvidia-smi numbers it; inside a container from 0. */
  readonly index: number | null
  readonly uuid: string | null
  readonly name: string | null
  readonly utilizationRatio: number | null
  readonly memoryUsedBytes: number | null
  readonly memoryTotalBytes: number | null
  readonly powerWatts: number | null
  readonly temperatureCelsius: number | null
}

export type GpuLine =
  | { readonly kind: 'reading'; readonly reading: GpuReading }
  /** It runs and sees no GPU at all. */
  | { readonly kind: 'none' }
  /** It said something else: NVML is lost, no driver, a GPU fell off the bus. One short line. */
  | { readonly kind: 'failure'; readonly message: string }

const NAME_AT = GPU_FIELDS.length - 1
const LINE_MAX = 2000
const MESSAGE_MAX = 300
const MIB = 1024 * 1024

/** Null for an empty line. */
export const parseGpuLine = (raw: string): GpuLine | null => {
  const line = raw.slice(0, LINE_MAX).trim()
  if (line === '') return null
  if (/^no devices were found/i.test(line)) return { kind: 'none' }
  const parts = line.split(',')
  const fields = parts.slice(0, NAME_AT).map((field) => field.trim())
  const [index, uuid, utilization, memoryUsed, memoryTotal, power, temperature] = fields
  const name = parts.slice(NAME_AT)
  if (name.length === 0 || !isFirstField(index ?? '')) {
    return { kind: 'failure', message: line.slice(0, MESSAGE_MAX) }
  }
  return {
    kind: 'reading',
    reading: {
      index: figure(index, 0, 4095),
      uuid: text(uuid),
      name: text(name.join(',').trim()),
      utilizationRatio: ratio(figure(utilization, 0, 100)),
      memoryUsedBytes: bytes(figure(memoryUsed, 0, 1e9)),
      memoryTotalBytes: bytes(figure(memoryTotal, 0, 1e9)),
      powerWatts: figure(power, 0, 100_000),
      temperatureCelsius: figure(temperature, -100, 250),
    },
  }
}

/** A number, or one of nvidia-smi's words for "cannot say": `[N/A]`, `[Unknown Error]` … */
const isFirstField = (field: string): boolean => /^\d{1,4}$/.test(field) || unknown(field)

const unknown = (field: string): boolean => /^(\[.*\]|N\/A|)$/.test(field)

const text = (field: string | undefined): string | null =>
  field === undefined || unknown(field) ? null : field

const figure = (field: string | undefined, min: number, max: number): number | null => {
  if (field === undefined || !/^-?\d{1,12}(\.\d{1,6})?$/.test(field)) return null
  const value = Number(field)
  return value >= min && value <= max ? value : null
}

const ratio = (percent: number | null): number | null => (percent === null ? null : percent / 100)

const bytes = (mib: number | null): number | null => (mib === null ? null : Math.round(mib * MIB))
