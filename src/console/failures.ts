/** The one place of the console that turns an error into an answer: OpenAI's error body. */
import type { FastifyInstance } from 'fastify'
import { ERRORS, type ErrorCode, errorBody, errorLine, PenstockError } from '../errors.ts'

/** What the console logs to; pino's loggers are one. */
export type ConsoleLog = {
  info(fields: Record<string, unknown>, message: string): void
  warn(fields: Record<string, unknown>, message: string): void
  error(fields: Record<string, unknown>, message: string): void
}

/** Fastify's own refusals, by its code, as ours. */
const FASTIFY: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'body_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'invalid_request',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'invalid_request',
  FST_ERR_CTP_INVALID_JSON_BODY: 'invalid_request',
  FST_ERR_BAD_URL: 'invalid_request',
  FST_ERR_MAX_PARAM_LENGTH: 'invalid_request',
}

/** Any thrown value as one of ours; null: a bug, whose text the caller does not get to see. */
const asPenstockError = (error: unknown): PenstockError | null => {
  if (error instanceof PenstockError) return error
  if (!(error instanceof Error)) return null
  const code = 'code' in error && typeof error.code === 'string' ? FASTIFY[error.code] : undefined
  if (code !== undefined) return new PenstockError(code, error.message, {}, error)
  // secure-json-parse: a syntax error, or a body that tries to set a prototype.
  const status = 'statusCode' in error ? error.statusCode : undefined
  if (status === 400) return new PenstockError('invalid_request', error.message, {}, error)
  return null
}

export const answerFailures = (app: FastifyInstance, log: ConsoleLog): void => {
  app.setErrorHandler((error, request, reply) => {
    const known = asPenstockError(error)
    if (known === null) log.error({ err: error, request: request.id }, 'console request failed')
    const code = known?.code ?? 'internal_error'
    const message = known === null ? internal(request.id) : errorLine(known)
    reply.header('x-request-id', request.id)
    if (code === 'invalid_api_key') reply.header('www-authenticate', 'Bearer realm="penstock"')
    if (ERRORS[code].retryable) reply.header('retry-after', '2')
    return reply.code(ERRORS[code].status).send(errorBody(code, message, known?.place.param))
  })
}

const internal = (id: string): string =>
  `internal error; the log of Penstock has the cause under request ${id}`

/** The same judgement for a stream that has begun and can only say it in its last event. */
export const failureLine = (error: unknown, log: ConsoleLog, id: string): string => {
  const known = asPenstockError(error)
  if (known !== null) return errorLine(known)
  log.error({ err: error, request: id }, 'console stream failed')
  return internal(id)
}
