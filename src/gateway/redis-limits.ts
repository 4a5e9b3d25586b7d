/**
 * Limits that several gateways share: Redis decides while it can be asked, and every gateway keeps
 * count of its own use. Redis away: each gateway decides by its share of every limit (the limit
 * divided by how many gateways there were), which its own count already weighs on; so an outage
 * neither opens the limits nor closes them. When Redis is back it learns what was used meanwhile.
 */
import { randomUUID } from 'node:crypto'
import type { GatewayLimit } from '../core/limits.ts'
import { slotKey } from './limit-slots.ts'
import {
  type Amounts,
  type Limiter,
  type Limits,
  PLACE_WAIT_MS,
  type Reservation,
} from './limits.ts'
import { RateLimited, type Standing } from './rate-limited.ts'
import { ALIVE_MS, type Call, type RedisAddress, RedisLate, RedisLink } from './redis-link.ts'
import { Asked, type Books, bookKey, bucketKey, SharedReservation } from './redis-reservation.ts'
import type { RedisState } from './redis-state.ts'

/** Places of a gateway that is gone are free after this; a living one renews them in time. */
const LEASE_MS = 15_000
const RENEW_EVERY_MS = 5_000
const RENEW_BATCH = 200
/** Settlements that wait for Redis; a later one must find the mark of the first (DONE_MS). */
const UNSETTLED_MAX = 10_000
const UNSETTLED_MS = 60_000
/** What Redis answers of a reservation that it does not know. */
const FORGOTTEN = -1
const CATCH_UP_EVERY_MS = 2_000
/** After an outage every gateway goes on alone until the others, too, have said what they used. */
const RETURN_MS = 1_500
const OWE_BATCH = 500
/** How long a gateway's start waits for Redis. */
const OPENING_MS = 1_000

export type SharedSetup = {
  readonly address: RedisAddress
  readonly gateway: string
  readonly thread: number
  readonly local: Limits
  readonly state: RedisState
  readonly log: (message: string) => void
}

type Ask = {
  readonly limits: readonly GatewayLimit[]
  readonly subject: (per: string) => string
  readonly amounts: Amounts
}

type Waiting = { readonly call: Call; readonly sinceMs: number }

export class SharedLimits implements Limiter, Books {
  readonly #setup: SharedSetup
  readonly #link: RedisLink
  readonly #name = randomUUID().slice(0, 13)
  readonly #live = new Set<SharedReservation>()
  readonly #known = new WeakMap<GatewayLimit, { gateways: number; share: GatewayLimit }>()
  #unsettled: Waiting[] = []
  #ids = 0
  #sharing = false
  /** Requests were decided here since Redis last was asked. */
  #alone = false
  #returning: NodeJS.Timeout | undefined
  #caughtUpAtMs = Number.NEGATIVE_INFINITY
  #opened = (): void => undefined
  readonly #opening = new Promise<void>((resolve) => {
    this.#opened = resolve
  })
  readonly #renewing: NodeJS.Timeout

  constructor(setup: SharedSetup) {
    this.#setup = setup
    const { address, gateway, state, thread } = setup
    this.#link = new RedisLink({
      ...{ address, gateway },
      onChange: (problem) => this.#changed(problem),
      onGateways: (count) => this.#counted(count),
    })
    state.set(thread, false)
    this.#renewing = setInterval(() => this.#renew(), RENEW_EVERY_MS)
  }

  /** Resolves once Redis has answered, or after a second without it. */
  async opening(): Promise<void> {
    const timer = setTimeout(this.#opened, OPENING_MS)
    await this.#opening
    clearTimeout(timer)
  }

  close(): void {
    clearInterval(this.#renewing)
    clearTimeout(this.#returning)
    this.#link.close()
  }

  reserve(
    limits: readonly GatewayLimit[],
    subject: (per: string) => string,
    amounts: Amounts,
  ): Reservation | Promise<Reservation> {
    const ask = { limits, subject, amounts }
    return this.#sharing ? this.#ask(ask) : this.#byShare(ask)
  }

  /** A top-up, or the end. What Redis does not take now it gets when it is back. */
  tell(call: Call, last: boolean): void {
    if (last) this.#send({ call, sinceMs: performance.now() })
    // A failure takes the link away, and the end will say all that this would have said.
    else if (this.#link.up) this.#link.call(call).catch(() => undefined)
  }

  ended(reservation: SharedReservation): void {
    this.#live.delete(reservation)
  }

  async #ask(ask: Ask): Promise<Reservation> {
    const { limits, subject, amounts } = ask
    const keys = limits.map((limit) => slotKey(limit.id, subject(limit.per)))
    this.#ids += 1
    const asked = new Asked(`${this.#name}-${this.#ids}`, limits, keys, amounts)
    const undo = (): void => this.tell(asked.undo(), true)
    let reply: readonly number[]
    try {
      reply = await this.#link.call(asked.take(LEASE_MS))
    } catch (error) {
      // Decided by our share instead: what Redis has charged all the same is given back, and what
      // still lies in its socket it will not charge any more.
      if (error instanceof RedisLate) error.late.then(undo, undo)
      else undo()
      return this.#byShare(ask)
    }
    const standings = standingsOf(asked.rated, reply)
    const [taken, at = 0, waitUs = 0] = reply
    if (taken !== 1) {
      const place = asked.places[at - asked.rated.length - 1]
      const limit = place ?? asked.rated[at - 1]
      if (limit === undefined) throw new Error('a refusal names no limit')
      const waitMs = place === undefined ? Math.ceil(waitUs / 1000) : PLACE_WAIT_MS
      throw new RateLimited(limit, waitMs, standings)
    }
    const own = this.#setup.local.note(this.#shares(limits), keys, amounts)
    const reservation = new SharedReservation(this, asked, { own, standings })
    this.#live.add(reservation)
    return reservation
  }

  #byShare({ limits, subject, amounts }: Ask): Reservation {
    const { local, state } = this.#setup
    state.decidedLocally()
    this.#alone = true
    const shares = this.#shares(limits)
    local.forgive(shares, subject)
    return local.reserve(shares, subject, amounts)
  }

  #shares(limits: readonly GatewayLimit[]): readonly GatewayLimit[] {
    const { gateways } = this.#setup.state
    return limits.map((limit) => {
      const known = this.#known.get(limit)
      if (known?.gateways === gateways) return known.share
      const share = shareOf(limit, gateways)
      this.#known.set(limit, { gateways, share })
      return share
    })
  }

  /** A Redis that has just come back has not heard of everybody yet. */
  #counted(count: number): void {
    const { state } = this.#setup
    const early = !this.#link.up || performance.now() - this.#caughtUpAtMs < ALIVE_MS
    if (!state.known || count > state.gateways || !early) state.counted(count)
  }

  #changed(problem: string | null): void {
    const { state, thread, log } = this.#setup
    clearTimeout(this.#returning)
    if (problem !== null) {
      this.#sharing = false
      state.set(thread, false)
      log(
        `limits: Redis is away (${problem}): this gateway takes 1/${state.gateways} of each limit`,
      )
      return
    }
    this.#catchUp()
    if (this.#alone) this.#returning = setTimeout(() => this.#share(), RETURN_MS)
    else this.#share()
  }

  /** From now on Redis decides, and knows what we used until now. */
  #share(): void {
    const { state, thread, log } = this.#setup
    if (this.#alone) this.#owe()
    this.#alone = false
    this.#sharing = true
    state.set(thread, true)
    log(`limits: shared by Redis with ${state.gateways - 1} other gateway(s)`)
    this.#opened()
  }

  /**
   * Redis is back, perhaps without its memory: it hears what has ended meanwhile, what every bucket
   * owes by our own count, and what runs.
   */
  #catchUp(): void {
    this.#caughtUpAtMs = performance.now()
    for (const waiting of this.#unsettled.splice(0)) {
      if (this.#caughtUpAtMs - waiting.sinceMs < UNSETTLED_MS) this.#send(waiting)
    }
    this.#owe()
    for (const reservation of this.#live) this.tell(reservation.restored(), false)
    this.#renew()
  }

  #owe(): void {
    const { local, state, gateway } = this.#setup
    const debts = local.debts()
    for (let at = 0; at < debts.length; at += OWE_BATCH) {
      const some = debts.slice(at, at + OWE_BATCH)
      const keys = some.flatMap(({ key }) => [bucketKey(key), bookKey(key)])
      // Our own count is in shares: the same use weighs so many times less on the whole limit.
      const owed = some.map(({ owedNs }) => Math.floor(Number(owedNs) / 1000 / state.gateways))
      this.tell({ step: 'owe', keys, values: [gateway, ...owed] }, false)
    }
  }

  #wait(waiting: Waiting): void {
    // Beyond the bound what was reserved stays charged, and drains with time.
    if (this.#unsettled.length < UNSETTLED_MAX) this.#unsettled.push(waiting)
  }

  #send(waiting: Waiting): void {
    if (!this.#link.up) {
      this.#wait(waiting)
      return
    }
    this.#link.call(waiting.call).then(
      ([known]) => {
        if (known === FORGOTTEN) this.#forgotten()
      },
      () => this.#wait(waiting),
    )
  }

  /** Redis was emptied while nobody noticed. */
  #forgotten(): void {
    if (performance.now() - this.#caughtUpAtMs > CATCH_UP_EVERY_MS) this.#catchUp()
  }

  #renew(): void {
    if (!this.#link.up) return
    const live = [...this.#live]
    for (let at = 0; at < live.length; at += RENEW_BATCH) {
      const some = live.slice(at, at + RENEW_BATCH).map(({ asked }) => asked)
      const places = some.flatMap(({ id, placeKeys }) => placeKeys.map((key) => ({ id, key })))
      const keys = [...some.map(({ record }) => record), ...places.map(({ key }) => key)]
      const values = [some.length, LEASE_MS, ...places.map(({ id }) => id)]
      this.tell({ step: 'renew', keys, values }, false)
    }
  }
}

/** At least one of everything: a limit that is divided is not a closed one. */
const shareOf = (limit: GatewayLimit, gateways: number): GatewayLimit => ({
  ...limit,
  amount: Math.max(1, Math.floor(limit.amount / gateways)),
  burst: Math.max(1, Math.floor(limit.burst / gateways)),
})

/** After the head of a reply: what is left of each limit, and when nothing is owed, in turn. */
const standingsOf = (
  rated: readonly GatewayLimit[],
  reply: readonly number[],
): readonly Standing[] =>
  rated.map((limit, index) => ({
    limit,
    remaining: reply[3 + index * 2] ?? 0,
    resetMs: Math.ceil((reply[4 + index * 2] ?? 0) / 1000),
  }))
