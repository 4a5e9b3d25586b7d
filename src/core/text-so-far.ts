/**
 * The text of a stream as it passes, for going on with it elsewhere: kept as it stands in the
 * events, JSON escapes and all, so that an ordinary event costs a few searches and no parsing. It
 * stops at whatever is not plain text of one choice: thoughts, tool calls, log probabilities.
 */
import { fieldsOf, type SseEvent } from './sse.ts'
import { parsed, record } from './usage.ts'

/** Of one answer: a hundred thousand tokens of English, half as many of Chinese. */
const TEXT_BYTES_MAX = 1024 * 1024
const FIRST_BYTES = 4_096

const HEAD = 'data: {"id":"'
const KEYS = { chat: '"content":"', completion: '"text":"' }
/** In any of these a search is not enough. Inside a string every quote is escaped. */
const SPECIALS = [
  '"reasoning":"',
  '"reasoning_content":"',
  '"tool_calls":[',
  '"finish_reason":"',
  '"logprobs":{',
]
const USAGE = '"usage":{'
const FIRST_CHOICE = '"index":0'

/** Of the first event; the rest of the answer keeps them. */
export type Identity = {
  readonly id: unknown
  readonly created: unknown
  readonly model: unknown
}

export class TextSoFar {
  readonly kind: 'chat' | 'completion'
  #identity: Identity | null = null
  #bytes = Buffer.alloc(0)
  #length = 0
  #events = 0
  /** Of the last ordinary event: what stands before its text, and after it up to its usage. */
  #shape: { readonly head: Uint8Array; readonly tail: Uint8Array } | null = null
  #said = false
  #plain = true

  constructor(kind: 'chat' | 'completion') {
    this.kind = kind
  }

  /** Null: no event has named them. */
  get identity(): Identity | null {
    return this.#identity
  }

  /** Events with data so far: the client has begun to read the answer. */
  get events(): number {
    return this.#events
  }

  /** Has any token been shown? */
  get said(): boolean {
    return this.#said
  }

  /** All that was shown is in `text`, and the answer has not ended. */
  get plain(): boolean {
    return this.#plain
  }

  /** Memory that is held. */
  get size(): number {
    return this.#bytes.length
  }

  get text(): string {
    return String(JSON.parse(`"${this.#bytes.toString('utf8', 0, this.#length)}"`))
  }

  add(bytes: Uint8Array, { start, end }: SseEvent): void {
    if ((this.#said && !this.#plain) || this.#addAlike(bytes, start, end)) return
    const event = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)
    if (this.#events > 0 && this.#addOrdinary(event)) return
    const { data } = fieldsOf(event, { start: 0, end: event.length })
    if (data !== null) this.#addParsed(parsed(data))
  }

  /** False: not an event of the usual form. */
  #addOrdinary(event: Buffer): boolean {
    // A byte a character, so that places are the same: a string is searched faster.
    const text = event.toString('latin1')
    if (!text.startsWith(HEAD) || !text.includes(FIRST_CHOICE)) return false
    const key = KEYS[this.kind]
    const at = text.indexOf(key)
    if (at === -1 || SPECIALS.some((special) => text.includes(special))) return false
    const from = at + key.length
    const to = stringEnd(text, from)
    if (to === -1 || text.includes(key, to) || !isClosed(text)) return false
    if (to > from) this.#append(event.subarray(from, to))
    const usage = text.indexOf(USAGE, to)
    this.#shape = {
      head: Uint8Array.from(event.subarray(0, from)),
      tail: Uint8Array.from(event.subarray(to, usage === -1 ? event.length : usage)),
    }
    return true
  }

  /** Like the event before, byte for byte, but for the text itself and the counts behind it. */
  #addAlike(bytes: Uint8Array, start: number, end: number): boolean {
    if (this.#shape === null) return false
    const { head, tail } = this.#shape
    if (!matches(bytes, start, head)) return false
    const from = start + head.length
    let to = from
    while (to < end && bytes[to] !== QUOTE) to += bytes[to] === BACKSLASH ? 2 : 1
    if (to + tail.length > end || !matches(bytes, to, tail)) return false
    let last = end - 1
    while (bytes[last] === LF || bytes[last] === CR) last -= 1
    if (bytes[last] !== CLOSE) return false
    this.#append(bytes.subarray(from, to))
    return true
  }

  #addParsed(value: unknown): void {
    const chunk = record(value)
    this.#events += 1
    if (chunk === null) {
      // Whatever that was, the client has it and we do not.
      this.#said = true
      this.#plain = false
      return
    }
    this.#identity ??= { id: chunk.id, created: chunk.created, model: chunk.model }
    const choices = Array.isArray(chunk.choices) ? chunk.choices : []
    for (const one of choices) {
      const choice = record(one)
      if (choice !== null) this.#addChoice(choice)
    }
  }

  #addChoice(choice: Readonly<Record<string, unknown>>): void {
    const delta = record(choice.delta) ?? choice
    const text = this.kind === 'chat' ? delta.content : delta.text
    if (filled(text)) this.#said = true
    if (typeof text === 'string') this.#append(Buffer.from(JSON.stringify(text).slice(1, -1)))
    if ((choice.index ?? 0) !== 0 || filled(choice.finish_reason)) this.#plain = false
    if (record(choice.logprobs) !== null) this.#plain = false
    for (const [key, other] of Object.entries(record(choice.delta) ?? {})) {
      if (key === 'role' || key === 'content' || !filled(other)) continue
      this.#said = true
      this.#plain = false
    }
  }

  #append(piece: Uint8Array): void {
    if (piece.length === 0) return
    this.#said = true
    const length = this.#length + piece.length
    if (!this.#plain || length > TEXT_BYTES_MAX) {
      this.#plain = false
      this.#bytes = Buffer.alloc(0)
      this.#length = 0
      return
    }
    if (length > this.#bytes.length) {
      const size = Math.min(TEXT_BYTES_MAX, Math.max(FIRST_BYTES, length, this.#bytes.length * 2))
      const larger = Buffer.allocUnsafeSlow(size)
      this.#bytes.copy(larger, 0, 0, this.#length)
      this.#bytes = larger
    }
    this.#bytes.set(piece, this.#length)
    this.#length = length
  }
}

const [QUOTE, BACKSLASH, CLOSE, LF, CR] = [0x22, 0x5c, 0x7d, 0x0a, 0x0d]

const matches = (bytes: Uint8Array, from: number, expected: Uint8Array): boolean => {
  for (let at = 0; at < expected.length; at += 1) {
    if (bytes[from + at] !== expected[at]) return false
  }
  return true
}

/** Does it end as an object does? */
const isClosed = (text: string): boolean => {
  let at = text.length - 1
  while (text[at] === '\n' || text[at] === '\r') at -= 1
  return text[at] === '}'
}

/** Where the JSON string that begins at `from` ends; -1: not in this event. */
const stringEnd = (text: string, from: number): number => {
  let at = text.indexOf('"', from)
  while (at !== -1) {
    let slashes = 0
    while (text[at - 1 - slashes] === '\\') slashes += 1
    if (slashes % 2 === 0) return at
    at = text.indexOf('"', at + 1)
  }
  return -1
}

const filled = (value: unknown): boolean =>
  (typeof value === 'string' || Array.isArray(value)) && value.length > 0
