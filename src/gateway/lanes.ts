/**
 * One thread's part of the waiting: its queues, one a deployment, what it publishes of them to the
 * other threads, and the accounts on which consumers' tokens are charged.
 */
import type { Share } from '../core/admission.ts'
import { BANDS, FairQueue, type Waiter } from '../core/fair-queue.ts'
import type { Payer } from './lease.ts'
import type { Account, Crowd, QueueSlots } from './queue-slots.ts'

/** Deployments and consumers whose places a thread remembers. */
const REMEMBERED_MAX = 10_000

/** Who was served of late is counted so often. */
const COUNT_EVERY_MS = 1000

/** What the order needs to know of one that waits. */
export type Queued = {
  readonly account: Account
  readonly payer: Payer
  readonly tokens: number
}

export type Lane<Item> = {
  readonly index: number
  readonly queue: FairQueue<Item>
}

export type Owner = { readonly account: Account; readonly weight: number }

const NOBODY: Crowd = { consumers: 0, active: 0, weight: 0 }

export type Ahead = {
  /** Among all threads' requests; 1 is next. */
  readonly position: number
  readonly tokens: number
}

export class Lanes<Item extends Queued> {
  readonly #thread: number
  readonly #slots: QueueSlots
  /** Milliseconds of a clock that all threads share. */
  readonly #now: () => number
  readonly #lanes = new Map<string, Lane<Item>>()
  readonly #accounts = new Map<string, Account>()
  #crowds: ReadonlyMap<number, Crowd> = new Map()
  #countedAtMs = Number.NEGATIVE_INFINITY

  constructor(thread: number, slots: QueueSlots, now: () => number) {
    this.#thread = thread
    this.#slots = slots
    this.#now = now
  }

  /** Requests that wait in this thread. */
  get size(): number {
    let size = 0
    for (const { queue } of this.#lanes.values()) size += queue.size
    return size
  }

  all(): Iterable<Lane<Item>> {
    return this.#lanes.values()
  }

  of(deployment: string): Lane<Item> {
    const known = this.#lanes.get(deployment)
    if (known !== undefined) return known
    if (this.#lanes.size >= REMEMBERED_MAX) this.#forgetEmpty()
    const counterOf = (line: string): number => this.#slots.counter({ index: Number(line) })
    const lane = { index: this.#slots.lane(deployment), queue: new FairQueue<Item>(counterOf) }
    this.#lanes.set(deployment, lane)
    return lane
  }

  /** The account of a consumer at a deployment, with its counter where those who wait stand. */
  account(deployment: string, consumer: string): Account {
    const name = `${deployment}\n${consumer}`
    const known = this.#accounts.get(name)
    if (known !== undefined && this.#slots.owns(known)) return known
    if (this.#accounts.size >= REMEMBERED_MAX) this.#accounts.clear()
    const account = this.#slots.account(deployment, consumer, this.#now())
    this.#accounts.set(name, account)
    return account
  }

  /** What a consumer of this weight has of the deployment, and its part of it. */
  shareOf({ index }: Lane<Item>, { account, weight }: Owner): Share {
    const nowMs = this.#now()
    if (nowMs - this.#countedAtMs >= COUNT_EVERY_MS) {
      this.#countedAtMs = nowMs
      this.#crowds = this.#slots.crowds(nowMs)
    }
    const { consumers, active, weight: all } = this.#crowds.get(index) ?? NOBODY
    return {
      runs: this.#slots.runs(account),
      part: weight / Math.max(2 * weight, all),
      others: consumers > 1,
      rivals: active > 1,
    }
  }

  /** Who pays for one request; it has its account until `freed` says that it is over. */
  payer(lane: Lane<Item>, { account, weight }: Owner, wake: (lane: Lane<Item>) => void): Payer {
    let [over, running] = [false, false]
    const hold = (by: 1 | -1): void =>
      this.#slots.hold(this.#thread, account, {
        by,
        lane: lane.index,
        weight,
        nowMs: this.#now(),
      })
    // A newcomer is one of several from his first request on, not a second later.
    if (this.#slots.isNew(account, lane.index, this.#now())) {
      this.#countedAtMs = Number.NEGATIVE_INFINITY
    }
    hold(1)
    return {
      weight,
      charge: (parts) => this.#slots.charge(account, parts),
      ran: () => {
        if (!running) this.#slots.run(this.#thread, account, 1)
        running = true
      },
      freed: (ended) => {
        if (ended && !over) {
          over = true
          hold(-1)
          if (running) this.#slots.run(this.#thread, account, -1)
        }
        wake(lane)
      },
    }
  }

  /**
   * One whose consumer waits nowhere here begins where those in the queue stand, or where the last
   * one of it stood: a rest earns no turns. A hair before them, so that who comes anew after a
   * crowd goes first and may take one of the places that are kept for those who hold few.
   */
  lift({ index, queue }: Lane<Item>, account: Account, band: number): void {
    if (queue.has(lineOf(account))) return
    const stand = this.#slots.least(index, band) ?? this.#slots.lastCounter(index)
    this.#slots.lift(account, stand - 1)
  }

  add(lane: Lane<Item>, item: Item, band: number): Waiter<Item> {
    const waiter = lane.queue.add(item, { consumer: lineOf(item.account), band })
    const by = { count: 1, tokens: item.tokens }
    this.#slots.noteWaiting(this.#thread, lane.index, by)
    return waiter
  }

  /** False: it is not in it any more. */
  remove(lane: Lane<Item>, waiter: Waiter<Item>): boolean {
    if (!lane.queue.remove(waiter)) return false
    const by = { count: -1, tokens: -waiter.item.tokens }
    this.#slots.noteWaiting(this.#thread, lane.index, by)
    return true
  }

  victim(lane: Lane<Item>, account: Account, band: number): Waiter<Item> | null {
    return lane.queue.victim({ consumer: lineOf(account), band })
  }

  /** Tells the others who is first here, and which thread is next; null: nobody waits. */
  publish({ index, queue }: Lane<Item>): number | null {
    const heads = Array.from({ length: BANDS }, (_, band) => {
      const head = queue.headOf(band)
      return head === null ? null : this.#slots.counter(head.item.account)
    })
    this.#slots.publishHeads(this.#thread, index, heads)
    return this.#slots.next(index)
  }

  /** In the band whose turn it is, the first one of whoever has least of it by weight; or null. */
  smallest({ index, queue }: Lane<Item>): Waiter<Item> | null {
    const bands = Array.from({ length: BANDS }, (_, band) => band)
    const turn = bands.find((band) => this.#slots.least(index, band) !== null)
    let [smallest, least]: [Waiter<Item> | null, number] = [null, Number.POSITIVE_INFINITY]
    for (const first of turn === undefined ? [] : queue.firstsOf(turn)) {
      const { account, payer } = first.item
      const runs = this.#slots.runs(account) / payer.weight
      if (runs >= least) continue
      smallest = first
      least = runs
    }
    return smallest
  }

  /** Its place among all threads' requests, and the tokens before it. */
  ahead({ index, queue }: Lane<Item>, waiter: Waiter<Item>): Ahead {
    const { count, tokens } = this.#slots.waiting(index)
    // The other threads' parts look like ours.
    const share = queue.position(waiter) / Math.max(1, queue.size)
    return { position: Math.round(share * count) + 1, tokens: share * tokens }
  }

  #forgetEmpty(): void {
    for (const [name, { queue }] of this.#lanes) {
      if (queue.size > 0) continue
      this.#lanes.delete(name)
      return
    }
  }
}

/** Those who share an account take turns as one. */
const lineOf = ({ index }: Account): string => String(index)
