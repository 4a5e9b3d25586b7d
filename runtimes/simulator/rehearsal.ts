/** PENSTOCK_REHEARSAL: what the simulator must know beyond the command line. */
import type { Architecture } from '../../src/core/manifest.ts'
import type { Rehearsal } from '../../src/core/runtime.ts'

const REHEARSAL_VARIABLE = 'PENSTOCK_REHEARSAL'

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Guards by hand in place of zod: a process must be up in well under half a second. */
export const readRehearsal = (
  text: string | undefined,
): { ok: true; rehearsal: Rehearsal } | { ok: false; message: string } => {
  const fail = (what: string) => ({ ok: false, message: `${REHEARSAL_VARIABLE}: ${what}` }) as const
  if (text === undefined || text === '') {
    return fail(
      'not set. This is the flight simulator, not the real engine: it needs that variable ' +
        '(JSON: node, gpus, GPU figures, architecture, speed), which Penstock sets for ' +
        'nodes with `rehearse: true`.',
    )
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return fail(`not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (!isRecord(value)) return fail('expected an object')
  const architecture = isRecord(value.architecture) ? readArchitecture(value.architecture) : null
  if (architecture === null) return fail('`architecture` is missing or lacks a figure')
  const gpus = Array.isArray(value.gpus) ? value.gpus.filter((g) => Number.isInteger(g)) : []
  const number = (key: string, fallback: number): number => {
    const found = value[key]
    return typeof found === 'number' && Number.isFinite(found) && found > 0 ? found : fallback
  }
  const rehearsal: Rehearsal = {
    node: typeof value.node === 'string' ? value.node : 'node',
    gpus,
    gpuName: typeof value.gpuName === 'string' ? value.gpuName : 'GPU',
    memoryBytes: number('memoryBytes', 0),
    bandwidthBytesPerSecond: number('bandwidthBytesPerSecond', 0),
    bf16Flops: number('bf16Flops', 0),
    fp8Flops: number('fp8Flops', number('bf16Flops', 0)),
    interconnectBytesPerSecond: number('interconnectBytesPerSecond', 64e9),
    powerLimitWatts: number('powerLimitWatts', 400),
    architecture,
    speed: number('speed', 1),
    ...(typeof value.script === 'string' ? { script: value.script } : {}),
    ...(typeof value.asVersion === 'string' ? { asVersion: value.asVersion } : {}),
  }
  const missing = ['memoryBytes', 'bandwidthBytesPerSecond', 'bf16Flops'].filter(
    (key) => number(key, 0) === 0,
  )
  return missing.length > 0
    ? fail(`${missing.join(', ')}: expected a positive number`)
    : { ok: true, rehearsal }
}

const TYPES = ['bf16', 'fp16', 'fp8', 'int4', 'fp32'] as const

const readArchitecture = (value: Readonly<Record<string, unknown>>): Architecture | null => {
  const figure = (key: string): number => {
    const found = value[key]
    return typeof found === 'number' && found > 0 ? found : Number.NaN
  }
  const required = {
    weightBytes: figure('weightBytes'),
    parameters: figure('parameters'),
    hiddenSize: figure('hiddenSize'),
    layers: figure('layers'),
    attentionHeads: figure('attentionHeads'),
    vocabulary: figure('vocabulary'),
    maxContext: figure('maxContext'),
  }
  if (Object.values(required).some(Number.isNaN)) return null
  const optional = (key: string) => (Number.isNaN(figure(key)) ? {} : { [key]: figure(key) })
  return {
    ...required,
    ...optional('activeParameters'),
    ...optional('kvHeads'),
    ...optional('headDimension'),
    ...optional('latentDimension'),
    weightsType: TYPES.find((type) => type === value.weightsType) ?? 'bf16',
  }
}
