/** How full replicas and models are by what the gateway has sent and what engines say of it. */
import { fullness, pressureOf, type Sent } from '../core/admission.ts'
import type { Ceiling } from '../core/ceiling.ts'
import type { Deployment } from '../core/manifest.ts'
import type { EngineSignal } from '../core/runtime.ts'
import { STALE_MS } from '../core/signals.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'

/** What the gateway knows of its queues; gateway/threads.ts has it. */
export type Queues = {
  /** Requests that wait for a deployment. */
  waiting(deployment: string): number
  admission(slot: number): { readonly sent: Sent; readonly ceiling: Ceiling }
}

export type PressureAsk = {
  readonly fleet: Fleet
  readonly queues: Queues
  readonly deployments: readonly Pick<Deployment, 'name' | 'maxRunning'>[]
}

export class Pressure {
  readonly #fleet: Fleet
  readonly #queues: Queues
  readonly #maxRunning: (deployment: string) => number | null

  constructor({ fleet, queues, deployments }: PressureAsk) {
    this.#fleet = fleet
    this.#queues = queues
    this.#maxRunning = (wanted) =>
      deployments.find(({ name }) => name === wanted)?.maxRunning ?? null
  }

  waiting(deployment: string): number {
    return this.#queues.waiting(deployment)
  }

  /** Requests that a replica may have at a time, as far as was learned. */
  ceiling({ slot, deployment }: ReplicaRecord): number {
    const learned = this.#queues.admission(slot).ceiling.running
    return Math.floor(Math.min(learned, this.#maxRunning(deployment) ?? learned))
  }

  /** 1 is full. */
  replica(record: ReplicaRecord, nowMs: number): number {
    const signal = (name: EngineSignal): number | null => {
      const reading = this.#fleet.signals.get(record.id)?.get(name)
      return reading === undefined || nowMs - reading.readAtMs > STALE_MS ? null : reading.value
    }
    const signals = {
      requestsWaiting: signal('requestsWaiting'),
      kvCacheUsageRatio: signal('kvCacheUsageRatio'),
      kvCapacityTokens: signal('kvCapacityTokens'),
      maxRunning: this.#maxRunning(record.deployment),
    }
    return fullness(signals, this.#queues.admission(record.slot))
  }

  /** 1 is full, and more the more wait; null: no replica is ready. */
  model(deployment: string, nowMs: number): number | null {
    const ready = [...this.#fleet.replicas.values()].filter(
      (record) => record.deployment === deployment && record.state === 'ready',
    )
    const held = ready.reduce((sum, { slot }) => sum + this.#queues.admission(slot).sent.held, 0)
    return pressureOf(
      ready.map((record) => this.replica(record, nowMs)),
      { waiting: this.waiting(deployment), held },
    )
  }
}
