/** Bytes in and out: bounded bodies, JSON answers, and the words both dialects are made of. */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** The engines have no limit of their own; a simulator must not be filled up by a test. */
const BODY_BYTES_MAX = 64 * 2 ** 20

export type Body = Readonly<Record<string, unknown>>

export type Reply = { readonly status: number; readonly body: unknown }

export const sendJson = (response: ServerResponse, { status, body }: Reply): void => {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

export const sendText = (response: ServerResponse, status: number, text: string): void => {
  response.writeHead(status, {
    'content-type': 'text/plain; version=0.0.4; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

export const sendEmpty = (response: ServerResponse, status: number): void => {
  response.writeHead(status, { 'content-length': 0 })
  response.end()
}

/** Null: too large, or the client left. */
export const readBody = async (request: IncomingMessage): Promise<string | null> => {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of request) {
      const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk))
      size += bytes.length
      if (size > BODY_BYTES_MAX) return null
      chunks.push(bytes)
    }
  } catch {
    // The client broke off in the middle of its body: there is nobody to answer.
    return null
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** What is wrong with a request, before a dialect gives it its shape. */
export type Refusal = {
  readonly status: number
  readonly kind:
    | 'json'
    | 'field'
    | 'media'
    | 'value'
    | 'context'
    | 'model'
    | 'response'
    | 'queue'
    | 'dead'
    | 'internal'
    | 'limited'
    | 'unsupported'
  readonly message: string
  readonly param: string | null
  /** What was given, and pydantic's name for what is wrong with it. */
  readonly value?: unknown
  readonly detail?: string
  /** Python's name for the exception behind it. */
  readonly context?: string
  /** The least that the value may be. */
  readonly least?: number
  /** Further errors of the same body. */
  readonly more?: readonly Refusal[]
}

export const refusal = (
  kind: Refusal['kind'],
  status: number,
  message: string,
  param: string | null = null,
): { readonly ok: false; readonly refusal: Refusal } => ({
  ok: false,
  refusal: { kind, status, message, param },
})
