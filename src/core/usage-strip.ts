/**
 * Usage that the gateway asked for and the client did not: asked by a change to `stream_options`,
 * and taken out of the events again, so that the client reads what it would have read. All other
 * bytes stay as they are. Shapes: engines.md 5.1; recorded in test/fixtures/vllm-0.32.0.
 *
 * - vLLM leaves `usage` out of a chunk that has none, SGLang writes null.
 * - The chunk with the total (no choices) is dropped. vLLM moves `system_fingerprint` from the
 *   last chunk with text to that one, so a chunk that ends a choice is held for one event, to get
 *   it back.
 */
import { type Edit, type Range, scanObject, type UsageAsk, valueAt } from './body.ts'
import type { SseEvent } from './sse.ts'

const USAGE = Buffer.from(',"usage":{')
const COMPLETION = Buffer.from('"completion_tokens":')
const NO_CHOICES = Buffer.from('"choices":[]')
const FINISHED = Buffer.from('"finish_reason":"')
const FINGERPRINT = Buffer.from(',"system_fingerprint":"')
const NULL_USAGE = Buffer.from(',"usage":null')
const NOTHING = Buffer.alloc(0)
const [OPEN, CLOSE, QUOTE, NEWLINE, RETURN] = [0x7b, 0x7d, 0x22, 0x0a, 0x0d]
const [ZERO, NINE] = [0x30, 0x39]

/**
 * The edit that asks for usage in every chunk; null: asked already, or not ours to mend.
 * `continuous`: false for services that refuse a field they do not know: only the total is asked.
 */
export const usageEdit = (
  body: Uint8Array,
  { possible, range, last, each }: UsageAsk,
  { start, continuous }: { readonly start: number; readonly continuous: boolean },
) => {
  const askedAlready = continuous ? each : last && !each
  if (askedAlready || !possible) return null
  const wanted = { include_usage: true, ...(continuous ? { continuous_usage_stats: true } : {}) }
  if (range === null) {
    const at = start + 1
    const insert = Buffer.from(`"stream_options":${JSON.stringify(wanted)},`)
    return { range: { start: at, end: at }, insert } satisfies Edit
  }
  const value: unknown = valueAt(body, range)
  // What is neither an object nor null is refused by the engine, with its own words.
  if (typeof value !== 'object' || Array.isArray(value)) return null
  const others = Object.entries(value ?? {}).filter(([name]) => name !== 'continuous_usage_stats')
  const options = { ...Object.fromEntries(others), ...wanted }
  return { range, insert: Buffer.from(JSON.stringify(options)) } satisfies Edit
}

export class UsageStrip {
  readonly #keepLast: boolean
  readonly #sglang: boolean
  #parts: Buffer[] = []
  #held: Buffer | null = null
  #completion: number | null = null

  constructor(engine: string, keepLast: boolean) {
    this.#sglang = engine === 'sglang'
    this.#keepLast = keepLast
  }

  /** Tokens of the answer so far, as the newest event says; null: none has said. */
  get completion(): number | null {
    return this.#completion
  }

  add(bytes: Uint8Array, { start, end }: SseEvent): void {
    const event = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)
    const usage = usageRange(event)
    if (usage === null) {
      this.#pass(event)
      return
    }
    this.#completion = completionAt(event, usage) ?? this.#completion
    if (event.indexOf(NO_CHOICES) !== -1) {
      if (this.#keepLast) this.#pass(event)
      else this.#passFingerprint(event)
      return
    }
    const middle = this.#sglang ? NULL_USAGE : NOTHING
    this.#pass(Buffer.concat([event.subarray(0, usage.start), middle, event.subarray(usage.end)]))
  }

  /** What may be sent by now; `all`: also what is held, because nothing follows. */
  take(all: boolean): Buffer {
    if (all) this.#release()
    const parts = this.#parts
    this.#parts = []
    const [first] = parts
    return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts)
  }

  #pass(event: Buffer): void {
    this.#release()
    if (!this.#keepLast && !this.#sglang && event.indexOf(FINISHED) !== -1) this.#held = event
    else this.#parts.push(event)
  }

  #passFingerprint(event: Buffer): void {
    const held = this.#held
    const start = event.lastIndexOf(FINGERPRINT)
    const close = held?.lastIndexOf(CLOSE) ?? -1
    if (held === null || start === -1 || close === -1) return
    const end = event.indexOf(QUOTE, start + FINGERPRINT.length) + 1
    const [head, tail] = [held.subarray(0, close), held.subarray(close)]
    this.#held = Buffer.concat([head, event.subarray(start, end), tail])
  }

  #release(): void {
    if (this.#held !== null) this.#parts.push(this.#held)
    this.#held = null
  }
}

/**
 * Where `,"usage":{...}` stands as a key of the event's object. Inside a JSON string every quote
 * is escaped, so these bytes can only be a key; that it is a top-level one is clear when the
 * object ends right after, and read in full otherwise.
 */
const usageRange = (event: Buffer): Range | null => {
  const start = event.lastIndexOf(USAGE)
  if (start === -1) return null
  const end = objectEnd(event, start + USAGE.length - 1)
  if (end === -1) return null
  const after = event[end + 1]
  if (event[end] === CLOSE && (after === NEWLINE || after === RETURN)) return { start, end }
  const open = event.indexOf(OPEN)
  const object = event.subarray(open, event.lastIndexOf(CLOSE) + 1)
  const scan = scanObject(object, ['usage'])
  if (!scan.ok || scan.fields.usage === undefined) return null
  return scan.fields.usage.start + open === start + USAGE.length - 1 ? { start, end } : null
}

/** After the brace that closes the one at `open`; usage has numbers only, no strings. -1: none. */
const objectEnd = (event: Buffer, open: number): number => {
  let depth = 0
  for (let at = open; at < event.length; at += 1) {
    if (event[at] === OPEN) depth += 1
    if (event[at] !== CLOSE) continue
    depth -= 1
    if (depth === 0) return at + 1
  }
  return -1
}

const completionAt = (event: Buffer, { start, end }: Range): number | null => {
  const at = event.indexOf(COMPLETION, start)
  if (at === -1 || at >= end) return null
  let value = 0
  for (let digit = at + COMPLETION.length; digit < end; digit += 1) {
    const byte = event[digit] ?? 0
    if (byte < ZERO || byte > NINE) break
    value = value * 10 + byte - ZERO
  }
  return value
}
