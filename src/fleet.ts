/**
 * The one mutable store of the control side: what is wanted, what was seen, and the state of each
 * replica. Writers call verbs, readers get values; nobody keeps a record across an await and acts
 * on it, the verb looks again. Bounded: replicas by MAX_SLOTS, the rest by the inventory.
 */
import assert from 'node:assert'
import type { NodeFacts, NodeObservation } from './core/observed.ts'
import type { Plan, PlannedReplica, ReplicaId } from './core/plan.ts'
import { backoffMs, mayBecome, STABLE_AFTER_MS } from './core/replica.ts'
import type { EngineSignal, PhaseReading } from './core/runtime.ts'
import { SIGNALS } from './core/signals.ts'
import { MAX_SLOTS } from './core/snapshot.ts'
import type { GpuView, ReplicaState } from './core/view.ts'

export type Busy = {
  readonly kind: 'start' | 'stop'
  readonly specHash: string
  readonly abort: AbortController
}

export type Timeouts = { readonly readyMs: number; readonly drainMs: number }

/** For replicas found running whose manifest is gone. */
const DEFAULT_TIMEOUTS: Timeouts = { readyMs: 3_600_000, drainMs: 300_000 }

export type ReplicaRecord = {
  readonly id: ReplicaId
  readonly deployment: string
  readonly replica: number
  /** Its row in the gateways' shared in-flight counts. */
  readonly slot: number
  want: PlannedReplica | null
  /** Where what runs listens; `want` may already say something else. */
  endpoint: string
  /** Spec hash of what was started or adopted last; empty before. */
  runs: string
  state: ReplicaState
  sinceMs: number
  reason: string
  restarts: number
  retryAtMs: number
  restartAsked: boolean
  busy: Busy | null
  /** Observations older than this were made before our last operation ended: not evidence. */
  settledAtMs: number
  drainUntilMs: number | null
  readyUntilMs: number
  /** From the deployment; kept for when it is removed. */
  timeouts: Timeouts
  readonly phases: Map<number, PhaseReading>
}

export type GpuReading = Omit<GpuView, 'ageMs'> & { readonly readAtMs: number }
export type SignalReading = { readonly value: number; readonly readAtMs: number }
export type Rates = {
  readonly promptTokensPerSecond: number | null
  readonly generationTokensPerSecond: number | null
}

/** How the files on disk stand to what is in use (control/reload.ts). */
export type ConfigState = {
  /** Null: they are the same, or are not followed yet. */
  problem: string | null
  /** The files cannot be used; otherwise they wait for an apply. */
  broken: boolean
  reloads: number
  failures: number
  reloadedAtMs: number | null
}

export class Fleet {
  readonly replicas = new Map<ReplicaId, ReplicaRecord>()
  readonly observations = new Map<string, NodeObservation>()
  readonly facts = new Map<string, NodeFacts>()
  readonly signals = new Map<ReplicaId, Map<EngineSignal, SignalReading>>()
  readonly rates = new Map<ReplicaId, Rates>()
  /** Requests that an engine threw back into its queue between its last two readings. */
  readonly preemptions = new Map<ReplicaId, number>()
  readonly gpus = new Map<string, Map<number, GpuReading>>()
  plan: Plan = { deployments: [], actions: [], unchanged: [] }
  generation = 0
  readonly config: ConfigState = {
    problem: null,
    broken: false,
    reloads: 0,
    failures: 0,
    reloadedAtMs: null,
  }

  readonly #listeners = new Set<() => void>()
  /** Of backends, by name: they are no replicas, but their requests are counted like theirs. */
  readonly #backendSlots = new Map<string, number>()
  #nextSlot = 0

  /** Called after each change; listeners only mark themselves dirty, they never act in it. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  changed(): void {
    for (const listener of this.#listeners) listener()
  }

  /** A new plan: every planned replica is wanted, every other known one no longer is. */
  planned(plan: Plan, timeouts: ReadonlyMap<string, Timeouts>, nowMs: number): void {
    this.plan = plan
    const wanted = new Map(
      plan.deployments.flatMap(({ replicas }) => replicas).map((want) => [want.id, want]),
    )
    for (const record of this.replicas.values()) record.want = wanted.get(record.id) ?? null
    for (const want of wanted.values()) {
      const record = this.known(want.id, want.deployment, want.replica, nowMs)
      if (record === null) continue
      record.want = want
      record.timeouts = timeouts.get(want.deployment) ?? DEFAULT_TIMEOUTS
    }
    this.changed()
  }

  /** The record of a replica, made if new; null when there is no slot left. */
  known(id: ReplicaId, deployment: string, replica: number, nowMs: number): ReplicaRecord | null {
    const found = this.replicas.get(id)
    if (found !== undefined) return found
    const slot = this.#freeSlot()
    if (slot === null) return null
    const record: ReplicaRecord = {
      id,
      deployment,
      replica,
      slot,
      want: null,
      endpoint: '',
      runs: '',
      state: 'pending',
      sinceMs: nowMs,
      reason: 'not seen yet',
      restarts: 0,
      retryAtMs: 0,
      restartAsked: false,
      busy: null,
      settledAtMs: 0,
      drainUntilMs: null,
      readyUntilMs: Number.POSITIVE_INFINITY,
      timeouts: DEFAULT_TIMEOUTS,
      phases: new Map(),
    }
    this.replicas.set(id, record)
    return record
  }

  /**
   * Slots go round, so that a late request of a replica just forgotten is not counted on a new one.
   */
  #freeSlot(): number | null {
    const replicas = [...this.replicas.values()].map(({ slot }) => slot)
    const taken = new Set([...replicas, ...this.#backendSlots.values()])
    for (let step = 0; step < MAX_SLOTS; step += 1) {
      const slot = (this.#nextSlot + step) % MAX_SLOTS
      if (taken.has(slot)) continue
      this.#nextSlot = (slot + 1) % MAX_SLOTS
      return slot
    }
    return null
  }

  /** A backend's row in the gateways' counts, its own from now on; null: there is none left. */
  backendSlot(name: string): number | null {
    const slot = this.#backendSlots.get(name) ?? this.#freeSlot()
    if (slot !== null) this.#backendSlots.set(name, slot)
    return slot
  }

  /** Backends of another name are gone, and their rows free. */
  keepBackends(names: ReadonlySet<string>): void {
    for (const name of this.#backendSlots.keys()) {
      if (!names.has(name)) this.#backendSlots.delete(name)
    }
  }

  /** What a driver saw on one node; containers of replicas not known yet make them known. */
  observed(observation: NodeObservation): void {
    this.observations.set(observation.node, observation)
    for (const { labels } of observation.containers) {
      const id = `${labels.deployment}/${labels.replica}`
      this.known(id, labels.deployment, labels.replica, observation.readAtMs)
    }
    this.changed()
  }

  /** A node left the inventory: nothing is known of it any more. */
  lost(node: string): void {
    this.observations.delete(node)
    this.facts.delete(node)
    this.gpus.delete(node)
    this.changed()
  }

  become(id: ReplicaId, state: ReplicaState, reason: string, nowMs: number): void {
    const record = this.replicas.get(id)
    if (record === undefined) return
    assert(mayBecome(record.state, state), `${id}: no way from ${record.state} to ${state}`)
    if (record.state !== state) {
      this.#entering(record, state, nowMs)
      record.sinceMs = nowMs
    }
    if (record.state === state && record.reason === reason) return
    record.state = state
    record.reason = reason
    this.changed()
  }

  #entering(record: ReplicaRecord, state: ReplicaState, nowMs: number): void {
    if (record.state === 'ready' && nowMs - record.sinceMs > STABLE_AFTER_MS) record.restarts = 0
    if (state === 'failed') {
      record.retryAtMs = nowMs + backoffMs(record.restarts)
      record.restarts += 1
    }
    if (state !== 'draining') record.drainUntilMs = null
    if (state === 'stopped' || state === 'pending' || state === 'failed') {
      record.phases.clear()
      this.signals.delete(record.id)
      this.rates.delete(record.id)
      this.preemptions.delete(record.id)
    }
  }

  forget(id: ReplicaId): void {
    this.replicas.delete(id)
    this.signals.delete(id)
    this.rates.delete(id)
    this.preemptions.delete(id)
    this.changed()
  }

  phase(id: ReplicaId, rank: number, reading: PhaseReading): void {
    const record = this.replicas.get(id)
    const old = record?.phases.get(rank)
    if (record === undefined || (old?.phase === reading.phase && old.ratio === reading.ratio))
      return
    record.phases.set(rank, reading)
    this.changed()
  }

  sampled(
    id: ReplicaId,
    readings: Readonly<Partial<Record<EngineSignal, number>>>,
    readAtMs: number,
  ): void {
    if (!this.replicas.has(id)) return
    const signals = this.signals.get(id) ?? new Map<EngineSignal, SignalReading>()
    const [before, now] = [signals.get('preemptionsTotal')?.value, readings.preemptionsTotal]
    // A counter that went back is an engine that started anew.
    if (before !== undefined && now !== undefined) {
      this.preemptions.set(id, now >= before ? now - before : now)
    }
    for (const signal of SIGNALS) {
      const value = readings[signal]
      if (value !== undefined) signals.set(signal, { value, readAtMs })
    }
    this.signals.set(id, signals)
    this.changed()
  }

  rated(id: ReplicaId, rates: Rates): void {
    if (this.replicas.has(id)) this.rates.set(id, rates)
  }

  gpuRead(node: string, reading: GpuReading): void {
    const readings = this.gpus.get(node) ?? new Map<number, GpuReading>()
    readings.set(reading.index, reading)
    this.gpus.set(node, readings)
    this.changed()
  }

  /** Containers of one replica over all nodes, and the nodes whose word is old or missing. */
  containersOf(id: ReplicaId): NodeObservation['containers'] {
    return [...this.observations.values()]
      .flatMap(({ containers }) => containers)
      .filter(({ labels }) => `${labels.deployment}/${labels.replica}` === id)
  }
}
