/**
 * The replicas' circuit breakers (core/breaker.ts), one cell of shared memory a slot, written by
 * compare-and-swap only.
 */
import {
  abandoned,
  admission,
  type Breaker,
  type BreakerPhase,
  CLOSED,
  claimed,
  failed,
  packed,
  readyAt,
  succeeded,
  unpacked,
} from '../core/breaker.ts'
import {
  type GatewayRoute,
  type GatewaySnapshot,
  MAX_SLOTS,
  type Target,
} from '../core/snapshot.ts'

export class Breakers {
  readonly buffer: SharedArrayBuffer
  readonly #cells: BigInt64Array
  readonly #nowMs: () => number

  /** `nowMs`: a clock that all threads share, from 0 on. Wraps another thread's buffer. */
  constructor(nowMs: () => number, buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(MAX_SLOTS * 8)
    this.#cells = new BigInt64Array(this.buffer)
    this.#nowMs = nowMs
  }

  phase(slot: number): BreakerPhase {
    return this.#load(slot).phase
  }

  /**
   * The targets that may be asked now. When that leaves no ready one, the one that would be tried
   * soonest: rather an attempt that may fail than a refusal that certainly does.
   */
  usable(targets: readonly Target[]): readonly Target[] {
    // The usual case, without a list of its own: all are closed.
    if (targets.every(({ slot }) => Atomics.load(this.#cells, slot) === 0n)) return targets
    const nowMs = this.#nowMs()
    const usable = targets.filter(({ slot }) => admission(this.#load(slot), nowMs) !== 'closed off')
    if (usable.some(isReady)) return usable
    const [soonest] = targets
      .filter(isReady)
      .toSorted((a, b) => readyAt(this.#load(a.slot)) - readyAt(this.#load(b.slot)))
    return soonest === undefined ? targets : [soonest]
  }

  /**
   * A request goes to this replica. False: it is not to be had, because it is open or another
   * request is probing it. `probe`: this request is the probe.
   */
  enter(slot: number): 'free' | 'probe' | false {
    for (;;) {
      const cell = Atomics.load(this.#cells, slot)
      if (cell === 0n) return 'free'
      const breaker = unpacked(cell)
      if (breaker.phase === 'closed') return 'free'
      const next = claimed(breaker, this.#nowMs())
      if (next === null) return false
      if (this.#swap(slot, cell, next)) return 'probe'
    }
  }

  succeeded(slot: number): void {
    if (Atomics.load(this.#cells, slot) === 0n) return
    this.#update(slot, (breaker, nowMs) => succeeded(breaker, nowMs))
  }

  failed(slot: number): void {
    const draw = Math.random()
    this.#update(slot, (breaker, nowMs) => failed(breaker, nowMs, draw))
  }

  /** A probe ended without a word on the replica. */
  abandoned(slot: number): void {
    this.#update(slot, abandoned)
  }

  /** A slot that another replica has now, or the same one started anew, begins closed. */
  follow(before: GatewaySnapshot, now: GatewaySnapshot): void {
    const known = incarnations(before)
    for (const [slot, who] of incarnations(now)) {
      if (known.get(slot) !== who) Atomics.store(this.#cells, slot, packed(CLOSED))
    }
  }

  #load(slot: number): Breaker {
    return unpacked(Atomics.load(this.#cells, slot))
  }

  #update(slot: number, next: (breaker: Breaker, nowMs: number) => Breaker): void {
    for (;;) {
      const cell = Atomics.load(this.#cells, slot)
      const before = unpacked(cell)
      const after = next(before, this.#nowMs())
      if (after === before || this.#swap(slot, cell, after)) return
    }
  }

  #swap(slot: number, cell: bigint, next: Breaker): boolean {
    return Atomics.compareExchange(this.#cells, slot, cell, packed(next)) === cell
  }
}

const incarnations = ({ routes }: GatewaySnapshot): ReadonlyMap<number, string> =>
  new Map(
    routes
      .flatMap(withOthers)
      .flatMap(({ targets }) => targets)
      .map(({ slot, id, url, readySinceMs }) => [slot, `${id} ${url} ${readySinceMs ?? ''}`]),
  )

const withOthers = (route: GatewayRoute): readonly GatewayRoute[] => {
  const { standIn, split, fallback } = route
  const others = [
    ...(standIn === undefined ? [] : [standIn.route]),
    ...(split ?? []).map((one) => one.route),
    ...(fallback?.routes ?? []),
  ]
  return [route, ...others]
}

/** The process's clock, not the thread's: times in the cells are compared between threads. */
export const sharedClockMs = (): number => Number(process.hrtime.bigint() / 1_000_000n)

const isReady = ({ state }: Target): boolean => state === 'ready'
