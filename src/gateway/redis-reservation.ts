/** A reservation that Redis keeps: its words for each step, and its life until it is settled. */
import type { GatewayLimit } from '../core/limits.ts'
import { type Amounts, type Reservation, TOP_UP_TOKENS, unitsOf } from './limits.ts'
import type { Standing } from './rate-limited.ts'
import { type Call, TAG } from './redis-link.ts'

export const bucketKey = (key: bigint): string => `${TAG}:b:${BigInt.asUintN(64, key).toString(16)}`
export const bookKey = (key: bigint): string => `${TAG}:o:${BigInt.asUintN(64, key).toString(16)}`
const placeKey = (key: bigint): string => `${TAG}:p:${BigInt.asUintN(64, key).toString(16)}`

const MODES = { 'top up': 0, end: 1, restore: 2 } as const
type BringMode = keyof typeof MODES

/** What is asked of Redis for one request; the same limits and keys in every step. */
export class Asked {
  readonly id: string
  readonly amounts: Amounts
  readonly rated: readonly GatewayLimit[]
  readonly places: readonly GatewayLimit[]
  readonly placeKeys: readonly string[]
  readonly #keys: readonly string[]

  /** `keys`: of the limits, by their order. */
  constructor(
    id: string,
    limits: readonly GatewayLimit[],
    keys: readonly bigint[],
    amounts: Amounts,
  ) {
    this.id = id
    this.amounts = amounts
    const all = limits.map((limit, index) => ({ limit, key: keys[index] ?? 0n }))
    const [places, rated] = [all.filter(isPlace), all.filter((one) => !isPlace(one))]
    this.rated = rated.map(({ limit }) => limit)
    this.places = places.map(({ limit }) => limit)
    this.placeKeys = places.map(({ key }) => placeKey(key))
    this.#keys = [this.record, ...rated.map(({ key }) => bucketKey(key)), ...this.placeKeys]
  }

  get record(): string {
    return `${TAG}:r:${this.id}`
  }

  take(leaseMs: number): Call {
    const units = (limit: GatewayLimit): number => unitsOf(limit.measure, this.amounts)
    const values = [this.rated.length, leaseMs, this.id, ...this.#rates(units)]
    return { step: 'take', keys: this.#keys, values: [...values, ...this.places.map(amountOf)] }
  }

  /** Brings the charges to these amounts; null: they stay. */
  bring(amounts: Amounts | null, mode: BringMode): Call {
    const units = ({ measure }: GatewayLimit): number =>
      amounts === null ? -1 : unitsOf(measure, amounts)
    const values = [this.rated.length, MODES[mode], this.id, ...this.#rates(units)]
    return { step: 'bring', keys: this.#keys, values }
  }

  /** Takes all of it back, as if it had never been asked. */
  undo(): Call {
    const values = [this.rated.length, MODES.end, this.id, ...this.#rates(() => 0)]
    return { step: 'bring', keys: this.#keys, values }
  }

  #rates(units: (limit: GatewayLimit) => number): readonly number[] {
    return this.rated.flatMap((limit) => {
      const { amount, windowMs, burst } = limit
      return [amount, windowMs * 1000, burst, units(limit)]
    })
  }
}

const isPlace = ({ limit }: { readonly limit: GatewayLimit }): boolean =>
  limit.measure === 'concurrent'

const amountOf = ({ amount }: GatewayLimit): number => amount

/** Where a reservation's steps go. */
export type Books = {
  tell(call: Call, last: boolean): void
  ended(reservation: SharedReservation): void
}

type Granted = {
  /** The same use in this gateway's own count. */
  readonly own: Reservation
  readonly standings: readonly Standing[]
}

export class SharedReservation implements Reservation {
  readonly standings: readonly Standing[]
  readonly expected: Amounts
  readonly asked: Asked
  readonly #books: Books
  readonly #own: Reservation
  #covered: number
  #settled = false

  constructor(books: Books, asked: Asked, { own, standings }: Granted) {
    this.#books = books
    this.asked = asked
    this.#own = own
    this.standings = standings
    this.expected = asked.amounts
    this.#covered = asked.amounts.completion
  }

  produced(completion: number): void {
    if (this.#settled) return
    this.#own.produced(completion)
    if (completion <= this.#covered) return
    this.#covered = completion + TOP_UP_TOKENS
    this.#books.tell(this.asked.bring(this.#charged, 'top up'), false)
  }

  settle(used: Amounts | null): void {
    if (this.#settled) return
    this.#settled = true
    this.#own.settle(used)
    this.#books.ended(this)
    this.#books.tell(this.asked.bring(used, 'end'), true)
  }

  /** What Redis may have forgotten; it charges nothing. */
  restored(): Call {
    return this.asked.bring(this.#charged, 'restore')
  }

  get #charged(): Amounts {
    return { prompt: this.expected.prompt, completion: this.#covered }
  }
}
