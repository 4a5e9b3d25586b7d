/**
 * The console: dashboard, admin API, metrics and health on one port of the main thread. It decides
 * nothing: every question goes through the AdminPort, which control implements.
 */
import { randomUUID } from 'node:crypto'
import fastify, { type FastifyInstance } from 'fastify'
import { type Clock, systemClock } from '../clock.ts'
import type { AdminPort } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import { MAX_BODY_BYTES } from './bodies.ts'
import { EventHub } from './events.ts'
import { answerFailures, type ConsoleLog } from './failures.ts'
import { guardOrigin } from './guard.ts'
import { documentRoute, healthRoutes, pageRoutes } from './open.ts'
import { describeApi } from './openapi.ts'
import { adminRoutes } from './routes.ts'
import { streamRoutes } from './streams.ts'

export type ConsoleOptions = {
  /** Loopback unless the operator says otherwise; `0.0.0.0` or `::` for every address. */
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** Further host names that browsers may reach it by; IP addresses need no mention. */
  readonly names?: readonly string[]
  readonly admin: AdminPort
  /** Directory of the built page (`npm run build:web`). */
  readonly assets: string
  readonly log: ConsoleLog
  readonly clock?: Clock
}

export type Console = {
  readonly port: number
  /** Ends the event streams and stops listening; safe to call twice. */
  close(): Promise<void>
}

/** Throws port_taken or invalid_input when it cannot listen. */
export const startConsole = async (options: ConsoleOptions): Promise<Console> => {
  const { admin, log } = options
  const clock = options.clock ?? systemClock
  const hub = new EventHub(admin, clock, log)
  const app = fastify({
    bodyLimit: MAX_BODY_BYTES,
    // A request's head and body; answers may stream for hours.
    requestTimeout: 30_000,
    forceCloseConnections: true,
    genReqId: () => randomUUID(),
  })
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => (value) => JSON.stringify(value))
  app.removeContentTypeParser('text/plain')
  answerFailures(app, log)
  answerUnknown(app, rememberRoutes(app))
  guardOrigin(app, { host: options.host, names: options.names ?? [] })
  await describeApi(app, admin.fleet().version)
  app.addHook('onSend', async (request, reply) => {
    if (request.url.startsWith('/admin/')) reply.header('cache-control', 'no-store')
  })
  await app.register(async (inner) => {
    healthRoutes(inner, admin)
    documentRoute(inner)
    adminRoutes(inner, admin, clock)
    streamRoutes(inner, { admin, hub, log, clock })
  })
  await pageRoutes(app, options.assets)
  const port = await listen(app, options)
  log.info({ host: options.host, port }, 'console listens')
  return {
    port,
    close: async () => {
      hub.close()
      await app.close()
    },
  }
}

type Known = { readonly method: string; readonly path: RegExp }

/** Remembers every route declared after this call: its method and what its path matches. */
const rememberRoutes = (app: FastifyInstance): readonly Known[] => {
  const known: Known[] = []
  app.addHook('onRoute', ({ method, url }) => {
    const pattern = url.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:\w+/g, '[^/]+')
    const path = new RegExp(`^${pattern}$`)
    for (const name of [method].flat()) known.push({ method: name, path })
  })
  return known
}

/** An unknown path is 404; a known one asked by another method is 405 with `allow`. */
const answerUnknown = (app: FastifyInstance, routes: readonly Known[]): void => {
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0] ?? ''
    const what = `${request.method} ${path.slice(0, 256)}`
    const methods = routes.filter((known) => known.path.test(path)).map((known) => known.method)
    const allowed = [...new Set(methods)].filter((method) => method !== request.method)
    if (allowed.length === 0) throw new PenstockError('not_found', `there is no ${what}`)
    reply.header('allow', allowed.join(', '))
    throw new PenstockError('method_not_allowed', `no ${what}: use ${allowed.join(', ')}`)
  })
}

const listen = async (app: FastifyInstance, options: ConsoleOptions): Promise<number> => {
  const { host, port } = options
  const where = `console address ${host}:${port}`
  try {
    await app.listen({ host, port })
  } catch (error) {
    await app.close()
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'EADDRINUSE') {
      const hint = 'stop what listens there, or set PENSTOCK_CONSOLE_PORT'
      throw new PenstockError('port_taken', `${where} is taken: ${hint}`, {}, error)
    }
    const message = `${where} cannot be listened on: ${String(code ?? error)}`
    throw new PenstockError('invalid_input', message, {}, error)
  }
  const address = app.server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}
