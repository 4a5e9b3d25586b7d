/**
 * Watches a stream whose events have names: the Responses API and Anthropic's Messages. Which event
 * says what stands in core/protocol.ts. An event with a piece of the answer is known by its name
 * and not parsed; the few others are.
 */
import type { FieldPath, FinishField, NamedEvents } from './protocol.ts'
import { fieldsOf, type SseEvent } from './sse.ts'
import {
  ABORTED,
  type Ending,
  type EventKind,
  finishOf,
  isErrorEvent,
  parsed,
  record,
  usageOf,
  type Watch,
} from './usage.ts'

const EVENT = new TextEncoder().encode('event: ')
const [LF, CR] = [0x0a, 0x0d]
/** Longer than any event's name. */
const NAME_BYTES_MAX = 100
const decoder = new TextDecoder()

export class NamedWatch implements Watch {
  readonly #events: NamedEvents
  readonly #finish: FinishField
  readonly #engine: string
  /** First line of the newest event with a piece of the answer: most are like the one before. */
  #tokenLine: Uint8Array | null = null
  #last: Uint8Array | null = null
  #usage: Readonly<Record<string, unknown>> | null = null
  #finishReason: string | null = null
  #id: string | null = null

  constructor(events: NamedEvents, finish: FinishField, engine: string) {
    this.#events = events
    this.#finish = finish
    this.#engine = engine
  }

  get id(): string | null {
    return this.#id
  }

  get sequence(): number | null {
    const bytes = this.#last
    if (bytes === null) return null
    const { data } = fieldsOf(bytes, { start: 0, end: bytes.length })
    const number = record(parsed(data ?? ''))?.sequence_number
    return typeof number === 'number' && Number.isSafeInteger(number) ? number : null
  }

  see(bytes: Uint8Array, event: SseEvent): EventKind {
    if (this.#tokenLine !== null && beginsWith(bytes, event, this.#tokenLine)) {
      this.#last = bytes.subarray(event.start, event.end)
      return 'token'
    }
    const line = nameLine(bytes, event)
    if (line !== null && this.#isToken(decoder.decode(line.subarray(EVENT.length, -1)))) {
      this.#tokenLine = line
      this.#last = bytes.subarray(event.start, event.end)
      return 'token'
    }
    const { name: named, data } = fieldsOf(bytes, event)
    if (data === null) return 'other'
    const value = parsed(data)
    const type = record(value)?.type
    const name = named === '' && typeof type === 'string' ? type : named
    // What is cut off in the middle says nothing, whatever its name.
    if (value === null) return name === 'error' ? 'error' : 'other'
    if (this.#events.failed.includes(name) || isErrorEvent(name, value)) return 'error'
    this.#last = bytes.subarray(event.start, event.end)
    this.#read(name, value)
    if (!this.#events.done.includes(name)) return this.#isToken(name) ? 'token' : 'other'
    // An end without a reason is that of an answer that was given up.
    if (this.#finish !== 'none') this.#finishReason ??= ABORTED
    return 'done'
  }

  ending(): Ending {
    return { finishReason: this.#finishReason, usage: usageOf(this.#usage, this.#engine) }
  }

  #isToken(name: string): boolean {
    const { start, end } = this.#events.token
    return name.startsWith(start) && name.endsWith(end)
  }

  #read(name: string, value: unknown): void {
    const { facts, finish } = this.#events
    const [fact, last] = [facts[name], finish[name]]
    if (last !== undefined) {
      this.#finishReason = finishOf(this.#finish, at(value, last)) ?? this.#finishReason
    }
    if (fact === undefined) return
    const object = at(value, fact)
    if (typeof object?.id === 'string') this.#id ??= object.id
    const final = last !== undefined
    // Before the end an answer's count is a placeholder, and SGLang's of the prompt, too.
    const said = Object.entries(record(object?.usage) ?? {}).filter(
      ([key, tokens]) => final || (key !== 'output_tokens' && tokens !== 0),
    )
    if (said.length > 0) this.#usage = { ...this.#usage, ...Object.fromEntries(said) }
  }
}

const at = (value: unknown, path: FieldPath): Readonly<Record<string, unknown>> | null =>
  path.reduce((object, key) => record(object?.[key]), record(value))

const beginsWith = (bytes: Uint8Array, { start, end }: SseEvent, line: Uint8Array): boolean => {
  if (end - start < line.length) return false
  for (let index = 0; index < line.length; index += 1) {
    if (bytes[start + index] !== line[index]) return false
  }
  return true
}

/** The event's first line with its end, where that is its name, as both engines have it. */
const nameLine = (bytes: Uint8Array, event: SseEvent): Uint8Array | null => {
  if (!beginsWith(bytes, event, EVENT)) return null
  const limit = Math.min(event.end, event.start + EVENT.length + NAME_BYTES_MAX)
  let to = event.start + EVENT.length
  while (to < limit && bytes[to] !== LF && bytes[to] !== CR) to += 1
  // A copy: the bytes around it are let go.
  return to < limit ? new Uint8Array(bytes.subarray(event.start, to + 1)) : null
}
