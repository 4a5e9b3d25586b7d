/**
 * The last readings of one signal. Holds at most `capacity` of them; times are monotonic
 * milliseconds that the caller gives.
 */
import assert from 'node:assert'

export class Window {
  readonly #times: Float64Array
  readonly #values: Float64Array
  #next = 0
  #size = 0

  constructor(capacity: number) {
    assert(Number.isInteger(capacity) && capacity >= 2, 'a window holds at least two readings')
    this.#times = new Float64Array(capacity)
    this.#values = new Float64Array(capacity)
  }

  get size(): number {
    return this.#size
  }

  /** A reading that is no number, or older than the last, is left out. */
  push(atMs: number, value: number): void {
    if (!Number.isFinite(value) || !Number.isFinite(atMs)) return
    if (this.#size > 0 && atMs < this.#at(0).atMs) return
    this.#times[this.#next] = atMs
    this.#values[this.#next] = value
    this.#next = (this.#next + 1) % this.#times.length
    this.#size = Math.min(this.#size + 1, this.#times.length)
  }

  clear(): void {
    this.#size = 0
  }

  latest(nowMs: number): { readonly value: number; readonly ageMs: number } | null {
    if (this.#size === 0) return null
    const { atMs, value } = this.#at(0)
    return { value, ageMs: Math.max(0, nowMs - atMs) }
  }

  /**
   * Increase per second of a counter over the readings of the last `spanMs`. A fall is a restart:
   * the counter began at 0 again, so what it shows was gained since (as Prometheus counts).
   * Null when fewer than two readings lie in the span: unknown, not zero.
   */
  ratePerSecond(nowMs: number, spanMs: number): number | null {
    const oldestMs = nowMs - spanMs
    let increase = 0
    let firstMs = Number.POSITIVE_INFINITY
    let back = 0
    for (; back < this.#size && this.#at(back).atMs >= oldestMs; back += 1) {
      const { atMs, value } = this.#at(back)
      if (back > 0) {
        const later = this.#at(back - 1).value
        increase += later >= value ? later - value : later
      }
      firstMs = atMs
    }
    const lengthMs = back < 2 ? 0 : this.#at(0).atMs - firstMs
    return lengthMs > 0 ? (increase * 1000) / lengthMs : null
  }

  /** `back` 0 is the newest. */
  #at(back: number): { readonly atMs: number; readonly value: number } {
    const { length } = this.#times
    const index = (this.#next - 1 - back + 2 * length) % length
    return { atMs: this.#times[index] ?? 0, value: this.#values[index] ?? 0 }
  }
}
