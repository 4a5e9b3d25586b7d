/**
 * Counts shared by all threads without a message: requests in flight per thread and replica slot,
 * and how many reports the main thread has taken. One row a thread, so that a crashed thread's
 * counts can be zeroed; a replica's load is the sum of its column.
 */
import { MAX_SLOTS, MAX_THREADS } from '../core/snapshot.ts'

/** After the slots: the row's sum, and reports taken (wraps around; only differences count). */
const TOTAL = MAX_SLOTS
const REPORTS_TAKEN = MAX_SLOTS + 1
const ROW = MAX_SLOTS + 2

export class SharedCounts {
  readonly buffer: SharedArrayBuffer
  readonly #cells: Int32Array
  readonly #threads: number

  /** Wraps a buffer that another thread made, or makes one for `threads` rows. */
  constructor(threads: number, buffer?: SharedArrayBuffer) {
    this.#threads = Math.min(threads, MAX_THREADS)
    this.buffer = buffer ?? new SharedArrayBuffer(this.#threads * ROW * 4)
    this.#cells = new Int32Array(this.buffer)
  }

  began(thread: number, slot: number): void {
    Atomics.add(this.#cells, thread * ROW + slot, 1)
    Atomics.add(this.#cells, thread * ROW + TOTAL, 1)
  }

  ended(thread: number, slot: number): void {
    Atomics.sub(this.#cells, thread * ROW + slot, 1)
    Atomics.sub(this.#cells, thread * ROW + TOTAL, 1)
  }

  inFlight(slot: number): number {
    return this.#column(slot)
  }

  totalInFlight(): number {
    return this.#column(TOTAL)
  }

  reportsTaken(thread: number): number {
    return Atomics.load(this.#cells, thread * ROW + REPORTS_TAKEN)
  }

  takeReports(thread: number, count: number): void {
    Atomics.add(this.#cells, thread * ROW + REPORTS_TAKEN, count)
  }

  /** The thread is gone, and with it every request that it held. */
  clear(thread: number): void {
    for (let cell = thread * ROW; cell < (thread + 1) * ROW; cell += 1) {
      Atomics.store(this.#cells, cell, 0)
    }
  }

  #column(column: number): number {
    let sum = 0
    for (let thread = 0; thread < this.#threads; thread += 1) {
      sum += Atomics.load(this.#cells, thread * ROW + column)
    }
    return sum
  }
}
