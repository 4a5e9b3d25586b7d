/**
 * How many requests and retries each route has had lately, counted over all threads: a row of
 * shared memory a route, two cells a second, each with the second it counts.
 */
import { hashText } from '../core/hash.ts'
import { BUDGET_SECONDS, withinBudget } from '../core/retry.ts'

/** Routes whose names hash alike share a budget; few are under load at once. */
const ROWS = 4_096
const ROW = BUDGET_SECONDS * 2
const COUNT_BITS = 24n
const COUNT_MASK = (1n << COUNT_BITS) - 1n
/** Where in a second's pair of cells. */
const REQUESTS = 0
const RETRIES = 1

export class RetryBudget {
  readonly buffer: SharedArrayBuffer
  readonly #cells: BigInt64Array
  readonly #nowMs: () => number

  /** `nowMs`: a clock that all threads share. Wraps the buffer that another thread made. */
  constructor(nowMs: () => number, buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(ROWS * ROW * 8)
    this.#cells = new BigInt64Array(this.buffer)
    this.#nowMs = nowMs
  }

  /** A request of this route begins. */
  began(route: string): void {
    const second = this.#second()
    const at = cellOf(route, second) + REQUESTS
    for (;;) if (this.#add(at, second)) return
  }

  /** Takes one retry, if the route's share of its requests is not used up. */
  take(route: string, share: number): boolean {
    const second = this.#second()
    const at = cellOf(route, second) + RETRIES
    for (;;) {
      const use = {
        requests: this.#sum(route, second, REQUESTS),
        retries: this.#sum(route, second, RETRIES),
        retriesThisSecond: countOf(Atomics.load(this.#cells, at), second, 1),
      }
      if (!withinBudget(use, share)) return false
      if (this.#add(at, second)) return true
    }
  }

  /** One more, by compare-and-swap; false: another thread was faster. */
  #add(at: number, second: number): boolean {
    const before = Atomics.load(this.#cells, at)
    const count = countOf(before, second, 1)
    const next = (BigInt(second) << COUNT_BITS) | (BigInt(count + 1) & COUNT_MASK)
    return Atomics.compareExchange(this.#cells, at, before, next) === before
  }

  #sum(route: string, second: number, which: number): number {
    const row = rowOf(route)
    let sum = 0
    for (let at = row + which; at < row + ROW; at += 2) {
      sum += countOf(Atomics.load(this.#cells, at), second, BUDGET_SECONDS)
    }
    return sum
  }

  #second(): number {
    return Math.floor(this.#nowMs() / 1_000)
  }
}

const rowOf = (route: string): number => (hashText(route) % ROWS) * ROW

const cellOf = (route: string, second: number): number =>
  rowOf(route) + (second % BUDGET_SECONDS) * 2

/** What a cell counts, if its second is one of the last `seconds`. */
const countOf = (cell: bigint, second: number, seconds: number): number => {
  const age = second - Number(cell >> COUNT_BITS)
  return age >= 0 && age < seconds ? Number(cell & COUNT_MASK) : 0
}
