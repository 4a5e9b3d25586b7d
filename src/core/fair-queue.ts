/**
 * Who is next at a full model: virtual token counting (VTC, OSDI 2024, arXiv 2401.00588). Each
 * consumer has a counter of the tokens that it was served, divided by its weight; the smallest
 * counter with something waiting goes first. Priorities are strict bands over that. One who comes
 * back after a rest is lifted to those who stayed, so that nobody saves up turns.
 *
 * Counters are the caller's: gateway threads share them, each with a queue of its own.
 */
import { PRIORITIES, type Priority } from './gateway-manifest.ts'

/** What a token weighs: an answer's take an engine longer than a prompt's (VTC's artifact). */
const PRICES = { prompt: 1, completion: 2 } as const
/** Counters are integers of this many parts of a token. */
const PARTS = 100

export const BANDS = PRIORITIES.length

/** What serving tokens adds to a counter; may be a fraction. */
export const serviceOf = (
  { prompt, completion }: { readonly prompt: number; readonly completion: number },
  weight: number,
): number => ((PRICES.prompt * prompt + PRICES.completion * completion) * PARTS) / weight

/** Band of a request, 0 is first: what it asks for, as far as its consumer may go. */
export const bandOf = (
  asked: Priority | null,
  { priority, maxPriority }: { readonly priority: Priority; readonly maxPriority: Priority },
): number => {
  const wanted = PRIORITIES.indexOf(asked ?? priority)
  // What the manifest gives without being asked is not clamped.
  const most = Math.max(PRIORITIES.indexOf(maxPriority), PRIORITIES.indexOf(priority))
  return BANDS - 1 - Math.min(wanted, most)
}

/** A place in the queue. */
export class Waiter<Item> {
  readonly item: Item
  readonly consumer: string
  readonly band: number
  /** Of arrival; between equal counters the earlier one goes. */
  readonly sequence: number
  line: Line<Item> | null = null
  before: Waiter<Item> | null = null
  after: Waiter<Item> | null = null

  constructor(item: Item, place: { consumer: string; band: number; sequence: number }) {
    this.item = item
    this.consumer = place.consumer
    this.band = place.band
    this.sequence = place.sequence
  }
}

/** One consumer's requests in one band, in the order of their arrival. */
type Line<Item> = {
  readonly consumer: string
  first: Waiter<Item> | null
  last: Waiter<Item> | null
  size: number
}

export class FairQueue<Item> {
  readonly #counterOf: (consumer: string) => number
  readonly #bands: Map<string, Line<Item>>[] = Array.from({ length: BANDS }, () => new Map())
  #size = 0
  #sequence = 0

  constructor(counterOf: (consumer: string) => number) {
    this.#counterOf = counterOf
  }

  get size(): number {
    return this.#size
  }

  /** Does this consumer wait in any band? */
  has(consumer: string): boolean {
    return this.#bands.some((lines) => lines.has(consumer))
  }

  add(item: Item, { consumer, band }: { consumer: string; band: number }): Waiter<Item> {
    const lines = this.#lines(band)
    const line = lines.get(consumer) ?? { consumer, first: null, last: null, size: 0 }
    lines.set(consumer, line)
    this.#sequence += 1
    const waiter = new Waiter(item, { consumer, band, sequence: this.#sequence })
    waiter.line = line
    waiter.before = line.last
    if (line.last === null) line.first = waiter
    else line.last.after = waiter
    line.last = waiter
    line.size += 1
    this.#size += 1
    return waiter
  }

  /** Takes it out, wherever it stands; false when it is not in it any more. */
  remove(waiter: Waiter<Item>): boolean {
    const { line, before, after } = waiter
    if (line === null) return false
    if (before === null) line.first = after
    else before.after = after
    if (after === null) line.last = before
    else after.before = before
    waiter.line = null
    waiter.before = null
    waiter.after = null
    line.size -= 1
    if (line.size === 0) this.#lines(waiter.band).delete(line.consumer)
    this.#size -= 1
    return true
  }

  /** Who is next; null: nobody waits. */
  head(): Waiter<Item> | null {
    for (let band = 0; band < BANDS; band += 1) {
      const head = this.headOf(band)
      if (head !== null) return head
    }
    return null
  }

  /** The first of each consumer in a band, in no order. */
  *firstsOf(band: number): Generator<Waiter<Item>> {
    for (const { first } of this.#lines(band).values()) if (first !== null) yield first
  }

  headOf(band: number): Waiter<Item> | null {
    let best: Waiter<Item> | null = null
    let least = Number.POSITIVE_INFINITY
    for (const { consumer, first } of this.#lines(band).values()) {
      if (first === null) continue
      const counter = this.#counterOf(consumer)
      const sooner = best === null || counter < least
      if (!sooner && !(counter === least && first.sequence < (best?.sequence ?? 0))) continue
      best = first
      least = counter
    }
    return best
  }

  /**
   * Who makes room in a full queue: the newest of whoever had most, in the last band that has
   * anybody. Null: the newcomer is that one himself.
   */
  victim({ consumer, band }: { consumer: string; band: number }): Waiter<Item> | null {
    for (let last = BANDS - 1; last > band; last -= 1) {
      const newest = this.#heaviest(last)
      if (newest !== null) return newest
    }
    const newest = this.#heaviest(band)
    if (newest === null) return null
    const more = this.#counterOf(newest.consumer) - this.#counterOf(consumer)
    const own = this.#lines(band).get(consumer)?.size ?? 0
    // One who has just come stands level with the others: then it is who has more waiting.
    return more > 0 || (more === 0 && (newest.line?.size ?? 0) > own + 1) ? newest : null
  }

  /** About how many of this queue go before it: consumers of a band take turns. */
  position(waiter: Waiter<Item>): number {
    let [ahead, turn] = [0, 0]
    for (let band = 0; band < waiter.band; band += 1) {
      for (const { size } of this.#lines(band).values()) ahead += size
    }
    for (let own = waiter.before; own !== null; own = own.before) turn += 1
    const counter = this.#counterOf(waiter.consumer)
    for (const { consumer, size, first } of this.#lines(waiter.band).values()) {
      if (consumer === waiter.consumer || first === null) continue
      const theirs = this.#counterOf(consumer)
      const sooner = theirs < counter || (theirs === counter && first.sequence < waiter.sequence)
      ahead += Math.min(size, turn + (sooner ? 1 : 0))
    }
    return ahead + turn
  }

  /** All of them as they are now: who is asked may leave, and take others with him. */
  all(): readonly Waiter<Item>[] {
    const all: Waiter<Item>[] = []
    for (const lines of this.#bands) {
      for (const { first } of lines.values()) {
        for (let waiter = first; waiter !== null; waiter = waiter.after) all.push(waiter)
      }
    }
    return all
  }

  #heaviest(band: number): Waiter<Item> | null {
    let worst: Line<Item> | null = null
    let most = Number.NEGATIVE_INFINITY
    for (const line of this.#lines(band).values()) {
      const counter = this.#counterOf(line.consumer)
      if (counter < most || (counter === most && line.size <= (worst?.size ?? 0))) continue
      worst = line
      most = counter
    }
    return worst?.last ?? null
  }

  #lines(band: number): Map<string, Line<Item>> {
    const lines = this.#bands[band]
    if (lines === undefined) throw new Error(`there is no band ${band}`)
    return lines
  }
}
