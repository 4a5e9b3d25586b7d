/** A gateway thread: listens on the shared port, serves, and talks to the main thread. */
import { Server as NetServer } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import type { FromGateway, GatewaySnapshot, ToGateway } from '../core/snapshot.ts'
import { AdmissionSlots } from './admission-slots.ts'
import { AnswerSlots } from './answer-slots.ts'
import { Breakers, sharedClockMs } from './breakers.ts'
import { drain } from './drain.ts'
import { openLimiter, type RedisWiring } from './limiter.ts'
import { QueueSlots } from './queue-slots.ts'
import { BATCH_AGE_MS, Reports } from './reports.ts'
import { RetryBudget } from './retry-budget.ts'
import { buildServer } from './server.ts'
import { SharedCounts } from './shared.ts'
import { GatewayState, TICK_MS } from './state.ts'

export type WorkerSetup = {
  readonly host: string
  readonly port: number
  readonly thread: number
  readonly threads: number
  readonly counts: SharedArrayBuffer
  readonly limits: SharedArrayBuffer
  readonly redis: RedisWiring | null
  readonly breakers: SharedArrayBuffer
  readonly retries: SharedArrayBuffer
  readonly admission: SharedArrayBuffer
  readonly queue: SharedArrayBuffer
  readonly answers: SharedArrayBuffer
  readonly snapshot: GatewaySnapshot
  readonly startedAtSeconds: number
}

type Send = (message: FromGateway) => void

/** Starts serving; the result takes the main thread's messages. */
const serve = async (setup: WorkerSetup, send: Send): Promise<(message: ToGateway) => void> => {
  const { thread, snapshot, startedAtSeconds, host, port } = setup
  const counts = new SharedCounts(setup.threads, setup.counts)
  const reports = new Reports(
    (requests) => send({ kind: 'finished', requests }),
    () => counts.reportsTaken(thread),
  )
  const limits = await openLimiter({
    thread,
    threads: setup.threads,
    slots: setup.limits,
    redis: setup.redis,
    log: (message) => send({ kind: 'note', message }),
  })
  const breakers = new Breakers(sharedClockMs, setup.breakers)
  const retries = new RetryBudget(sharedClockMs, setup.retries)
  const state = new GatewayState({
    thread,
    counts,
    limits,
    breakers,
    retries,
    admission: new AdmissionSlots(setup.threads, setup.admission),
    queue: new QueueSlots(setup.threads, setup.queue),
    answers: new AnswerSlots(setup.answers),
    snapshot,
    startedAtSeconds,
    report: (request) => reports.add(request),
  })
  const app = buildServer(state, (error) => console.error(`gateway thread ${thread}:`, error))
  const { server } = app
  server.on('error', (error: NodeJS.ErrnoException) =>
    send({ kind: 'failed', code: error.code ?? '', message: error.message }),
  )
  app.ready((error) => {
    if (error) throw error
    server.listen({ host, port, reusePort: true }, () => {
      const address = server.address()
      const taken = typeof address === 'object' && address !== null ? address.port : port
      send({ kind: 'listening', port: taken })
    })
  })
  setInterval(() => state.tick(performance.now()), TICK_MS)
  setInterval(() => {
    reports.flush()
    const dropped = reports.takeDropped()
    if (dropped > 0) console.error(`gateway thread ${thread}: ${dropped} reports dropped`)
  }, BATCH_AGE_MS)

  reportAtExit(state, reports)
  let hurry: ((deadlineMs: number) => void) | null = null
  return (message) => {
    if (message.kind === 'snapshot') {
      state.publish(message.snapshot)
      return
    }
    if (hurry !== null) {
      hurry(message.deadlineMs)
      return
    }
    // The listener only: http's own close() would also cut idle connections, whose next request
    // is to be told that we are draining.
    NetServer.prototype.close.call(server)
    hurry = drain(state, message.deadlineMs, () => {
      reports.flush()
      server.closeAllConnections()
      send({ kind: 'drained' })
    })
  }
}

/** A bug ends this thread, not the books: what ran is reported as cut off, with its tokens. */
const reportAtExit = (state: GatewayState, reports: Reports): void => {
  process.once('exit', () => {
    reports.flush()
    state.running.each((running) => running.interrupt())
    reports.flush()
  })
}

if (parentPort !== null) {
  const port = parentPort
  // Messages that come before wait in the port.
  const take = await serve(workerData, (message) => port.postMessage(message))
  port.on('message', take)
}
