/**
 * Chooses one ready replica by the route's policy. It knows nothing of time or randomness: the
 * caller brings the hour and a number in [0, 1).
 *
 * power-of-two: the less loaded of two drawn at random (Mitzenmacher): near the best of all,
 * without every thread running to the same replica on one stale reading. session and prefix:
 * weighted rendezvous hashing, so that a replica that comes takes its share and one that goes
 * leaves its own, and nobody else moves.
 */
import { hashOf, hashText, unitOf } from './hash.ts'
import type { RoutePolicy, Target } from './snapshot.ts'

/** Requests in flight through Penstock to a replica slot, counted over all threads. */
export type InFlightOf = (slot: number) => number

export type PickAsk = {
  readonly targets: readonly Target[]
  /** Absent: power of two, and a fresh replica has its full share at once. */
  readonly policy?: Pick<RoutePolicy, 'balance' | 'slowStart'> | undefined
  readonly inFlightOf: InFlightOf
  /** In [0, 1). */
  readonly random: number
  /** Epoch milliseconds. */
  readonly nowMs: number
  /** Counts up by one a request, for round robin; absent: drawn by `random`. */
  readonly turn?: number | undefined
  /** Of the conversation and of the prompt's beginning (core/affinity.ts); null: it has none. */
  readonly sessionHash?: number | null | undefined
  readonly prefixHash?: number | null | undefined
  /** Replicas, by id, that are not asked again. */
  readonly exclude?: ReadonlySet<string> | undefined
}

/** A fresh replica begins with a tenth of its share. */
const FIRST_WEIGHT = 0.1
/** Above this many times its share of our requests a replica is not sought for its cache. */
const SHARE_FACTOR = 1.5
/** So few requests queue nowhere. */
const SHARE_FLOOR = 8

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

/** Of a replica's share, 0.1 to 1: it ramps up over `slowStartMs` from when it became ready. */
export const weightOf = (target: Target, slowStartMs: number, nowMs: number): number => {
  if (target.readySinceMs === undefined || slowStartMs <= 0) return 1
  const age = Math.max(0, nowMs - target.readySinceMs) / slowStartMs
  return age >= 1 ? 1 : FIRST_WEIGHT + (1 - FIRST_WEIGHT) * age
}

/** Null when no target is ready. */
export const pickTarget = (ask: PickAsk): Target | null => {
  const { targets, exclude, policy } = ask
  const ready = targets.filter(({ state, id }) => state === 'ready' && exclude?.has(id) !== true)
  const [only] = ready
  if (only === undefined || ready.length === 1) return only ?? null
  const field: Field = {
    ...ask,
    ready,
    only,
    weights: ready.map((one) => weightOf(one, policy?.slowStart ?? 0, ask.nowMs)),
    usualKv: meanKv(ready),
  }
  switch (policy?.balance) {
    case 'least-load':
      return leastLoaded(field)
    case 'round-robin':
      return nextInTurn(field)
    case 'session':
      return preferred(field, ask.sessionHash) ?? lessOfTwo(field)
    case 'prefix':
      return unqueued(field, preferred(field, ask.prefixHash ?? ask.sessionHash))
    default:
      return lessOfTwo(field)
  }
}

/** At least two ready targets, each with the weight at its place. */
type Field = PickAsk & {
  readonly ready: readonly Target[]
  readonly only: Target
  readonly weights: readonly number[]
  readonly usualKv: number
}

/** An unknown KV cache is taken to be as full as the others are. */
const meanKv = (targets: readonly Target[]): number => {
  const known = targets.flatMap(({ kvCacheUsageRatio: ratio }) => (ratio === null ? [] : [ratio]))
  return known.length === 0 ? 0 : known.reduce((sum, ratio) => sum + ratio, 0) / known.length
}

/**
 * Load with one more request, stretched by a full KV cache (to the double: the same count of
 * requests, but long ones) and by a slow start.
 */
const pressure = ({ ready, weights, inFlightOf, usualKv }: Field, at: number): number => {
  const target = ready[at]
  if (target === undefined) return Number.POSITIVE_INFINITY
  const kv = target.kvCacheUsageRatio ?? usualKv
  return ((loadOf(target, inFlightOf) + 1) * (1 + kv)) / (weights[at] ?? 1)
}

/** One number draws an ordered pair of different positions. */
const lessOfTwo = (field: Field): Target => {
  const { ready, only, random } = field
  const pairs = ready.length * (ready.length - 1)
  const draw = Math.min(pairs - 1, Math.max(0, Math.floor(random * pairs)))
  const first = Math.floor(draw / (ready.length - 1))
  const second = (first + 1 + (draw % (ready.length - 1))) % ready.length
  return ready[pressure(field, second) < pressure(field, first) ? second : first] ?? only
}

/** Equals are taken from a random place on, so that the first is not everybody's. */
const leastLoaded = (field: Field): Target => {
  const { ready, only, random } = field
  const start = Math.floor(random * ready.length)
  let best = start
  for (let step = 1; step < ready.length; step += 1) {
    const at = (start + step) % ready.length
    if (pressure(field, at) < pressure(field, best)) best = at
  }
  return ready[best] ?? only
}

/** A fresh replica is passed over as often as its weight is short of one; the others take turns. */
const nextInTurn = ({ ready, only, weights, random, turn }: Field): Target => {
  const count = ready.length
  const round = turn ?? Math.floor(random * count)
  const at = round % count
  if (random < (weights[at] ?? 1)) return ready[at] ?? only
  const step = 1 + (Math.floor(round / count) % (count - 1))
  return ready[(at + step) % count] ?? only
}

/** Kept as long as the snapshot that the target came with. */
const idHashes = new WeakMap<Target, number>()

const idHash = (target: Target): number => {
  const kept = idHashes.get(target)
  if (kept !== undefined) return kept
  const hash = hashText(target.id)
  idHashes.set(target, hash)
  return hash
}

/** Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): the highest score wins. */
const preferred = ({ ready, weights }: Field, hash: number | null | undefined): Target | null => {
  if (hash === null || hash === undefined) return null
  let best: Target | null = null
  let highest = Number.NEGATIVE_INFINITY
  for (const [at, target] of ready.entries()) {
    const score = (weights[at] ?? 1) / -Math.log(unitOf(hashOf(hash, idHash(target))))
    if (score <= highest) continue
    best = target
    highest = score
  }
  return best
}

/**
 * A replica that has the beginning in its cache is worth more than an idle one, until it queues:
 * then the least loaded answers (gateways.md 6.5).
 */
const unqueued = (field: Field, wanted: Target | null): Target => {
  if (wanted === null) return lessOfTwo(field)
  const { ready, weights, inFlightOf } = field
  const ours = inFlightOf(wanted.slot)
  const all = ready.reduce((sum, { slot }) => sum + inFlightOf(slot), 0)
  const weight = weights[ready.indexOf(wanted)] ?? 1
  const share = ((all + 1) * weight) / weights.reduce((sum, one) => sum + one, 0)
  const queues = (wanted.requestsWaiting ?? 0) > 0
  const crowded = ours >= SHARE_FLOOR && ours >= share * SHARE_FACTOR
  return queues || crowded ? leastLoaded(field) : wanted
}
