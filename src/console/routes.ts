/** The routes of the admin API that answer with one JSON document. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Clock } from '../clock.ts'
import type { AdminPort } from '../core/admin.ts'
import * as bodies from './bodies.ts'
import { adminOnly } from './guard.ts'
import { inline, json, operation } from './openapi.ts'

/** Aborts when the caller is gone before it has the whole answer. */
export const leaving = (reply: FastifyReply): AbortSignal => {
  const controller = new AbortController()
  reply.raw.once('close', () => controller.abort())
  return controller.signal
}

export const adminRoutes = (app: FastifyInstance, admin: AdminPort, clock: Clock): void => {
  fleetRoutes(app, admin)
  usageRoutes(app, admin, clock)
  operateRoutes(app, admin)
  rehearseRoutes(app, admin)
  keyRoutes(app, admin)
}

const fleetRoutes = (app: FastifyInstance, admin: AdminPort): void => {
  const onRequest = adminOnly(admin)
  const view = operation({
    id: 'fleet',
    summary: 'Nodes, GPUs, deployments, replicas, ranks and signals with their age',
    admin: true,
    response: { 200: json('the fleet now', 'FleetView') },
  })
  app.get('/admin/v1/fleet', { onRequest, schema: view }, async () => admin.fleet())

  const requests = operation({
    id: 'requests',
    summary: 'Recent requests, newest first, each with who answered and why it ended',
    admin: true,
    querystring: inline(bodies.RequestsQuery),
    response: { 200: json('at most `limit` requests', 'Requests') },
  })
  app.get('/admin/v1/requests', { onRequest, schema: requests }, async (request) => {
    const { limit } = bodies.read(bodies.RequestsQuery, request.query, 'query')
    return { requests: admin.requests(limit) }
  })

  const history = operation({
    id: 'history',
    summary: 'Series of the last hour; a gap is a missing point',
    admin: true,
    querystring: inline(bodies.HistoryQuery),
    response: { 200: json('points at or after `since`', 'History') },
  })
  app.get('/admin/v1/history', { onRequest, schema: history }, async (request) => {
    const { since } = bodies.read(bodies.HistoryQuery, request.query, 'query')
    return { series: admin.history(since) }
  })
}

const usageRoutes = (app: FastifyInstance, admin: AdminPort, clock: Clock): void => {
  const onRequest = adminOnly(admin)
  const usage = operation({
    id: 'usage',
    summary: 'Requests, tokens, times and cost by consumer, key, model, deployment and day',
    admin: true,
    querystring: inline(bodies.UsageQuery),
    response: { 200: json('sums of the days asked for', 'UsageReport') },
  })
  app.get('/admin/v1/usage', { onRequest, schema: usage }, async (request) => {
    const query = bodies.read(bodies.UsageQuery, request.query, 'query')
    return admin.usage(bodies.usageAsk(query, clock.now()))
  })

  const reconcile = operation({
    id: 'reconcileUsage',
    summary: "Tokens of our books against the engines' own counters, read now",
    admin: true,
    response: {
      200: json('both figures and the difference, by run of an engine', 'Reconciliation'),
    },
  })
  app.get('/admin/v1/usage/reconcile', { onRequest, schema: reconcile }, async () =>
    admin.reconcile(),
  )
}

const operateRoutes = (app: FastifyInstance, admin: AdminPort): void => {
  const onRequest = adminOnly(admin)
  const plan = operation({
    id: 'plan',
    summary: 'What applying these files would do; changes nothing',
    admin: true,
    body: 'InputFiles',
    response: { 200: json('the plan, or every issue of every file', 'PlanAnswer') },
  })
  app.post('/admin/v1/plan', { onRequest, schema: plan }, async (request, reply) => {
    const files = bodies.read(bodies.InputFilesSchema, request.body, 'body')
    return admin.plan(files, leaving(reply))
  })

  const restart = operation({
    id: 'restart',
    summary: 'Restart a deployment or one replica, as whole groups',
    admin: true,
    body: 'RestartAsk',
    response: { 200: json('the replicas that restart', 'Replicas') },
  })
  app.post('/admin/v1/restart', { onRequest, schema: restart }, async (request) => {
    const { target } = bodies.read(bodies.RestartAsk, request.body, 'body')
    return { replicas: await admin.restart(target) }
  })

  const destroy = operation({
    id: 'destroy',
    summary: 'Drain and stop one deployment, or everything',
    admin: true,
    body: 'DestroyAsk',
    response: { 200: json('the replicas that stop', 'Replicas') },
  })
  app.post('/admin/v1/destroy', { onRequest, schema: destroy }, async (request) => {
    const { target } = bodies.read(bodies.DestroyAsk, request.body, 'body')
    return { replicas: await admin.destroy(target) }
  })
}

const rehearseRoutes = (app: FastifyInstance, admin: AdminPort): void => {
  const onRequest = adminOnly(admin)
  const fault = operation({
    id: 'rehearseFault',
    summary: 'Add, list or clear faults of ranks that the flight simulator plays',
    admin: true,
    body: 'FaultAsk',
    response: { 200: json('what each rank said', 'FaultAnswers') },
  })
  app.post('/admin/v1/rehearse/fault', { onRequest, schema: fault }, async (request, reply) => {
    const ask = bodies.read(bodies.FaultAskSchema, request.body, 'body')
    return { ranks: await admin.rehearseFault(ask, leaving(reply)) }
  })
}

const keyRoutes = (app: FastifyInstance, admin: AdminPort): void => {
  const onRequest = adminOnly(admin)
  const list = operation({
    id: 'listKeys',
    summary: 'Keys without their secrets',
    admin: true,
    response: { 200: json('every key, revoked ones too', 'Keys') },
  })
  app.get('/admin/v1/keys', { onRequest, schema: list }, async () => ({ keys: admin.keys() }))

  const create = operation({
    id: 'createKey',
    summary: 'Make a key; the answer shows it, once',
    admin: true,
    body: 'KeyAsk',
    response: { 201: json('the key and its view', 'CreatedKey') },
  })
  app.post('/admin/v1/keys', { onRequest, schema: create }, async (request, reply) => {
    const ask = bodies.read(bodies.KeyAsk, request.body, 'body')
    reply.code(201)
    return admin.createKey(ask)
  })

  const revoke = operation({
    id: 'revokeKey',
    summary: 'Revoke a key; requests with it are refused from now on',
    admin: true,
    params: inline(bodies.KeyPath),
    response: { 200: json('the revoked key', 'KeyView') },
  })
  app.delete('/admin/v1/keys/:id', { onRequest, schema: revoke }, async (request) => {
    const { id } = bodies.read(bodies.KeyPath, request.params, 'path')
    return admin.revokeKey(id)
  })
}
