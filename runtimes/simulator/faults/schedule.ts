/**
 * Which faults are on at a moment, for one rank. Pure but for its own list; the caller brings the
 * time, so a timeline plays the same at every speed.
 */
import type { Fault, FaultKind } from './fault.ts'

type Entry = { readonly id: number; readonly fault: Fault; endMs: number; asked: number }

/** A rehearsal of a year with a fault an hour. */
const FAULTS_MAX = 10_000

export class FaultSchedule {
  readonly #rank: number
  #entries: Entry[] = []
  #next = 1
  #changed: () => void = () => undefined

  constructor(rank: number) {
    this.#rank = rank
  }

  /** Calls back, once for each change of the list; the last one to ask is called. */
  onChange(changed: () => void): void {
    this.#changed = changed
  }

  /** The fault's number for `clear`; null when it is for another rank or the list is full. */
  add(fault: Fault): number | null {
    if (fault.rank !== null && fault.rank !== this.#rank) return null
    if (this.#entries.length >= FAULTS_MAX) return null
    const id = this.#next
    this.#next += 1
    const endMs = fault.durationMs === null ? Infinity : fault.startMs + fault.durationMs
    this.#entries.push({ id, fault, endMs, asked: 0 })
    this.#changed()
    return id
  }

  /** All or, when the list has no room for them, none: null. Those of other ranks get no number. */
  addAll(faults: readonly Fault[]): readonly number[] | null {
    if (this.#entries.length + faults.length > FAULTS_MAX) return null
    return faults.flatMap((fault) => this.add(fault) ?? [])
  }

  /** Ends faults now: all, all of a kind, or one. Returns how many were on or to come. */
  clear(what: { readonly kind?: FaultKind; readonly id?: number } = {}): number {
    const before = this.#entries.length
    this.#entries = this.#entries.filter(
      ({ id, fault }) =>
        (what.kind !== undefined && fault.kind !== what.kind) ||
        (what.id !== undefined && id !== what.id),
    )
    this.#changed()
    return before - this.#entries.length
  }

  /** The latest-added fault of this kind that is on. */
  active(kind: FaultKind, nowMs: number): Fault | null {
    return this.#find(kind, nowMs)?.fault ?? null
  }

  /** Whether this kind hits the next request: asked once a request, it spreads hits evenly. */
  hits(kind: FaultKind, nowMs: number): Fault | null {
    const entry = this.#find(kind, nowMs)
    if (entry === undefined) return null
    const { share } = entry.fault
    const before = Math.floor(entry.asked * share)
    entry.asked += 1
    return Math.floor(entry.asked * share) > before ? entry.fault : null
  }

  /** When the next fault begins or ends; null: nothing is to come. */
  changesMs(nowMs: number): number | null {
    let next = Infinity
    for (const { fault, endMs } of this.#entries) {
      if (fault.startMs > nowMs) next = Math.min(next, fault.startMs)
      else if (endMs > nowMs) next = Math.min(next, endMs)
    }
    return next === Infinity ? null : next
  }

  list(nowMs: number): readonly { id: number; fault: Fault; on: boolean }[] {
    return this.#entries
      .filter(({ endMs }) => endMs > nowMs)
      .map(({ id, fault }) => ({ id, fault, on: fault.startMs <= nowMs }))
  }

  #find(kind: FaultKind, nowMs: number): Entry | undefined {
    return this.#entries.findLast(
      ({ fault, endMs }) => fault.kind === kind && fault.startMs <= nowMs && nowMs < endMs,
    )
  }
}
