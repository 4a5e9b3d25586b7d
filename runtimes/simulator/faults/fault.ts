/**
 * What can go wrong, as values: each fault has a kind, a start, a duration and a scope. Read by
 * hand in place of zod, as all settings of the simulator are. Knows nothing of how it is played.
 */
import { isRecord } from '../rehearsal.ts'

/** Every kind with the scope it acts on; design.md 4 names the symptoms. */
export const FAULTS = {
  hang: { scope: 'rank', what: 'forward steps stop, requests hang, /health of vLLM stays 200' },
  exit: { scope: 'rank', what: 'the process ends at once with `code`' },
  partition: { scope: 'rank', what: 'the rank hears no other rank; all of the group wait' },
  'freeze-counters': { scope: 'rank', what: '/metrics repeats what it said, work goes on' },
  'slow-shards': { scope: 'rank', what: 'weights load `factor` times slower' },
  'keep-memory': { scope: 'rank', what: 'VRAM stays taken after the process ended' },
  'nvml-lost': { scope: 'rank', what: 'nvidia-smi fails: NVML cannot be initialised' },
  xid: { scope: 'rank', what: 'the GPU falls off the bus with `code`, the engine dies' },
  'slow-first-byte': { scope: 'requests', what: 'the answer begins `delay` later' },
  cut: { scope: 'requests', what: 'the connection is reset after `after-tokens` tokens' },
  'half-event': { scope: 'requests', what: 'the stream ends within an event' },
  truncate: { scope: 'requests', what: 'the stream ends well-formed, without a finish or [DONE]' },
  garble: { scope: 'requests', what: 'the text is rubbish, as after a broken all-reduce' },
  'error-500': { scope: 'requests', what: 'the engine answers with its internal error' },
  'error-429': { scope: 'requests', what: 'the engine answers 429' },
} as const

export type FaultKind = keyof typeof FAULTS

export const isFaultKind = (value: unknown): value is FaultKind =>
  typeof value === 'string' && Object.hasOwn(FAULTS, value)

export type Fault = {
  readonly kind: FaultKind
  /** Simulated milliseconds since the process began; a fault in the past is on at once. */
  readonly startMs: number
  /** Simulated milliseconds; null lasts until it is cleared. */
  readonly durationMs: number | null
  /** Only this rank of the group (`--node-rank`); null every rank that hears of it. */
  readonly rank: number | null
  /** Share of requests hit, 0..1; hits are spread evenly, 1 is every request. */
  readonly share: number
  readonly delayMs: number
  readonly afterTokens: number
  readonly factor: number
  readonly code: number
  /** xid: this GPU of the node; null: the rank's first. One that the rank has not is not hit. */
  readonly gpu: number | null
}

const DEFAULTS = {
  startMs: 0,
  durationMs: null,
  rank: null,
  share: 1,
  delayMs: 30_000,
  afterTokens: 20,
  factor: 10,
  gpu: null,
} as const

/** XID 79: the GPU has fallen off the bus (NVIDIA's XID catalogue); 137: killed by signal 9. */
const CODE = { xid: 79, exit: 137 } as const

type Read = { readonly ok: true; readonly fault: Fault } | { readonly ok: false; message: string }

const LIMITS = {
  startMs: 366 * 86_400_000,
  durationMs: 366 * 86_400_000,
  rank: 1024,
  share: 1,
  delayMs: 86_400_000,
  afterTokens: 1_000_000,
  factor: 10_000,
  code: 255,
  gpu: 1024,
} as const

type Field = keyof typeof LIMITS

const NULLABLE: ReadonlySet<Field> = new Set(['durationMs', 'rank', 'gpu'])

const isField = (key: string): key is Field => Object.hasOwn(LIMITS, key)

/** One fault from a setting, a control message or a line of a timeline. */
export const readFault = (value: unknown): Read => {
  if (!isRecord(value)) return refuse('a fault is an object with a `kind`')
  const { kind, ...rest } = value
  if (!isFaultKind(kind)) {
    return refuse(`kind: one of ${Object.keys(FAULTS).join(', ')}, not ${JSON.stringify(kind)}`)
  }
  const figures: Partial<Record<Field, number | null>> = {}
  for (const [key, found] of Object.entries(rest)) {
    if (!isField(key)) return refuse(`${kind}: no setting ${JSON.stringify(key)}`)
    if (found === null && NULLABLE.has(key)) continue
    if (typeof found !== 'number' || !(found >= 0 && found <= LIMITS[key])) {
      return refuse(`${kind}: ${key}: a number from 0 to ${LIMITS[key]}`)
    }
    figures[key] = found
  }
  const code = kind === 'xid' ? CODE.xid : CODE.exit
  return { ok: true, fault: { ...DEFAULTS, code, ...definedOnly(figures), kind } }
}

const definedOnly = (figures: Partial<Record<Field, number | null>>) => {
  const { startMs, share, delayMs, afterTokens, factor, code, durationMs, rank, gpu } = figures
  return {
    ...(typeof startMs === 'number' ? { startMs } : {}),
    ...(typeof share === 'number' ? { share } : {}),
    ...(typeof delayMs === 'number' ? { delayMs } : {}),
    ...(typeof afterTokens === 'number' ? { afterTokens } : {}),
    ...(typeof factor === 'number' ? { factor } : {}),
    ...(typeof code === 'number' ? { code } : {}),
    ...(typeof durationMs === 'number' ? { durationMs } : {}),
    ...(typeof rank === 'number' ? { rank } : {}),
    ...(typeof gpu === 'number' ? { gpu } : {}),
  }
}

const refuse = (message: string): Read => ({ ok: false, message })
