/** What needs no key: the page, health, this machine's metrics, the OpenAPI document. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'
import type { AdminPort } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import { adminUnlessLocal } from './guard.ts'
import { apiDocument, content, json, operation } from './openapi.ts'

/** Version 0.0.4 of the text format, which is what prom-client writes. */
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export const healthRoutes = (app: FastifyInstance, admin: AdminPort): void => {
  const health = operation({
    id: 'healthz',
    summary: 'This process answers',
    admin: false,
    response: { 200: json('always, while it answers', 'Health') },
  })
  app.get('/healthz', { schema: health }, async () => ({ status: 'ok' }))

  const ready = operation({
    id: 'readyz',
    summary: 'The store is open, the gateway listens and the first observation was made',
    admin: false,
    response: { 200: json('ready', 'Health'), 503: json('not yet', 'Health') },
  })
  app.get('/readyz', { schema: ready }, async (_request, reply) => {
    const isReady = admin.ready()
    reply.code(isReady ? 200 : 503)
    return { status: isReady ? 'ready' : 'starting' }
  })

  const metrics = operation({
    id: 'metrics',
    summary: 'Prometheus metrics; from another machine this needs an admin key',
    admin: false,
    response: { 200: content('the text format', 'text/plain', { type: 'string' }) },
  })
  const local = { onRequest: adminUnlessLocal(admin), schema: metrics }
  app.get('/metrics', local, async (_request, reply) => {
    reply.header('content-type', METRICS_TYPE)
    return admin.metrics()
  })
}

export const documentRoute = (app: FastifyInstance): void => {
  const document = operation({
    id: 'openapi',
    summary: 'This document',
    admin: false,
    response: { 200: content('OpenAPI 3.1', 'application/json', { type: 'object' }) },
  })
  app.get('/admin/v1/openapi.json', { schema: document }, async () => apiDocument(app))
}

/** Serves the built page; without one, `/` says how to build it. Nothing here holds data. */
export const pageRoutes = async (app: FastifyInstance, assets: string): Promise<void> => {
  if (!existsSync(join(assets, 'index.html'))) {
    app.get('/', { schema: { hide: true } }, async () => {
      throw new PenstockError('not_found', 'the page is not built: run `npm run build:web`')
    })
    return
  }
  await app.register(fastifyStatic, {
    root: assets,
    index: ['index.html'],
    cacheControl: false,
    schemaHide: true,
    setHeaders: (reply, path) => {
      // File names under assets/ carry a hash of their content.
      const hashed = path.startsWith(join(assets, 'assets'))
      reply.header('cache-control', hashed ? 'max-age=31536000, immutable' : 'no-cache')
    },
  })
}
