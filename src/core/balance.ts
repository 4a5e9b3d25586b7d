/**
 * Chooses one ready replica: the less loaded of two drawn at random (Mitzenmacher's power of two
 * choices): near the best of all, without every thread running to the same replica on one stale
 * reading. It knows nothing of time or randomness: the caller brings a number in [0, 1).
 */
import type { Target } from './snapshot.ts'

/** Requests in flight through Penstock to a replica slot, counted over all threads. */
export type InFlightOf = (slot: number) => number

/**
 * What a target carries. Our own count is fresh; what the engine reports may include callers that
 * do not come through us. Waiting requests count twice: they have no KV cache room yet. An unknown
 * signal says nothing; it is never taken for an idle engine.
 */
export const loadOf = (target: Target, inFlightOf: InFlightOf): number => {
  const ours = inFlightOf(target.slot)
  if (target.requestsRunning === null || target.requestsWaiting === null) return ours
  const engine = target.requestsRunning + target.requestsWaiting
  return Math.max(ours, engine) + target.requestsWaiting
}

/** Null when no target is ready. `exclude` leaves out a replica that was just tried. */
export const pickTarget = (
  targets: readonly Target[],
  inFlightOf: InFlightOf,
  random: number,
  exclude: string | null = null,
): Target | null => {
  const ready = targets.filter((target) => target.state === 'ready' && target.id !== exclude)
  const only = ready[0]
  if (only === undefined) return null
  if (ready.length === 1) return only
  // One number draws an ordered pair of different positions.
  const pairs = ready.length * (ready.length - 1)
  const draw = Math.min(pairs - 1, Math.max(0, Math.floor(random * pairs)))
  const firstAt = Math.floor(draw / (ready.length - 1))
  const offset = 1 + (draw % (ready.length - 1))
  const first = ready[firstAt] ?? only
  const second = ready[(firstAt + offset) % ready.length] ?? only
  return loadOf(second, inFlightOf) < loadOf(first, inFlightOf) ? second : first
}
