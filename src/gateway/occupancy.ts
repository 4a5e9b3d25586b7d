/** One thread's requests on the replicas: who is let in, and what is learned from how they fare. */
import { growthOf, type RoomAsk, roomFor } from '../core/admission.ts'
import { type Due, type Lesson, nextCeiling } from '../core/ceiling.ts'
import type { Target } from '../core/snapshot.ts'
import type { AdmissionSlots, Cell } from './admission-slots.ts'
import { Lease, type LeaseAsk } from './lease.ts'
import { type Watched, watchedOf } from './watched.ts'

/**
 * A request that was sent this shortly before a reading may have missed it: engines bring their
 * gauges up to date once a step, and a long prompt's step is four times the usual way to a first
 * token; that of a chunk of 8192 tokens takes an R1 on sixteen H20 three seconds.
 */
const MARGIN_RATIO = 4
const MARGIN_MS_MIN = 100
const MARGIN_MS_MAX = 5_000
const STEP_EVERY_MS = 1_000
/** So many answers are looked through each time; more of them less often. */
const GROWTH_EACH_TICK = 500
/** Ends between two readings that are remembered. */
const GONE_MAX = 10_000

export type Clocks = {
  /** Milliseconds; the same for all threads. */
  readonly now: () => number
  /** Epoch milliseconds: readings carry them. */
  readonly wall: () => number
}

export class Occupancy {
  readonly slots: AdmissionSlots
  readonly #thread: number
  readonly now: Clocks['now']
  readonly #wall: Clocks['wall']
  /** By slot: MAX_SLOTS at most. */
  readonly #watched = new Map<number, Watched<Lease>>()

  constructor(slots: AdmissionSlots, thread: number, { now, wall }: Clocks) {
    this.slots = slots
    this.#thread = thread
    this.now = now
    this.#wall = wall
  }

  /** Takes room on a replica; null: it has none. `force`: counted, but not asked. */
  take(
    target: Target,
    ask: LeaseAsk & { readonly force: boolean } & Pick<RoomAsk, 'share' | 'beyond'>,
  ): Lease | null {
    const lease = new Lease(this, ask)
    // Counted first and judged afterwards: two at once may both be refused, never both let in.
    lease.move(target)
    if (ask.force) return lease
    const { slot } = target
    const sent = this.slots.sent(slot)
    const room = roomFor(target, {
      sent,
      ceiling: this.slots.ceiling(slot),
      share: ask.share,
      beyond: ask.beyond,
      whole: !ask.streams,
    })
    if (room.go) return lease
    lease.leave()
    return null
  }

  /** A new reading, perhaps: what it must have seen is no longer added to it. */
  read(target: Target, due: Due): void {
    const watched = this.#of(target)
    watched.due = due
    const readAtMs = target.readAtMs ?? 0
    watched.target = target
    if (target.requestsRunning === null) {
      // An old number of what others have there would keep us out for good.
      watched.foreign = 0
      this.slots.noteForeign(target.slot, 0)
      return
    }
    if (readAtMs <= watched.readAtMs) return
    watched.readAtMs = readAtMs
    // `readAtMs` is wall clock, ours is not: its age tells when it was.
    const usualMs = this.slots.firstToken(target.slot).ms
    const marginMs = Math.max(MARGIN_MS_MIN, MARGIN_RATIO * usualMs)
    const ageMs = Math.max(0, this.#wall() - readAtMs)
    const seenBefore = this.now() - ageMs - Math.min(MARGIN_MS_MAX, marginMs)
    for (const lease of watched.leases) lease.seen(seenBefore)
    const { slot, requestsRunning, requestsWaiting } = target
    const ours = this.slots.sum(slot, 'held') - this.slots.sum(slot, 'fresh')
    const foreign = requestsRunning + (requestsWaiting ?? 0) - ours - this.slots.sum(slot, 'gone')
    watched.seenPreemptions = (watched.seenPreemptions ?? 0) + (target.preemptions ?? 0)
    watched.seenAtMs = this.now()
    // Clocks are not that exact; of two readings, the smaller number is believed.
    this.slots.noteForeign(slot, Math.max(0, Math.min(foreign, watched.foreign)))
    watched.foreign = foreign
    const late = watched.gone.filter((at) => at > seenBefore)
    this.add(slot, 'gone', late.length - watched.gone.length)
    watched.gone = late
  }

  tick(): void {
    const nowMs = this.now()
    for (const [slot, watched] of this.#watched) {
      for (const lease of watched.leases) lease.age(nowMs)
      this.#grow(slot, watched, nowMs)
      this.#step(slot, watched, nowMs)
    }
  }

  add(slot: number, cell: Cell, by: number): void {
    this.slots.add(this.#thread, slot, { cell, by })
  }

  enlist(target: Target, lease: Lease): void {
    const { leases } = this.#of(target)
    lease.place = leases.length
    leases.push(lease)
  }

  /** The last one takes its place. */
  strike({ slot }: Target, lease: Lease): void {
    const leases = this.#watched.get(slot)?.leases
    const last = leases?.pop()
    if (leases === undefined || last === undefined || last === lease) return
    leases[lease.place] = last
    last.place = lease.place
  }

  /** One of which readings know has ended; the next may still count it. */
  ended({ slot }: Target): void {
    const watched = this.#watched.get(slot)
    if (watched === undefined || watched.target.requestsRunning === null) return
    if (watched.gone.length >= GONE_MAX) return
    watched.gone.push(this.now())
    this.add(slot, 'gone', 1)
  }

  #of(target: Target): Watched<Lease> {
    const known = this.#watched.get(target.slot)
    if (known !== undefined && known.target.id === target.id) return known
    if (known !== undefined) {
      // The slot went to another replica; what still runs on the last one ends by itself.
      this.slots.forget(target.slot)
      known.target = target
      known.readAtMs = -1
      return known
    }
    const watched = watchedOf<Lease>(target)
    this.#watched.set(target.slot, watched)
    return watched
  }

  /** What our answers there will still add to its cache. */
  #grow(slot: number, watched: Watched<Lease>, nowMs: number): void {
    const { leases } = watched
    const every = Math.max(0, leases.length - GROWTH_EACH_TICK)
    if (nowMs - watched.growthAt < every) return
    watched.growthAt = nowMs
    const answers = leases.map((lease) => lease.answer())
    const to = watched.target.kvCapacityTokens == null ? 0 : growthOf(answers)
    this.slots.set(this.#thread, slot, { cell: 'growthTokens', to: Math.ceil(to) })
  }

  /** One thread a second learns for all. */
  #step(slot: number, watched: Watched<Lease>, nowMs: number): void {
    if (!this.slots.tryLock(this.#thread, slot)) return
    try {
      const { learned, past } = this.slots.learned(slot)
      const elapsedMs = nowMs - (past[0] ?? 0)
      // Another thread has learned from the same readings, unless this one has a later one.
      const steppedAtMs = past[0] ?? 0
      const taught = steppedAtMs !== watched.steppedAtMs && watched.seenAtMs <= steppedAtMs
      if (taught) watched.seenPreemptions = null
      watched.steppedAtMs = steppedAtMs
      if (elapsedMs < STEP_EVERY_MS && (past[0] ?? 0) !== 0) return
      const now = [nowMs, ...this.#counters(slot), watched.target.generationTokensTotal ?? 0]
      // The first step has nothing to compare with.
      const since = (index: number): number =>
        (past[0] ?? 0) === 0 ? 0 : Math.max(0, ((now[index] ?? 0) - (past[index] ?? 0)) | 0)
      const { held, unstarted, foreign } = this.slots.sent(slot)
      const lesson: Lesson = {
        elapsedMs,
        streaming: this.slots.sum(slot, 'streaming'),
        outputTokens: since(1),
        firstTokens: since(2),
        firstTokenMsSum: since(3),
        firstTokenTokensSum: since(4),
        requestsRunning: watched.target.requestsRunning,
        requestsWaiting: watched.target.requestsWaiting,
        kvCacheUsageRatio: watched.target.kvCacheUsageRatio,
        preemptions: watched.seenPreemptions,
        held,
        unstarted,
        foreign,
        generatedTokens: increase(past[5] ?? 0, now[5] ?? 0),
        due: watched.due,
      }
      watched.seenPreemptions = null
      watched.steppedAtMs = nowMs
      this.slots.learn(slot, nextCeiling(learned, lesson), now)
    } finally {
      this.slots.unlock(slot)
    }
  }

  #counters(slot: number): number[] {
    const cells = ['outputTokens', 'firstTokens', 'firstTokenMs', 'firstTokenPrompt'] as const
    return cells.map((cell) => this.slots.sum(slot, cell))
  }
}

/** Of a counter that may have begun anew; 0 is unknown. */
const increase = (before: number, now: number): number | null =>
  before > 0 && now >= before ? now - before : null
