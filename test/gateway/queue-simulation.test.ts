/**
 * The queue of several threads in front of a small engine, played on a clock of its own: clients
 * come and leave, threads crash, readings come late or not at all, the replica is swapped. After
 * each of thousands of ticks the books must agree with what is so.
 */
import { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import type { GatewayRoute, Target } from '../../src/core/snapshot.ts'
import { AdmissionSlots } from '../../src/gateway/admission-slots.ts'
import { Occupancy } from '../../src/gateway/occupancy.ts'
import { QueueSlots } from '../../src/gateway/queue-slots.ts'
import { Saturated } from '../../src/gateway/saturated.ts'
import { Table } from '../../src/gateway/table.ts'
import { type Place, Waiting } from '../../src/gateway/waiting.ts'
import { policyOf, routeOf, snapshotOf, targetOf } from '../support/gateway.ts'

const TICK_MS = 50
const TICKS = 4000
const THREADS = 3
const CAPACITY_TOKENS = 20_000
const RUNNING_MAX = 40
const PREFILL_TOKENS = 2048
const READ_EVERY_MS = 500

/** Mulberry32. */
const randomFrom = (seed: number) => {
  let state = seed + 0x6d2b79f5
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

type Job = {
  readonly prompt: number
  readonly answer: number
  read: number
  produced: number
}

/** Continuous batching in its plainest form: one step a tick. */
class PlayedEngine {
  waiting: Job[] = []
  running: Job[] = []
  preemptions = 0

  get used(): number {
    return this.running.reduce((sum, { read, produced }) => sum + read + produced, 0)
  }

  /** Those that have finished. */
  step(): readonly Job[] {
    while (this.used > CAPACITY_TOKENS && this.running.length > 1) {
      const victim = this.running.pop()
      if (victim === undefined) break
      this.preemptions += 1
      victim.read = 0
      this.waiting.unshift(victim)
    }
    let budget = PREFILL_TOKENS
    for (const job of this.running) {
      const read = Math.min(budget, job.prompt - job.read)
      job.read += read
      budget -= read
    }
    while (budget > 0 && this.running.length < RUNNING_MAX) {
      const [job] = this.waiting
      if (job === undefined || this.used + job.prompt > CAPACITY_TOKENS) break
      this.waiting.shift()
      const read = Math.min(budget, job.prompt)
      job.read = read
      budget -= read
      this.running.push(job)
    }
    for (const job of this.running) if (job.read === job.prompt) job.produced += 1
    const done = this.running.filter(({ produced, answer }) => produced >= answer)
    this.running = this.running.filter((job) => !done.includes(job))
    return done
  }

  drop(job: Job): void {
    this.waiting = this.waiting.filter((other) => other !== job)
    this.running = this.running.filter((other) => other !== job)
  }
}

type Request = {
  readonly job: Job
  readonly consumer: string
  readonly thread: number
  readonly epoch: number
  readonly client: ServerResponse
  state: 'waiting' | 'running' | 'over'
  place: Place | null
}

/** All of it, for one seed. */
class World {
  nowMs = 1_000_000
  readonly engine = new PlayedEngine()
  readonly admission = new AdmissionSlots(THREADS)
  readonly queue = new QueueSlots(THREADS)
  readonly requests = new Set<Request>()
  readonly served = new Map<string, number>()
  readonly tables: Table[] = []
  readonly threads: Waiting[] = []
  readonly epochs: number[] = []
  refused = 0
  left = 0
  most = 0
  /** Requests whose wait has ended, one way or another. */
  moves = 0
  readonly #random: () => number
  #target: Target

  constructor(seed: number) {
    this.#random = randomFrom(seed)
    this.#target = targetOf('http://127.0.0.1:1', { maxRunning: RUNNING_MAX })
    this.read()
    for (let thread = 0; thread < THREADS; thread += 1) {
      this.start(thread)
      this.publish(thread)
    }
  }

  get route(): GatewayRoute {
    const policy = policyOf({
      queue: { ceiling: 'auto', depth: 60, wait: 20_000 },
      continueStreams: false,
    })
    return routeOf([this.#target], { policy })
  }

  start(thread: number): void {
    this.tables[thread] = new Table(snapshotOf([this.route]))
    const clocks = { now: () => this.nowMs, wall: () => this.nowMs }
    this.epochs[thread] = (this.epochs[thread] ?? 0) + 1
    this.threads[thread] = new Waiting({
      thread,
      slots: this.queue,
      occupancy: new Occupancy(this.admission, thread, clocks),
      table: () => this.tables[thread] ?? new Table(snapshotOf([])),
    })
  }

  /** As threads.ts does when a thread is gone. */
  crash(thread: number): void {
    for (const request of this.requests) {
      if (request.thread !== thread || request.state === 'over') continue
      this.engine.drop(request.job)
      request.state = 'over'
      this.requests.delete(request)
    }
    // What is left of the old one in this process must not go on.
    this.threads[thread]?.drain()
    this.admission.clear(thread)
    this.queue.clear(thread)
    this.start(thread)
  }

  read(): void {
    const { waiting, running, used, preemptions } = this.engine
    this.#target = {
      ...this.#target,
      requestsRunning: running.length,
      requestsWaiting: waiting.length,
      kvCacheUsageRatio: used / CAPACITY_TOKENS,
      kvCapacityTokens: CAPACITY_TOKENS,
      preemptions,
      readAtMs: this.nowMs,
    }
  }

  publish(thread: number): void {
    this.tables[thread] = new Table(snapshotOf([this.route]))
    this.threads[thread]?.published()
  }

  come(): void {
    const draw = this.#random()
    const consumer = draw < 0.7 ? 'large' : draw < 0.9 ? 'middle' : 'small'
    const thread = Math.floor(this.#random() * THREADS)
    const prompt = 20 + Math.floor(this.#random() ** 3 * 3000)
    const answer = 5 + Math.floor(this.#random() * 200)
    const request: Request = {
      job: { prompt, answer, read: 0, produced: 0 },
      ...{ consumer, thread, epoch: this.epochs[thread] ?? 0 },
      client: new ServerResponse(new IncomingMessage(new Socket())),
      state: 'waiting',
      place: null,
    }
    this.requests.add(request)
    try {
      const entered = this.threads[thread]?.enter({
        route: this.route,
        consumer,
        priority: null,
        weight: { prompt, completion: answer },
        streams: true,
        sequences: 1,
        tied: false,
        resumes: false,
        res: request.client,
        pick: (full) => (full.has(this.#target.id) ? null : this.#target),
      })
      if (entered === undefined) throw new Error('no such thread')
      if (!(entered instanceof Promise)) this.go(request, entered)
      else entered.then((place) => this.go(request, place), this.#refuse(request))
    } catch (error) {
      this.#refuse(request)(error)
    }
  }

  go(request: Request, place: Place | null): void {
    this.moves += 1
    if (request.epoch !== this.epochs[request.thread]) return
    // As a ticket does whose client left just before its turn came.
    if (request.state === 'over') place?.lease.end(null)
    else if (place === null) this.over(request)
    if (request.state === 'over' || place === null) return
    request.place = place
    request.state = 'running'
    this.engine.waiting.push(request.job)
  }

  #refuse(request: Request) {
    return (error: unknown): void => {
      if (request.state === 'over') return
      if (!(error instanceof Saturated)) throw error
      expect(error.waitMs).toBeGreaterThanOrEqual(1000)
      this.refused += 1
      this.over(request)
    }
  }

  over(request: Request): void {
    request.state = 'over'
    this.requests.delete(request)
  }

  /** One of those who wait or run, drawn by chance, goes away. */
  leave(): void {
    const all = [...this.requests]
    const request = all[Math.floor(this.#random() * all.length)]
    if (request === undefined) return
    this.left += 1
    this.end(request)
    EventEmitter.prototype.emit.call(request.client, 'close')
  }

  end(request: Request): void {
    this.over(request)
    this.engine.drop(request.job)
    request.place?.lease.end(null)
  }

  step(): void {
    const done = new Set(this.engine.step())
    this.most = Math.max(this.most, this.engine.waiting.length)
    for (const request of this.requests) {
      const { job, place, consumer } = request
      if (place === null) continue
      if (job.produced > 0) place.lease.produced(job.produced)
      if (!done.has(job)) continue
      this.served.set(consumer, (this.served.get(consumer) ?? 0) + 1)
      this.over(request)
      place.lease.end({ prompt: job.prompt, completion: job.produced })
    }
  }

  chance(share: number): boolean {
    return this.#random() < share
  }

  draw(below: number): number {
    return Math.floor(this.#random() * below)
  }

  agrees(): void {
    const states = [...this.requests].map(({ state }) => state)
    const running = states.filter((state) => state === 'running').length
    const sent = this.admission.sent(0)
    expect(sent.held).toBe(running)
    expect(this.engine.waiting.length + this.engine.running.length).toBe(running)
    const waiting = this.queue.waiting(this.queue.lane('qwq-32b'))
    expect(waiting.count).toBe(states.length - running)
    expect(waiting.count).toBeLessThanOrEqual(60)
    for (const [name, value] of Object.entries(sent)) expect(value, name).toBeGreaterThanOrEqual(0)
    expect(this.engine.preemptions).toBe(0)
    expect(this.engine.waiting.length).toBeLessThanOrEqual(2)
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Bells and promises of this tick are heard before the next: until nothing moves any more. */
const quiet = async (world: World): Promise<void> => {
  for (let moved = true; moved; ) {
    const before = world.moves
    await settled()
    await settled()
    moved = world.moves !== before
  }
}

const play = async (seed: number, crashes: boolean): Promise<World> => {
  const world = new World(seed)
  for (let tick = 0; tick < TICKS; tick += 1) {
    world.nowMs += TICK_MS
    const flood = Math.floor(tick / 500) % 2 === 0
    const comers = flood ? world.draw(4) : world.chance(0.2) ? 1 : 0
    for (let one = 0; one < comers; one += 1) world.come()
    if (world.chance(0.1)) world.leave()
    await quiet(world)
    world.step()
    if (world.nowMs % READ_EVERY_MS === 0 && !world.chance(0.1)) {
      world.read()
      for (let thread = 0; thread < THREADS; thread += 1) world.publish(thread)
    }
    if (tick % 2 === 0) for (const thread of world.threads) thread.tick()
    if (crashes && world.chance(0.003)) world.crash(world.draw(THREADS))
    await quiet(world)
    world.agrees()
  }
  return world
}

describe('thousands of ticks', { timeout: 120_000 }, () => {
  test.each([1, 2, 3, 4, 5, 6])('seed %i: the books agree after each', async (seed) => {
    const world = await play(seed, seed % 2 === 0)
    const served = Object.fromEntries(world.served)
    console.log(
      `seed ${seed}:`,
      { ...served, refused: world.refused, left: world.left },
      world.most,
    )
    // Who sends a tenth of it is served more than a tenth of it; in their order of arrival, less.
    const all = [...world.served.values()].reduce((sum, one) => sum + one, 0)
    expect((world.served.get('small') ?? 0) / all).toBeGreaterThan(0.12)
    for (const { place, client } of world.requests) {
      if (place === null) EventEmitter.prototype.emit.call(client, 'close')
    }
    await settled()
    for (const request of [...world.requests]) world.end(request)
    await settled()
    expect(world.requests.size).toBe(0)
    world.agrees()
  })
})
