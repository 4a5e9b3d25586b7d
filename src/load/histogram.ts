/** Percentiles of any number of readings in little room: logarithmic buckets. Pure. */

/** Buckets grow by this; a percentile is off by at most half of it, 0.5 %. */
const GROWTH = 1.01
/** Smaller readings, in milliseconds, are counted as this. */
const LEAST = 0.001
const STEP = Math.log(GROWTH)

export class Histogram {
  readonly #buckets = new Map<number, number>()
  #count = 0

  get count(): number {
    return this.#count
  }

  add(value: number): void {
    const bucket = Math.floor(Math.log(Math.max(LEAST, value)) / STEP)
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1)
    this.#count += 1
  }

  /** The smallest reading that `share` of all are not above (nearest rank); null: no reading. */
  percentile(share: number): number | null {
    const rank = Math.max(1, Math.ceil(share * this.#count))
    let seen = 0
    for (const [bucket, count] of [...this.#buckets].sort(([a], [b]) => a - b)) {
      seen += count
      if (seen >= rank) return Math.exp((bucket + 0.5) * STEP)
    }
    return null
  }
}
