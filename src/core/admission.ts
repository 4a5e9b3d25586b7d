/**
 * Whether a replica has room for one more request now, and how much room it is given. Knows the
 * engine's last reading and what was sent to it since; knows neither consumers nor queues.
 *
 * The engine's own queue is to stay near empty, because it is unbounded and blind to who asks.
 * Three things bound what is sent: requests whose prompt nobody has begun to read, KV cache
 * including what running answers will still need, and a number of requests, which rises while all
 * goes well. Of an engine that shows neither queue nor cache, that number is held to where more
 * requests only make each slower.
 */
import type { Ceiling } from './ceiling.ts'
import type { Target } from './snapshot.ts'

/** Requests that may wait in the engine: enough that a batch never lacks the next one. */
export const WAITING_MAX = 2

/**
 * Of places, and of the cache, kept for consumers who hold less than their share, so that they need
 * not wait until somebody's answer ends. While there are several, so many places at least: of the
 * one, a second request finds none.
 */
const RESERVED_RATIO = 0.05
const RESERVED_MIN = 2
/** However few places there are, most of them are for everybody. */
const RESERVED_RATIO_MAX = 0.125
/**
 * Of places, how far above them those may go who are within their part of them. They all together
 * would have just the places: what is above is what others hold beyond their part, until it ends.
 */
const ABOVE_RATIO = 0.5
/** Prompts so short make nobody wait for their turn. */
const SHORT_PROMPT_TOKENS = 256

export type Signals = Pick<
  Target,
  'requestsWaiting' | 'kvCacheUsageRatio' | 'kvCapacityTokens' | 'maxRunning'
>

/** What we have sent to a replica over all threads, with the request that asks. */
export type Sent = {
  /** Requests that it answers. */
  readonly held: number
  /** Requests of others, as far as readings show them. */
  readonly foreign: number
  /** Sent since the last reading. */
  readonly fresh: number
  /** Without a first token yet, and their prompts' tokens. */
  readonly unstarted: number
  readonly unstartedTokens: number
  /** Prompt tokens that the last reading of the KV cache may not hold. */
  readonly unseenTokens: number
  /** What running answers will still add to the cache at its fullest. */
  readonly growthTokens: number
}

export type Room =
  | { readonly go: true }
  | { readonly go: false; readonly reason: 'running' | 'waiting' | 'prefill' | 'kv cache' }

const GO: Room = { go: true }

/** What the consumer of a request has of a model, and what it should have. */
export type Share = {
  /** Its running answers: of the model, or on average of one of its replicas. */
  readonly runs: number
  /** Its part by weight among who was served of late; a half at most, for somebody may come. */
  readonly part: number
  /** Others were served of late; others have something running or waiting now. */
  readonly others: boolean
  readonly rivals: boolean
}

/** Has it less than its part of what runs? With `more` beside what it has now. */
export const isModest = ({ runs, part }: Share, running: number, more = 0): boolean =>
  more > 0 ? runs + more <= running * part : runs < running * part

export type RoomAsk = {
  readonly sent: Sent
  readonly ceiling: Ceiling
  readonly share: Share
  /** No replica has room below its ceiling: who is within his part may go beyond it. */
  readonly beyond: boolean
  /** Its answer comes in one piece: when the engine begins with it cannot be seen. */
  readonly whole: boolean
}

/**
 * May the request that `sent` already counts go? An unknown signal is not zero: then only the
 * number of requests decides, and it is bounded.
 */
export const roomFor = (signals: Signals, ask: RoomAsk): Room => {
  const { sent, ceiling, whole } = ask
  // Alone on the machine: whatever does not fit now never will.
  if (sent.held <= 1 && sent.foreign === 0) return GO
  const places = placesOf(ceiling, signals.maxRunning ?? null)
  const kept = keptFrom(places, ask)
  const { maxRunning } = signals
  const most = Math.min(places + aboveOf(places, ask), maxRunning ?? Number.POSITIVE_INFINITY)
  if (sent.held + sent.foreign > most - kept.places) return { go: false, reason: 'running' }
  const { requestsWaiting: waiting, kvCacheUsageRatio: ratio } = signals
  if (waiting === null || ratio === null) return GO
  if (waiting > WAITING_MAX) return { go: false, reason: 'waiting' }
  // What has shown a token does not wait, and what was sent before the reading is counted in it.
  const mayWait = Math.min(sent.unstarted, waiting + sent.fresh)
  const batch = whole && waiting === 0 && sent.unstartedTokens <= ceiling.prefillTokens
  if (mayWait > WAITING_MAX - kept.prompts && !batch) return { go: false, reason: 'prefill' }
  const capacity = signals.kvCapacityTokens ?? null
  const used = capacity === null ? ratio : ratio + kvShare(sent, capacity)
  const open = ceiling.kvRatio * (1 - kept.cacheRatio)
  return used > open ? { go: false, reason: 'kv cache' } : GO
}

type Kept = { readonly places: number; readonly prompts: number; readonly cacheRatio: number }

const NOTHING_KEPT: Kept = { places: 0, prompts: 0, cacheRatio: 0 }

/**
 * What is kept for others than who asks. One who was alone of late is one of two: a few places are
 * kept for whoever may come, but neither cache nor a prompt's turn, which the engine would miss.
 */
const keptFrom = (places: number, { sent, share }: RoomAsk): Kept => {
  // Of what runs, not of the places: where the cache is the bound, those are never reached.
  if (isModest(share, Math.min(places, sent.held + sent.foreign))) return NOTHING_KEPT
  const few = Math.floor(places * RESERVED_RATIO)
  if (!share.others) return { ...NOTHING_KEPT, places: few }
  const least = Math.min(RESERVED_MIN, Math.floor(places * RESERVED_RATIO_MAX))
  const turn = share.rivals && sent.unstartedTokens > SHORT_PROMPT_TOKENS
  return { places: Math.max(least, few), prompts: turn ? 1 : 0, cacheRatio: RESERVED_RATIO }
}

/**
 * The number of requests falls while answers run, and bursts are larger than what is kept: whoever
 * has his part yet to get need not wait for an answer of somebody who has more than his.
 */
const aboveOf = (places: number, { share, beyond }: RoomAsk): number =>
  beyond && share.others && isModest(share, places, 1) ? Math.floor(places * ABOVE_RATIO) : 0

const kvShare = ({ unseenTokens, growthTokens }: Sent, capacity: number): number =>
  (unseenTokens + growthTokens) / Math.max(1, capacity)

const placesOf = ({ running }: Ceiling, maxRunning: number | null): number =>
  Math.max(1, Math.floor(Math.min(running, maxRunning ?? running)))

/** How full a replica is by the same figures, 1 is full. */
export const fullness = (
  signals: Signals,
  { sent, ceiling }: { sent: Sent; ceiling: Ceiling },
): number => {
  const places = placesOf(ceiling, signals.maxRunning ?? null)
  const running = (sent.held + sent.foreign) / places
  const { requestsWaiting: waiting, kvCacheUsageRatio: ratio, kvCapacityTokens } = signals
  if (waiting === null || ratio === null) return running
  const unseen = kvCapacityTokens == null ? 0 : kvShare(sent, kvCapacityTokens)
  // As many as may wait are no sign of anything; one more came from elsewhere.
  const queued = waiting / (WAITING_MAX + 1)
  return Math.max(running, queued, (ratio + unseen) / ceiling.kvRatio)
}

/**
 * How full a model is: as its least full replica, for one with room is enough; beyond 1 while
 * requests wait for it, up to 2 when as many wait as run. Null: no replica is ready.
 */
export const pressureOf = (
  replicas: readonly number[],
  { waiting, held }: { readonly waiting: number; readonly held: number },
): number | null => {
  if (replicas.length === 0) return null
  const least = Math.min(...replicas)
  return waiting === 0 ? least : Math.max(1, least) + Math.min(1, waiting / Math.max(1, held))
}

export type Answer = {
  /** In the cache by now. */
  readonly tokens: number
  /** Expected to come. */
  readonly remaining: number
}

/**
 * How much the cache will grow until it is fullest, when nobody else comes: answers that end free
 * their room before longer ones need it (the future peak of LightLLM's past-future scheduler,
 * ASPLOS 2025). All together for answers of one age, near nothing when their ages are mixed.
 */
export const growthOf = (answers: readonly Answer[]): number => {
  const sorted = answers.toSorted((a, b) => b.remaining - a.remaining)
  let [now, peak] = [0, 0]
  for (const [index, { tokens, remaining }] of sorted.entries()) {
    now += tokens
    peak = Math.max(peak, now + (index + 1) * remaining)
  }
  return Math.max(0, peak - now)
}

export type Prediction = {
  /** Prompt and expected answer of those who go before. */
  readonly queuedTokens: number
  /** The same measure, as the queue has let them go lately; null: it has not yet. */
  readonly drainTokensPerSecond: number | null
  /** Prompt tokens that the engine reads before the first token: others' and the asker's. */
  readonly prefillTokens: number
  /** What that took lately, and for how many tokens; 0: not known. */
  readonly firstTokenMs: number
  readonly firstTokenTokens: number
}

/** When a first token is to be expected, ms from now. Null: nothing is known yet. */
export const predictFirstTokenMs = (ask: Prediction): number | null => {
  const waitMs = predictWaitMs(ask)
  if (waitMs === null) return null
  const scale = Math.max(1, ask.prefillTokens / Math.max(1, ask.firstTokenTokens))
  return waitMs + ask.firstTokenMs * scale
}

/** Until its turn comes. A queue that has not moved yet says nothing; an empty one is no wait. */
export const predictWaitMs = ({
  queuedTokens,
  drainTokensPerSecond,
}: Pick<Prediction, 'queuedTokens' | 'drainTokensPerSecond'>): number | null => {
  if (queuedTokens <= 0) return 0
  if (drainTokensPerSecond === null || drainTokensPerSecond <= 0) return null
  return (queuedTokens / drainTokensPerSecond) * 1000
}
