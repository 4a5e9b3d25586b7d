/** Values as the operator reads them. Unknown is an en dash, never a zero. */
export const UNKNOWN = '–'

/** A node or GPU read longer ago than this is not "now" any more: greyed, with its age. */
export const OLD_MS = 10_000

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 })
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

type Maybe = number | null | undefined

const known = (value: Maybe): value is number => typeof value === 'number' && Number.isFinite(value)

export const count = (value: Maybe): string => (known(value) ? whole.format(value) : UNKNOWN)

/** 518400 as `518.4K`. */
export const short = (value: Maybe): string => {
  if (!known(value)) return UNKNOWN
  return value < 10_000 ? whole.format(value) : compact.format(value)
}

export const percent = (ratio: Maybe): string =>
  known(ratio) ? `${whole.format(ratio * 100)} %` : UNKNOWN

const GIB = 1024 ** 3

export const gibibytes = (bytes: Maybe): string =>
  known(bytes) ? tenth.format(bytes / GIB) : UNKNOWN

/** `0.9 s`, `42 s`, `3 min`, `2 h 13 min`, `4 d`. */
export const span = (ms: Maybe): string => {
  if (!known(ms)) return UNKNOWN
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 10) return `${tenth.format(seconds)} s`
  if (seconds < 120) return `${whole.format(seconds)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h ${minutes % 60} min`
  return `${Math.floor(hours / 24)} d`
}

/** A latency: `431 ms`, `61.3 s`. */
export const latency = (ms: Maybe): string => {
  if (!known(ms)) return UNKNOWN
  return ms < 1000 ? `${whole.format(ms)} ms` : `${tenth.format(ms / 1000)} s`
}

/** Local time of day. */
export const clockTime = (epochMs: number): string => new Date(epochMs).toLocaleTimeString('en-GB')

/** [0,1,2,3,5] as `0–3, 5`. */
export const ranges = (numbers: readonly number[]): string => {
  const runs: [number, number][] = []
  for (const value of numbers.toSorted((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last !== undefined && value === last[1] + 1) last[1] = value
    else runs.push([value, value])
  }
  const text = runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`))
  return text.length === 0 ? UNKNOWN : text.join(', ')
}

/** Adds what is known; unknown when nothing is. */
export const total = (values: readonly Maybe[]): number | null => {
  const there = values.filter(known)
  return there.length === 0 ? null : there.reduce((sum, value) => sum + value, 0)
}
