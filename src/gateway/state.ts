/** What one gateway thread holds: the newest snapshot, its pools, and the requests it serves. */
import { Estimator } from '../core/estimate.ts'
import type { FinishedRequest, GatewaySnapshot } from '../core/snapshot.ts'
import type { AdmissionSlots } from './admission-slots.ts'
import type { AnswerSlots } from './answer-slots.ts'
import { type Breakers, sharedClockMs } from './breakers.ts'
import { Conversations, Turns } from './choose.ts'
import { Kept } from './kept.ts'
import type { Limiter } from './limits.ts'
import { Occupancy } from './occupancy.ts'
import { Pools } from './pools.ts'
import type { QueueSlots } from './queue-slots.ts'
import type { RetryBudget } from './retry-budget.ts'
import { RunningList } from './running.ts'
import type { SharedCounts } from './shared.ts'
import { Table } from './table.ts'
import { Waiting } from './waiting.ts'

/** One timer a thread instead of several a request: time-outs are this precise. */
export const TICK_MS = 100

type Setup = {
  readonly thread: number
  readonly counts: SharedCounts
  readonly limits: Limiter
  readonly breakers: Breakers
  readonly retries: RetryBudget
  readonly admission: AdmissionSlots
  readonly queue: QueueSlots
  readonly answers: AnswerSlots
  readonly snapshot: GatewaySnapshot
  /** Epoch seconds at which Penstock started, the same in all threads. */
  readonly startedAtSeconds: number
  readonly report: (request: FinishedRequest) => void
}

export class GatewayState {
  readonly thread: number
  readonly counts: SharedCounts
  readonly limits: Limiter
  readonly breakers: Breakers
  readonly retries: RetryBudget
  readonly queue: Waiting
  readonly answers: AnswerSlots
  readonly estimator = new Estimator()
  readonly startedAtSeconds: number
  readonly report: (request: FinishedRequest) => void
  readonly pools = new Pools()
  readonly running = new RunningList()
  readonly kept = new Kept()
  readonly turns = new Turns()
  readonly conversations = new Conversations()
  draining = false
  #table: Table

  constructor(setup: Setup) {
    this.thread = setup.thread
    this.counts = setup.counts
    this.limits = setup.limits
    this.breakers = setup.breakers
    this.retries = setup.retries
    this.answers = setup.answers
    this.startedAtSeconds = setup.startedAtSeconds
    this.report = setup.report
    this.#table = new Table(setup.snapshot)
    this.queue = new Waiting({
      thread: setup.thread,
      slots: setup.queue,
      occupancy: new Occupancy(setup.admission, setup.thread, {
        now: sharedClockMs,
        wall: Date.now,
      }),
      table: () => this.#table,
    })
    this.publish(setup.snapshot)
  }

  get table(): Table {
    return this.#table
  }

  publish(snapshot: GatewaySnapshot): void {
    this.#table = new Table(snapshot, this.#table)
    this.pools.keep(this.#table.urls())
    const deployments = this.#table.deployments()
    this.turns.keep(deployments)
    this.conversations.keep(deployments)
    this.queue.published()
  }

  tick(nowMs: number): void {
    this.running.each((running) => running.tick(nowMs))
    this.queue.tick()
  }
}
