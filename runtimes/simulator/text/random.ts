/** Deterministic pseudo-random numbers (mulberry32): the same seed says the same text. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 <= x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  /** Log-normal around a median, the shape of answer lengths; within a factor of e^±(1.8 sigma). */
  around(median: number, sigma: number): number {
    const gauss = this.next() + this.next() + this.next() + this.next() - 2
    return Math.max(1, Math.round(median * Math.exp(gauss * sigma * 1.73)))
  }
}
