/** A request as it came: what its body asks for, and which of its headers an engine is sent. */
import type { IncomingHttpHeaders } from 'node:http'
import { type Ask, readAsk } from '../core/body.ts'
import { formType, readForm } from '../core/form.ts'
import type { Protocol } from '../core/protocol.ts'
import { PenstockError } from '../errors.ts'

/** Request headers that engines can use; nothing else is passed on, keys and cookies least. */
const FORWARDED = ['traceparent', 'tracestate'] as const

/** Throws invalid_request with the parameter's name. */
export const readRequest = (
  body: Uint8Array,
  protocol: Protocol,
  headers: IncomingHttpHeaders,
): Ask => {
  const form = protocol.body === 'form'
  const ask = form ? readForm(body, headers['content-type'] ?? '') : readAsk(body, protocol)
  if (!('message' in ask)) return ask
  const { message, param } = ask
  throw new PenstockError('invalid_request', message, param === null ? {} : { param })
}

/** JSON is sent as JSON, whatever type the client declared; a form with its boundary. */
export const upstreamHeaders = (
  headers: IncomingHttpHeaders,
  { body }: Protocol,
  id: string,
): string[] => {
  const type = body === 'form' ? formType(headers['content-type'] ?? '') : 'application/json'
  const result = body === 'none' ? [] : ['content-type', type]
  result.push('accept-encoding', 'identity', 'x-request-id', id)
  const { connection } = headers
  const listed = connection === undefined ? '' : connection.toLowerCase()
  for (const name of FORWARDED) {
    const value = headers[name]
    if (typeof value === 'string' && !listed.includes(name)) result.push(name, value)
  }
  return result
}
