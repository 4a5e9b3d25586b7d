/**
 * The answers that the gateway gives itself. All go through here, so that each has a request id,
 * a length, OpenAI's error shape and the same rules for retrying.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { EngineError } from '../core/engine-error.ts'
import { shownError } from '../core/error-dialect.ts'
import type { ErrorDialect } from '../core/protocol.ts'
import { type Blame, blameOfStatus } from '../core/retry.ts'
import { type ErrorBody, type ErrorCode, errorBody, PenstockError } from '../errors.ts'
import { RateLimited } from './rate-limited.ts'
import { type Backoff, retryHeaders } from './retry-after.ts'
import { Saturated } from './saturated.ts'

export type Headers = Readonly<Record<string, string | number>>
export type Failure = {
  readonly status: number
  readonly body: ErrorBody
  readonly headers: Headers
  /** What the report calls it. */
  readonly reason: string
  /** Set when it is not the client's mistake: another may answer in place of who failed. */
  readonly blame?: Blame
}

/** Whom we answer. */
export type Caller = {
  readonly id: string
  /** A browser asks from another site. */
  readonly origin: boolean
  /** In whose shape errors are expected. */
  readonly errors: ErrorDialect
}

/** All that an answer of ours may carry, for pages of other sites to read. */
const EXPOSED = [
  'x-request-id',
  'x-penstock-model',
  'x-penstock-replica',
  'x-penstock-spillover',
  'retry-after',
  'x-penstock-parameters',
  'x-penstock-queue-ms',
  'x-penstock-fallback',
  'retry-after-ms',
  'x-should-retry',
  'x-ratelimit-limit-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-requests',
  'x-ratelimit-reset-tokens',
  'request-id',
].join(', ')

/** Keys are sent by the page itself, never by the browser: any origin may ask. */
const CORS: Headers = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': EXPOSED,
}

/** Anthropic's SDKs look for `request-id`. */
export const baseHeaders = ({ id, origin, errors }: Caller): Record<string, string | number> => ({
  'x-request-id': id,
  ...(errors === 'anthropic' ? { 'request-id': id } : {}),
  ...(origin ? CORS : {}),
})

export const sendJson = (
  res: ServerResponse,
  caller: Caller,
  { status, body, headers }: { status: number; body: unknown; headers?: Headers },
): void => {
  const bytes = Buffer.from(JSON.stringify(body))
  res.writeHead(status, {
    ...baseHeaders(caller),
    'content-type': 'application/json',
    'content-length': bytes.length,
    ...headers,
  })
  res.end(bytes)
}

export const sendFailure = (res: ServerResponse, caller: Caller, failure: Failure): void => {
  const { status, headers } = failure
  sendJson(res, caller, { status, body: bodyFor(caller, failure), headers })
}

const bodyFor = ({ errors, id }: Caller, { status, body }: Failure): object =>
  shownError(errors, { status, body, id })

/** Seconds after which asking again can help; SDKs obey up to 60 (gateways.md 5.2). */
const RETRY_AFTER_SECONDS: Readonly<Partial<Record<ErrorCode, number>>> = {
  model_unavailable: 5,
  server_draining: 1,
}

const HEADERS: Readonly<Partial<Record<ErrorCode, Headers>>> = {
  invalid_api_key: { 'www-authenticate': 'Bearer' },
  server_draining: { connection: 'close' },
  request_timeout: { connection: 'close' },
}

/** A failure as a client sees it. What is not ours is a bug, and its text stays inside. */
export const failureOf = (error: unknown): Failure => {
  if (!(error instanceof PenstockError)) {
    const message = 'the gateway failed on this request'
    return { status: 500, body: errorBody('internal_error', message), headers: {}, reason: 'bug' }
  }
  if (error instanceof RateLimited) {
    const { error: body } = errorBody(error.code, error.message)
    return {
      status: error.status,
      body: { error: { ...body, type: error.type } },
      headers: error.headers(),
      reason: error.code,
    }
  }
  const { code, message, status, place } = error
  return {
    status,
    body: errorBody(code, message, place.param),
    headers: { ...HEADERS[code], ...waitOf(error) },
    reason: code,
    ...blameOf(code),
  }
}

/** Of the codes with which an attempt can fail. */
const BLAMED: Readonly<Partial<Record<ErrorCode, Blame['kind']>>> = {
  upstream_error: 'error',
  upstream_invalid: 'error',
  stream_interrupted: 'error',
  upstream_timeout: 'timeout',
  stream_stalled: 'timeout',
}

const blameOf = (code: ErrorCode): { readonly blame?: Blame } => {
  const kind = BLAMED[code]
  return kind === undefined ? {} : { blame: { kind, status: null } }
}

/** `backoff`: what the engine itself says about trying again; it knows better than we do. */
export const failureOfEngine = (error: EngineError, backoff: Backoff | null = null): Failure => {
  const { status, body, retryAfterSeconds } = error
  const asked = backoff?.waitMs ?? null
  const headers = asked === null ? retryIn(retryAfterSeconds) : retryHeaders(asked)
  const shouldRetry = backoff?.shouldRetry ?? null
  // A queue that is full reads like a replica that is not there (core/engine-error.ts).
  const busy = body.error.code === 'model_unavailable'
  const blame = blameOfStatus(status, { engineStatus: status, busy })
  return {
    ...(blame === null ? {} : { blame }),
    status,
    body,
    headers: shouldRetry === null ? headers : { ...headers, 'x-should-retry': shouldRetry },
    reason: body.error.code ?? body.error.type,
  }
}

const waitOf = (error: PenstockError): Headers =>
  error instanceof Saturated
    ? retryHeaders(error.waitMs)
    : retryIn(RETRY_AFTER_SECONDS[error.code] ?? null)

const retryIn = (seconds: number | null): Headers =>
  seconds === null ? {} : retryHeaders(seconds * 1000)

/** How long and how much of an oversized upload is thrown away so that its sender reads why. */
const LINGER_MS = 10_000
const LINGER_BYTES = 64 * 1024 * 1024

/**
 * Answers while the client still sends. Closing a socket with unread bytes in it resets the
 * connection, and the client may never see the answer: so the answer goes out whole, the upload
 * is read and dropped up to a limit, and only then is the connection closed.
 */
export const sendAndLinger = (
  req: IncomingMessage,
  res: ServerResponse,
  { caller, failure }: { caller: Caller; failure: Failure },
): void => {
  if (req.complete) {
    sendFailure(res, caller, failure)
    return
  }
  const bytes = Buffer.from(JSON.stringify(bodyFor(caller, failure)))
  res.writeHead(failure.status, {
    ...baseHeaders(caller),
    'content-type': 'application/json',
    'content-length': bytes.length,
    ...failure.headers,
  })
  res.write(bytes)
  let left = LINGER_BYTES
  const close = (): void => {
    clearTimeout(timer)
    res.end()
  }
  const timer = setTimeout(close, LINGER_MS)
  req.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) close()
  })
  req.once('end', close)
  req.once('close', close)
  req.resume()
}
