/**
 * The queue at work in one thread. Below the ceiling a request goes at once. Above it, it waits
 * for its turn among all threads' requests; who leaves gives his place back and never reaches an
 * engine. Nothing is written to a client that waits: a refusal keeps its status.
 */
import type { ServerResponse } from 'node:http'
import { isModest, predictFirstTokenMs, predictWaitMs, type Share } from '../core/admission.ts'
import { bandOf, type Waiter } from '../core/fair-queue.ts'
import type { Priority } from '../core/gateway-manifest.ts'
import type { GatewayRoute, RoutePolicy, Target } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import { type Lane, Lanes } from './lanes.ts'
import type { Lease, Payer, Weight } from './lease.ts'
import type { Occupancy } from './occupancy.ts'
import type { Account, QueueSlots } from './queue-slots.ts'
import { goDuration } from './rate-limited.ts'
import { comeBackMs, Saturated } from './saturated.ts'
import type { Table } from './table.ts'

/** What a snapshot without a policy means (core/gateway-manifest.ts's defaults). */
const QUEUE: RoutePolicy['queue'] = { ceiling: 'auto', depth: 1000, wait: 60_000 }
const ORDINARY = { weight: 1, priority: 'normal', maxPriority: 'normal' } as const
/** A thread that nobody wakes looks by itself (threads.ts's tick does the same). */
const BELL_MS = 250

export type EnterAsk = {
  readonly route: GatewayRoute
  readonly consumer: string
  /** Asked for; null: its consumer's. */
  readonly priority: Priority | null
  readonly weight: Weight
  readonly streams: boolean
  readonly sequences: number
  readonly res: ServerResponse
  /** Only one replica will do: nobody waits for it, or others would wait behind him. */
  readonly tied: boolean
  /** It goes on with an answer that was broken off: before all others, whenever that is. */
  readonly resumes: boolean
  /** The best of the ready replicas that are not excluded. */
  readonly pick: (exclude: ReadonlySet<string>) => Target | null
}

/** `queueMs`: null when it did not wait. */
export type Place = {
  readonly target: Target
  readonly lease: Lease
  readonly queueMs: number | null
}

type How = {
  readonly enteredAtMs: number | null
  readonly squeezed: boolean
  /** Who has less than his part may go beyond the ceiling. */
  readonly beyond: boolean
}

type Asking = { readonly ask: EnterAsk; readonly account: Account; readonly payer: Payer }

type Item = Asking & {
  readonly enteredAtMs: number
  readonly tokens: number
  readonly done: (outcome: Place | null | Error) => void
}

export type WaitingSetup = {
  readonly thread: number
  readonly slots: QueueSlots
  readonly occupancy: Occupancy
  readonly table: () => Table
}

export class Waiting {
  readonly occupancy: Occupancy
  readonly #thread: number
  readonly #slots: QueueSlots
  readonly #lanes: Lanes<Item>
  readonly #table: () => Table
  #draining = false
  #listening = false

  constructor({ thread, slots, occupancy, table }: WaitingSetup) {
    this.#thread = thread
    this.#slots = slots
    this.#lanes = new Lanes(thread, slots, occupancy.now)
    this.#table = table
    this.occupancy = occupancy
  }

  /** Requests that wait in this thread. */
  get size(): number {
    return this.#lanes.size
  }

  /**
   * A place on a replica, at once or when its turn comes; null: the client left meanwhile. Throws
   * Saturated when the queue is full or too slow, server_draining, and model_unavailable.
   */
  enter(ask: EnterAsk): Place | Promise<Place | null> {
    const { route, consumer } = ask
    const lane = this.#lanes.of(route.deployment)
    const account = this.#lanes.account(route.deployment, consumer)
    const settings = this.#table().consumer(consumer) ?? ORDINARY
    const band = ask.resumes ? 0 : bandOf(ask.priority, settings)
    this.#lanes.lift(lane, account, band)
    const payer = this.#lanes.payer(lane, { account, weight: settings.weight }, this.#wake)
    const asking: Asking = { ask, account, payer }
    const free = ask.tied || queueOf(route).ceiling === 'none'
    if (free || this.#slots.waiting(lane.index).count === 0) {
      const place = this.#place(lane, asking, null)
      if (place !== null) return place
    }
    try {
      if (ask.tied) return this.#squeezeIn(lane, asking)
      this.#makeRoom(lane, asking, band)
    } catch (error) {
      payer.freed(true)
      throw error
    }
    return this.#wait(lane, asking, band)
  }

  /** Whether it had no more than its part there with one more request; alone, nobody has. */
  modest({ deployment }: GatewayRoute, consumer: string): boolean {
    const account = this.#lanes.account(deployment, consumer)
    const { weight } = this.#table().consumer(consumer) ?? ORDINARY
    const share = this.#lanes.shareOf(this.#lanes.of(deployment), { account, weight })
    return isModest(share, this.#running(deployment), 1)
  }

  /** A new snapshot: readings to take in, and perhaps nobody left to wait for. */
  published(): void {
    for (const { target, due } of this.#table().everyTarget()) this.occupancy.read(target, due)
    for (const lane of this.#lanes.all()) {
      for (const waiter of lane.queue.all()) {
        const { route } = waiter.item.ask
        const current = this.#table().targetsOf(route.deployment)
        if (current.some(({ state }) => state === 'ready')) continue
        const message = `${route.model} is not available any more: no replica is ready`
        const error = new PenstockError('model_unavailable', message, { param: 'model' })
        this.#leave(lane, waiter, error)
      }
      if (lane.queue.size > 0) this.#pump(lane)
    }
  }

  tick(): void {
    const nowMs = this.occupancy.now()
    this.occupancy.tick()
    for (const lane of this.#lanes.all()) {
      if (lane.queue.size === 0) continue
      this.#slots.measure(lane.index, nowMs)
      for (const waiter of lane.queue.all()) this.#expire(lane, waiter, nowMs)
      this.#pump(lane)
    }
  }

  /** All who wait are told, and nobody waits any more. */
  drain(): void {
    this.#draining = true
    for (const lane of this.#lanes.all()) {
      for (const waiter of lane.queue.all()) this.#leave(lane, waiter, draining())
    }
  }

  #wait(lane: Waits, asking: Asking, band: number): Promise<Place | null> {
    const { ask } = asking
    const tokens = ask.weight.prompt + ask.weight.completion
    return new Promise((resolve, reject) => {
      const gone = (): void => this.#leave(lane, waiter, null)
      const done: Item['done'] = (outcome) => {
        ask.res.off('close', gone)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      }
      const enteredAtMs = this.occupancy.now()
      const waiter = this.#lanes.add(lane, { ...asking, enteredAtMs, tokens, done }, band)
      if (ask.res.destroyed) gone()
      else ask.res.once('close', gone)
      this.#tooLate(lane, waiter)
      this.#pump(lane)
      void this.#listen()
    })
  }

  /** The one replica is full: beyond that go only those who have little of the model. */
  #squeezeIn(lane: Waits, asking: Asking): Place {
    const { route } = asking.ask
    if (this.#draining) throw draining()
    const place = this.#hasLess(lane, asking, 1) ? this.#place(lane, asking, null, true) : null
    if (place !== null) return place
    if (asking.ask.pick(new Set()) !== null) {
      throw this.#saturated(lane, `${route.model}: the replica that keeps this answer is full`)
    }
    throw new PenstockError('model_unavailable', `${route.model}: its replica is not ready`, {
      param: 'model',
    })
  }

  /** Refuses the newcomer, or the newest of one who has had more. */
  #makeRoom(lane: Waits, { ask, account }: Asking, band: number): void {
    if (this.#draining) throw draining()
    const { route } = ask
    const { depth } = queueOf(route)
    const { count } = this.#slots.waiting(lane.index)
    if (count < depth) return
    const why = `${route.model} is full, and ${count} of at most ${depth} requests wait already`
    const victim = depth === 0 ? null : this.#lanes.victim(lane, account, band)
    if (victim === null) throw this.#saturated(lane, why)
    this.#leave(lane, victim, this.#saturated(lane, `${why}; others had less of it`))
  }

  /** One whose first token cannot come in time need not wait for that. */
  #tooLate(lane: Waits, waiter: Waiter<Item>): void {
    const { ask } = waiter.item
    const { route, weight } = ask
    const targetMs = dueOf(ask)
    if (targetMs === null) return
    // What is kept for him does not wait for those before him.
    if (this.#lanes.smallest(lane) === waiter && this.#hasLess(lane, waiter.item)) return
    const { position, tokens } = this.#lanes.ahead(lane, waiter)
    const predicted = this.#predict(route, { queuedTokens: tokens, prompt: weight.prompt })
    if (predicted === null || predicted <= targetMs) return
    const why =
      `${route.model} is full: at position ${position} of its queue a first token is expected ` +
      `in ${seconds(predicted)}, later than its target of ${seconds(targetMs)}`
    this.#leave(lane, waiter, this.#saturated(lane, why, 'latency'))
  }

  #expire(lane: Waits, waiter: Waiter<Item>, nowMs: number): void {
    const { ask, enteredAtMs } = waiter.item
    const { route, weight } = ask
    const waitedMs = nowMs - enteredAtMs
    const targetMs = dueOf(ask)
    const late = targetMs !== null && waitedMs + this.#engineMs(route, weight.prompt) > targetMs
    if (!late && waitedMs <= queueOf(route).wait) return
    const { position } = this.#lanes.ahead(lane, waiter)
    const why = `${route.model} is full: waited ${seconds(waitedMs)}, still at position ${position}`
    this.#leave(lane, waiter, this.#saturated(lane, why, late ? 'latency' : 'saturation'))
  }

  /** Out of the queue without a place; null: nobody is there to hear of it. */
  #leave(lane: Waits, waiter: Waiter<Item>, why: Error | null): void {
    if (!this.#lanes.remove(lane, waiter)) return
    waiter.item.done(why)
    // Its place in the order may have held up another thread.
    this.#lanes.publish(lane)
    waiter.item.payer.freed(true)
  }

  /** Lets go whoever is next, as long as it is one of ours and there is room. */
  #pump(lane: Waits): void {
    for (;;) {
      const next = this.#lanes.publish(lane)
      if (next === null || this.#draining) return
      if (next !== this.#thread) this.#slots.ring(next)
      const head = next === this.#thread ? lane.queue.head() : null
      if (head !== null && this.#letGo(lane, head)) continue
      // Room that is kept for others than the first one is not to stay empty behind it.
      const other = this.#lanes.smallest(lane)
      if (other === null || other === head) return
      if (!this.#hasLess(lane, other.item) || !this.#letGo(lane, other)) return
    }
  }

  #letGo(lane: Waits, waiter: Waiter<Item>): boolean {
    const place = this.#place(lane, waiter.item, waiter.item.enteredAtMs)
    if (place === null) return false
    this.#lanes.remove(lane, waiter)
    waiter.item.done(place)
    return true
  }

  /** There may be room now: for one of ours, or for another thread's. */
  readonly #wake = (lane: Waits): void => {
    if (lane.queue.size > 0) {
      this.#pump(lane)
      return
    }
    const next = this.#slots.next(lane.index)
    if (next !== null && next !== this.#thread) this.#slots.ring(next)
  }

  /** Room on the best replica that has some; beyond a ceiling only where none has. */
  #place(lane: Waits, asking: Asking, enteredAtMs: number | null, squeezed = false): Place | null {
    const place = this.#placeOn(lane, asking, { enteredAtMs, squeezed, beyond: false })
    if (place !== null || !this.#hasLess(lane, asking, 1)) return place
    return this.#placeOn(lane, asking, { enteredAtMs, squeezed, beyond: true })
  }

  #placeOn(lane: Waits, asking: Asking, { enteredAtMs, squeezed, beyond }: How): Place | null {
    const { ask, payer, account } = asking
    const { route, weight, streams, sequences } = ask
    const force = squeezed || queueOf(route).ceiling === 'none'
    const full = new Set<string>()
    const share = this.#share(lane, asking)
    const asked = { weight, payer, streams, sequences, force, share, beyond }
    for (;;) {
      const target = ask.pick(full)
      if (target === null || full.has(target.id)) return null
      const lease = this.occupancy.take(target, asked)
      if (lease === null) {
        full.add(target.id)
        continue
      }
      payer.ran()
      lease.sent()
      this.#slots.noteGone(lane.index, account, weight.prompt + weight.completion)
      const queueMs = enteredAtMs === null ? null : this.occupancy.now() - enteredAtMs
      return { target, lease, queueMs }
    }
  }

  /** What it has of one replica, on average. */
  #share(lane: Waits, { ask, account, payer }: Asking): Share {
    const share = this.#lanes.shareOf(lane, { account, weight: payer.weight })
    return { ...share, runs: share.runs / Math.max(1, this.#ready(ask.route.deployment).length) }
  }

  /** Less than its part of all that the model runs, with `more` requests beside what it has. */
  #hasLess(lane: Waits, { account, payer, ask }: Asking, more = 0): boolean {
    const share = this.#lanes.shareOf(lane, { account, weight: payer.weight })
    return isModest(share, this.#running(ask.route.deployment), more)
  }

  #running(deployment: string): number {
    const { slots } = this.occupancy
    return this.#ready(deployment).reduce((sum, { slot }) => sum + slots.sum(slot, 'held'), 0)
  }

  #ready(deployment: string): readonly Target[] {
    return this.#table()
      .targetsOf(deployment)
      .filter(({ state }) => state === 'ready')
  }

  /** While somebody waits here, rings of other threads are heard. */
  async #listen(): Promise<void> {
    if (this.#listening) return
    this.#listening = true
    while (this.size > 0) {
      const heard = this.#slots.rings(this.#thread)
      for (const lane of this.#lanes.all()) if (lane.queue.size > 0) this.#pump(lane)
      if (this.size > 0) await this.#slots.bell(this.#thread, heard, BELL_MS)
    }
    this.#listening = false
  }

  #predict(route: GatewayRoute, ask: { queuedTokens: number; prompt: number }): number | null {
    const { index } = this.#lanes.of(route.deployment)
    return predictFirstTokenMs({
      queuedTokens: ask.queuedTokens,
      drainTokensPerSecond: this.#slots.drainTokensPerSecond(index),
      ...this.#engine(route, ask.prompt),
    })
  }

  /** Once it has gone there. */
  #engineMs(route: GatewayRoute, prompt: number): number {
    const none = { queuedTokens: 0, drainTokensPerSecond: null }
    return predictFirstTokenMs({ ...none, ...this.#engine(route, prompt) }) ?? 0
  }

  /** Of the replica that was quickest lately. */
  #engine({ deployment }: GatewayRoute, prompt: number) {
    const { slots } = this.occupancy
    const each = this.#ready(deployment).map(({ slot }) => ({
      ...slots.firstToken(slot),
      ahead: slots.sum(slot, 'unstartedTokens'),
    }))
    const [best] = each.toSorted((a, b) => a.ms - b.ms)
    const { ms, tokens, ahead } = best ?? { ms: 0, tokens: 0, ahead: 0 }
    return { firstTokenMs: ms, firstTokenTokens: tokens, prefillTokens: ahead + prompt }
  }

  #saturated({ index }: Waits, why: string, spill?: Saturated['spill']): Saturated {
    const { tokens } = this.#slots.waiting(index)
    const drainTokensPerSecond = this.#slots.drainTokensPerSecond(index)
    const told = comeBackMs(predictWaitMs({ queuedTokens: tokens, drainTokensPerSecond }))
    return new Saturated(`${why}; try again in ${goDuration(told)}`, told, spill)
  }
}

type Waits = Lane<Item>

const queueOf = ({ policy }: GatewayRoute): RoutePolicy['queue'] => policy?.queue ?? QUEUE

/** When the first token is to be there, ms; null: it has been, or may come at any time. */
const dueOf = ({ route, resumes }: EnterAsk): number | null =>
  resumes ? null : (route.policy?.firstTokenTargetMs ?? null)

const draining = (): PenstockError =>
  new PenstockError('server_draining', 'the gateway is shutting down; try again')

const seconds = (ms: number): string => goDuration(Math.round(ms / 100) * 100)
