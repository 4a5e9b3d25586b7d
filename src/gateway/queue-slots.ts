/**
 * The waiting of all gateway threads together. A lane is one deployment's queue: each thread keeps
 * its own part and publishes the counter of its first one in each band, so that only the thread
 * with the smallest lets its own go. Counters of consumers (core/fair-queue) are shared by all.
 *
 * Both tables are bounded. When a name finds no place where it should stand, it shares one with
 * others of its kind: they take turns as one. A bell wakes the thread that is next.
 */
import { hash } from 'node:crypto'
import { BANDS } from '../core/fair-queue.ts'
import { MAX_THREADS } from '../core/snapshot.ts'

const LANES = 256
const ACCOUNTS = 8192
const OVERFLOW = 256
const ALL = ACCOUNTS + OVERFLOW
const PROBES = 32
/** A consumer that has nothing here may lose its place to another after so long. */
const REUSE_AFTER_MS = 60_000
/** Weights are integers of this many parts, of 0.01 to 1000. */
const WEIGHT_PARTS = 1000
const FREE = 0n
const NOBODY = 2n ** 62n

/** Int32 cells of one lane: whose request went last, and how fast the queue moves. */
const LANE = { last: 0, admitted: 1, rate: 2, atMs: 3 } as const
const LANE_WIDTH = 4
/** Int32 cells of one lane and thread. */
const PART = { waiting: 0, tokens: 1 } as const
const PART_WIDTH = 2

const RATE_EVERY_MS = 1000
const RATE_SMOOTH = 0.2

export class QueueSlots {
  readonly buffer: SharedArrayBuffer
  readonly #threads: number
  readonly #laneKeys: BigInt64Array
  readonly #accountKeys: BigInt64Array
  readonly #counters: BigInt64Array
  readonly #heads: BigInt64Array
  readonly #lanes: Int32Array
  readonly #parts: Int32Array
  readonly #usedAt: Int32Array
  /** The lane of an account, and 1. */
  readonly #laneOf: Int32Array
  /** Thousandths of its consumer's weight. */
  readonly #weights: Int32Array
  /** By thread and account: requests that wait or run, and those that run. */
  readonly #holds: Int32Array
  readonly #runs: Int32Array
  readonly #bells: Int32Array

  /** Wraps the buffer that another thread made, or makes one. */
  constructor(threads: number, buffer?: SharedArrayBuffer) {
    this.#threads = Math.min(threads, MAX_THREADS)
    const longs = LANES + ALL * 2 + this.#threads * LANES * BANDS
    const words =
      LANES * LANE_WIDTH +
      this.#threads * LANES * PART_WIDTH +
      ALL * 3 +
      this.#threads * ALL * 2 +
      this.#threads
    this.buffer = buffer ?? new SharedArrayBuffer(longs * 8 + words * 4)
    let at = 0
    const long = (length: number): BigInt64Array => {
      at += length * 8
      return new BigInt64Array(this.buffer, at - length * 8, length)
    }
    const word = (length: number): Int32Array => {
      at += length * 4
      return new Int32Array(this.buffer, at - length * 4, length)
    }
    this.#laneKeys = long(LANES)
    this.#accountKeys = long(ALL)
    this.#counters = long(ALL)
    this.#heads = long(this.#threads * LANES * BANDS)
    this.#lanes = word(LANES * LANE_WIDTH)
    this.#parts = word(this.#threads * LANES * PART_WIDTH)
    this.#usedAt = word(ALL)
    this.#laneOf = word(ALL)
    this.#weights = word(ALL)
    this.#holds = word(this.#threads * ALL)
    this.#runs = word(this.#threads * ALL)
    this.#bells = word(this.#threads)
    if (buffer === undefined) this.#heads.fill(NOBODY)
  }

  /** The lane of a deployment, taken if need be. */
  lane(deployment: string): number {
    const key = keyOf(deployment, '')
    const start = Number(BigInt.asUintN(32, key)) % LANES
    for (let probe = 0; probe < LANES; probe += 1) {
      const index = (start + probe) % LANES
      const found = Atomics.compareExchange(this.#laneKeys, index, FREE, key)
      if (found === FREE || found === key) return index
    }
    return start
  }

  /** The account of a consumer in a lane, taken if need be. */
  account(deployment: string, consumer: string, nowMs: number): Account {
    const key = keyOf(deployment, consumer)
    const start = Number(BigInt.asUintN(32, key)) % ACCOUNTS
    for (let probe = 0; probe < PROBES; probe += 1) {
      const index = (start + probe) % ACCOUNTS
      if (Atomics.load(this.#accountKeys, index) === key) return { index, key }
    }
    for (let probe = 0; probe < PROBES; probe += 1) {
      const index = (start + probe) % ACCOUNTS
      const held = Atomics.load(this.#accountKeys, index)
      // Another thread has just taken it for the same consumer.
      if (held === key) return { index, key }
      if (held !== FREE && !this.#idle(index, nowMs)) continue
      const before = Atomics.compareExchange(this.#accountKeys, index, held, key)
      if (before !== held && before !== key) continue
      this.#touch(index, nowMs)
      // Its counter is lifted when it enters; of the last one's nothing is left.
      if (before === held) Atomics.store(this.#counters, index, 0n)
      return { index, key }
    }
    return { index: ACCOUNTS + (start % OVERFLOW), key }
  }

  /** Does this place still belong to whom it was given? */
  owns({ index, key }: Account): boolean {
    return index >= ACCOUNTS || Atomics.load(this.#accountKeys, index) === key
  }

  counter({ index }: Pick<Account, 'index'>): number {
    return Number(Atomics.load(this.#counters, index))
  }

  charge({ index }: Pick<Account, 'index'>, parts: number): void {
    Atomics.add(this.#counters, index, BigInt(parts))
  }

  lift({ index }: Pick<Account, 'index'>, least: number): void {
    const wanted = BigInt(Math.floor(least))
    for (;;) {
      const counter = Atomics.load(this.#counters, index)
      if (counter >= wanted) return
      if (Atomics.compareExchange(this.#counters, index, counter, wanted) === counter) return
    }
  }

  /** A request of this consumer begins or ends, waiting or running. */
  hold(thread: number, { index }: Account, { by, lane, weight, nowMs }: Held): void {
    Atomics.add(this.#holds, thread * ALL + index, by)
    Atomics.store(this.#laneOf, index, lane + 1)
    Atomics.store(this.#weights, index, Math.max(1, Math.round(weight * WEIGHT_PARTS)))
    this.#touch(index, nowMs)
  }

  /** One of them has a place, or gives it back. */
  run(thread: number, { index }: Account, by: 1 | -1): void {
    Atomics.add(this.#runs, thread * ALL + index, by)
  }

  /** By lane, who has something here or had it within a minute; lanes without are left out. */
  crowds(nowMs: number): ReadonlyMap<number, Crowd> {
    const crowds = new Map<number, { consumers: number; active: number; weight: number }>()
    for (let index = 0; index < ALL; index += 1) {
      const lane = Atomics.load(this.#laneOf, index) - 1
      if (lane < 0 || this.#idle(index, nowMs)) continue
      const crowd = crowds.get(lane) ?? { consumers: 0, active: 0, weight: 0 }
      crowds.set(lane, crowd)
      crowd.consumers += 1
      crowd.weight += Atomics.load(this.#weights, index) / WEIGHT_PARTS
      if (this.held({ index }) > 0) crowd.active += 1
    }
    return crowds
  }

  /** Will `crowds` count a consumer that it did not? Never one of those who share an account. */
  isNew({ index }: Pick<Account, 'index'>, lane: number, nowMs: number): boolean {
    if (index >= ACCOUNTS) return false
    return Atomics.load(this.#laneOf, index) !== lane + 1 || this.#idle(index, nowMs)
  }

  /** How many requests this consumer has here, over all threads; and how many of them run. */
  held(account: Pick<Account, 'index'>): number {
    return this.#sum(this.#holds, account)
  }

  runs(account: Pick<Account, 'index'>): number {
    return this.#sum(this.#runs, account)
  }

  /** Counters of a thread's first ones, by band; null: nobody waits there. */
  publishHeads(thread: number, lane: number, heads: readonly (number | null)[]): void {
    for (let band = 0; band < BANDS; band += 1) {
      const head = heads[band] ?? null
      const cell = (thread * LANES + lane) * BANDS + band
      Atomics.store(this.#heads, cell, head === null ? NOBODY : BigInt(Math.floor(head)))
    }
  }

  /** The smallest counter that waits in a band, over all threads; null: nobody does. */
  least(lane: number, band: number): number | null {
    let least = NOBODY
    for (let thread = 0; thread < this.#threads; thread += 1) {
      const head = Atomics.load(this.#heads, (thread * LANES + lane) * BANDS + band)
      if (head < least) least = head
    }
    return least === NOBODY ? null : Number(least)
  }

  /** The thread whose first one is before all others'; of equals the first thread. Null: none. */
  next(lane: number): number | null {
    for (let band = 0; band < BANDS; band += 1) {
      let [chosen, least] = [-1, NOBODY]
      for (let thread = 0; thread < this.#threads; thread += 1) {
        const head = Atomics.load(this.#heads, (thread * LANES + lane) * BANDS + band)
        if (head >= least) continue
        chosen = thread
        least = head
      }
      if (chosen >= 0) return chosen
    }
    return null
  }

  noteWaiting(thread: number, lane: number, by: { count: number; tokens: number }): void {
    const cell = (thread * LANES + lane) * PART_WIDTH
    Atomics.add(this.#parts, cell + PART.waiting, by.count)
    Atomics.add(this.#parts, cell + PART.tokens, by.tokens)
  }

  /** Over all threads. */
  waiting(lane: number): { readonly count: number; readonly tokens: number } {
    let [count, tokens] = [0, 0]
    for (let thread = 0; thread < this.#threads; thread += 1) {
      const cell = (thread * LANES + lane) * PART_WIDTH
      count += Atomics.load(this.#parts, cell + PART.waiting)
      tokens += Atomics.load(this.#parts, cell + PART.tokens)
    }
    return { count, tokens }
  }

  /** Somebody's turn has come: whoever comes to an empty queue is lifted to his counter. */
  noteGone(lane: number, { index }: Account, tokens: number): void {
    Atomics.store(this.#lanes, lane * LANE_WIDTH + LANE.last, index + 1)
    Atomics.add(this.#lanes, lane * LANE_WIDTH + LANE.admitted, tokens)
  }

  /** The counter of the consumer whose turn came last. */
  lastCounter(lane: number): number {
    const last = Atomics.load(this.#lanes, lane * LANE_WIDTH + LANE.last)
    return last === 0 ? 0 : Number(Atomics.load(this.#counters, last - 1))
  }

  /** One thread a second brings the rate up to date; `nowMs` is a clock that all share. */
  measure(lane: number, nowMs: number): void {
    const at = lane * LANE_WIDTH
    const now = Math.floor(nowMs) | 0
    const before = Atomics.load(this.#lanes, at + LANE.atMs)
    const elapsedMs = (now - before) | 0
    if (elapsedMs >= 0 && elapsedMs < RATE_EVERY_MS && before !== 0) return
    if (Atomics.compareExchange(this.#lanes, at + LANE.atMs, before, now) !== before) return
    const tokens = Atomics.exchange(this.#lanes, at + LANE.admitted, 0)
    // A queue that has just begun: the tokens before it say nothing of how fast it moves.
    if (before === 0 || elapsedMs < 0 || elapsedMs > 10 * RATE_EVERY_MS) return
    const rate = (tokens / elapsedMs) * 1000
    const old = Atomics.load(this.#lanes, at + LANE.rate)
    const next = old === 0 ? rate : old + RATE_SMOOTH * (rate - old)
    Atomics.store(this.#lanes, at + LANE.rate, Math.round(Math.max(1, next)))
  }

  /** Tokens that the queue lets go in a second; null: it has not moved yet. */
  drainTokensPerSecond(lane: number): number | null {
    const rate = Atomics.load(this.#lanes, lane * LANE_WIDTH + LANE.rate)
    return rate === 0 ? null : rate
  }

  /** Resolves at the next ring, at once when one was missed, or after a time. */
  async bell(thread: number, heard: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.#bells, thread, heard, timeoutMs)
    if (wait.async) await wait.value
  }

  rings(thread: number): number {
    return Atomics.load(this.#bells, thread)
  }

  ring(thread: number): void {
    Atomics.add(this.#bells, thread, 1)
    Atomics.notify(this.#bells, thread)
  }

  /** The thread is gone, and with it all who waited or ran there. */
  clear(thread: number): void {
    const heads = thread * LANES * BANDS
    for (let cell = heads; cell < heads + LANES * BANDS; cell += 1) {
      Atomics.store(this.#heads, cell, NOBODY)
    }
    const parts = thread * LANES * PART_WIDTH
    for (let cell = parts; cell < parts + LANES * PART_WIDTH; cell += 1) {
      Atomics.store(this.#parts, cell, 0)
    }
    for (let cell = thread * ALL; cell < (thread + 1) * ALL; cell += 1) {
      Atomics.store(this.#holds, cell, 0)
      Atomics.store(this.#runs, cell, 0)
    }
  }

  #sum(cells: Int32Array, { index }: Pick<Account, 'index'>): number {
    let sum = 0
    for (let thread = 0; thread < this.#threads; thread += 1) {
      sum += Atomics.load(cells, thread * ALL + index)
    }
    return sum
  }

  #idle(index: number, nowMs: number): boolean {
    const sinceMs = ((Math.floor(nowMs) | 0) - Atomics.load(this.#usedAt, index)) | 0
    const rested = sinceMs < 0 || sinceMs > REUSE_AFTER_MS
    return rested && this.held({ index }) === 0
  }

  #touch(index: number, nowMs: number): void {
    Atomics.store(this.#usedAt, index, Math.floor(nowMs) | 0)
  }
}

export type Crowd = {
  readonly consumers: number
  /** Of them, those that have something waiting or running now. */
  readonly active: number
  /** Sum of their weights. */
  readonly weight: number
}

type Held = {
  readonly by: 1 | -1
  readonly lane: number
  readonly weight: number
  readonly nowMs: number
}

export type Account = { readonly index: number; readonly key: bigint }

/** 64 bits of SHA-256 over both names; never the mark of a free place. */
const keyOf = (deployment: string, consumer: string): bigint => {
  const digest = hash('sha256', `${deployment}\n${consumer}`, 'hex').slice(0, 16)
  const key = BigInt.asIntN(64, BigInt(`0x${digest}`))
  return key === FREE ? 1n : key
}
