/** An error in the shape of the API that was asked: OpenAI's, or Anthropic's (docs, "Errors"). */
import type { EngineError } from './engine-error.ts'
import type { ErrorDialect, Protocol } from './protocol.ts'

/** `body`: OpenAI's, which is what the gateway thinks in. */
export type Shown = Pick<EngineError, 'status' | 'body'> & { readonly id: string }

/** The types that Anthropic documents, by status; its SDKs choose the class by the status. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
  529: 'overloaded_error',
}

/** The body of a refusal. */
export const shownError = (dialect: ErrorDialect, { status, body, id }: Shown): object => {
  if (dialect === 'openai') return body
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error')
  return { type: 'error', error: { type, message: body.error.message }, request_id: id }
}

/** `sequence`: the number of the newest event; null where events are not numbered. */
export type Ended = Shown & { readonly sequence: number | null }

/** The event that ends a stream whose answer is not whole. */
export const errorEvent = ({ errors, events }: Protocol, ended: Ended): string => {
  if (errors === 'anthropic') {
    return `event: error\ndata: ${JSON.stringify(shownError(errors, ended))}\n\n`
  }
  const { error } = ended.body
  if (events === null || events === 'chat') return `data: ${JSON.stringify({ error })}\n\n`
  // Flat as OpenAI documents it, and nested as it sends it and as its SDKs look for it.
  const { code, message, param } = error
  const sequence_number = (ended.sequence ?? -1) + 1
  const data = { type: 'error', code, message, param, sequence_number, error }
  return `event: error\ndata: ${JSON.stringify(data)}\n\n`
}
