/**
 * What an answer says about itself: first token, finish reason, usage. A stream is watched without
 * parsing it: an event is parsed only until the first token has been seen, when its beginning is
 * unusual, and at the end, when the last two events are read (both engines send the finish reason
 * and then the usage right before [DONE]; engines.md 5.1).
 */
import { type Range, scanObject, valueAt } from './body.ts'
import { CHAT, type FinishField, type Protocol } from './protocol.ts'
import { fieldsOf, type SseEvent } from './sse.ts'

export type Usage = {
  readonly promptTokens: number | null
  readonly completionTokens: number | null
  readonly cachedTokens: number | null
  readonly reasoningTokens: number | null
}

export type Ending = { readonly finishReason: string | null; readonly usage: Usage | null }

export type EventKind = 'token' | 'done' | 'error' | 'other'

/** One stream, watched: whatever its protocol, the gateway asks these. */
export type Watch = {
  /** What kind of event this is. May keep a reference to its bytes. */
  see(bytes: Uint8Array, event: SseEvent): EventKind
  ending(): Ending
  /** The id under which the engine keeps the answer; null: none seen, or the API has none. */
  readonly id: string | null
  /** `sequence_number` of the newest event; null where events are not numbered. */
  readonly sequence: number | null
}

const decoder = new TextDecoder()
/** How an ordinary chunk of either engine begins. */
const ORDINARY = [...'data: {"id":"'].map((character) => character.charCodeAt(0))
/** A longer body is not parsed as a whole, and longer choices not at all: for usage only. */
const PARSED_BYTES_MAX = 16_384
const CHOICES_BYTES_MAX = 262_144

/** Watches chat and completions. */
export class StreamWatch implements Watch {
  readonly id = null
  readonly sequence = null
  #firstTokenSeen = false
  #last: Uint8Array | null = null
  #beforeLast: Uint8Array | null = null

  get firstTokenSeen(): boolean {
    return this.#firstTokenSeen
  }

  /** What kind of event this is. Keeps a reference to its bytes, not a copy. */
  see(bytes: Uint8Array, event: SseEvent): EventKind {
    if (this.#firstTokenSeen && isOrdinary(bytes, event)) {
      this.#remember(bytes, event)
      return 'token'
    }
    const { name, data } = fieldsOf(bytes, event)
    if (data === null) return 'other'
    if (data.trimEnd() === '[DONE]') return 'done'
    const value = parsed(data)
    if (isErrorEvent(name, value)) return 'error'
    this.#remember(bytes, event)
    if (!this.#firstTokenSeen) this.#firstTokenSeen = hasToken(value)
    return this.#firstTokenSeen ? 'token' : 'other'
  }

  ending(): Ending {
    const tail = [this.#beforeLast, this.#last].map((bytes) =>
      bytes === null ? null : parsed(fieldsOf(bytes, { start: 0, end: bytes.length }).data ?? ''),
    )
    return {
      finishReason: firstOf(tail.map(finishReasonOf).reverse()),
      usage: firstOf(tail.map((value) => usageOf(record(value)?.usage)).reverse()),
    }
  }

  #remember(bytes: Uint8Array, event: SseEvent): void {
    this.#beforeLast = this.#last
    this.#last = bytes.subarray(event.start, event.end)
  }
}

/**
 * The finish reason of an answer that the engine gave up, as vLLM does on SIGTERM: text so far,
 * then `abort`, then [DONE] (recorded: test/fixtures/vllm-0.32.0). It looks complete and is not.
 */
export const ABORTED = 'abort'

/** Finish reason and usage of a whole JSON answer; nulls when it has none or is not JSON. */
export const endingOfBody = (
  bytes: Uint8Array,
  { finish }: Pick<Protocol, 'finish'> = CHAT,
  engine = '',
): Ending => {
  if (bytes.length <= PARSED_BYTES_MAX) {
    const value = record(parsed(bytes))
    return { finishReason: finishOf(finish, value), usage: usageOf(value?.usage, engine) }
  }
  const scan = scanObject(bytes, ['usage', ...FINISH_KEYS])
  if (!scan.ok) return { finishReason: null, usage: null }
  const { usage } = scan.fields
  const said = FINISH_KEYS.flatMap((key): [string, unknown][] => {
    const range = scan.fields[key]
    const small = range !== undefined && range.end - range.start <= CHOICES_BYTES_MAX
    return small ? [[key, valueAt(bytes, range)]] : []
  })
  return {
    finishReason: finishOf(finish, Object.fromEntries(said)),
    usage: usage === undefined ? null : usageAt(bytes, usage, engine),
  }
}

/** The id of a whole answer; null: it has none. */
export const idOfBody = (bytes: Uint8Array): string | null => {
  const scan = scanObject(bytes, ['id'])
  const range = scan.ok ? scan.fields.id : undefined
  const id = range === undefined ? null : valueAt(bytes, range)
  return typeof id === 'string' ? id : null
}

const FINISH_KEYS = ['choices', 'stop_reason', 'status', 'incomplete_details'] as const

/** Why an answer ended, in the field where its API says so. ABORTED: it is not whole. */
export const finishOf = (
  field: FinishField,
  value: Readonly<Record<string, unknown>> | null,
): string | null => {
  if (value === null || field === 'none') return null
  if (field === 'choices') return finishReasonOf(value)
  if (field === 'stop_reason') {
    // vLLM has no word of Anthropic's for an answer that it gave up, and says null.
    return value.stop_reason === null ? ABORTED : textOrNull(value.stop_reason)
  }
  if (value.status === 'cancelled') return ABORTED
  return textOrNull(record(value.incomplete_details)?.reason) ?? textOrNull(value.status)
}

const usageAt = (bytes: Uint8Array, range: Range, engine: string): Usage | null =>
  usageOf(valueAt(bytes, range), engine)

/**
 * OpenAI's usage object, with SGLang's top-level `reasoning_tokens` (engines.md 5.1), the Responses
 * API's, and Anthropic's, whose `input_tokens` leave out what was read from the cache or written to
 * it; SGLang's include it there, too.
 */
export const usageOf = (value: unknown, engine = ''): Usage | null => {
  const usage = record(value)
  if (usage === null) return null
  const prompt = record(usage.prompt_tokens_details) ?? record(usage.input_tokens_details)
  const completion = record(usage.completion_tokens_details) ?? record(usage.output_tokens_details)
  const input = count(usage.input_tokens)
  const apart = ['cache_read_input_tokens', 'cache_creation_input_tokens'] as const
  const cache = engine === 'sglang' ? [] : apart.map((key) => count(usage[key]) ?? 0)
  const whole = input === null ? null : cache.reduce((sum, tokens) => sum + tokens, input)
  return {
    promptTokens: count(usage.prompt_tokens) ?? whole,
    completionTokens: count(usage.completion_tokens) ?? count(usage.output_tokens),
    cachedTokens: count(prompt?.cached_tokens) ?? count(usage.cache_read_input_tokens),
    reasoningTokens: count(completion?.reasoning_tokens) ?? count(usage.reasoning_tokens),
  }
}

/** Is there text, reasoning or a tool call in it? The first chunk has only the role. */
export const hasToken = (value: unknown): boolean =>
  choicesOf(value).some((choice) => {
    const delta = record(choice.delta) ?? record(choice.message)
    if (delta === null) return filled(choice.text)
    const { content, reasoning, reasoning_content: reasoningContent, tool_calls: calls } = delta
    return filled(content) || filled(reasoning) || filled(reasoningContent) || filled(calls)
  })

const finishReasonOf = (value: unknown): string | null =>
  firstOf(
    choicesOf(value).map(({ finish_reason: reason }) =>
      typeof reason === 'string' ? reason : null,
    ),
  )

export const record = (value: unknown): Readonly<Record<string, unknown>> | null =>
  isRecord(value) ? value : null

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isOrdinary = (bytes: Uint8Array, event: SseEvent): boolean => {
  for (let index = 0; index < ORDINARY.length; index += 1) {
    if (bytes[event.start + index] !== ORDINARY[index]) return false
  }
  return true
}

export const isErrorEvent = (name: string, value: unknown): boolean => {
  const body = record(value)
  if (name === 'error') return true
  if (body === null) return false
  return (body.error !== undefined && body.error !== null) || body.object === 'error'
}

const choicesOf = (value: unknown): readonly Readonly<Record<string, unknown>>[] => {
  const choices = record(value)?.choices
  return Array.isArray(choices) ? choices.filter(isRecord) : []
}

const textOrNull = (value: unknown): string | null => (typeof value === 'string' ? value : null)

const filled = (value: unknown): boolean =>
  (typeof value === 'string' || Array.isArray(value)) && value.length > 0

const count = (value: unknown): number | null =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null

const firstOf = <Value>(values: readonly (Value | null)[]): Value | null =>
  values.find((value) => value !== null) ?? null

/** Parsed JSON, or null: an event that is not JSON is passed on and says nothing. */
export const parsed = (text: string | Uint8Array): unknown => {
  const source = typeof text === 'string' ? text : decoder.decode(text)
  try {
    return JSON.parse(source)
  } catch {
    return null
  }
}
