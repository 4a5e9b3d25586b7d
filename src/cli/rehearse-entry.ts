/**
 * One fault as people write it: `for: 30s`, `share: 0.2`. The same words are options of
 * `penstock rehearse fault` and keys of an entry in a timeline. Pure.
 */
import { FAULTS, isFaultKind, readFault } from '../../runtimes/simulator/faults/fault.ts'
import type { FaultSetting, RankScope } from '../core/admin.ts'
import { nearest } from '../core/nearest.ts'

export type FaultEntry = {
  readonly scope: RankScope
  readonly fault: FaultSetting
  readonly kind: string
  /** Simulated milliseconds from the beginning of the timeline, or from now. */
  readonly startMs: number
  readonly durationMs: number | null
}

/** `field`: what to point at. */
type EntryProblem = { readonly field: string; readonly message: string }

export type EntryAnswer =
  | { readonly ok: true; readonly entry: FaultEntry }
  | { readonly ok: false; readonly problems: readonly EntryProblem[] }

type Given = ReadonlyMap<string, unknown>
type Field = { readonly to: string; readonly read: (value: unknown) => number | string | null }

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** `30s`, `1.5h`, `1h30m` to milliseconds; a bare 0 needs no unit. Null: not a time. */
export const readSpan = (value: unknown): number | null => {
  if (value === 0 || value === '0') return 0
  if (typeof value !== 'string' || !/^(\d{1,9}(\.\d{1,3})?(ms|[smhd]))+$/.test(value)) return null
  const parts = value.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)
  return Math.round(
    [...parts].reduce(
      (sum, [, count = '', unit = '']) => sum + Number(count) * (UNITS[unit] ?? 0),
      0,
    ),
  )
}

const readNumber = (value: unknown): number | null => {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null
  return typeof value === 'string' && /^\d{1,9}(\.\d{1,6})?$/.test(value) ? Number(value) : null
}

const readWhole = (value: unknown): number | null => {
  const number = readNumber(value)
  return number !== null && Number.isInteger(number) && number >= 0 ? number : null
}

const readName = (value: unknown): string | null =>
  typeof value === 'string' && /^[A-Za-z0-9][\w.-]{0,252}$/.test(value) ? value : null

const SPAN = 'expected a time such as 30s, 10m, 2h'
const NUMBER = 'expected a number'
const WHOLE = 'expected a whole number'
const NAME = 'expected a name'

const FIELDS: Readonly<Record<string, Field & { readonly expected: string }>> = {
  at: { to: 'startMs', read: readSpan, expected: SPAN },
  for: { to: 'durationMs', read: readSpan, expected: SPAN },
  delay: { to: 'delayMs', read: readSpan, expected: SPAN },
  share: { to: 'share', read: readNumber, expected: NUMBER },
  'after-tokens': { to: 'afterTokens', read: readWhole, expected: WHOLE },
  factor: { to: 'factor', read: readNumber, expected: NUMBER },
  code: { to: 'code', read: readWhole, expected: WHOLE },
  gpu: { to: 'gpu', read: readWhole, expected: WHOLE },
  deployment: { to: 'deployment', read: readName, expected: NAME },
  replica: { to: 'replica', read: readWhole, expected: WHOLE },
  rank: { to: 'rank', read: readWhole, expected: WHOLE },
  node: { to: 'node', read: readName, expected: NAME },
}

const SCOPE = ['deployment', 'replica', 'rank', 'node']

/** Every problem of an entry, or the entry. `given` has `kind` and words of FIELDS. */
export const readEntry = (given: Given): EntryAnswer => {
  const problems: EntryProblem[] = []
  const figures: Record<string, string | number> = {}
  const scope: Record<string, string | number> = {}
  for (const [word, value] of given) {
    if (word === 'kind') continue
    const field = FIELDS[word]
    if (field === undefined) {
      problems.push({ field: word, message: unknown(word, Object.keys(FIELDS)) })
      continue
    }
    const read = field.read(value)
    if (read === null) problems.push({ field: word, message: got(field.expected, value) })
    else if (SCOPE.includes(word)) scope[field.to] = read
    else figures[field.to] = read
  }
  const kind = given.get('kind')
  if (!isFaultKind(kind)) {
    const message = kind === undefined ? 'missing' : unknown(String(kind), Object.keys(FAULTS))
    return { ok: false, problems: [{ field: 'kind', message }, ...problems] }
  }
  const read = readFault({ kind, ...figures })
  if (!read.ok) problems.push({ field: 'kind', message: wordsOf(read.message) })
  if (!read.ok || problems.length > 0) return { ok: false, problems }
  const { startMs, durationMs } = read.fault
  const fault = { kind, ...figures }
  return { ok: true, entry: { kind, fault, startMs, durationMs, scope: scopeOf(scope) } }
}

const scopeOf = (given: Readonly<Record<string, string | number>>): RankScope => {
  const text = (key: string) => (typeof given[key] === 'string' ? given[key] : null)
  const number = (key: string) => (typeof given[key] === 'number' ? given[key] : null)
  return {
    deployment: text('deployment'),
    replica: number('replica'),
    rank: number('rank'),
    node: text('node'),
  }
}

const got = (expected: string, value: unknown): string =>
  `${expected}, got ${(JSON.stringify(value) ?? String(value)).slice(0, 60)}`

const unknown = (word: string, known: readonly string[]): string => {
  const close = nearest(word, known)
  const hint = close === null ? `one of ${known.join(', ')}` : `did you mean ${close}?`
  return `${JSON.stringify(word.slice(0, 60))} is not known: ${hint}`
}

/** The simulator's names of figures, back to the words of FIELDS. */
const wordsOf = (message: string): string =>
  Object.entries(FIELDS).reduce(
    (text, [word, { to }]) => text.replace(`${to}:`, `${word}:`),
    message,
  )

/** 90000 -> `1m30s`; null -> `until cleared`. */
export const spanText = (ms: number | null): string => {
  if (ms === null) return 'until cleared'
  let left = Math.max(0, Math.round(ms))
  if (left < 1000) return left === 0 ? '0s' : `${left}ms`
  left = Math.round(left / 1000)
  const parts: string[] = []
  for (const [unit, seconds] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    if (left >= seconds) parts.push(`${Math.floor(left / seconds)}${unit}`)
    left %= seconds
  }
  return parts.join('')
}
