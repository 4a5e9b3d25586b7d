/** One chat request as a caller makes it: streamed, timed, and judged by how it ended. */
import { type Dispatcher, errors, request } from 'undici'
import type { Clock } from '../clock.ts'
import { engineError, engineErrorEvent } from '../core/engine-error.ts'
import { fieldsOf, type SseEvent, SseScanner } from '../core/sse.ts'
import { ABORTED, StreamWatch } from '../core/usage.ts'
import type { PlannedRequest } from './sessions.ts'

/**
 * `refused`: turned away before any answer (4xx, 503). `error`: a failure, as status or inside the
 * stream. `cut`: an answer that began and did not end. `timeout`: we gave up. `left`: still open
 * when the rehearsal was ended.
 */
export type Outcome = 'ok' | 'refused' | 'error' | 'cut' | 'timeout' | 'left'

/** Times in real milliseconds; null: not seen, not told. */
export type Answered = {
  readonly outcome: Outcome
  /** Empty for `ok`; else `429 rate_limit_exceeded`, `no connection: ECONNREFUSED`. */
  readonly detail: string
  /** `x-penstock-model`: who answered; null when the endpoint is no Penstock. */
  readonly answeredBy: string | null
  /** `x-penstock-spillover`: why somebody else answered. */
  readonly spilled: string | null
  readonly retryAfterSeconds: number | null
  readonly ttftMs: number | null
  readonly tpotMs: number | null
  readonly promptTokens: number | null
  readonly cachedTokens: number | null
  readonly completionTokens: number | null
}

export type RequestAsk = {
  /** With `/v1`. */
  readonly baseUrl: string
  readonly key: string | null
  readonly planned: PlannedRequest
  /** Ask the engine not to stop before the wanted length. */
  readonly exact: boolean
  readonly timeoutMs: number
  readonly dispatcher: Dispatcher
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** The longest event that a real engine sends is its usage with logprobs; far below this. */
const EVENT_BYTES_MAX = 1024 * 1024
const ERROR_BYTES_MAX = 64 * 1024

const NOTHING = {
  answeredBy: null,
  spilled: null,
  retryAfterSeconds: null,
  ttftMs: null,
  tpotMs: null,
  promptTokens: null,
  cachedTokens: null,
  completionTokens: null,
} as const

type Heads = Pick<Answered, 'answeredBy' | 'spilled' | 'retryAfterSeconds'>
type How = Pick<Answered, 'outcome' | 'detail'>
type Measured = Omit<Answered, keyof Heads | keyof How>

/** Never throws: however it ends, that is its answer. */
export const ask = async (asked: RequestAsk): Promise<Answered> => {
  const { clock, signal, timeoutMs } = asked
  const late = AbortSignal.timeout(Math.min(timeoutMs, 2 ** 31 - 1))
  const course = new Course(clock)
  let heads: Heads = NOTHING
  try {
    const answer = await send(asked, AbortSignal.any([signal, late]))
    heads = headsOf(answer.headers)
    if (answer.statusCode !== 200) return { ...NOTHING, ...heads, ...(await refusal(answer)) }
    // Read to the end, past [DONE] too: a body left unread costs its connection.
    for await (const chunk of answer.body) if (chunk instanceof Uint8Array) course.see(chunk)
    const how = course.end ?? { outcome: 'cut', detail: 'the stream ended without [DONE]' }
    return { ...heads, ...course.measured(), ...how }
  } catch (error) {
    const ends = { left: signal.aborted, late: late.aborted, began: course.began }
    return { ...heads, ...course.measured(), ...(course.end ?? failure(error, ends)) }
  }
}

const send = (asked: RequestAsk, signal: AbortSignal): Promise<Dispatcher.ResponseData> => {
  const { planned, exact, key, dispatcher } = asked
  const body = {
    model: planned.model,
    messages: planned.messages,
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: planned.answerTokens,
    ...(exact ? { ignore_eos: true } : {}),
  }
  return request(`${asked.baseUrl}/chat/completions`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream',
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
    },
    body: JSON.stringify(body),
    dispatcher,
    signal,
    headersTimeout: 0,
    bodyTimeout: 0,
  })
}

type RawHeaders = Readonly<Record<string, string | string[] | undefined>>

const headsOf = (headers: RawHeaders): Heads => {
  const one = (name: string): string | null => {
    const value = headers[name]
    return typeof value === 'string' ? value.slice(0, 200) : null
  }
  const seconds = Number(one('retry-after') ?? Number.NaN)
  return {
    answeredBy: one('x-penstock-model'),
    spilled: one('x-penstock-spillover'),
    retryAfterSeconds: Number.isFinite(seconds) && seconds >= 0 ? seconds : null,
  }
}

const refusal = async ({ statusCode, body }: Dispatcher.ResponseData): Promise<How> => {
  let text = ''
  for await (const chunk of body) {
    text += String(chunk)
    if (text.length > ERROR_BYTES_MAX) break
  }
  const { code } = engineError(statusCode, text).body.error
  const outcome = statusCode < 500 || statusCode === 503 ? 'refused' : 'error'
  return { outcome, detail: code === null ? `${statusCode}` : `${statusCode} ${code}` }
}

/** The course of one stream: when tokens came, and how it said that it ended. */
class Course {
  readonly #clock: Clock
  readonly #startMs: number
  readonly #watch = new StreamWatch()
  readonly #scanner = new SseScanner(EVENT_BYTES_MAX)
  #firstMs: number | null = null
  #lastMs: number | null = null
  #end: How | null = null

  constructor(clock: Clock) {
    this.#clock = clock
    this.#startMs = clock.monotonic()
  }

  get began(): boolean {
    return this.#firstMs !== null
  }

  /** Null until the stream has said how it ended. */
  get end(): How | null {
    return this.#end
  }

  see(chunk: Uint8Array): void {
    if (this.#end !== null) return
    const step = this.#scanner.push(chunk)
    if (step === null) {
      this.#end = { outcome: 'error', detail: 'an event without end' }
      return
    }
    for (const event of step.events) this.#event(step.bytes, event)
  }

  #event(bytes: Uint8Array, event: SseEvent): void {
    if (this.#end !== null) return
    const kind = this.#watch.see(bytes, event)
    if (kind === 'done') this.#end = this.#whole()
    if (kind === 'token') {
      this.#lastMs = this.#clock.monotonic()
      this.#firstMs ??= this.#lastMs
    }
    if (kind !== 'error') return
    const { status, body } = engineErrorEvent(fieldsOf(bytes, event).data ?? '')
    this.#end = { outcome: 'error', detail: `in the stream: ${body.error.code ?? status}` }
  }

  #whole(): How {
    const { finishReason } = this.#watch.ending()
    if (finishReason === ABORTED) return { outcome: 'cut', detail: 'the engine gave it up' }
    return this.began
      ? { outcome: 'ok', detail: '' }
      : { outcome: 'error', detail: 'an answer without a token' }
  }

  measured(): Measured {
    const { usage } = this.#watch.ending()
    const tokens = usage?.completionTokens ?? null
    const [first, last] = [this.#firstMs, this.#lastMs]
    const timed = first !== null && last !== null && tokens !== null && tokens > 1
    return {
      ttftMs: first === null ? null : first - this.#startMs,
      tpotMs: timed ? (last - first) / (tokens - 1) : null,
      promptTokens: usage?.promptTokens ?? null,
      cachedTokens: usage?.cachedTokens ?? null,
      completionTokens: tokens,
    }
  }
}

type Ends = { readonly left: boolean; readonly late: boolean; readonly began: boolean }

const failure = (error: unknown, ends: Ends): How => {
  if (ends.left) return { outcome: 'left', detail: 'still open at the end' }
  const where = ends.began ? 'after the first token' : 'before the first token'
  if (ends.late) return { outcome: 'timeout', detail: where }
  const code = codeOf(error)
  if (ends.began) return { outcome: 'cut', detail: `connection lost: ${code}` }
  return { outcome: 'error', detail: `no answer: ${code}` }
}

const codeOf = (error: unknown): string => {
  if (error instanceof errors.UndiciError) return error.code
  if (error instanceof Error && 'code' in error) return String(error.code)
  return error instanceof Error ? error.name : 'unknown'
}
