/**
 * The gateway's HTTP side: routes, hooks, limits and the one place where an error becomes an
 * answer. Fastify routes and parses; every answer is written by respond.ts or an Exchange.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { dialectAt, METHODS, PROTOCOLS, type Protocol } from '../core/protocol.ts'
import { PenstockError } from '../errors.ts'
import { authenticate } from './auth.ts'
import { startChat } from './chat.ts'
import { listModels, oneModel, readiness } from './models.ts'
import { encodingOf, fits, receive } from './receive.ts'
import {
  baseHeaders,
  type Caller,
  failureOf,
  sendAndLinger,
  sendFailure,
  sendJson,
} from './respond.ts'
import type { GatewayState } from './state.ts'
import { startStored } from './stored.ts'
import { Ticket } from './ticket.ts'

declare module 'fastify' {
  interface FastifyRequest {
    ticket: Ticket | null
  }
}

/** Passed on to the engine. */
const PROXIED = PROTOCOLS.filter(({ body }) => body !== 'none')
/** Of an answer that a replica keeps, by its id. */
const STORED = PROTOCOLS.filter(({ body }) => body === 'none')
const ALLOWED: Readonly<Record<string, string>> = {
  ...METHODS,
  '/v1/models': 'GET, HEAD, OPTIONS',
  '/healthz': 'GET, HEAD',
  '/readyz': 'GET, HEAD',
}
const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/

/** Receiving only (node:http): headers, then the whole request. Answers may take hours. */
const HEADERS_TIMEOUT_MS = 20_000
const RECEIVE_TIMEOUT_MS = 120_000
/** Above the idle limit of the load balancers in front (60 s for nginx and AWS). */
const KEEP_ALIVE_TIMEOUT_MS = 76_000
const CHECK_INTERVAL_MS = 5_000

/** Requests that wait for `100 Continue`, with where to write it. */
type Waiting = WeakMap<IncomingMessage, ServerResponse>
type OnBug = (error: unknown) => void

/** Builds the app; it does not listen yet. `onBug` hears of errors that are not PenstockErrors. */
export const buildServer = (state: GatewayState, onBug: OnBug): FastifyInstance => {
  const waiting: Waiting = new WeakMap()
  const fail = (error: unknown, { request, reply }: Route): void => {
    if (!(error instanceof PenstockError) && fromFramework(error) === null) onBug(error)
    answerError(error, { request, reply }, waiting.has(request.raw))
  }
  const app = fastify({
    logger: false,
    requestIdHeader: false,
    genReqId: requestId,
    requestTimeout: RECEIVE_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    forceCloseConnections: true,
    return503OnClosing: false,
    http: { connectionsCheckingInterval: CHECK_INTERVAL_MS },
    clientErrorHandler: refuseMalformed,
    frameworkErrors: (error, request, reply) => fail(error, { request, reply }),
    routerOptions: { maxParamLength: 1_000 },
  })
  app.server.headersTimeout = HEADERS_TIMEOUT_MS
  // `Expect: 100-continue` is answered when the body is wanted: after the key has been checked.
  app.server.on('checkContinue', (req, res) => {
    waiting.set(req, res)
    app.server.emit('request', req, res)
  })
  app.decorateRequest('ticket', null)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload: IncomingMessage, done) => {
    const { maxBodyBytes } = state.table.snapshot
    if (fits(payload, maxBodyBytes)) goOn(waiting, payload)
    receive(payload, maxBodyBytes, done)
  })
  app.setErrorHandler((error, request, reply) => fail(error, { request, reply }))
  app.addHook('onRequest', (request, reply, done) => {
    if (request.is404) answerUnrouted(request, reply)
    else done()
  })
  app.setNotFoundHandler(answerUnrouted)
  addRoutes(app, state)
  return app
}

const addRoutes = (app: FastifyInstance, state: GatewayState): void => {
  for (const protocol of PROXIED) {
    app.post(protocol.path, { onRequest: admit(state, protocol) }, async (request, reply) => {
      const { body } = request
      await startChat({
        state,
        body: body instanceof Uint8Array ? body : new Uint8Array(0),
        ...asked(request, reply),
      })
      reply.hijack()
    })
  }
  for (const protocol of STORED) {
    const { method } = protocol
    app.route<{ Params: { id: string } }>({
      method,
      url: protocol.path,
      onRequest: admit(state, protocol),
      handler: async (request, reply) => {
        startStored({ state, id: request.params.id, ...asked(request, reply) })
        reply.hijack()
      },
    })
  }
  app.get('/v1/models', (request, reply) => {
    const key = authenticate(request.headers, state.table)
    answer(request, reply, {
      status: 200,
      body: listModels(state, { key, headers: request.headers }),
    })
  })
  app.get<{ Params: { '*': string } }>('/v1/models/*', (request, reply) => {
    const key = authenticate(request.headers, state.table)
    const ask = { key, headers: request.headers }
    answer(request, reply, { status: 200, body: oneModel(state, ask, request.params['*']) })
  })
  app.get('/healthz', (request, reply) => {
    answer(request, reply, { status: 200, body: { status: 'ok', thread: state.thread } })
  })
  app.get('/readyz', (request, reply) => {
    const { ready, why } = readiness(state)
    answer(request, reply, { status: ready ? 200 : 503, body: { ready, why } })
  })
}

const asked = (request: FastifyRequest, reply: FastifyReply) => {
  const { ticket, headers, ip, url } = request
  if (ticket === null) throw new Error('a proxied request came in without a ticket')
  return { ticket, asker: { headers, ip, url }, res: reply.raw, caller: callerOf(request) }
}

const goOn = (waiting: Waiting, req: IncomingMessage): void => {
  waiting.get(req)?.writeContinue()
  waiting.delete(req)
}

/** Before a byte of the body is read: who is it, and is this a request that we take? */
const admit =
  (state: GatewayState, protocol: Protocol) =>
  (request: FastifyRequest, reply: FastifyReply, done: () => void): void => {
    const ticket = new Ticket(state, request.id, protocol)
    request.ticket = ticket
    // A client that leaves before its request was forwarded; afterwards the exchange sees to it.
    reply.raw.once('close', () => {
      if (ticket.target === null)
        ticket.finish({ status: 499, outcome: 'client_gone', reason: 'client_gone' })
    })
    ticket.key = authenticate(request.headers, state.table)
    if (state.draining) {
      throw new PenstockError('server_draining', 'the gateway is shutting down; try again')
    }
    encodingOf(request.headers['content-encoding'])
    done()
  }

type Route = { readonly request: FastifyRequest; readonly reply: FastifyReply }

/**
 * The one place where an error becomes an answer (and, for a proxied request, a report).
 * `unsent`: the client waits for leave to send its body; after a refusal it may send it or not,
 * so that the connection cannot be used again.
 */
const answerError = (error: unknown, { request, reply }: Route, unsent: boolean): void => {
  const failure = failureOf(fromFramework(error) ?? error)
  reply.hijack()
  const [req, res, caller] = [request.raw, reply.raw, callerOf(request)]
  if (res.headersSent) res.destroy()
  else if (unsent || failure.status === 413) {
    const headers = { ...failure.headers, connection: 'close' }
    sendAndLinger(req, res, { caller, failure: { ...failure, headers } })
  } else sendFailure(res, caller, failure)
  const outcome = failure.reason === 'bug' ? 'upstream_error' : 'refused'
  request.ticket?.finish({ status: failure.status, outcome, reason: failure.reason })
}

/** Fastify's own complaints about a request (a path that cannot be decoded, for example). */
const fromFramework = (error: unknown): PenstockError | null => {
  if (!(error instanceof Error) || !('statusCode' in error)) return null
  const { statusCode } = error
  if (typeof statusCode !== 'number' || statusCode < 400 || statusCode > 499) return null
  return new PenstockError('invalid_request', error.message)
}

const answerUnrouted = (request: FastifyRequest, reply: FastifyReply): void => {
  reply.hijack()
  const caller = callerOf(request)
  const path = pathOf(request)
  const allow = ALLOWED[patternOf(path)]
  if (allow === undefined) {
    const message = `there is no ${request.method} ${path.slice(0, 200)}; the API is under /v1`
    sendFailure(reply.raw, caller, failureOf(new PenstockError('not_found', message)))
  } else if (request.method === 'OPTIONS') {
    const headers = baseHeaders(caller)
    headers.allow = allow
    headers['access-control-allow-methods'] = allow
    headers['access-control-allow-headers'] = '*, authorization'
    headers['access-control-max-age'] = 86_400
    reply.raw.writeHead(204, headers)
    reply.raw.end()
  } else {
    const message = `${request.method} is not allowed on ${path}; allowed: ${allow}`
    const failure = failureOf(new PenstockError('method_not_allowed', message))
    sendFailure(reply.raw, caller, { ...failure, headers: { ...failure.headers, allow } })
  }
}

const answer = (
  request: FastifyRequest,
  reply: FastifyReply,
  { status, body }: { status: number; body: unknown },
): void => {
  reply.hijack()
  sendJson(reply.raw, callerOf(request), { status, body })
}

const callerOf = (request: FastifyRequest): Caller => ({
  id: request.id,
  origin: request.headers.origin !== undefined,
  errors: dialectAt(pathOf(request), request.headers['anthropic-version'] !== undefined),
})

/** The path as the table of methods has it. */
const patternOf = (path: string): string => {
  if (path.startsWith('/v1/models/')) return '/v1/models'
  return path.replace(/^\/v1\/responses\/[^/]+(?=$|\/cancel$)/, '/v1/responses/:id')
}

const pathOf = ({ url }: FastifyRequest): string => url.split('?', 1)[0] ?? ''

const requestId = ({ headers }: { headers: IncomingMessage['headers'] }): string => {
  const given = headers['x-request-id']
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : `req-${randomUUID()}`
}

/** What node:http could not parse, or what took too long to arrive. */
const refuseMalformed = (error: Error & { code?: string }, socket: Socket): void => {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const large = error.code === 'HPE_HEADER_OVERFLOW'
  const [status, text] = late
    ? [408, 'the request took too long to arrive']
    : [large ? 431 : 400, large ? 'the headers are too large' : 'this is not an HTTP/1.1 request']
  const code = late ? 'request_timeout' : 'invalid_request'
  const { body } = failureOf(new PenstockError(code, text))
  const json = JSON.stringify(body)
  socket.end(
    `HTTP/1.1 ${status} ${late ? 'Request Timeout' : 'Bad Request'}\r\n` +
      `x-request-id: req-${randomUUID()}\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(json)}\r\nconnection: close\r\n\r\n${json}`,
  )
}
