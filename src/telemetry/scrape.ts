/**
 * Engine metrics, read by GET /metrics on rank 0 of each replica. One request in flight a replica,
 * a bounded number over all; a replica that fails is asked less often and cannot crowd out the
 * others. Rates come from counters over a short window and outlive an engine's restart.
 */
import { Agent, request } from 'undici'
import type { Clock, Stop } from '../clock.ts'
import { parseExposition } from '../core/prometheus.ts'
import type { Runtime } from '../core/runtime.ts'
import { metricNames, readSignals, type Signals } from '../core/signals.ts'
import { Window } from '../core/window.ts'

export type ScrapeTarget = {
  readonly replica: string
  /** `http://host:port` of rank 0. */
  readonly url: string
  readonly engine: string
}

/** Null is unknown: fewer than two scrapes within the window. */
export type TokenRates = {
  readonly promptTokensPerSecond: number | null
  readonly generationTokensPerSecond: number | null
}

export type Scraped = {
  readonly replica: string
  readonly signals: Signals
  readonly rates: TokenRates
  /** Epoch milliseconds of the answer. */
  readonly readAtMs: number
  /** Lines that were no metric. */
  readonly malformed: number
}

export type ScrapeFailure = {
  readonly replica: string
  readonly message: string
  /** Failures in a row, this one included. */
  readonly failures: number
  readonly rates: TokenRates
}

export type ScraperOptions = {
  /** Asked anew at each beat; who is gone is forgotten. */
  readonly targets: () => readonly ScrapeTarget[]
  readonly runtimes: Readonly<Record<string, Pick<Runtime, 'metrics'>>>
  readonly clock: Clock
  readonly onSample: (scraped: Scraped) => void
  readonly onError: (failure: ScrapeFailure) => void
  readonly intervalMs?: number
  readonly timeoutMs?: number
  readonly concurrency?: number
}

export type Scraper = { stop(): Promise<void> }

const INTERVAL_MS = 500
/** An engine under full CPU load answers late (vLLM thread gonka #1421 saw 2 s). */
const TIMEOUT_MS = 3000
const CONCURRENCY = 32
const BODY_BYTES_MAX = 8 * 1024 * 1024
const RATE_SPAN_MS = 10_000
/** Beats per interval: how finely the scrapes of many replicas are spread over it. */
const BEATS = 5
/** Share of the interval by which each replica's next scrape is moved, either way. */
const JITTER = 0.1
/** A replica that fails is asked at most this many times less often. */
const SLOWDOWN_MAX = 8

/** What is remembered of one replica between scrapes. */
type Watched = {
  readonly target: ScrapeTarget
  readonly abort: AbortController
  readonly prompt: Window
  readonly generation: Window
  busy: boolean
  /** Whether the last scrape succeeded. */
  answered: boolean
  /** Failures in a row. */
  failures: number
  dueMs: number
}

export const createScraper = (options: ScraperOptions): Scraper => new Scrapes(options)

class Scrapes implements Scraper {
  readonly #options: ScraperOptions
  readonly #intervalMs: number
  readonly #agent: Agent
  readonly #watched = new Map<string, Watched>()
  readonly #running = new Set<Promise<void>>()
  readonly #names = new Map<string, ReadonlySet<string>>()
  readonly #stopBeat: Stop
  #stopped = false

  constructor(options: ScraperOptions) {
    this.#options = options
    this.#intervalMs = options.intervalMs ?? INTERVAL_MS
    this.#agent = new Agent({ pipelining: 1, maxHeaderSize: 16_384 })
    const beatMs = Math.max(1, Math.round(this.#intervalMs / BEATS))
    this.#stopBeat = options.clock.every(beatMs, () => this.#beat())
  }

  /** No callback comes after this was called; done when every socket is closed. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#stopBeat()
    for (const watched of this.#watched.values()) watched.abort.abort()
    await Promise.all(this.#running)
    await this.#agent.destroy()
  }

  #beat(): void {
    this.#follow()
    const nowMs = this.#options.clock.monotonic()
    const limit = this.#options.concurrency ?? CONCURRENCY
    const due = [...this.#watched.values()]
      .filter((watched) => !watched.busy && watched.dueMs <= nowMs)
      .sort((a, b) => a.dueMs - b.dueMs)
    for (const watched of due) {
      if (this.#running.size >= limit) return
      // Half of the places are for replicas that answer, so hung ones never hold them all.
      if (!watched.answered && this.#unproven() >= Math.max(1, limit / 2)) continue
      const run = this.#scrape(watched)
      this.#running.add(run)
      void run.finally(() => this.#running.delete(run))
    }
  }

  #unproven(): number {
    return [...this.#watched.values()].filter(({ busy, answered }) => busy && !answered).length
  }

  /** Forget who is gone or moved, begin with who is new, spread over one interval. */
  #follow(): void {
    const wanted = new Map(this.#options.targets().map((target) => [target.replica, target]))
    for (const [replica, { target, abort }] of this.#watched) {
      const next = wanted.get(replica)
      if (next?.url === target.url && next.engine === target.engine) continue
      abort.abort()
      this.#watched.delete(replica)
    }
    const nowMs = this.#options.clock.monotonic()
    const capacity = Math.min(1000, Math.ceil((RATE_SPAN_MS / this.#intervalMs) * 1.5) + 2)
    for (const [replica, target] of wanted) {
      if (this.#watched.has(replica)) continue
      this.#watched.set(replica, {
        target,
        abort: new AbortController(),
        prompt: new Window(capacity),
        generation: new Window(capacity),
        busy: false,
        answered: false,
        failures: 0,
        dueMs: nowMs + (this.#watched.size === 0 ? 0 : Math.random() * this.#intervalMs),
      })
    }
  }

  async #scrape(watched: Watched): Promise<void> {
    const { clock, onSample, onError, timeoutMs = TIMEOUT_MS } = this.#options
    const { replica } = watched.target
    watched.busy = true
    const outcome = await this.#read(watched, timeoutMs).catch((error: unknown) =>
      explain(error, timeoutMs),
    )
    watched.busy = false
    const nowMs = clock.monotonic()
    const failed = typeof outcome === 'string'
    watched.answered = !failed
    watched.failures = failed ? watched.failures + 1 : 0
    const slower = Math.min(SLOWDOWN_MAX, 2 ** watched.failures)
    const jitter = 1 + JITTER * (2 * Math.random() - 1)
    watched.dueMs = nowMs + this.#intervalMs * slower * jitter
    if (this.#stopped || watched.abort.signal.aborted) return
    if (failed) {
      const rates = ratesOf(watched, nowMs)
      onError({ replica, message: outcome, failures: watched.failures, rates })
      return
    }
    watched.prompt.push(nowMs, outcome.signals.promptTokensTotal ?? Number.NaN)
    watched.generation.push(nowMs, outcome.signals.generationTokensTotal ?? Number.NaN)
    onSample({ replica, ...outcome, rates: ratesOf(watched, nowMs), readAtMs: clock.now() })
  }

  /** The signals, or one sentence on why there are none. */
  async #read(
    { target, abort }: Watched,
    timeoutMs: number,
  ): Promise<string | Pick<Scraped, 'signals' | 'malformed'>> {
    const table = this.#options.runtimes[target.engine]?.metrics
    if (table === undefined) return `no metric names are known for engine ${target.engine}`
    const { statusCode, body } = await request(`${target.url}/metrics`, {
      dispatcher: this.#agent,
      signal: AbortSignal.any([abort.signal, AbortSignal.timeout(timeoutMs)]),
      headers: { accept: 'text/plain;version=0.0.4' },
    })
    const text = await bounded(body)
    if (text === null) return `metrics are larger than ${BODY_BYTES_MAX / 1024 / 1024} MiB`
    if (statusCode === 404) return 'the engine has no /metrics (404): are its metrics switched off?'
    if (statusCode !== 200) return `metrics answered with status ${statusCode}`
    const names = this.#names.get(target.engine) ?? metricNames(table)
    this.#names.set(target.engine, names)
    const { samples, malformed } = parseExposition(text, { wanted: names })
    if (samples.length === 0) return 'no metric of this engine is among what it answered'
    return { signals: readSignals(samples, table), malformed }
  }
}

const ratesOf = ({ prompt, generation }: Watched, nowMs: number): TokenRates => ({
  promptTokensPerSecond: prompt.ratePerSecond(nowMs, RATE_SPAN_MS),
  generationTokensPerSecond: generation.ratePerSecond(nowMs, RATE_SPAN_MS),
})

/** Null when there is more than we take; leaving the loop closes the connection. */
export const bounded = async (body: AsyncIterable<Uint8Array>): Promise<string | null> => {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > BODY_BYTES_MAX) return null
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const explain = (error: unknown, timeoutMs: number): string => {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return `no metrics within ${timeoutMs} ms`
  if ('code' in error && error.code === 'ECONNREFUSED') return 'nothing listens on its port'
  if ('code' in error && error.code === 'UND_ERR_SOCKET') return 'the connection broke off'
  return error.message === '' && 'code' in error ? String(error.code) : error.message
}
