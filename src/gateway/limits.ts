/**
 * A route's limits at work: reserve before anything is sent, top up while a stream runs past its
 * reservation, settle once with what was used.
 */
import { type Charge, charge, forgive, peek, refund, takeAll, weigh } from '../core/gcra.ts'
import type { GatewayLimit, Measure } from '../core/limits.ts'
import { type LimitSlots, type Slot, slotKey } from './limit-slots.ts'
import { RateLimited, type Standing } from './rate-limited.ts'

const MILLISECOND = 1_000_000n
/** How far a running stream's charge goes ahead of what it has produced (gateways.md 6.1). */
export const TOP_UP_TOKENS = 256
/** When a place will be free is not known; this is when to look again. */
export const PLACE_WAIT_MS = 1_000

export type Amounts = { readonly prompt: number; readonly completion: number }

/** What one request holds of its limits, until it is settled. */
export type Reservation = {
  /** What was left right after the reservation, for the answer's head. */
  readonly standings: readonly Standing[]
  readonly expected: Amounts
  /** A stream has produced this many tokens: charges ahead when they exceed what is covered. */
  produced(completion: number): void
  /** The request is over and used this much; null: unknown, what is charged stays. Once. */
  settle(used: Amounts | null): void
}

/** Limits of this gateway alone, or shared with others: then Redis is asked, and waited for. */
export type Limiter = {
  /**
   * Charges all limits or none. `subject` says on whom a limit counts.
   * Throws (or rejects with) RateLimited with the limit that has to wait longest.
   */
  reserve(
    limits: readonly GatewayLimit[],
    subject: (per: string) => string,
    amounts: Amounts,
  ): Reservation | Promise<Reservation>
}

type One = {
  readonly limit: GatewayLimit
  readonly slot: Slot
  charged: number
  /** When it was last charged: a bucket that has been clear since owes none of it any more. */
  at: bigint
}

export type LimitsSetup = {
  readonly slots: LimitSlots
  readonly thread: number
  /** Nanoseconds of a clock that all threads share. */
  readonly now: () => bigint
}

/** One thread's view of the shared limits. */
export class Limits implements Limiter {
  readonly #slots: LimitSlots
  readonly #thread: number
  readonly #now: () => bigint

  constructor({ slots, thread, now }: LimitsSetup) {
    this.#slots = slots
    this.#thread = thread
    this.#now = now
  }

  reserve(
    limits: readonly GatewayLimit[],
    subject: (per: string) => string,
    amounts: Amounts,
  ): Reservation {
    const now = this.#now()
    const all: One[] = limits.map((limit) => {
      const slot = this.#slots.find(slotKey(limit.id, subject(limit.per)), now)
      return { limit, slot, charged: unitsOf(limit.measure, amounts), at: now }
    })
    const rated = all.filter(({ limit }) => limit.measure !== 'concurrent')
    const places = this.#hold(all, now)
    const clear = rated.filter(({ slot }) => this.#slots.cell(slot).load() <= now)
    const taken = takeAll(
      rated.map((one) => this.#charge(one, one.charged)),
      now,
    )
    if (taken.ok) {
      for (const { slot } of clear) this.#slots.noteClear(slot, now)
      return new LocalReservation(this, { rated, places, amounts, now })
    }
    this.letGo(places)
    const refused = rated[taken.at]
    if (refused === undefined) throw new Error('a refusal names no limit')
    const waitMs = Number((taken.waitNs + MILLISECOND - 1n) / MILLISECOND)
    throw new RateLimited(refused.limit, waitMs, this.standings(rated, now))
  }

  /**
   * Charges without asking: who keeps the limits has let the request in. What this gateway uses is
   * known here too, for when nobody else can be asked. A gateway that serves more than its share
   * owes more and more here; one burst of that counts, `forgive` does away with the rest.
   */
  note(limits: readonly GatewayLimit[], keys: readonly bigint[], amounts: Amounts): Reservation {
    const now = this.#now()
    const [rated, places]: [One[], One[]] = [[], []]
    for (const [index, limit] of limits.entries()) {
      const slot = this.#slots.find(keys[index] ?? 0n, now)
      const one = { limit, slot, charged: unitsOf(limit.measure, amounts), at: now }
      if (limit.measure === 'concurrent') {
        this.#slots.hold(this.#thread, slot, { amount: Number.POSITIVE_INFINITY, now })
        places.push(one)
        continue
      }
      if (this.#slots.cell(slot).load() <= now) this.#slots.noteClear(slot, now)
      charge(this.#charge(one, one.charged), now)
      const rate = rateOf(limit)
      this.#slots.noteCap(slot, weigh(rate, rate.burst))
      rated.push(one)
    }
    return new LocalReservation(this, { rated, places, amounts, now })
  }

  forgive(limits: readonly GatewayLimit[], subject: (per: string) => string): void {
    const now = this.#now()
    for (const limit of limits) {
      if (limit.measure === 'concurrent') continue
      const slot = this.#slots.find(slotKey(limit.id, subject(limit.per)), now)
      this.#slots.noteCap(slot, weigh(rateOf(limit), limit.burst))
      const forgiven = forgive({ cell: this.#slots.cell(slot), rate: rateOf(limit) }, now)
      // What was reserved before, and perhaps forgiven, must not be given back as well.
      if (forgiven) this.#slots.noteClear(slot, now)
    }
  }

  /** Keys of the buckets that owe, and for how long: what this gateway's threads have used. */
  debts(): readonly { readonly key: bigint; readonly owedNs: bigint }[] {
    return this.#slots.debts(this.#now())
  }

  /** Brings a charge to `units`: more at once, less only where the bucket still owes it. */
  adjust(one: One, units: number): void {
    const now = this.#now()
    const more = units - one.charged
    one.charged = units
    if (more === 0) return
    if (!this.#slots.owns(one.slot)) {
      // Taken over by another subject: this one's bucket has been clear for a minute.
      if (more < 0) return
      const slot = this.#slots.find(one.slot.key, now)
      charge(this.#charge({ ...one, slot }, more), now)
    } else if (more > 0) {
      charge(this.#charge(one, more), now)
      one.at = now
    } else if (one.at >= this.#slots.clearAt(one.slot)) {
      refund(this.#charge(one, -more))
    }
  }

  letGo(places: readonly One[]): void {
    for (const { slot } of places) this.#slots.letGo(this.#thread, slot)
  }

  /** What is left of each limit. */
  standings(rated: readonly One[], now: bigint): readonly Standing[] {
    return rated.map(({ limit, slot }) => {
      const level = peek(this.#slots.cell(slot).load(), rateOf(limit), now)
      const resetMs = Number((level.resetNs + MILLISECOND - 1n) / MILLISECOND)
      return { limit, remaining: level.remaining, resetMs }
    })
  }

  /** All places or none. */
  #hold(all: readonly One[], now: bigint): readonly One[] {
    const held: One[] = []
    for (const one of all) {
      const { limit, slot } = one
      if (limit.measure !== 'concurrent') continue
      if (this.#slots.hold(this.#thread, slot, { amount: limit.amount, now })) held.push(one)
      else {
        this.letGo(held)
        const rated = all.filter(({ limit: { measure } }) => measure !== 'concurrent')
        throw new RateLimited(limit, PLACE_WAIT_MS, this.standings(rated, now))
      }
    }
    return held
  }

  #charge({ limit, slot }: One, units: number): Charge {
    return { cell: this.#slots.cell(slot), rate: rateOf(limit), units }
  }
}

type Reserved = {
  readonly rated: readonly One[]
  readonly places: readonly One[]
  readonly amounts: Amounts
  readonly now: bigint
}

class LocalReservation implements Reservation {
  readonly standings: readonly Standing[]
  readonly expected: Amounts
  readonly #limits: Limits
  readonly #reserved: Reserved
  #covered: number
  #settled = false

  constructor(limits: Limits, reserved: Reserved) {
    this.#limits = limits
    this.#reserved = reserved
    this.expected = reserved.amounts
    this.#covered = reserved.amounts.completion
    this.standings = limits.standings(reserved.rated, reserved.now)
  }

  produced(completion: number): void {
    if (this.#settled || completion <= this.#covered) return
    this.#covered = completion + TOP_UP_TOKENS
    this.#bring({ prompt: this.expected.prompt, completion: this.#covered })
  }

  settle(used: Amounts | null): void {
    if (this.#settled) return
    this.#settled = true
    this.#limits.letGo(this.#reserved.places)
    if (used !== null) this.#bring(used)
  }

  #bring(amounts: Amounts): void {
    for (const one of this.#reserved.rated) {
      this.#limits.adjust(one, unitsOf(one.limit.measure, amounts))
    }
  }
}

const rateOf = ({ amount, windowMs, burst }: GatewayLimit) => ({
  amount,
  windowNs: BigInt(windowMs) * MILLISECOND,
  burst,
})

/** How much of what a limit measures. */
export const unitsOf = (measure: Measure, { prompt, completion }: Amounts): number => {
  if (measure === 'tokens') return prompt + completion
  if (measure === 'input tokens') return prompt
  return measure === 'output tokens' ? completion : 1
}
