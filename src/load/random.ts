/** Seeded randomness: every draw of a rehearsal comes from here, so that a seed is a whole run. */

/** Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), 32-bit variant. */
const GOLDEN = 0x9e3779b9

const mixed = (value: number): number => {
  let bits = value ^ (value >>> 16)
  bits = Math.imul(bits, 0x21f0aaad)
  bits ^= bits >>> 15
  bits = Math.imul(bits, 0x735a2d97)
  return (bits ^ (bits >>> 15)) >>> 0
}

export class Random {
  readonly #seed: number
  #state: number

  constructor(seed: number) {
    this.#seed = seed >>> 0
    this.#state = mixed(this.#seed)
  }

  /** Whole, 0 to 2^32 - 1. */
  bits(): number {
    this.#state = (this.#state + GOLDEN) >>> 0
    return mixed(this.#state)
  }

  /** In [0, 1). */
  next(): number {
    return this.bits() / 2 ** 32
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next())
  }

  /** Standard normal (Box and Muller 1958). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next())
  }

  /** Whole, from 1: how many trials until the first success, `mean` on average. */
  geometric(mean: number): number {
    if (mean <= 1) return 1
    return 1 + Math.floor(Math.log(1 - this.next()) / Math.log(1 - 1 / mean))
  }

  /** Index of one of the weights, each as likely as its share. */
  weighted(weights: readonly number[]): number {
    let left = this.next() * weights.reduce((sum, weight) => sum + weight, 0)
    const index = weights.findIndex((weight) => {
      left -= weight
      return left < 0
    })
    return index === -1 ? weights.length - 1 : index
  }

  /** A stream of its own: draws from it move nothing here, so one setting leaves the rest alone. */
  fork(stream: number): Random {
    return new Random(mixed(this.#seed ^ mixed(stream + GOLDEN)))
  }
}
