/** What one attempt tells the replica's breaker: once, and a probe never keeps its claim. */
import type { Blame } from '../core/retry.ts'
import type { Breakers } from './breakers.ts'

export class Verdict {
  readonly #breakers: Breakers
  readonly #slot: number
  #probing: boolean
  #given = false

  /** The attempt begins. A breaker that is open lets it through: nobody else was ready. */
  constructor(breakers: Breakers, slot: number) {
    this.#breakers = breakers
    this.#slot = slot
    this.#probing = breakers.enter(slot) === 'probe'
  }

  /** The first byte: a probe has its answer, and a long one does not keep others waiting. */
  began(): void {
    if (!this.#probing) return
    this.#probing = false
    this.#breakers.succeeded(this.#slot)
  }

  succeeded(): void {
    if (this.#given) return
    this.#given = true
    this.#probing = false
    this.#breakers.succeeded(this.#slot)
  }

  /** Back-pressure and a client's mistake say nothing of the replica. */
  failed(blame: Blame | undefined): void {
    if (this.#given) return
    if (blame === undefined || blame.kind === 'busy') {
      this.leave()
      return
    }
    this.#given = true
    this.#probing = false
    this.#breakers.failed(this.#slot)
  }

  /** It ends without a word on the replica. */
  leave(): void {
    if (this.#probing) this.#breakers.abandoned(this.#slot)
    this.#probing = false
    this.#given = true
  }
}
