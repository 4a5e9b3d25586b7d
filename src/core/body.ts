/**
 * One pass over a JSON body: where the top-level values we act on lie, in bytes. The body is never
 * re-serialised; a change is a splice. The whole grammar of RFC 8259 is checked, because a body
 * that we and the engine read differently is a way around routing and limits: for the same reason
 * a tracked key may appear once only, and keys are compared after their escapes are decoded.
 */

import { CHAT, type Protocol } from './protocol.ts'

export type Range = { readonly start: number; readonly end: number }
export type Edit = { readonly range: Range; readonly insert: Uint8Array }
export type Member = { readonly name: string; readonly range: Range }

/** Top-level keys whose place is remembered. */
export const TRACKED = [
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'n',
  'best_of',
  'user',
  'priority',
  'previous_response_id',
  'prompt_cache_key',
  'safety_identifier',
  'messages',
  'prompt',
  'input',
] as const
export type TrackedKey = (typeof TRACKED)[number]

export type Fields<Key extends string> = Readonly<Partial<Record<Key, Range>>>
export type Scan<Key extends string> =
  | { readonly ok: true; readonly start: number; readonly fields: Fields<Key> }
  | { readonly ok: false; readonly message: string; readonly param: string | null }

/** Nesting that real tool schemas stay far below; orjson, which engines use, stops at 254. */
const DEPTH_MAX = 200
/** The longest name of a parameter (64) with every character written as \uXXXX, and quotes. */
const KEY_BYTES_MAX = 64 * 6 + 2
const TOO_DEEP = Number.MIN_SAFE_INTEGER

const [QUOTE, BACKSLASH, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST] = [0x22, 0x5c, 0x7b, 0x7d, 0x5b, 0x5d]
const [COLON, COMMA, MINUS, PLUS, POINT, ZERO, NINE] = [0x3a, 0x2c, 0x2d, 0x2b, 0x2e, 0x30, 0x39]

const decoder = new TextDecoder('utf-8', { ignoreBOM: false })
const textOf = (bytes: Uint8Array, start: number, end: number): string =>
  decoder.decode(bytes.subarray(start, end))

/** Steps return the next position, or where they failed as -1 - position. */
const failed = (at: number): number => -1 - at

/** Scans for the keys a request is routed and limited by. */
export const scanBody = (bytes: Uint8Array): Scan<TrackedKey> => scanObject(bytes, TRACKED)

/** Scans one JSON object for the byte ranges of the named top-level values. Never throws. */
export const scanObject = <Key extends string>(
  bytes: Uint8Array,
  keys: readonly Key[],
): Scan<Key> => {
  const start = skipSpace(
    bytes,
    bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0,
  )
  if (start >= bytes.length) return refuse('the body is empty; a JSON object is expected')
  if (bytes[start] !== OPEN) return refuse('the body must be a JSON object')
  const fields: Partial<Record<Key, Range>> = {}
  const seen = { duplicate: '' }
  const end = skipMembers(bytes, start, 1, (name, range) => {
    const key = keys.find((candidate) => candidate === name)
    if (key === undefined) return
    if (fields[key] !== undefined) seen.duplicate = key
    fields[key] = range
  })
  if (end === TOO_DEEP) return refuse(`the body is nested deeper than ${DEPTH_MAX} levels`)
  if (end < 0) return refuse(`the body is not valid JSON (at byte ${-1 - end})`)
  const rest = skipSpace(bytes, end)
  if (rest < bytes.length) return refuse(`the body is not valid JSON (at byte ${rest})`)
  if (seen.duplicate !== '') {
    return refuse(`"${seen.duplicate}" appears more than once in the body`, seen.duplicate)
  }
  return { ok: true, start, fields }
}

/** The value in a range, parsed. The range must come from a scan of the same bytes. */
export const valueAt = (bytes: Uint8Array, range: Range): unknown =>
  JSON.parse(textOf(bytes, range.start, range.end))

/**
 * The members of an object, in order, keys decoded (a key too long to be a parameter's is empty),
 * or null when there are more than `max`. `range` must hold an object of bytes that were scanned.
 */
export const membersOf = (
  bytes: Uint8Array,
  { start }: Pick<Range, 'start'>,
  max: number,
): readonly Member[] | null => {
  const members: Member[] = []
  let count = 0
  skipMembers(bytes, start, 1, (name, range) => {
    count += 1
    if (count <= max) members.push({ name, range })
  })
  return count > max ? null : members
}

/** The items of an array, in order, or null when there are more than `max`; else as above. */
export const itemsOf = (
  bytes: Uint8Array,
  { start }: Pick<Range, 'start'>,
  max: number,
): readonly Range[] | null => {
  const items: Range[] = []
  let count = 0
  skipItems(bytes, start, 1, (range) => {
    count += 1
    if (count <= max) items.push(range)
  })
  return count > max ? null : items
}

export type Ask = {
  readonly model: string
  readonly modelRange: Range
  readonly stream: boolean
  /** Choices asked for; a stream is whole only when all of them have finished. */
  readonly choices: number
  /** Where the object begins: a byte order mark before it is not sent on. */
  readonly start: number
  /** The largest of the protocol's caps, such as `max_tokens`; null: none is a number. */
  readonly maxTokens: number | null
  /** Answers that the engine computes: the larger of `n` and `best_of`, 1 to SEQUENCES_MAX. */
  readonly sequences: number
  readonly usage: UsageAsk
  /** `previous_response_id`: an answer that one replica keeps. */
  readonly previous: string | null
  /** Where the tracked values are. */
  readonly fields: Fields<TrackedKey>
}

/** What the client wants to hear of usage in a stream. */
export type UsageAsk = {
  /** The API has `stream_options`. */
  readonly possible: boolean
  /** `stream_options` in the body. */
  readonly range: Range | null
  /** `include_usage`: a last chunk with the usage. */
  readonly last: boolean
  /** `continuous_usage_stats`: usage in every chunk. */
  readonly each: boolean
}

export type Unreadable = { readonly message: string; readonly param: string | null }

/** What the gateway needs to know of a request, or why it is refused. */
export const readAsk = (
  bytes: Uint8Array,
  protocol: Pick<Protocol, 'caps' | 'events' | 'continuousUsage'> = CHAT,
): Ask | Unreadable => {
  const scan = scanBody(bytes)
  if (!scan.ok) return { message: scan.message, param: scan.param }
  const { model: modelRange, stream: streamRange, n } = scan.fields
  if (modelRange === undefined) return { message: 'you must provide a model', param: 'model' }
  const model = valueAt(bytes, modelRange)
  if (typeof model !== 'string' || model === '') {
    return { message: 'model must be a non-empty string', param: 'model' }
  }
  const stream = streamRange === undefined ? false : (valueAt(bytes, streamRange) ?? false)
  if (typeof stream !== 'boolean') return { message: 'stream must be a boolean', param: 'stream' }
  const choices = n === undefined ? 1 : valueAt(bytes, n)
  const before = scan.fields.previous_response_id
  const previous = before === undefined ? null : valueAt(bytes, before)
  return {
    model,
    modelRange,
    stream: stream && protocol.events !== null,
    choices: (typeof choices === 'number' ? choices : 1) * promptsOf(bytes, scan.fields.prompt),
    start: scan.start,
    maxTokens: maxTokensOf(bytes, protocol.caps, scan.fields),
    sequences: sequencesOf(bytes, scan.fields),
    usage: { possible: protocol.continuousUsage, ...usageAskOf(bytes, scan.fields.stream_options) },
    previous: typeof previous === 'string' ? previous : null,
    fields: scan.fields,
  }
}

/** Each text, and each list of tokens, of a list of prompts is answered by a choice of its own. */
const promptsOf = (bytes: Uint8Array, range: Range | undefined): number => {
  if (range === undefined || bytes[range.start] !== OPEN_LIST) return 1
  const items = itemsOf(bytes, range, SEQUENCES_MAX) ?? []
  return Math.max(1, items.filter(({ start }) => !isDigit(bytes[start])).length)
}

/** Far above what an engine allows; keeps products of hostile numbers exact. */
const SEQUENCES_MAX = 100_000

const sequencesOf = (bytes: Uint8Array, { n, best_of: bestOf }: Fields<TrackedKey>): number => {
  const counts = [n, bestOf].map((range) => (range === undefined ? 1 : valueAt(bytes, range)))
  const whole = counts.map((count) => (Number.isSafeInteger(count) ? Number(count) : 1))
  return Math.min(SEQUENCES_MAX, Math.max(1, ...whole))
}

const maxTokensOf = (
  bytes: Uint8Array,
  keys: readonly TrackedKey[],
  fields: Fields<TrackedKey>,
): number | null => {
  const caps = keys
    .map((key) => fields[key])
    .map((range) => (range === undefined ? null : valueAt(bytes, range)))
    .filter((cap) => typeof cap === 'number' && Number.isSafeInteger(cap) && cap > 0)
    .map(Number)
  return caps.length === 0 ? null : Math.max(...caps)
}

const usageAskOf = (bytes: Uint8Array, range: Range | undefined) => {
  if (range === undefined) return { range: null, last: false, each: false }
  const value: unknown = valueAt(bytes, range)
  const wants = (name: string): boolean =>
    typeof value === 'object' &&
    value !== null &&
    Object.entries(value).some(([key, wanted]) => key === name && wanted === true)
  const last = wants('include_usage')
  return { range, last, each: last && wants('continuous_usage_stats') }
}

const refuse = (message: string, param: string | null = null) =>
  ({ ok: false, message, param }) as const

const skipSpace = (bytes: Uint8Array, from: number): number => {
  let at = from
  for (;;) {
    const byte = bytes[at]
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return at
    at += 1
  }
}

type OnMember = (name: string, range: Range) => void

const skipMembers = (
  bytes: Uint8Array,
  open: number,
  depth: number,
  onMember: OnMember | null,
): number => {
  let at = skipSpace(bytes, open + 1)
  if (bytes[at] === CLOSE) return at + 1
  for (;;) {
    if (bytes[at] !== QUOTE) return failed(at)
    const keyStart = at
    const keyEnd = skipString(bytes, at)
    if (keyEnd < 0) return keyEnd
    at = skipSpace(bytes, keyEnd)
    if (bytes[at] !== COLON) return failed(at)
    const start = skipSpace(bytes, at + 1)
    const end = skipValue(bytes, start, depth)
    if (end < 0) return end
    onMember?.(keyName(bytes, keyStart, keyEnd), { start, end })
    at = skipSpace(bytes, end)
    if (bytes[at] === CLOSE) return at + 1
    if (bytes[at] !== COMMA) return failed(at)
    at = skipSpace(bytes, at + 1)
  }
}

const skipItems = (
  bytes: Uint8Array,
  open: number,
  depth: number,
  onItem: ((range: Range) => void) | null,
): number => {
  let at = skipSpace(bytes, open + 1)
  if (bytes[at] === CLOSE_LIST) return at + 1
  for (;;) {
    const end = skipValue(bytes, at, depth)
    if (end < 0) return end
    onItem?.({ start: at, end })
    at = skipSpace(bytes, end)
    if (bytes[at] === CLOSE_LIST) return at + 1
    if (bytes[at] !== COMMA) return failed(at)
    at = skipSpace(bytes, at + 1)
  }
}

const skipValue = (bytes: Uint8Array, at: number, depth: number): number => {
  switch (bytes[at]) {
    case QUOTE:
      return skipString(bytes, at)
    case OPEN:
      return depth >= DEPTH_MAX ? TOO_DEEP : skipMembers(bytes, at, depth + 1, null)
    case OPEN_LIST:
      return depth >= DEPTH_MAX ? TOO_DEEP : skipItems(bytes, at, depth + 1, null)
    case 0x74:
      return skipWord(bytes, at, 'true')
    case 0x66:
      return skipWord(bytes, at, 'false')
    case 0x6e:
      return skipWord(bytes, at, 'null')
    default:
      return skipNumber(bytes, at)
  }
}

const skipWord = (bytes: Uint8Array, at: number, word: string): number => {
  for (let index = 0; index < word.length; index += 1) {
    if (bytes[at + index] !== word.charCodeAt(index)) return failed(at + index)
  }
  return at + word.length
}

const skipString = (bytes: Uint8Array, open: number): number => {
  let at = open + 1
  for (;;) {
    const byte = bytes[at]
    if (byte === QUOTE) return at + 1
    if (byte === undefined || byte < 0x20) return failed(at)
    if (byte !== BACKSLASH) {
      at += 1
      continue
    }
    const next = skipEscape(bytes, at)
    if (next < 0) return next
    at = next
  }
}

const SIMPLE_ESCAPES = new Set([...'"\\/bfnrt'].map((character) => character.charCodeAt(0)))

const skipEscape = (bytes: Uint8Array, at: number): number => {
  const kind = bytes[at + 1]
  if (kind === undefined) return failed(at + 1)
  if (SIMPLE_ESCAPES.has(kind)) return at + 2
  if (kind !== 0x75) return failed(at + 1)
  for (let index = at + 2; index < at + 6; index += 1) {
    if (!isHex(bytes[index])) return failed(index)
  }
  return at + 6
}

const isHex = (byte: number | undefined): boolean =>
  byte !== undefined &&
  ((byte >= ZERO && byte <= NINE) ||
    (byte >= 0x41 && byte <= 0x46) ||
    (byte >= 0x61 && byte <= 0x66))

const isDigit = (byte: number | undefined): boolean =>
  byte !== undefined && byte >= ZERO && byte <= NINE

const skipDigits = (bytes: Uint8Array, from: number): number => {
  let at = from
  while (isDigit(bytes[at])) at += 1
  return at > from ? at : failed(at)
}

const skipNumber = (bytes: Uint8Array, from: number): number => {
  let at = bytes[from] === MINUS ? from + 1 : from
  at = bytes[at] === ZERO ? at + 1 : skipDigits(bytes, at)
  if (at < 0) return at
  if (bytes[at] === POINT) at = skipDigits(bytes, at + 1)
  if (at < 0) return at
  if (bytes[at] !== 0x65 && bytes[at] !== 0x45) return at
  const sign = bytes[at + 1]
  return skipDigits(bytes, sign === PLUS || sign === MINUS ? at + 2 : at + 1)
}

/** The key between the quotes, escapes decoded; empty when it is too long to be one of ours. */
const keyName = (bytes: Uint8Array, start: number, end: number): string => {
  if (end - start > KEY_BYTES_MAX) return ''
  let name = ''
  for (let at = start + 1; at < end - 1; at += 1) {
    const byte = bytes[at]
    if (byte === undefined) return ''
    if (byte === BACKSLASH || byte > 0x7f) return String(JSON.parse(textOf(bytes, start, end)))
    name += String.fromCharCode(byte)
  }
  return name
}
