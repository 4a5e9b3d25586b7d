/**
 * A replica's circuit breaker, as a value that fits into one 64-bit cell, so that all gateway
 * threads can share it by compare-and-swap. Closed: it answers. Open: it is left alone for a
 * while. Half-open: one request probes it. The caller brings time (milliseconds of a clock that
 * all threads share) and randomness.
 *
 * Counted are failures that say something of the replica: no connection, 5xx, no first token in
 * time, stalls, answers that broke off. A client's mistakes and back-pressure say nothing.
 */
import assert from 'node:assert'

export type BreakerPhase = 'closed' | 'open' | 'half-open'

export type Breaker = {
  readonly phase: BreakerPhase
  /** How often it has opened without a quiet window in between: each time is twice as long. */
  readonly trips: number
  /**
   * In ticks. Closed: when the window of results began. Open: until when. Half-open: until when
   * the probe has the replica to itself.
   */
  readonly atTicks: number
  /** Failures since the last success. */
  readonly consecutive: number
  /** Results and failures in the window. */
  readonly results: number
  readonly failures: number
}

export const CLOSED: Breaker = {
  phase: 'closed',
  trips: 0,
  atTicks: 0,
  consecutive: 0,
  results: 0,
  failures: 0,
}

/** As Envoy's outlier detection: five in a row, or half of a fair number of results. */
const CONSECUTIVE_MAX = 5
const RESULTS_MIN = 10
const FAILING_SHARE = 0.5
const WINDOW_MS = 10_000
const OPEN_MS = 1_000
const OPEN_MS_MAX = 30_000
/** A probe whose thread has crashed, or that prefills a very long prompt, is waited for so long. */
const PROBE_MS = 60_000
const TICK_MS = 10

/** Bits of each field, in the order of the cell. */
const BITS = { phase: 2, trips: 4, atTicks: 36, consecutive: 6, results: 8, failures: 8 }
const PHASES: readonly BreakerPhase[] = ['closed', 'open', 'half-open']
const TRIPS_MAX = 2 ** BITS.trips - 1
const TICKS_MAX = 2 ** BITS.atTicks - 1
const CONSECUTIVE_CAP = 2 ** BITS.consecutive - 1
const RESULTS_CAP = 2 ** BITS.results - 1

export type Admission = 'free' | 'probe' | 'closed off'

/** May a request go there: freely, as the probe (which must be claimed), or not. */
export const admission = ({ phase, atTicks }: Breaker, nowMs: number): Admission => {
  if (phase === 'closed') return 'free'
  return ticksOf(nowMs) >= atTicks ? 'probe' : 'closed off'
}

/** The breaker after a request has taken the probe; null: it is not to be had. */
export const claimed = (breaker: Breaker, nowMs: number): Breaker | null =>
  admission(breaker, nowMs) === 'probe'
    ? { ...breaker, phase: 'half-open', atTicks: ticksOf(nowMs + PROBE_MS) }
    : null

/** The probe ended without a word on the replica: the next request may probe. */
export const abandoned = (breaker: Breaker, nowMs: number): Breaker =>
  breaker.phase === 'half-open' ? { ...breaker, atTicks: ticksOf(nowMs) } : breaker

/** The replica has answered. */
export const succeeded = (breaker: Breaker, nowMs: number): Breaker => {
  // An answer that began before it opened says nothing about now.
  if (breaker.phase === 'open') return breaker
  if (breaker.phase === 'half-open') {
    return { ...CLOSED, trips: breaker.trips, atTicks: ticksOf(nowMs) }
  }
  const { trips, atTicks, results, failures } = windowed(breaker, nowMs)
  // Successes are counted against failures only: a replica without any stays one comparison.
  if (trips === 0 && failures === 0) return CLOSED
  return { phase: 'closed', trips, atTicks, consecutive: 0, ...counted(results, failures, 0) }
}

/** The replica has failed a request. `draw` in [0, 1) spreads when the replicas come back. */
export const failed = (breaker: Breaker, nowMs: number, draw: number): Breaker => {
  if (breaker.phase === 'open') return breaker
  if (breaker.phase === 'half-open') return opened(breaker, nowMs, draw)
  const now = windowed(breaker, nowMs)
  const consecutive = Math.min(CONSECUTIVE_CAP, now.consecutive + 1)
  const next = { ...now, consecutive, ...counted(now.results, now.failures, 1) }
  const failing = next.results >= RESULTS_MIN && next.failures >= next.results * FAILING_SHARE
  return consecutive >= CONSECUTIVE_MAX || failing ? opened(next, nowMs, draw) : next
}

/** When it opened or was last probed; for the choice between replicas that are all open. */
export const readyAt = ({ phase, atTicks }: Breaker): number =>
  phase === 'closed' ? 0 : atTicks * TICK_MS

const opened = ({ trips }: Breaker, nowMs: number, draw: number): Breaker => {
  const openMs = Math.min(OPEN_MS_MAX, OPEN_MS * 2 ** trips)
  // Up to a fifth less or more; never above the limit.
  const jittered = Math.min(OPEN_MS_MAX, openMs * (0.8 + 0.4 * draw))
  return {
    ...CLOSED,
    phase: 'open',
    trips: Math.min(TRIPS_MAX, trips + 1),
    atTicks: ticksOf(nowMs + jittered),
  }
}

/** A new window where the old one is over; it forgives the trips before. */
const windowed = (breaker: Breaker, nowMs: number): Breaker => {
  const age = ticksOf(nowMs) - breaker.atTicks
  if (age >= 0 && age * TICK_MS < WINDOW_MS) return breaker
  return { ...breaker, trips: 0, atTicks: ticksOf(nowMs), results: 0, failures: 0 }
}

/** Both halved when the cell is full: their share stays. */
const counted = (results: number, failures: number, failure: 0 | 1) => {
  const full = results >= RESULTS_CAP
  const [all, bad] = full ? [results >> 1, failures >> 1] : [results, failures]
  return { results: all + 1, failures: bad + failure }
}

const ticksOf = (ms: number): number => {
  const ticks = Math.ceil(ms / TICK_MS)
  assert(ticks >= 0 && ticks <= TICKS_MAX, 'a breaker counts time from the start of the process')
  return ticks
}

/** The breaker as one cell. A cell of zero is CLOSED. */
export const packed = (breaker: Breaker): bigint => {
  const fields = { ...breaker, phase: PHASES.indexOf(breaker.phase) }
  let cell = 0n
  for (const name of FIELDS) cell = (cell << BigInt(BITS[name])) | BigInt(fields[name])
  return BigInt.asIntN(64, cell)
}

export const unpacked = (cell: bigint): Breaker => {
  if (cell === 0n) return CLOSED
  let rest = BigInt.asUintN(64, cell)
  const take = (bits: number): number => {
    const value = Number(BigInt.asUintN(bits, rest))
    rest >>= BigInt(bits)
    return value
  }
  const failures = take(BITS.failures)
  const results = take(BITS.results)
  const consecutive = take(BITS.consecutive)
  const atTicks = take(BITS.atTicks)
  const trips = take(BITS.trips)
  const phase = PHASES[take(BITS.phase)]
  assert(phase !== undefined, 'a breaker is in one of three phases')
  return { phase, trips, atTicks, consecutive, results, failures }
}

const FIELDS = ['phase', 'trips', 'atTicks', 'consecutive', 'results', 'failures'] as const
