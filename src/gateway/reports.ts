/** Finished requests on their way to the main thread: in batches, and never without bound. */
import type { FinishedRequest } from '../core/snapshot.ts'

/**
 * A batch goes when it is this full or this old: one message for many requests. A kill may cost
 * what ended in the last 250 ms: the rest is for the main thread and the disk.
 */
const BATCH_SIZE = 500
export const BATCH_AGE_MS = 100
/** Sent but not yet taken: when the main thread stalls for so long, reports are dropped. */
const OUTSTANDING_MAX = 50_000

type Send = (batch: readonly FinishedRequest[]) => void

export class Reports {
  readonly #send: Send
  readonly #taken: () => number
  #batch: FinishedRequest[] = []
  #sent = 0
  #dropped = 0

  /** `taken` says how many reports the main thread has taken since this thread started. */
  constructor(send: Send, taken: () => number) {
    this.#send = send
    this.#taken = taken
  }

  /** How many were dropped since this was last asked. */
  takeDropped(): number {
    const dropped = this.#dropped
    this.#dropped = 0
    return dropped
  }

  add(request: FinishedRequest): void {
    // Both counters wrap as 32-bit integers; their difference does not.
    if (((this.#sent - this.#taken()) | 0) + this.#batch.length >= OUTSTANDING_MAX) {
      this.#dropped += 1
      return
    }
    this.#batch.push(request)
    if (this.#batch.length >= BATCH_SIZE) this.flush()
  }

  flush(): void {
    if (this.#batch.length === 0) return
    const batch = this.#batch
    this.#batch = []
    this.#sent = (this.#sent + batch.length) | 0
    this.#send(batch)
  }
}
