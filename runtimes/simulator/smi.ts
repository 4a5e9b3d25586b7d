/** Options of nvidia-smi that Penstock and operators use; anything else is refused as it does. */

import type { Rehearsal } from '../../src/core/runtime.ts'
import { SimulatedClock } from './clock.ts'
import { gpuUuid, type Readable, readGpu } from './gpu.ts'
import { gpuFiles } from './gpu-files.ts'
import { readRehearsal } from './rehearsal.ts'
import { APP_FIELDS, CUDA_VERSION, DRIVER_VERSION, FIELDS, type Gpu } from './smi-fields.ts'
import { textLog, xmlLog } from './smi-log.ts'

type Options = {
  query: { readonly fields: readonly string[]; readonly apps: boolean } | null
  header: boolean
  units: boolean
  everyMs: number | null
  ids: readonly string[] | null
  list: boolean
  xml: boolean
  verbose: boolean
}

/** nvidia-smi's exit code for a bad argument. */
const BAD_ARGUMENT = 2

class Refused extends Error {
  readonly code: number
  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

const options = (argv: readonly string[]): Options => {
  const read: Options = {
    query: null,
    header: true,
    units: true,
    everyMs: null,
    ids: null,
    list: false,
    xml: false,
    verbose: false,
  }
  let index = 0
  const value = (inline: string | undefined, name: string): string => {
    const text = inline ?? argv[index++]
    if (text === undefined)
      throw new Refused(BAD_ARGUMENT, `Option "${name}" requires an argument.`)
    return text
  }
  while (index < argv.length) {
    const argument = argv[index++] ?? ''
    const at = argument.startsWith('--') ? argument.indexOf('=') : -1
    const name = at < 0 ? argument : argument.slice(0, at)
    const inline = at < 0 ? undefined : argument.slice(at + 1)
    option(read, name, () => value(inline, name), argument)
  }
  return read
}

const option = (read: Options, name: string, value: () => string, argument: string): void => {
  if (name === '--query-gpu') read.query = fieldsOf(value(), FIELDS, false)
  else if (name === '--query-compute-apps') read.query = fieldsOf(value(), APP_FIELDS, true)
  else if (name === '--format') format(read, value())
  else if (name === '-l' || name === '--loop') read.everyMs = span(value(), 1000)
  else if (name === '-lms' || name === '--loop-ms') read.everyMs = span(value(), 1)
  else if (name === '-i' || name === '--id') read.ids = value().split(',')
  else if (name === '-L' || name === '--list-gpus') read.list = true
  else if (name === '-q' || name === '--query') read.verbose = true
  else if (name === '-x' || name === '--xml-format') read.xml = true
  else
    throw new Refused(
      BAD_ARGUMENT,
      `Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n(${argument})`,
    )
}

const span = (text: string, unitMs: number): number => {
  if (!/^\d{1,9}$/.test(text) || Number(text) < 1) {
    throw new Refused(BAD_ARGUMENT, `"${text}" is not a valid loop interval.`)
  }
  return Number(text) * unitMs
}

const format = (read: Options, text: string): void => {
  for (const part of text.split(',')) {
    if (part === 'noheader') read.header = false
    else if (part === 'nounits') read.units = false
    else if (part !== 'csv') throw new Refused(BAD_ARGUMENT, `Invalid format: "${part}".`)
  }
}

const fieldsOf = (
  text: string,
  known: Readonly<Record<string, unknown>>,
  apps: boolean,
): { fields: readonly string[]; apps: boolean } => {
  const fields = text.split(',').map((field) => field.trim())
  const wrong = fields.find((field) => !Object.hasOwn(known, field))
  if (wrong !== undefined) {
    throw new Refused(BAD_ARGUMENT, `Field "${wrong}" is not a valid field to query.`)
  }
  return { fields, apps }
}

const chosen = (
  rehearsal: Rehearsal,
  ids: readonly string[] | null,
  around: Readable,
): readonly Gpu[] => {
  const all = rehearsal.gpus
  const now = new Date(around.clock.epochMs())
  const gpu = (index: number): Gpu => ({
    index,
    count: all.length,
    rehearsal,
    now,
    reading: readGpu(around, rehearsal.node, index),
  })
  if (ids === null) return all.map(gpu)
  return ids.map((id) => {
    const index = all.find((i) => String(i) === id || gpuUuid(rehearsal.node, i) === id)
    if (index === undefined) throw new Refused(6, 'No devices were found')
    return gpu(index)
  })
}

/**
 * NVML fails for the whole machine whatever is asked (255: "other error", nvidia-smi(1)); a GPU
 * that fell off the bus (XID 79) takes along every call that would show it (15).
 */
const refuseLost = (
  gpus: readonly Gpu[],
  { gpus: all, node }: Rehearsal,
  around: Readable,
): void => {
  if (all.some((index) => readGpu(around, node, index).failure === 'nvml')) {
    throw new Refused(255, 'Failed to initialize NVML: Unknown Error')
  }
  const lost = gpus.find(({ reading }) => reading.failure === 'lost')
  if (lost === undefined) return
  throw new Refused(
    15,
    `Unable to determine the device handle for GPU${plain(lost, 'pci.bus_id').slice(4)}: ` +
      'GPU is lost.  Reboot the system to recover this GPU',
  )
}

/** One reading as text. */
const report = (read: Options, rehearsal: Rehearsal, around: Readable): string => {
  const gpus = chosen(rehearsal, read.ids, around)
  const now = new Date(around.clock.epochMs())
  refuseLost(gpus, rehearsal, around)
  if (read.list) {
    return lines(
      gpus.map(({ index }) => {
        const uuid = gpuUuid(rehearsal.node, index)
        return `GPU ${index}: ${rehearsal.gpuName} (UUID: ${uuid})`
      }),
    )
  }
  if (read.query !== null) return csv(read, gpus)
  if (read.verbose) return read.xml ? xmlLog(gpus, now) : textLog(gpus, now)
  return table(gpus, now)
}

const lines = (all: readonly string[]): string => all.map((line) => `${line}\n`).join('')

const csv = (read: Options, gpus: readonly Gpu[]): string => {
  const { fields, apps } = read.query ?? { fields: [], apps: false }
  const known = apps ? APP_FIELDS : FIELDS
  const rows = apps ? gpus.filter(({ reading }) => reading.pid > 0) : gpus
  return lines(
    rows.map((gpu) =>
      fields
        .map((name) => {
          const field = known[name]
          if (field === undefined) return '[N/A]'
          const shown = field.read(gpu)
          return read.units && shown !== '[N/A]' ? shown + field.unit : shown
        })
        .join(', '),
    ),
  )
}

const header = (read: Options): string => {
  if (read.query === null || !read.header) return ''
  const known = read.query.apps ? APP_FIELDS : FIELDS
  const names = read.query.fields.map((name) => {
    const unit = known[name]?.unit.trim() ?? ''
    return unit === '' ? name : `${name} [${unit}]`
  })
  return `${names.join(', ')}\n`
}

const plain = (gpu: Gpu, field: string): string => FIELDS[field]?.read(gpu) ?? ''

const table = (gpus: readonly Gpu[], now: Date): string => {
  const rule = `+${'-'.repeat(89)}+`
  const row = (text: string) => `| ${text.padEnd(87)} |`
  const of = (gpu: Gpu): string =>
    `${String(gpu.index).padStart(3)}  ${plain(gpu, 'name').padEnd(24)} ` +
    `${plain(gpu, 'temperature.gpu')}C  ` +
    `${plain(gpu, 'power.draw')}W / ${plain(gpu, 'power.limit')}W  ` +
    `${plain(gpu, 'memory.used')}MiB / ${plain(gpu, 'memory.total')}MiB  ` +
    `${plain(gpu, 'utilization.gpu')}%`
  return lines([
    `${now.toUTCString()}   (rehearsal)`,
    rule,
    row(
      `NVIDIA-SMI ${DRIVER_VERSION}    Driver Version: ${DRIVER_VERSION}    ` +
        `CUDA Version: ${CUDA_VERSION}`,
    ),
    rule,
    ...gpus.map((gpu) => row(of(gpu))),
    rule,
  ])
}

/** What one call prints, and its exit code; `-l` is the caller's affair. */
export const nvidiaSmi = (
  argv: readonly string[],
  rehearsal: Rehearsal,
  around: Readable,
): { readonly text: string; readonly code: number } => {
  try {
    const read = options(argv)
    return { text: header(read) + report(read, rehearsal, around), code: 0 }
  } catch (error) {
    return refusal(error)
  }
}

/** Prints once, or again and again with -l; ends the process on a refusal. */
export const runNvidiaSmi = async (
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<void> => {
  process.stdout.on('error', () => process.exit(0))
  try {
    const read = options(argv)
    const rehearsed = readRehearsal(environment.PENSTOCK_REHEARSAL)
    if (!rehearsed.ok) throw new Refused(9, `NVIDIA-SMI has failed: ${rehearsed.message}`)
    const { rehearsal } = rehearsed
    if (rehearsal.gpus.length === 0) throw new Refused(6, 'No devices were found')
    const around = { gpus: gpuFiles, clock: new SimulatedClock(1) }
    process.stdout.write(header(read) + report(read, rehearsal, around))
    const { everyMs } = read
    if (everyMs === null) return
    const timer = setInterval(() => {
      try {
        process.stdout.write(report(read, rehearsal, around))
      } catch (error) {
        clearInterval(timer)
        refused(error)
      }
    }, everyMs)
  } catch (error) {
    refused(error)
  }
}

const refusal = (error: unknown): { readonly text: string; readonly code: number } => {
  if (!(error instanceof Refused)) throw error
  return { text: `${error.message}\n`, code: error.code }
}

const refused = (error: unknown): void => {
  const { text, code } = refusal(error)
  process.stdout.write(text)
  process.exitCode = code
}
