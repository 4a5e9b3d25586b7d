/**
 * When a route sends callers to its stand-in, and how many of them. Knows signals and times, not
 * requests; the gateway applies the answer to each request.
 *
 * The shape of the rule is facts of the field (llm-d's utilisation detector, Mooncake's early
 * rejection), the numbers are ours: two readings at or above 1 begin, five seconds at or below 0.7
 * end. Unknown signals never spill: a gateway that cannot see must not move traffic.
 */

/** vLLM begins to preempt near a full cache (vllm #23444, #37307): full is called before that. */
const KV_FULL_RATIO = 0.85
/** Requests waiting in the engine at which it counts as full: its own queue is to stay short. */
const WAITING_FULL = 2
const BEGIN_READINGS = 2
const END_RATIO = 0.7
const END_AFTER_MS = 5000
/** At pressure 1 a quarter of new callers go, at 1.75 all of them. */
const FRACTION_AT_FULL = 0.25
/** Above this the stand-in itself is left alone. */
export const STAND_IN_MAX_RATIO = 0.9

export type Load = {
  readonly requestsWaiting: number | null
  readonly kvCacheUsageRatio: number | null
}

/**
 * How full a model is, 1 is full: that of its least loaded ready replica, for one with room is
 * enough. Null: no replica, or none whose signals are known.
 */
export const saturation = (replicas: readonly Load[]): number | null => {
  const known = replicas.flatMap(({ requestsWaiting, kvCacheUsageRatio }) =>
    requestsWaiting === null || kvCacheUsageRatio === null
      ? []
      : [Math.max(requestsWaiting / WAITING_FULL, kvCacheUsageRatio / KV_FULL_RATIO)],
  )
  return known.length === 0 ? null : Math.min(...known)
}

export type SpillState = {
  readonly spilling: boolean
  /** Readings in a row at or above 1. */
  readonly full: number
  /** Since when readings are at or below the end's ratio; null: they are not. */
  readonly calmSinceMs: number | null
  /** Share of new callers that go to the stand-in, 0..1. */
  readonly fraction: number
  readonly reason: string
}

export const CALM: SpillState = {
  spilling: false,
  full: 0,
  calmSinceMs: null,
  fraction: 0,
  reason: 'not saturated',
}

/** The next state after one reading of `saturation`. */
export const nextSpill = (state: SpillState, ratio: number | null, nowMs: number): SpillState => {
  if (ratio === null) return { ...CALM, reason: 'signals unknown' }
  const full = ratio >= 1 ? state.full + 1 : 0
  if (!state.spilling) {
    if (full < BEGIN_READINGS) return { ...CALM, full }
    return spilling(full, null, ratio)
  }
  if (ratio > END_RATIO) return spilling(full, null, ratio)
  const calmSinceMs = state.calmSinceMs ?? nowMs
  if (nowMs - calmSinceMs >= END_AFTER_MS) return CALM
  return spilling(full, calmSinceMs, ratio)
}

const spilling = (full: number, calmSinceMs: number | null, ratio: number): SpillState => ({
  spilling: true,
  full,
  calmSinceMs,
  fraction: fractionAt(ratio),
  reason: `saturation ${ratio.toFixed(2)}`,
})

/** From nobody at the end's ratio over a quarter when full to all: no step that could swing. */
const fractionAt = (ratio: number): number =>
  ratio < 1
    ? Math.max(0, (FRACTION_AT_FULL * (ratio - END_RATIO)) / (1 - END_RATIO))
    : Math.min(1, FRACTION_AT_FULL + (ratio - 1))
