/** One connection pool per replica address, made and closed as snapshots name them. */
import { buildConnector, type Dispatcher, Pool } from 'undici'
import { PenstockError } from '../errors.ts'

/**
 * uvicorn closes an idle connection after 5 s unless told otherwise; engines that Penstock
 * launches are told 120 s, others are not (gateways.md 3.2). Below both.
 */
const IDLE_MS = 4_000
const CONNECT_TIMEOUT_MS = 5_000

/** Sockets that died after they had carried an earlier answer, found again by their error. */
const reusedErrors = new WeakSet<Error>()

/**
 * True when the connection had answered an earlier request before it died: then the engine closed
 * it while idle, most likely without having read ours, and one more try is safe.
 */
export const diedAfterReuse = (error: Error): boolean => reusedErrors.has(error)

/** Connections that never came to be, found again by their error. */
const unconnectedErrors = new WeakSet<Error>()

/** True when no connection could be made, TLS included: nothing was sent. */
export const notConnected = (error: Error): boolean => unconnectedErrors.has(error)

/** Certificates are verified, against NODE_EXTRA_CA_CERTS, too. */
const connector = buildConnector({ timeout: CONNECT_TIMEOUT_MS, allowH2: false })

const connect: buildConnector.connector = (options, callback) => {
  connector(options, (...result) => {
    const [failure, socket] = result
    if (failure !== null) unconnectedErrors.add(failure)
    socket?.once('error', (error: Error) => {
      if (socket.bytesRead > 0) reusedErrors.add(error)
    })
    callback(...result)
  })
}

export class Pools {
  #pools = new Map<string, Pool>()

  /** Makes missing pools; closes the others once their running requests have ended. */
  keep(urls: ReadonlySet<string>): void {
    for (const [url, pool] of this.#pools) {
      if (urls.has(url)) continue
      this.#pools.delete(url)
      pool.close().catch(() => pool.destroy())
    }
    for (const url of urls) {
      if (!this.#pools.has(url)) this.#pools.set(url, newPool(url))
    }
  }

  of(url: string): Dispatcher {
    const pool = this.#pools.get(url)
    if (pool === undefined) throw new PenstockError('internal_error', `no pool for ${url}`)
    return pool
  }

  async destroy(): Promise<void> {
    const pools = [...this.#pools.values()]
    this.#pools = new Map()
    await Promise.all(pools.map((pool) => pool.destroy()))
  }
}

/**
 * Unlimited connections: the gateway's own admission bounds them, a limit here would queue
 * silently (baselines.md 5). No pipelining: aborting one request would kill its neighbours.
 * undici's time-outs are off: a reasoning model is silent for minutes; forward.ts keeps time.
 */
const newPool = (url: string): Pool =>
  new Pool(url, {
    connections: null,
    pipelining: 1,
    allowH2: false,
    connect,
    headersTimeout: 0,
    bodyTimeout: 0,
    keepAliveTimeout: IDLE_MS,
    keepAliveMaxTimeout: IDLE_MS,
  })
