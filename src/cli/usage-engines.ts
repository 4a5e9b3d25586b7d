/** The engines' own token counters, run by run, beside our books on them. */
import type { Clock } from '../clock.ts'
import type { ProbeAnswer, ProbeAsk } from '../control/probe.ts'
import { parseExposition } from '../core/prometheus.ts'
import {
  type EngineRun,
  openRun,
  type Reconciliation,
  readRun,
  reconciled,
  type TokenPair,
} from '../core/reconcile.ts'
import type { Runtimes } from '../core/runtime.ts'
import { metricNames, readSignals, type Signals } from '../core/signals.ts'
import { errorLine } from '../errors.ts'
import type { Fleet } from '../fleet.ts'
import type { Store } from '../store/store.ts'
import { bounded } from '../telemetry/scrape.ts'

/** Counters only rise: what is written late is found again at the next reading. */
const WRITE_EVERY_MS = 10_000
const READ_TIMEOUT_MS = 3000
const READ_CONCURRENCY = 16
/** Replicas whose newest run is remembered; more than a fleet has slots. */
const REPLICAS_MAX = 10_000
/** Answers that ended when the counters were read are in our books after this: several batches. */
const SETTLE_MS = 1000

export type EnginesOptions = {
  readonly store: Pick<Store, 'saveRuns' | 'countProbe' | 'runs' | 'wasKilled'>
  readonly clock: Clock
  readonly fleet: Fleet
  readonly runtimes: Runtimes
  readonly log: { info(message: string): void; error(message: string): void }
}

type Probe = (ask: ProbeAsk) => Promise<ProbeAnswer>

export type EngineBooks = {
  /** The same probe, with what it uses in the books; a run is opened before its first tokens. */
  probing(probe: Probe): Probe
  sampled(replica: string, signals: Signals, readAtMs: number): void
  /** Reads the counters now, waits for our books to have what ended until then, compares. */
  reconcile(inFlight: (slot: number) => number): Promise<Reconciliation>
  close(): void
}

export const openEngineBooks = async (options: EnginesOptions): Promise<EngineBooks> => {
  const newest = new Map<string, EngineRun>()
  for (const { run } of (await options.store.runs()).toReversed()) newest.set(run.replica, run)
  return new Books(options, newest)
}

class Books implements EngineBooks {
  readonly #options: EnginesOptions
  /** The newest run of each replica; as many as the store keeps. */
  readonly #newest: Map<string, EngineRun>
  /** Runs that answer now: their counters are read. */
  readonly #current = new Map<string, EngineRun>()
  readonly #changed = new Set<string>()
  readonly #stop: () => void

  constructor(options: EnginesOptions, newest: Map<string, EngineRun>) {
    this.#options = options
    this.#newest = newest
    this.#stop = options.clock.every(WRITE_EVERY_MS, () => this.#write())
  }

  probing(probe: Probe): Probe {
    return async (ask) => {
      const replica = this.#replicaAt(ask.endpoint)
      if (replica === null) return probe(ask)
      const answer = await probe({
        ...ask,
        beforeSmoke: () => this.#opening(replica, ask.endpoint),
      })
      const run = this.#current.get(replica)
      const usage = answer.ready ? answer.usage : undefined
      if (usage !== undefined && run !== undefined) {
        this.#attempt(() => this.#options.store.countProbe(run, usage))
      }
      return answer
    }
  }

  sampled(replica: string, signals: Signals, readAtMs: number): void {
    const run = this.#current.get(replica)
    const counters = countersOf(signals)
    if (run === undefined || counters === null) return
    this.#keep(readRun(run, counters, readAtMs))
  }

  async reconcile(inFlight: (slot: number) => number): Promise<Reconciliation> {
    const { fleet, clock, store } = this.#options
    const before = new Map(
      [...fleet.replicas.values()].map(({ id, slot }) => [id, inFlight(slot)] as const),
    )
    const due = [...this.#current.keys()]
    const work = Array.from({ length: READ_CONCURRENCY }, async () => {
      for (let id = due.pop(); id !== undefined; id = due.pop()) await this.#readNow(id)
    })
    await Promise.all(work)
    await clock.sleep(SETTLE_MS)
    this.#write()
    const runs = (await store.runs()).map(({ run, ours }) => {
      const current = this.#current.get(run.replica)?.run === run.run && this.#runs(run.replica)
      return reconciled(run, ours, {
        current,
        inFlight: current ? (before.get(run.replica) ?? 0) : 0,
      })
    })
    return { runs }
  }

  close(): void {
    this.#stop()
    this.#write()
  }

  #runs(replica: string): boolean {
    const state = this.#options.fleet.replicas.get(replica)?.state
    return state === 'ready' || state === 'draining' || state === 'starting'
  }

  #replicaAt(endpoint: string): string | null {
    for (const { id, want } of this.#options.fleet.replicas.values()) {
      if (want?.endpoint === endpoint) return id
    }
    return null
  }

  /** An engine is not kept from serving because its counters cannot be looked up. */
  async #opening(replica: string, endpoint: string): Promise<void> {
    try {
      await this.#open(replica, endpoint)
    } catch (error) {
      this.#options.log.error(`${replica}: token counters not opened: ${errorLine(error)}`)
    }
  }

  /** Nobody but us has used a new engine yet: what it counted so far is its own warm-up. */
  async #open(replica: string, endpoint: string): Promise<void> {
    const { fleet, clock, store } = this.#options
    const counters = await this.#read(replica, endpoint)
    if (counters === null) return
    const leader = fleet.containersOf(replica).find(({ labels }) => labels.rank === 0)
    const run = leader?.startedAtMs ?? 0
    const newest = this.#newest.get(replica)
    const nowMs = clock.now()
    if (newest?.run !== run) {
      this.#keep(openRun(replica, run, nowMs, counters))
      // Requests are counted in it from its first on.
      this.#write()
      return
    }
    const adopted = !this.#current.has(replica) && store.wasKilled
    const kept = (await store.runs()).find((one) => one.run.replica === replica)
    const unused = kept?.ours.requests === 0 && kept.ours.probes === 0
    // A probe that failed took tokens that nobody named: a run without any use begins anew.
    if (unused) this.#keep(openRun(replica, run, newest.openedAtMs, counters))
    else {
      const read = readRun(newest, counters, nowMs)
      this.#keep({ ...read, kills: read.kills + (adopted ? 1 : 0) })
    }
  }

  async #readNow(replica: string): Promise<void> {
    const { fleet, clock } = this.#options
    const endpoint = fleet.replicas.get(replica)?.endpoint
    if (endpoint === undefined || !this.#runs(replica)) return
    const counters = await this.#read(replica, endpoint)
    const run = this.#current.get(replica)
    if (counters !== null && run !== undefined) {
      this.#keep(readRun(run, counters, clock.now()))
    }
  }

  async #read(replica: string, endpoint: string): Promise<TokenPair | null> {
    const { fleet, runtimes, log } = this.#options
    const engine = fleet.replicas.get(replica)?.want?.ranks[0]?.labels.engine
    const table = Object.values(runtimes).find(({ name }) => name === engine)?.metrics
    if (table === undefined) return null
    try {
      const signal = AbortSignal.timeout(READ_TIMEOUT_MS)
      const answer = await fetch(`${endpoint}/metrics`, { signal })
      if (answer.status !== 200 || answer.body === null) {
        await answer.body?.cancel()
        return null
      }
      const text = await bounded(answer.body)
      if (text === null) return null
      const { samples } = parseExposition(text, { wanted: metricNames(table) })
      return countersOf(readSignals(samples, table)) ?? NOTHING
    } catch (error) {
      log.info(`${replica}: token counters not read: ${errorLine(error)}`)
      return null
    }
  }

  #keep(run: EngineRun): void {
    this.#newest.delete(run.replica)
    this.#newest.set(run.replica, run)
    const [oldest] = this.#newest.keys()
    if (this.#newest.size > REPLICAS_MAX && oldest !== undefined) this.#newest.delete(oldest)
    this.#current.set(run.replica, run)
    this.#changed.add(run.replica)
  }

  #write(): void {
    const { replicas } = this.#options.fleet
    for (const replica of this.#current.keys()) {
      if (!replicas.has(replica)) this.#current.delete(replica)
    }
    const runs = [...this.#changed].flatMap((replica) => this.#newest.get(replica) ?? [])
    this.#attempt(() => {
      this.#options.store.saveRuns(runs)
      this.#changed.clear()
    })
  }

  #attempt(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#options.log.error(`token counters could not be written: ${errorLine(error)}`)
    }
  }
}

const NOTHING: TokenPair = { prompt: 0, completion: 0 }

/** An engine that has not counted yet may leave its counters out. */
const countersOf = (signals: Signals): TokenPair | null => {
  const { promptTokensTotal: prompt, generationTokensTotal: completion } = signals
  if (prompt === undefined && completion === undefined) return null
  return { prompt: prompt ?? 0, completion: completion ?? 0 }
}
