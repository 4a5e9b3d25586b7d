/**
 * A clock whose time passes only when all that was to happen has happened: a rehearsed day in
 * seconds, the same each time. What is due at the same moment runs in the order it was asked for.
 */
import { SimulatedClock } from '../../runtimes/simulator/clock.ts'

type Due = {
  readonly atMs: number
  readonly order: number
  readonly run: () => void
  cancelled: boolean
}

const EPOCH_SECONDS = 1_800_000_000

export class VirtualClock extends SimulatedClock {
  #nowMs = 0
  #order = 0
  /** A binary heap: the next is the first. */
  readonly #due: Due[] = []

  constructor() {
    super(1)
  }

  override now(): number {
    return this.#nowMs
  }

  override epochMs(): number {
    return EPOCH_SECONDS * 1000 + this.#nowMs
  }

  override realMs(simulatedMs: number): number {
    return Math.max(0, simulatedMs)
  }

  override realNow(): number {
    return 0
  }

  override after(simulatedMs: number, run: () => void): () => void {
    const order = this.#order
    this.#order += 1
    // What is a rounding error away is a nanosecond away, or time would stand still.
    const atMs = this.#nowMs + (simulatedMs > 0 ? Math.max(1e-6, simulatedMs) : 0)
    const due = { atMs, order, run, cancelled: false }
    this.#push(due)
    return () => {
      due.cancelled = true
    }
  }

  override every(spanMs: number, run: () => void): () => void {
    let cancel = () => {}
    const again = () => {
      cancel = this.after(spanMs, again)
      run()
    }
    cancel = this.after(spanMs, again)
    return () => cancel()
  }

  override soon(run: () => void): () => void {
    return this.after(0, run)
  }

  override sleep(simulatedMs: number): Promise<void> {
    return new Promise((resolve) => this.after(simulatedMs, resolve))
  }

  /** Lets time pass up to a moment; streams and promises settle between any two events. */
  async runTo(endMs: number): Promise<void> {
    // What has begun already may be about to ask for a moment.
    await new Promise((resolve) => setImmediate(resolve))
    for (;;) {
      const next = this.#due[0]
      if (next === undefined || next.atMs > endMs) break
      this.#pop()
      if (next.cancelled) continue
      this.#nowMs = next.atMs
      next.run()
      await new Promise((resolve) => setImmediate(resolve))
    }
    this.#nowMs = endMs
  }

  #push(due: Due): void {
    const heap = this.#due
    let at = heap.push(due) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent]
      if (above === undefined || !earlier(due, above)) break
      heap[at] = above
      at = parent
    }
    heap[at] = due
  }

  #pop(): void {
    const heap = this.#due
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      const [left, right] = [heap[child], heap[child + 1]]
      if (left === undefined) break
      if (right !== undefined && earlier(right, left)) child += 1
      const lower = heap[child]
      if (lower === undefined || !earlier(lower, last)) break
      heap[at] = lower
      at = child
    }
    heap[at] = last
  }
}

const earlier = (one: Due, other: Due): boolean =>
  one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order)
