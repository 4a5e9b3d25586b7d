/**
 * Finished requests on their way to the disk. What the disk refuses is kept and tried again, so
 * that a full disk or a backup that holds the database costs no usage; bounded, oldest lost first.
 */
import type { Clock } from '../clock.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import { errorLine } from '../errors.ts'

/** Kept while the disk refuses: about 100 MB; the store still knows them when they come twice. */
const PENDING_MAX = 100_000
const RETRY_EVERY_MS = 1000
/** Written at a time when there is room again: the main thread is held for a part of a second. */
const CHUNK = 5000

export type LedgerOptions = {
  readonly store: { recordRequests(requests: readonly FinishedRequest[]): void }
  readonly clock: Clock
  readonly log: { info(message: string): void; error(message: string): void }
}

export type Ledger = {
  /** On the disk when this returns, unless the disk refuses. */
  add(requests: readonly FinishedRequest[]): void
  /** Replicas that answered since this was last asked. */
  takeAnswered(): ReadonlySet<string>
  /** Tries once more. */
  close(): void
}

export const openLedger = (options: LedgerOptions): Ledger => new RetryingLedger(options)

class RetryingLedger implements Ledger {
  readonly #options: LedgerOptions
  readonly #stop: () => void
  #pending: FinishedRequest[] = []
  #lost = 0
  #answered = new Set<string>()

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#stop = options.clock.every(RETRY_EVERY_MS, () => this.#write())
  }

  add(requests: readonly FinishedRequest[]): void {
    for (const { replica } of requests) if (replica !== null) this.#answered.add(replica)
    const waits = this.#pending.length > 0
    this.#pending.push(...requests)
    const over = this.#pending.length - PENDING_MAX
    if (over > 0) {
      this.#pending.splice(0, over)
      this.#lost += over
    }
    // While the disk refuses, the timer asks it, not every batch.
    if (!waits) this.#write()
  }

  takeAnswered(): ReadonlySet<string> {
    const answered = this.#answered
    this.#answered = new Set()
    return answered
  }

  close(): void {
    this.#stop()
    this.#write()
    if (this.#pending.length === 0) return
    this.#options.log.error(`${this.#pending.length} finished requests could not be written: lost`)
  }

  #write(): void {
    const { store, log } = this.#options
    const { length } = this.#pending
    try {
      while (this.#pending.length > 0) {
        store.recordRequests(this.#pending.slice(0, CHUNK))
        this.#pending.splice(0, CHUNK)
      }
      if (this.#failing) {
        const lost = this.#lost === 0 ? 'none was lost' : `${this.#lost} were lost before`
        log.info(`${length} finished requests that had waited for the disk are written; ${lost}`)
      }
      this.#failing = false
      this.#lost = 0
    } catch (error) {
      if (!this.#failing) {
        const kept = `they are kept and tried again, up to ${PENDING_MAX}`
        log.error(`finished requests could not be written, ${kept}: ${errorLine(error)}`)
      }
      this.#failing = true
    }
  }

  #failing = false
}
