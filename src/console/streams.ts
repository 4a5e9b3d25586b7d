/** The routes that answer for as long as something goes on: events, apply, logs. */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../clock.ts'
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
  readonly clock: Clock
}

export const streamRoutes = (app: FastifyInstance, ports: StreamPorts): void => {
  const { admin, hub, log, clock } = ports
  const onRequest = adminOnly(admin)
  app.get('/admin/v1/events', { onRequest, schema: EVENTS }, (request, reply) => {
    hub.assertRoom()
    hub.add(openEventStream(reply, clock), () => stillAdmin(admin, request))
  })
  app.post('/admin/v1/apply', { onRequest, schema: APPLY }, async (request, reply) => {
    const files = bodies.read(bodies.InputFilesSchema, request.body, 'body')
    await tellApply(ports, { files, request, reply })
  })
  app.get('/admin/v1/logs', { onRequest, schema: LOGS }, async (request, reply) => {
    const query = bodies.read(bodies.LogsQuery, request.query, 'query')
    const ask = { ...query, follow: query.follow === 'true' }
    const gone = leaving(reply)
    const lines = admin.logs(ask, gone)[Symbol.asyncIterator]()
    const first = await firstLine(lines, clock)
    reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store')
    return Readable.from(logText(lines, first, { log, gone, request, reply }), {
      objectMode: false,
    })
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
  readonly files: InputFiles
  readonly request: FastifyRequest
  readonly reply: FastifyReply
}

/** The reader's pace is the pace of the reports: nothing is read ahead of it. */
const tellApply = async (ports: StreamPorts, applying: Applying): Promise<void> => {
  const { admin, log, clock } = ports
  const { files, request, reply } = applying
  const stream = openEventStream(reply, clock)
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
    if (stream.closed.aborted) return
    tell({ kind: 'failed', message: failureLine(error, log, request.id) })
  }
  stream.end()
}

const PATIENCE_MS = 1000

type Line = IteratorResult<string, unknown>
type Waiting = { readonly line: Promise<Line> }

/**
 * Waits for the first line, so that `no such replica` is a proper 404; but not for long: a quiet
 * log that is followed must still answer with its headers.
 */
const firstLine = async (lines: AsyncIterator<string>, clock: Clock): Promise<Waiting> => {
  const line = lines.next()
  // Its failure is judged by whoever reads the line; a caller that left first never gets there.
  line.catch(() => undefined)
  const enough = new AbortController()
  // Rejects when the line came first.
  const patience = clock.sleep(PATIENCE_MS, enough.signal).catch(() => undefined)
  await Promise.race([line, patience]).finally(() => enough.abort())
  return { line }
}

type LogAnswer = {
  readonly log: ConsoleLog
  readonly gone: AbortSignal
  readonly request: FastifyRequest
  readonly reply: FastifyReply
}

async function* logText(
  lines: AsyncIterator<string>,
  first: Waiting,
  about: LogAnswer,
): AsyncGenerator<string> {
  // Fastify has set the headers by now; Node would hold them back until the first line.
  about.reply.raw.flushHeaders()
  try {
    for (let line = await first.line; line.done !== true; line = await lines.next()) {
      yield `${line.value}\n`
    }
  } catch (error) {
    if (about.gone.aborted) return
    yield `penstock: the log ends here: ${failureLine(error, about.log, about.request.id)}\n`
  } finally {
    await lines.return?.()
  }
}
