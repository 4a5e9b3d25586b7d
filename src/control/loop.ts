/**
 * The control loop: at its own pace it asks core/group.ts what each replica needs and sets it
 * going. Events only wake it up. Each replica has at most one operation and one probe under way.
 */
import type { Clock } from '../clock.ts'
import { decide, type GroupInput, type Step } from '../core/group.ts'
import type { Container } from '../core/observed.ts'
import type { PlannedReplica } from '../core/plan.ts'
import type { Runtimes } from '../core/runtime.ts'
import { errorLine } from '../errors.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import { type DriverOf, startGroup, stopGroup } from './operations.ts'
import type { ProbeAnswer, ProbeAsk } from './probe.ts'

/** A tick follows a change after this long, and comes anyway once a second. */
const WAKE_AFTER_MS = 100
const TICK_EVERY_MS = 1000
/** A broken group is not waited for: its requests are lost already and its GPUs are needed. */
const BROKEN_GRACE_MS = 2000
const STOP_TIMEOUT_MS = 600_000

export type LoopOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly driverOf: DriverOf
  readonly runtimes: Runtimes
  /** Requests in flight on a slot, over all gateway threads. */
  readonly inFlight: (slot: number) => number
  readonly probe: (ask: ProbeAsk) => Promise<ProbeAnswer>
  /** Called before the ranks of a broken group are removed; keeps their last log lines. */
  readonly postmortem: (containers: readonly Container[]) => Promise<string>
  readonly log: (line: string) => void
}

export class Loop {
  readonly #options: LoopOptions
  readonly #probing = new Set<string>()
  readonly #closing = new AbortController()
  readonly #running = new Set<Promise<void>>()
  #stops: (() => void)[] = []
  #woken = false

  constructor(options: LoopOptions) {
    this.#options = options
  }

  start(): void {
    const { fleet, clock } = this.#options
    this.#stops = [
      clock.every(TICK_EVERY_MS, () => this.tick()),
      fleet.subscribe(() => this.wake()),
    ]
    this.wake()
  }

  wake(): void {
    if (this.#woken || this.#closing.signal.aborted) return
    this.#woken = true
    void this.#options.clock.sleep(WAKE_AFTER_MS).then(() => {
      this.#woken = false
      this.tick()
    })
  }

  /** Decide once for every replica and set the steps going; never waits for them. */
  tick(): void {
    if (this.#closing.signal.aborted) return
    for (const record of [...this.#options.fleet.replicas.values()]) {
      const input = this.#inputOf(record)
      if (input !== null) this.#perform(record, decide(input), input)
    }
  }

  /** Null: what was seen is older than our last operation, so there is nothing to decide on. */
  #inputOf(record: ReplicaRecord): GroupInput | null {
    const { fleet, clock, inFlight } = this.#options
    const containers = fleet.containersOf(record.id)
    const nodes = new Set([
      ...(record.want?.ranks ?? []).map(({ node }) => node),
      ...containers.map(({ labels }) => labels.node),
    ])
    const unreachable: { node: string; reason: string }[] = []
    for (const node of nodes) {
      const seen = fleet.observations.get(node)
      if (seen === undefined || seen.readAtMs <= record.settledAtMs) return null
      if (!seen.reachable) unreachable.push({ node, reason: seen.reason })
    }
    return {
      want: record.want,
      state: record.state,
      containers,
      unreachable,
      busy: record.busy,
      restartAsked: record.restartAsked,
      nowMs: clock.now(),
      retryAtMs: record.retryAtMs,
      inFlight: inFlight(record.slot),
      drainUntilMs: record.drainUntilMs,
      readyUntilMs: record.readyUntilMs,
    }
  }

  #perform(record: ReplicaRecord, step: Step, { want, containers, nowMs }: GroupInput): void {
    const { fleet, log } = this.#options
    switch (step.do) {
      case 'wait':
        if (record.busy === null && record.state !== 'failed') {
          fleet.become(record.id, record.state, step.reason, nowMs)
        }
        return
      case 'start':
        if (want !== null) this.#track(this.#start(record, want, step.reason))
        return
      case 'adopt':
        record.readyUntilMs = nowMs + record.timeouts.readyMs
        record.endpoint = want?.endpoint ?? ''
        record.runs = want?.specHash ?? ''
        fleet.become(record.id, 'starting', step.reason, nowMs)
        log(`${record.id}: ${step.reason}, checking that it answers`)
        return
      case 'probe':
        if (want !== null) this.#track(this.#probe(record, want))
        return
      case 'drain':
        record.drainUntilMs = nowMs + record.timeouts.drainMs
        fleet.become(record.id, 'draining', step.reason, nowMs)
        log(`${record.id}: draining: ${step.reason}`)
        return
      case 'stop':
        this.#track(this.#stop(record, step, containers))
        return
      case 'cancel':
        record.busy?.abort.abort(new Error(step.reason))
        return
      case 'forget':
        fleet.forget(record.id)
        log(`${record.id}: gone`)
        return
    }
  }

  #track(work: Promise<void>): void {
    this.#running.add(work)
    void work.finally(() => this.#running.delete(work))
  }

  async #start(record: ReplicaRecord, want: PlannedReplica, reason: string): Promise<void> {
    const { fleet, clock, driverOf, log } = this.#options
    const abort = new AbortController()
    record.busy = { kind: 'start', specHash: want.specHash, abort }
    record.restartAsked = false
    record.endpoint = want.endpoint
    record.runs = want.specHash
    record.phases.clear()
    fleet.become(record.id, 'starting', reason, clock.now())
    log(`${record.id}: starting ${want.ranks.length} rank(s): ${reason}`)
    try {
      const signal = AbortSignal.any([abort.signal, this.#closing.signal])
      await startGroup({
        want,
        driverOf,
        signal,
        progress: (rank, { phase, ratio }) =>
          fleet.phase(record.id, rank, ratio === null ? { phase } : { phase, ratio }),
      })
      record.readyUntilMs = clock.now() + record.timeouts.readyMs
    } catch (error) {
      this.#failed(record, error)
    } finally {
      this.#settle(record)
    }
  }

  #failed(record: ReplicaRecord, error: unknown): void {
    const { fleet, clock, log } = this.#options
    if (this.#closing.signal.aborted) return
    fleet.become(record.id, 'failed', errorLine(error), clock.now())
    const seconds = Math.ceil((record.retryAtMs - clock.now()) / 1000)
    log(`${record.id}: failed: ${errorLine(error)}; next try in ${seconds} s`)
  }

  #settle(record: ReplicaRecord): void {
    record.busy = null
    record.settledAtMs = this.#options.clock.now()
    this.wake()
  }

  async #stop(
    record: ReplicaRecord,
    step: Extract<Step, { do: 'stop' }>,
    containers: readonly Container[],
  ): Promise<void> {
    const { fleet, clock, driverOf, postmortem, log } = this.#options
    record.busy = { kind: 'stop', specHash: '', abort: new AbortController() }
    record.restartAsked = false
    try {
      if (step.next === 'failed') {
        // At once, so that the gateway gives it no more requests while the ranks are stopped.
        fleet.become(record.id, 'failed', step.reason, clock.now())
        const last = await postmortem(containers)
        const reason = last === '' ? step.reason : `${step.reason}; last log line: ${last}`
        fleet.become(record.id, 'failed', reason, clock.now())
        log(`${record.id}: ${reason}; restarting the whole group`)
      } else {
        log(`${record.id}: stopping: ${step.reason}`)
      }
      const graceMs = step.graceful
        ? (record.want?.ranks[0]?.stopGraceMs ?? 30_000)
        : BROKEN_GRACE_MS
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(STOP_TIMEOUT_MS)])
      await stopGroup({ ranks: containers, graceMs, driverOf, signal })
      if (step.next !== 'failed') fleet.become(record.id, step.next, step.reason, clock.now())
    } catch (error) {
      if (!this.#closing.signal.aborted) log(`${record.id}: could not stop: ${errorLine(error)}`)
    } finally {
      this.#settle(record)
    }
  }

  async #probe(record: ReplicaRecord, want: PlannedReplica): Promise<void> {
    if (this.#probing.has(record.id)) return
    this.#probing.add(record.id)
    const { fleet, clock, runtimes, probe, log } = this.#options
    const runtime = Object.values(runtimes).find(
      ({ name }) => name === want.ranks[0]?.labels.engine,
    )
    const startedAtMs = record.sinceMs
    try {
      if (runtime === undefined) return
      const answer = await probe({
        endpoint: want.endpoint,
        model: want.deployment,
        ready: runtime.ready,
        signal: this.#closing.signal,
      })
      // Look again: while we asked, the group may have failed, drained or been started anew.
      if (record.state !== 'starting' || record.want?.specHash !== want.specHash) return
      if (record.busy !== null || record.sinceMs !== startedAtMs) return
      if (!answer.ready) {
        fleet.become(record.id, 'starting', answer.reason, clock.now())
        return
      }
      for (const rank of want.ranks) fleet.phase(record.id, rank.labels.rank, { phase: 'ready' })
      fleet.become(record.id, 'ready', 'ready', clock.now())
      log(`${record.id}: ready at ${want.endpoint}`)
    } finally {
      this.#probing.delete(record.id)
    }
  }

  /** Stops deciding; operations under way are called off, engines stay as they are. */
  async close(): Promise<void> {
    for (const stop of this.#stops) stop()
    this.#closing.abort()
    await Promise.allSettled([...this.#running])
  }
}
