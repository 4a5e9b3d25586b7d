/**
 * The gateway as the main thread sees it: starts the worker threads on one port, hands them
 * snapshots, takes their reports, replaces a thread that crashed, and drains them all.
 */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import type { Sent } from '../core/admission.ts'
import type { BreakerPhase } from '../core/breaker.ts'
import type { Ceiling } from '../core/ceiling.ts'
import {
  type FinishedRequest,
  type FromGateway,
  type GatewaySnapshot,
  MAX_THREADS,
  type ToGateway,
} from '../core/snapshot.ts'
import type { LimitsView } from '../core/view.ts'
import { PenstockError } from '../errors.ts'
import { AdmissionSlots } from './admission-slots.ts'
import { AnswerSlots } from './answer-slots.ts'
import { Breakers, sharedClockMs } from './breakers.ts'
import { LimitSlots } from './limit-slots.ts'
import type { RedisWiring } from './limiter.ts'
import { QueueSlots } from './queue-slots.ts'
import type { RedisAddress } from './redis-link.ts'
import { RedisState } from './redis-state.ts'
import { RetryBudget } from './retry-budget.ts'
import { SharedCounts } from './shared.ts'
import type { WorkerSetup } from './worker.ts'

/** A crashed thread comes back after this, doubled each time, until it has lived a minute. */
const RESTART_MS = 100
const RESTART_MS_MAX = 10_000
const STABLE_MS = 60_000
/** Over the drain's deadline and a thread's own grace, before it is ended by force. */
const DRAIN_GRACE_MS = 5_000
const START_TIMEOUT_MS = 30_000

export type GatewayLog = {
  info(message: string): void
  error(message: string): void
}

export type GatewayStart = {
  readonly host: string
  /** 0: any free port; `GatewayHandle.port` says which. */
  readonly port: number
  /** 0 or absent: one per core less one, at least one. */
  readonly threads?: number
  readonly snapshot: GatewaySnapshot
  readonly log: GatewayLog
  /** Absent: limits count in this gateway alone. */
  readonly redis?: RedisAddress
  /** Batches of ended requests, each request once. */
  readonly onFinished: (requests: readonly FinishedRequest[]) => void
  /** A thread crashed and is replaced. */
  readonly onRestart?: () => void
}

export type GatewayHandle = {
  readonly port: number
  readonly threads: number
  publish(snapshot: GatewaySnapshot): void
  /** Requests that a replica slot is answering now, over all threads. */
  inFlight(slot: number): number
  totalInFlight(): number
  /** Whether a replica slot is asked, left alone, or probed by one request. */
  breaker(slot: number): BreakerPhase
  /** Requests that wait for a deployment, over all threads. */
  waiting(deployment: string): number
  /** What a replica slot was sent, and how far it is filled. */
  admission(slot: number): { readonly sent: Sent; readonly ceiling: Ceiling }
  /** How the limits are kept. */
  limits(): LimitsView
  /** Refuses new requests, lets running ones end for `deadlineMs`, then cuts them and stops. */
  drain(deadlineMs: number): Promise<void>
  /** Stops now: running requests are cut as at the end of a drain. */
  close(): Promise<void>
  /** For tests of recovery: ends a thread as a crash would. */
  crash(thread: number): Promise<void>
}

/** Resolves once every thread listens. Throws port_taken and invalid_input. */
export const startGateway = async (start: GatewayStart): Promise<GatewayHandle> => {
  const wanted = start.threads ? start.threads : availableParallelism() - 1
  const gateway = new Gateway(start, Math.min(MAX_THREADS, Math.max(1, wanted)))
  await gateway.start()
  return gateway
}

class Gateway implements GatewayHandle {
  readonly threads: number
  readonly #start: GatewayStart
  readonly #counts: SharedCounts
  readonly #limits: LimitSlots
  readonly #redis = new RedisState()
  /** One of those that share limits. */
  readonly #name = randomUUID()
  readonly #breakers = new Breakers(sharedClockMs)
  readonly #retries = new RetryBudget(sharedClockMs)
  readonly #admission: AdmissionSlots
  readonly #queue: QueueSlots
  readonly #answers = new AnswerSlots()
  readonly #workers = new Map<number, Worker>()
  readonly #restarts = new Set<NodeJS.Timeout>()
  readonly #startedAtSeconds = Math.floor(Date.now() / 1000)
  #snapshot: GatewaySnapshot
  #port: number
  #draining: Promise<void> | null = null

  constructor(start: GatewayStart, threads: number) {
    this.#start = start
    this.#snapshot = start.snapshot
    this.#port = start.port
    this.threads = threads
    this.#counts = new SharedCounts(threads)
    this.#limits = new LimitSlots(threads)
    this.#admission = new AdmissionSlots(threads)
    this.#queue = new QueueSlots(threads)
  }

  get port(): number {
    return this.#port
  }

  async start(): Promise<void> {
    const { host } = this.#start
    await assertFree(host, this.#port)
    try {
      // The first thread picks the port when none is given; the others share it.
      this.#port = await this.#spawn(0, 0)
      const others = Array.from({ length: this.threads - 1 }, (_, index) => index + 1)
      await Promise.all(others.map((thread) => this.#spawn(thread, 0)))
    } catch (error) {
      await this.#terminate()
      throw error
    }
  }

  publish(snapshot: GatewaySnapshot): void {
    this.#breakers.follow(this.#snapshot, snapshot)
    this.#snapshot = snapshot
    this.#tell({ kind: 'snapshot', snapshot })
  }

  inFlight(slot: number): number {
    return this.#counts.inFlight(slot)
  }

  totalInFlight(): number {
    return this.#counts.totalInFlight()
  }

  breaker(slot: number): BreakerPhase {
    return this.#breakers.phase(slot)
  }

  waiting(deployment: string): number {
    return this.#queue.waiting(this.#queue.lane(deployment)).count
  }

  admission(slot: number): { readonly sent: Sent; readonly ceiling: Ceiling } {
    return { sent: this.#admission.sent(slot), ceiling: this.#admission.ceiling(slot) }
  }

  limits(): LimitsView {
    const { redis } = this.#start
    const shared = redis === undefined ? null : this.#redis.standing(this.threads)
    return { overflows: this.#limits.overflows, redis: shared }
  }

  drain(deadlineMs: number): Promise<void> {
    this.#draining ??= this.#drain(deadlineMs)
    return this.#draining
  }

  async close(): Promise<void> {
    if (this.#draining === null) return this.drain(0)
    // A drain that is under way comes to its end now; only a thread that hangs is ended by force.
    this.#tell({ kind: 'drain', deadlineMs: 0 })
    const patience = new AbortController()
    const { signal } = patience
    const late = sleep(DRAIN_GRACE_MS, undefined, { signal }).catch(() => undefined)
    await Promise.race([this.#draining, late])
    patience.abort()
    await this.#terminate()
  }

  async crash(thread: number): Promise<void> {
    await this.#workers.get(thread)?.terminate()
  }

  async #drain(deadlineMs: number): Promise<void> {
    for (const timer of this.#restarts) clearTimeout(timer)
    const gone = [...this.#workers.values()].map((worker) => drained(worker, deadlineMs))
    this.#tell({ kind: 'drain', deadlineMs })
    await Promise.all(gone)
    await this.#terminate()
  }

  #redisWiring(): RedisWiring | null {
    const { redis } = this.#start
    if (redis === undefined) return null
    return { address: redis, gateway: this.#name, state: this.#redis.buffer }
  }

  async #terminate(): Promise<void> {
    this.#draining ??= Promise.resolve()
    for (const timer of this.#restarts) clearTimeout(timer)
    await Promise.all([...this.#workers.values()].map((worker) => worker.terminate()))
  }

  #tell(message: ToGateway): void {
    for (const worker of this.#workers.values()) worker.postMessage(message)
  }

  /** Starts a thread and resolves with its port; `crashes` counts the ones just before it. */
  #spawn(thread: number, crashes: number): Promise<number> {
    const setup: WorkerSetup = {
      host: this.#start.host,
      port: this.#port,
      thread,
      threads: this.threads,
      counts: this.#counts.buffer,
      limits: this.#limits.buffer,
      redis: this.#redisWiring(),
      breakers: this.#breakers.buffer,
      retries: this.#retries.buffer,
      admission: this.#admission.buffer,
      queue: this.#queue.buffer,
      answers: this.#answers.buffer,
      snapshot: this.#snapshot,
      startedAtSeconds: this.#startedAtSeconds,
    }
    const url = new URL('./worker.ts', import.meta.url)
    const worker = new Worker(url, { workerData: setup, name: `gateway-${thread}` })
    const startedAtMs = performance.now()
    let cause = ''
    this.#workers.set(thread, worker)
    worker.on('error', (error) => {
      cause = error instanceof Error ? (error.stack ?? error.message) : String(error)
    })
    worker.on('exit', () => {
      if (this.#workers.get(thread) === worker) this.#workers.delete(thread)
      const stable = performance.now() - startedAtMs > STABLE_MS
      this.#ended(thread, cause, stable ? 0 : crashes)
    })
    return this.#listening(worker, thread)
  }

  #listening(worker: Worker, thread: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new PenstockError('internal_error', 'a gateway thread did not start in 30 s'))
      }, START_TIMEOUT_MS)
      worker.on('message', (message: FromGateway) => {
        if (message.kind === 'listening') resolve(message.port)
        else if (message.kind === 'failed') {
          reject(listenError(this.#start.host, this.#port, message))
        } else if (message.kind === 'note') {
          this.#start.log.info(`gateway thread ${thread}: ${message.message}`)
          return
        } else if (message.kind === 'finished') {
          this.#counts.takeReports(thread, message.requests.length)
          this.#start.onFinished(message.requests)
        }
        clearTimeout(timer)
      })
      let cause = ''
      worker.once('error', (error) => {
        cause = `: ${error instanceof Error ? error.message : String(error)}`
      })
      worker.once('exit', (code) => {
        clearTimeout(timer)
        const message = `a gateway thread exited (${code}) at start${cause}`
        reject(new PenstockError('internal_error', message))
      })
    })
  }

  /** A thread is gone. Unless we wanted that, another takes its place. */
  #ended(thread: number, cause: string, crashes: number): void {
    this.#counts.clear(thread)
    this.#limits.clear(thread)
    this.#redis.set(thread, false)
    this.#admission.clear(thread)
    this.#queue.clear(thread)
    if (this.#draining !== null) return
    const afterMs = Math.min(RESTART_MS_MAX, RESTART_MS * 2 ** crashes)
    const why = cause === '' ? 'no error was given' : cause
    this.#start.onRestart?.()
    this.#start.log.error(`gateway thread ${thread} crashed, restarting in ${afterMs} ms: ${why}`)
    const timer = setTimeout(() => {
      this.#restarts.delete(timer)
      this.#spawn(thread, crashes + 1).then(
        () => this.#start.log.info(`gateway thread ${thread} serves again`),
        (error: unknown) => {
          this.#start.log.error(`gateway thread ${thread}: ${String(error)}`)
          // A thread that cannot listen ends, and is then tried again like any other.
          void this.#workers.get(thread)?.terminate()
        },
      )
    }, afterMs)
    this.#restarts.add(timer)
  }
}

/** Resolves when the thread says that it has drained, has exited, or is past all patience. */
const drained = (worker: Worker, deadlineMs: number): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, deadlineMs + DRAIN_GRACE_MS)
    const end = (): void => {
      clearTimeout(timer)
      resolve()
    }
    worker.on('message', (message: FromGateway) => {
      if (message.kind === 'drained') end()
    })
    worker.once('exit', end)
  })

/** Threads share the port by SO_REUSEPORT, which would also share it with another Penstock. */
const assertFree = (host: string, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (error: NodeJS.ErrnoException) =>
      reject(listenError(host, port, { code: error.code ?? '', message: error.message })),
    )
    probe.listen({ host, port }, () => probe.close(() => resolve()))
  })

type ListenFailure = { readonly code: string; readonly message: string }

const listenError = (host: string, port: number, { code, message }: ListenFailure) => {
  if (code === 'EADDRINUSE') {
    const text = `port ${port} on ${host} is taken: stop what listens there or choose another port`
    return new PenstockError('port_taken', text)
  }
  return new PenstockError('invalid_input', `cannot listen on ${host}:${port}: ${message}`)
}
