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

const HEAD = Buffer.from('data: {"id":"')
const KEYS = { chat: Buffer.from('"content":"'), completion: Buffer.from('"text":"') }
/** In any of these a search is not enough. Inside a string every quote is escaped. */
const SPECIAL = ['"reasoning":"', '"reasoning_content":"', '"tool_calls":[', '"finish_reason":"']
const SPECIALS = SPECIAL.map((text) => Buffer.from(text))
const FIRST_CHOICE = Buffer.from('"index":0')
const LOGPROBS = Buffer.from('"logprobs":{')
const [QUOTE, BACKSLASH, CLOSE, LF, CR] = [0x22, 0x5c, 0x7d, 0x0a, 0x0d]

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
    if (this.#said && !this.#plain) return
    const event = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start)
    if (this.#events > 0 && this.#addOrdinary(event)) return
    const { data } = fieldsOf(event, { start: 0, end: event.length })
    if (data !== null) this.#addParsed(parsed(data))
  }

  /** False: not an event of the usual form. */
  #addOrdinary(event: Buffer): boolean {
    if (HEAD.compare(event, 0, HEAD.length) !== 0) return false
    const key = KEYS[this.kind]
    const at = event.indexOf(key)
    if (at === -1 || SPECIALS.some((special) => event.includes(special))) return false
    if (event.includes(LOGPROBS) || !event.includes(FIRST_CHOICE)) return false
    const from = at + key.length
    const to = stringEnd(event, from)
    if (to === -1 || event.includes(key, to) || !isClosed(event)) return false
    if (to > from) this.#append(event.subarray(from, to))
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

/** Does it end as an object does? */
const isClosed = (event: Buffer): boolean => {
  let at = event.length - 1
  while (event[at] === LF || event[at] === CR) at -= 1
  return event[at] === CLOSE
}

/** Where the string that begins at `from` ends; -1: not in this event. */
const stringEnd = (event: Buffer, from: number): number => {
  let at = event.indexOf(QUOTE, from)
  while (at !== -1) {
    let slashes = 0
    while (event[at - 1 - slashes] === BACKSLASH) slashes += 1
    if (slashes % 2 === 0) return at
    at = event.indexOf(QUOTE, at + 1)
  }
  return -1
}

const filled = (value: unknown): boolean =>
  (typeof value === 'string' || Array.isArray(value)) && value.length > 0
