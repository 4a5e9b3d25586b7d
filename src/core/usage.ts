/**
 * What an answer says about itself: first token, finish reason, usage. A stream is watched without
 * parsing it: an event is parsed only until the first token has been seen, when its beginning is
 * unusual, and at the end, when the last two events are read (both engines send the finish reason
 * and then the usage right before [DONE]; engines.md 5.1).
 */
import { type Range, scanObject, valueAt } from './body.ts'
import { fieldsOf, type SseEvent } from './sse.ts'

export type Usage = {
  readonly promptTokens: number | null
  readonly completionTokens: number | null
  readonly cachedTokens: number | null
  readonly reasoningTokens: number | null
}

export type Ending = { readonly finishReason: string | null; readonly usage: Usage | null }

export type EventKind = 'token' | 'done' | 'error' | 'other'

const decoder = new TextDecoder()
/** How an ordinary chunk of either engine begins. */
const ORDINARY = [...'data: {"id":"'].map((character) => character.charCodeAt(0))
/** A longer body is not parsed as a whole, and longer choices not at all: for usage only. */
const PARSED_BYTES_MAX = 16_384
const CHOICES_BYTES_MAX = 262_144

export class StreamWatch {
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
export const endingOfBody = (bytes: Uint8Array): Ending => {
  if (bytes.length <= PARSED_BYTES_MAX) {
    const value = parsed(bytes)
    return { finishReason: finishReasonOf(value), usage: usageOf(record(value)?.usage) }
  }
  const scan = scanObject(bytes, ['usage', 'choices'])
  if (!scan.ok) return { finishReason: null, usage: null }
  const { usage, choices } = scan.fields
  const small = choices !== undefined && choices.end - choices.start <= CHOICES_BYTES_MAX
  return {
    finishReason: small ? finishReasonOf({ choices: valueAt(bytes, choices) }) : null,
    usage: usage === undefined ? null : usageAt(bytes, usage),
  }
}

const usageAt = (bytes: Uint8Array, range: Range): Usage | null => usageOf(valueAt(bytes, range))

/** OpenAI's usage object, with SGLang's top-level `reasoning_tokens` (engines.md 5.1). */
export const usageOf = (value: unknown): Usage | null => {
  const usage = record(value)
  if (usage === null) return null
  const prompt = record(usage.prompt_tokens_details)
  const completion = record(usage.completion_tokens_details)
  return {
    promptTokens: count(usage.prompt_tokens),
    completionTokens: count(usage.completion_tokens),
    cachedTokens: count(prompt?.cached_tokens),
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

const isErrorEvent = (name: string, value: unknown): boolean => {
  const body = record(value)
  if (name === 'error') return true
  if (body === null) return false
  return (body.error !== undefined && body.error !== null) || body.object === 'error'
}

const choicesOf = (value: unknown): readonly Readonly<Record<string, unknown>>[] => {
  const choices = record(value)?.choices
  return Array.isArray(choices) ? choices.filter(isRecord) : []
}

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
