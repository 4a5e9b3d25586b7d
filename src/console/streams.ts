/** The routes that answer for as long as something goes on: events, apply, logs. */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { AdminPort, ApplyEvent, InputFiles } from '../core/admin.ts'
import * as bodies from './bodies.ts'
import type { EventHub } from './events.ts'
import { type ConsoleLog, failureLine } from './failures.ts'
import { adminOnly, stillAdmin } from './guard.ts'
import { content, inline, operation, ref } from './openapi.ts'
import { leaving } from './routes.ts'
import { openEventStream } from './sse.ts'

export type StreamPorts = {
  readonly admin: AdminPort
  readonly hub: EventHub
  readonly log: ConsoleLog
}

export const streamRoutes = (app: FastifyInstance, ports: StreamPorts): void => {
  const { admin, hub, log } = ports
  const onRequest = adminOnly(admin)
  app.get('/admin/v1/events', { onRequest, schema: EVENTS }, (request, reply) => {
    hub.assertRoom()
    hub.add(openEventStream(reply), () => stillAdmin(admin, request))
  })
  app.post('/admin/v1/apply', { onRequest, schema: APPLY }, async (request, reply) => {
    const files = bodies.read(bodies.InputFilesSchema, request.body, 'body')
    await tellApply({ admin, log, files, request, reply })
  })
  app.get('/admin/v1/logs', { onRequest, schema: LOGS }, async (request, reply) => {
    const query = bodies.read(bodies.LogsQuery, request.query, 'query')
    const ask = { ...query, follow: query.follow === 'true' }
    const lines = admin.logs(ask, leaving(reply))[Symbol.asyncIterator]()
    const first = await firstLine(lines)
    reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store')
    return Readable.from(logText(lines, first, { log, id: request.id }), { objectMode: false })
  })
}

const EVENTS = operation({
  id: 'events',
  summary: 'The fleet as it changes, and requests as they end, as server-sent events',
  admin: true,
  response: {
    200: content(
      '`event: fleet` carries a FleetView, `event: requests` a Requests with the new ones',
      'text/event-stream',
      { type: 'string' },
    ),
  },
})

const APPLY = operation({
  id: 'apply',
  summary: 'Make the fleet what these files say; reports progress until done or failed',
  admin: true,
  body: 'InputFiles',
  response: {
    200: content(
      'server-sent events named by their `kind`; the last one is `done` or `failed`',
      'text/event-stream',
      ref('ApplyEvent'),
    ),
  },
})

const LOGS = operation({
  id: 'logs',
  summary: 'Log lines of one rank, oldest first',
  admin: true,
  querystring: inline(bodies.LogsQuery),
  response: { 200: content('lines of text', 'text/plain', { type: 'string' }) },
})

type Applying = {
  readonly admin: AdminPort
  readonly log: ConsoleLog
  readonly files: InputFiles
  readonly request: FastifyRequest
  readonly reply: FastifyReply
}

/** The reader's pace is the pace of the reports: nothing is read ahead of it. */
const tellApply = async ({ admin, log, files, request, reply }: Applying): Promise<void> => {
  const stream = openEventStream(reply)
  const tell = (event: ApplyEvent): void => stream.send(event.kind, JSON.stringify(event))
  let ended = false
  try {
    for await (const event of admin.apply(files, stream.closed)) {
      tell(event)
      ended = event.kind === 'done' || event.kind === 'failed'
      await stream.drained()
      if (stream.closed.aborted) break
    }
    if (!ended) tell({ kind: 'failed', message: 'apply ended without saying how' })
  } catch (error) {
    tell({ kind: 'failed', message: failureLine(error, log, request.id) })
  }
  stream.end()
}

type Line = IteratorResult<string, unknown>
type Waiting = { readonly line: Promise<Line> }

/**
 * Waits for the first line, so that `no such replica` is a proper 404; but not for long: a quiet
 * log that is followed must still answer with its headers.
 */
const firstLine = async (lines: AsyncIterator<string>): Promise<Waiting> => {
  const line = lines.next()
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, 1000)
  })
  await Promise.race([line, patience]).finally(() => clearTimeout(timer))
  return { line }
}

async function* logText(
  lines: AsyncIterator<string>,
  first: Waiting,
  about: { readonly log: ConsoleLog; readonly id: string },
): AsyncGenerator<string> {
  try {
    for (let line = await first.line; line.done !== true; line = await lines.next()) {
      yield `${line.value}\n`
    }
  } catch (error) {
    yield `penstock: the log ends here: ${failureLine(error, about.log, about.id)}\n`
  } finally {
    await lines.return?.()
  }
}
