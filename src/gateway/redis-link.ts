/**
 * One thread's line to Redis. It is up or away; calls are made only while it is up, and whatever
 * goes wrong with one (refused, silent for 250 ms, read-only, function lost) takes it away at once:
 * one late answer must not make every request late. It comes back by itself, function and all.
 */
import { isIP } from 'node:net'
import { Redis } from 'ioredis'
import { functionName, librarySource, type RedisStep } from './redis-function.ts'

/**
 * A healthy Redis answers in well under a millisecond; a machine under full load stalls for tens of
 * them, and an outage that is none costs more than one late answer.
 */
const CALL_TIMEOUT_MS = 250
const DEFAULT_PORT = 6379
const CONNECT_TIMEOUT_MS = 2_000
/** While it is away it is asked this often; loading the function may take longer than a call. */
const PROBE_EVERY_MS = 200
const PROBE_TIMEOUT_MS = 1_000
/** A connection whose probes all time out is given up for a new one. */
const SILENT_PROBES_MAX = 3
/** How often a gateway says that it lives, and after what silence it no longer counts. */
const BEAT_EVERY_MS = 2_000
export const ALIVE_MS = 10_000

export const TAG = '{penstock}'
const GATEWAYS_KEY = `${TAG}:g`

export type RedisAddress = { readonly url: string; readonly password: string | null }

export type Call = {
  readonly step: RedisStep
  readonly keys: readonly string[]
  readonly values: readonly (string | number)[]
}

export type LinkSetup = {
  readonly address: RedisAddress
  /** The same for all threads of one gateway. */
  readonly gateway: string
  /** Up: `problem` is null. */
  readonly onChange: (problem: string | null) => void
  readonly onGateways: (count: number) => void
}

/** The reply did not come in time; it may still come. */
export class RedisLate extends Error {
  readonly late: Promise<readonly number[]>

  constructor(late: Promise<readonly number[]>) {
    super(`no answer in ${CALL_TIMEOUT_MS} ms`)
    this.late = late
  }
}

export class RedisLink {
  readonly #setup: LinkSetup
  readonly #redis: Redis
  readonly #timers: readonly NodeJS.Timeout[]
  #up = false
  #told: string | null = ''
  #probing = false
  #silent = 0
  #closed = false

  constructor(setup: LinkSetup) {
    this.#setup = setup
    this.#redis = new Redis({
      ...placeOf(setup.address),
      connectionName: 'penstock-limits',
      connectTimeout: CONNECT_TIMEOUT_MS,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      retryStrategy: (times: number) => Math.min(1_000, 50 * 2 ** Math.min(times, 5)),
    })
    this.#redis.on('error', (error: Error) => this.#away(error))
    this.#redis.on('close', () => this.#away(new Error('the connection was closed')))
    this.#redis.on('ready', () => void this.#probe())
    this.#timers = [
      setInterval(() => {
        if (!this.#up) void this.#probe()
      }, PROBE_EVERY_MS),
      setInterval(() => {
        if (this.#up) void this.#beat(CALL_TIMEOUT_MS).catch((error) => this.#away(error))
      }, BEAT_EVERY_MS),
    ]
  }

  get up(): boolean {
    return this.#up
  }

  /** Rejects with what went wrong, RedisLate among it; the link is away then. */
  async call(call: Call): Promise<readonly number[]> {
    try {
      return await this.#send(call, CALL_TIMEOUT_MS)
    } catch (error) {
      this.#away(error)
      throw error
    }
  }

  close(): void {
    this.#closed = true
    for (const timer of this.#timers) clearInterval(timer)
    this.#redis.disconnect()
  }

  #send({ step, keys, values }: Call, timeoutMs: number): Promise<readonly number[]> {
    const words = [...keys, ...values]
    const reply = this.#redis.fcall(functionName(step), keys.length, ...words).then(numbersOf)
    return inTime(reply, timeoutMs)
  }

  async #probe(): Promise<void> {
    if (this.#probing || this.#up || this.#closed || this.#redis.status !== 'ready') return
    this.#probing = true
    try {
      await inTime(this.#load(), PROBE_TIMEOUT_MS)
      await this.#beat(PROBE_TIMEOUT_MS)
      this.#silent = 0
      this.#up = true
      this.#tell(null)
    } catch (error) {
      this.#away(error)
      this.#silent = error instanceof RedisLate ? this.#silent + 1 : 0
      const readOnly = error instanceof Error && error.message.startsWith('READONLY')
      // A primary that has become a replica: its name may lead to the new one by now.
      if (readOnly || this.#silent >= SILENT_PROBES_MAX) this.#redis.disconnect(true)
    } finally {
      this.#probing = false
    }
  }

  async #load(): Promise<readonly number[]> {
    try {
      await this.#redis.call('FUNCTION', 'LOAD', librarySource)
    } catch (error) {
      // By another gateway, or by us before: the name holds a hash of what it says.
      const there = error instanceof Error && error.message.includes('already exists')
      if (!there) throw error
    }
    return []
  }

  async #beat(timeoutMs: number): Promise<void> {
    const values = [this.#setup.gateway, ALIVE_MS]
    const [count] = await this.#send({ step: 'beat', keys: [GATEWAYS_KEY], values }, timeoutMs)
    if (count !== undefined) this.#setup.onGateways(Math.max(1, count))
  }

  #away(error: unknown): void {
    if (this.#closed) return
    this.#up = false
    // Of a failed connection there are several events, and the first one says why.
    if (this.#told === null || this.#told === '') this.#tell(problemOf(error))
  }

  #tell(problem: string | null): void {
    this.#told = problem
    this.#setup.onChange(problem)
  }
}

/** A URL has a user, a password, a database or none of them; the password's own file wins. */
const placeOf = ({ url, password }: RedisAddress) => {
  const parts = new URL(url)
  const host = parts.hostname.replace(/^\[|\]$/g, '')
  const secret = password ?? decodeURIComponent(parts.password)
  return {
    host,
    port: Number(parts.port || DEFAULT_PORT),
    db: Number(parts.pathname.slice(1) || 0),
    ...(parts.username === '' ? {} : { username: decodeURIComponent(parts.username) }),
    ...(secret === '' ? {} : { password: secret }),
    ...(parts.protocol === 'rediss:' ? { tls: { servername: isIP(host) === 0 ? host : '' } } : {}),
  }
}

const problemOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (/unknown command.*function/i.test(error.message)) return 'it is older than Redis 7'
  return (error.message === '' ? code : error.message).slice(0, 200)
}

/** Redis answers integers of 64 bits; ours all fit. */
const numbersOf = (reply: unknown): readonly number[] => {
  const list = Array.isArray(reply) ? reply : [reply]
  return list.map(Number)
}

/**
 * When the timer fires because this thread was busy, the reply may lie there unread: it gets one
 * more turn of the loop.
 */
const inTime = (reply: Promise<readonly number[]>, timeoutMs: number) =>
  new Promise<readonly number[]>((resolve, reject) => {
    const timer = setTimeout(
      () => setImmediate(() => setImmediate(() => reject(new RedisLate(reply)))),
      timeoutMs,
    )
    reply.then(resolve, reject).finally(() => clearTimeout(timer))
  })
