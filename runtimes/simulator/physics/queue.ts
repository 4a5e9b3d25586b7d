/** The waiting line: first come first served, or by priority; removal in the middle is cheap. */
import type { Sequence } from './sequence.ts'

/** Lower `rank` is served first; equals keep their order. */
export class WaitingQueue {
  readonly #rank: (sequence: Sequence) => number
  #line: Sequence[] = []
  #start = 0
  #size = 0

  constructor(rank: (sequence: Sequence) => number) {
    this.#rank = rank
  }

  get size(): number {
    return this.#size
  }

  push(sequence: Sequence): void {
    const rank = this.#rank(sequence)
    let at = this.#line.length
    while (at > this.#start && this.#rankAt(at - 1) > rank) at -= 1
    if (at === this.#line.length) this.#line.push(sequence)
    else this.#line.splice(at, 0, sequence)
    this.#size += 1
  }

  /** Back to the head: what was preempted goes first. */
  unshift(sequence: Sequence): void {
    if (this.#start > 0) {
      this.#start -= 1
      this.#line[this.#start] = sequence
    } else this.#line.unshift(sequence)
    this.#size += 1
  }

  /** The next to serve; those that ended while waiting are dropped here. */
  peek(): Sequence | null {
    for (;;) {
      const first = this.#line[this.#start]
      if (first === undefined) {
        this.#line = []
        this.#start = 0
        return null
      }
      if (first.state === 'waiting') return first
      this.#start += 1
    }
  }

  /** Removes what `peek` showed. */
  shift(): void {
    if (this.peek() === null) return
    this.#start += 1
    this.#size -= 1
    if (this.#start > 1024 && this.#start * 2 > this.#line.length) {
      this.#line = this.#line.slice(this.#start)
      this.#start = 0
    }
  }

  /** Tokens of all that wait. */
  get tokens(): number {
    let sum = 0
    for (let at = this.#start; at < this.#line.length; at += 1) {
      const sequence = this.#line[at]
      if (sequence?.state === 'waiting') sum += sequence.tokens
    }
    return sum
  }

  /** A waiting sequence ended (aborted); it is skipped when its turn comes. */
  forget(): void {
    this.#size -= 1
  }

  #rankAt(index: number): number {
    const sequence = this.#line[index]
    return sequence === undefined ? Number.NEGATIVE_INFINITY : this.#rank(sequence)
  }
}
