/**
 * The limits' memory, shared by all gateway threads: a table of slots, each one bucket (core/gcra)
 * of one limit and one subject, found by a 64-bit hash of both. Written by compare-and-swap only.
 *
 * The table is bounded. A slot that owes nothing and was not used for a while is taken over by
 * the next subject. When none is left where a subject would stand, that subject shares an overflow
 * slot with others of its kind: together they get what one would get. That is safe for the
 * engines, which are never asked for more, and unfair to those who share; `overflows` counts it.
 *
 * Requests at a time are counted per thread, so that those of a crashed thread can be taken off.
 */
import { hash } from 'node:crypto'
import { type Cell, lesser } from '../core/gcra.ts'
import { MAX_THREADS } from '../core/snapshot.ts'

const SLOTS = 16_384
const OVERFLOW_SLOTS = 256
const ALL = SLOTS + OVERFLOW_SLOTS
/** How far a subject may stand from where its hash points. */
const PROBES = 32
/** A request holds the place of its slot for microseconds; this is for paused threads. */
const REUSE_AFTER_NS = 60_000_000_000n
const FREE = 0n

export type Slot = { readonly index: number; readonly key: bigint }

export class LimitSlots {
  readonly buffer: SharedArrayBuffer
  readonly #threads: number
  readonly #keys: BigInt64Array
  readonly #times: BigInt64Array
  /** When a slot was last found to owe nothing: what was charged before has drained. */
  readonly #clearAt: BigInt64Array
  /** How far ahead its time counts when another asks what it owes; see Limits.note. */
  readonly #caps: BigInt64Array
  readonly #held: Int32Array
  readonly #overflows: Int32Array

  /** Wraps the buffer that another thread made, or makes one. */
  constructor(threads: number, buffer?: SharedArrayBuffer) {
    this.#threads = Math.min(threads, MAX_THREADS)
    this.buffer = buffer ?? new SharedArrayBuffer(ALL * 32 + this.#threads * ALL * 4 + 8)
    this.#keys = new BigInt64Array(this.buffer, 0, ALL)
    this.#times = new BigInt64Array(this.buffer, ALL * 8, ALL)
    this.#clearAt = new BigInt64Array(this.buffer, ALL * 16, ALL)
    this.#caps = new BigInt64Array(this.buffer, ALL * 24, ALL)
    this.#held = new Int32Array(this.buffer, ALL * 32, this.#threads * ALL)
    this.#overflows = new Int32Array(this.buffer, ALL * 32 + this.#threads * ALL * 4, 1)
  }

  /** How often a subject had to share an overflow slot. */
  get overflows(): number {
    return Atomics.load(this.#overflows, 0)
  }

  /** The slot of a limit and its subject, taken if need be. `name` must hold both. */
  find(key: bigint, now: bigint): Slot {
    const start = Number(BigInt.asUintN(32, key)) % SLOTS
    for (let probe = 0; probe < PROBES; probe += 1) {
      const index = (start + probe) % SLOTS
      if (Atomics.load(this.#keys, index) === key) return { index, key }
    }
    for (let probe = 0; probe < PROBES; probe += 1) {
      const index = (start + probe) % SLOTS
      const held = Atomics.load(this.#keys, index)
      if (held === key) return { index, key }
      if (held !== FREE && !this.#idle(index, now)) continue
      const before = Atomics.compareExchange(this.#keys, index, held, key)
      if (before === key) return { index, key }
      if (before !== held) continue
      this.#touch(index, now)
      return { index, key }
    }
    Atomics.add(this.#overflows, 0, 1)
    return { index: SLOTS + (start % OVERFLOW_SLOTS), key }
  }

  /** Does this slot still belong to whom it was given? */
  owns({ index, key }: Slot): boolean {
    return index >= SLOTS || Atomics.load(this.#keys, index) === key
  }

  cell({ index }: Slot): Cell {
    return {
      load: () => Atomics.load(this.#times, index),
      swap: (expected, next) => Atomics.compareExchange(this.#times, index, expected, next),
    }
  }

  noteClear({ index }: Slot, now: bigint): void {
    Atomics.store(this.#clearAt, index, now)
  }

  clearAt({ index }: Slot): bigint {
    return Atomics.load(this.#clearAt, index)
  }

  /** Takes a place if fewer than `amount` are taken over all threads. */
  hold(thread: number, { index }: Slot, { amount, now }: { amount: number; now: bigint }): boolean {
    // Counted first and judged afterwards: two at once may both be refused, never both let in.
    Atomics.add(this.#held, thread * ALL + index, 1)
    if (this.held({ index }) <= amount) {
      this.#touch(index, now)
      return true
    }
    Atomics.sub(this.#held, thread * ALL + index, 1)
    return false
  }

  letGo(thread: number, { index }: Pick<Slot, 'index'>): void {
    Atomics.sub(this.#held, thread * ALL + index, 1)
  }

  held({ index }: Pick<Slot, 'index'>): number {
    let sum = 0
    for (let thread = 0; thread < this.#threads; thread += 1) {
      sum += Atomics.load(this.#held, thread * ALL + index)
    }
    return sum
  }

  noteCap({ index }: Slot, capNs: bigint): void {
    Atomics.store(this.#caps, index, capNs)
  }

  /** Subjects that owe, and for how long from now: at most their cap. */
  debts(now: bigint): readonly { readonly key: bigint; readonly owedNs: bigint }[] {
    const result: { key: bigint; owedNs: bigint }[] = []
    for (let index = 0; index < SLOTS; index += 1) {
      const owed = Atomics.load(this.#times, index) - now
      const cap = Atomics.load(this.#caps, index)
      const owedNs = lesser(owed, cap)
      if (owedNs > 0n) result.push({ key: Atomics.load(this.#keys, index), owedNs })
    }
    return result
  }

  /**
   * The thread is gone, and with it the places it held. The tokens that it had reserved stay
   * charged: nobody knows how many of them the engine has used, and they drain with time.
   */
  clear(thread: number): void {
    for (let cell = thread * ALL; cell < (thread + 1) * ALL; cell += 1) {
      Atomics.store(this.#held, cell, 0)
    }
  }

  #idle(index: number, now: bigint): boolean {
    return Atomics.load(this.#times, index) + REUSE_AFTER_NS < now && this.held({ index }) === 0
  }

  /** Moves an idle slot's time up to now, so that nobody takes it over for a while. */
  #touch(index: number, now: bigint): void {
    for (;;) {
      const time = Atomics.load(this.#times, index)
      if (time >= now || Atomics.compareExchange(this.#times, index, time, now) === time) return
    }
  }
}

/** 64 bits of SHA-256 over the limit's identity and its subject; never the mark of a free slot. */
export const slotKey = (limit: string, subject: string): bigint => {
  const digest = hash('sha256', `${limit}\n${subject}`, 'hex').slice(0, 16)
  const key = BigInt.asIntN(64, BigInt(`0x${digest}`))
  return key === FREE ? 1n : key
}
