/**
 * Engine errors in, OpenAI errors out. vLLM nests its error and sends an integer code, SGLang's is
 * flat and has no envelope (so SDKs lose its message), FastAPI says `detail`, proxies send HTML,
 * and SGLang reports a full queue inside a 200 stream (engines.md 5.5 and 5.6).
 */
import { parsed, record } from './usage.ts'

export type EngineError = {
  readonly status: number
  /** OpenAI's error body; all four keys are always there. */
  readonly body: { readonly error: OpenAiError }
  /** Set when trying again soon can help. */
  readonly retryAfterSeconds: number | null
}

export type OpenAiError = {
  readonly message: string
  readonly type: string
  readonly param: string | null
  readonly code: string | null
}

/** Longer texts are dumps of the prompt or pages of HTML. */
const MESSAGE_LENGTH_MAX = 2_000
const INVALID = 'invalid_request_error'
const QUEUE_FULL = new RegExp(
  'queue is full|currently busy and cannot accept|too many (queued |pending )?requests|' +
    'higher priority request',
  'i',
)
const CONTEXT_LENGTH = new RegExp(
  'maximum context length|longer than the model.s context length|context_length_exceeded|' +
    'exceeds? the (model.s )?(maximum )?context',
  'i',
)
/** A full engine queue moves within a second or two. */
const QUEUE_FULL_RETRY_SECONDS = 2

type Details = {
  readonly message: string
  readonly type: string | null
  readonly param: string | null
  readonly code: string | number | null
}

/** An answer other than 200, with as much of its body as was read. */
export const engineError = (status: number, text: string): EngineError =>
  shaped(status, detailsOf(text))

/** The data of an error event. Its status comes from its code, else 502. */
export const engineErrorEvent = (data: string): EngineError => {
  const details = detailsOf(data)
  const code = Number(details.code)
  const isStatus = Number.isInteger(code) && code >= 400 && code <= 599
  return shaped(isStatus ? code : statusOfType(details.type), details)
}

const shaped = (engineStatus: number, details: Details): EngineError => {
  const { message } = details
  if (QUEUE_FULL.test(message)) {
    const full = ours(503, 'model_unavailable', message)
    return { ...full, retryAfterSeconds: QUEUE_FULL_RETRY_SECONDS }
  }
  if (CONTEXT_LENGTH.test(message)) {
    const error = { message, type: INVALID, param: 'messages', code: 'context_length_exceeded' }
    return { status: 400, body: { error }, retryAfterSeconds: null }
  }
  // The caller's key was good here: an engine that wants another is our fault, not the caller's.
  if (engineStatus === 401 || engineStatus === 403) {
    const text = `the engine refused the gateway (${engineStatus}): ${message}`
    return ours(502, 'upstream_error', text)
  }
  if (engineStatus < 400 || engineStatus > 599) {
    return ours(502, 'upstream_invalid', `the engine answered ${engineStatus}: ${message}`)
  }
  const textual = typeof details.code === 'string' && !/^\d*$/.test(details.code)
  const code = textual ? String(details.code) : codeOfStatus(engineStatus)
  const error = { message, type: typeOfStatus(engineStatus), param: details.param, code }
  const retryAfterSeconds = engineStatus === 429 || engineStatus === 503 ? 1 : null
  return { status: engineStatus, body: { error }, retryAfterSeconds }
}

/** A code of the error table (src/errors.ts). */
const ours = (status: number, code: string, message: string): EngineError => {
  const error = { message: clipped(message), type: typeOfStatus(status), param: null, code }
  return { status, body: { error }, retryAfterSeconds: null }
}

/** For an engine that gives none. OpenAI has none for most mistakes in a request either. */
const codeOfStatus = (status: number): string | null => {
  if (status === 429) return 'rate_limit_exceeded'
  return status >= 500 ? 'upstream_error' : null
}

const typeOfStatus = (status: number): string => {
  // OpenAI's type of a 429 is what there was too much of; engines count requests only.
  if (status === 429) return 'requests'
  return status >= 500 ? 'server_error' : INVALID
}

const statusOfType = (type: string | null): number => {
  if (type !== null && /bad.?request|invalid/i.test(type)) return 400
  if (type !== null && /not.?found/i.test(type)) return 404
  return 502
}

const detailsOf = (text: string): Details => {
  const body = record(parsed(text))
  if (body === null) return plain(text)
  if (typeof body.error === 'string') return { ...plain(body.error), code: codeOf(body.code) }
  const failed = record(record(body.response)?.error)
  const error = record(body.error) ?? failed ?? body
  const message = string(error.message) ?? detailText(body.detail)
  if (message === null || message === '') return plain(text)
  return {
    message: clipped(message),
    type: string(error.type),
    param: string(error.param),
    code: codeOf(error.code),
  }
}

const codeOf = (value: unknown): string | number | null =>
  typeof value === 'string' || typeof value === 'number' ? value : null

/** FastAPI: a sentence, or a list of `{ loc, msg }`. */
const detailText = (detail: unknown): string | null => {
  if (typeof detail === 'string') return detail
  if (!Array.isArray(detail)) return null
  const lines = detail.map((item) => {
    const issue = record(item)
    const where = Array.isArray(issue?.loc) ? `${issue.loc.join('.')}: ` : ''
    return `${where}${string(issue?.msg) ?? 'invalid'}`
  })
  return lines.join('; ')
}

const plain = (text: string): Details => {
  const words = /^\s*</.test(text)
    ? (/<title>([^<]{1,200})<\/title>/i.exec(text)?.[1] ?? text.replace(/<[^>]{0,500}>/g, ' '))
    : text
  const message = clipped(words.replace(/\s+/g, ' ').trim())
  return {
    message: message === '' ? 'the engine reported an error without a message' : message,
    type: null,
    param: null,
    code: null,
  }
}

const clipped = (text: string): string =>
  text.length <= MESSAGE_LENGTH_MAX ? text : `${text.slice(0, MESSAGE_LENGTH_MAX)} …`

const string = (value: unknown): string | null => (typeof value === 'string' ? value : null)
