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
import type { Target } from './snapshot.ts'

/** Requests that may wait in the engine: enough that a batch never lacks the next one. */
export const WAITING_MAX = 2
/** vLLM begins to preempt near a full cache (vllm #23444, #37307): full is called before that. */
const KV_RATIO = 0.85
const KV_RATIO_MIN = 0.5
/** One step reads it: the smallest budget that vLLM takes by default (max_num_batched_tokens). */
const PREFILL_TOKENS = 2048
const PREFILL_TOKENS_MIN = 256

/** A quarter of vLLM's default batch: where an engine of which nothing is known begins. */
const RUNNING_START = 64
const RUNNING_MIN = 4
const RUNNING_MAX = 100_000
/**
 * Of places, and of the cache, kept for consumers who hold less than their share, so that they need
 * not wait until somebody's answer ends. While there are several, so many places at least: of the
 * one, a second request finds none.
 */
const RESERVED_RATIO = 0.05
const RESERVED_MIN = 2
/** However few places there are, most of them are for everybody. */
const RESERVED_RATIO_MAX = 0.25

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

/** How far a replica is filled; learned by `nextCeiling`. */
export type Ceiling = {
  readonly running: number
  readonly kvRatio: number
  readonly prefillTokens: number
}

export const CEILING: Ceiling = {
  running: RUNNING_START,
  kvRatio: KV_RATIO,
  prefillTokens: PREFILL_TOKENS,
}

export type Room =
  | { readonly go: true }
  | { readonly go: false; readonly reason: 'running' | 'waiting' | 'prefill' | 'kv cache' }

const GO: Room = { go: true }

export type RoomAsk = {
  readonly sent: Sent
  readonly ceiling: Ceiling
  /** What its consumer has running or waiting beside it, for each of the model's replicas. */
  readonly holds: number
  /** Consumers who were served of late, it among them. */
  readonly consumers: number
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
  if (sent.held + sent.foreign > places - kept.places) return { go: false, reason: 'running' }
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
const keptFrom = (places: number, { holds, consumers }: RoomAsk): Kept => {
  if (holds < places / Math.max(2, consumers)) return NOTHING_KEPT
  const share = Math.floor(places * RESERVED_RATIO)
  if (consumers < 2) return { ...NOTHING_KEPT, places: share }
  const least = Math.min(RESERVED_MIN, Math.floor(places * RESERVED_RATIO_MAX))
  return { places: Math.max(least, share), prompts: 1, cacheRatio: RESERVED_RATIO }
}

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

/** All that `nextCeiling` remembers; plain numbers, for they lie in shared memory. */
export type Learned = Ceiling & {
  /** Sums of a fit of time per token over requests at once, which forgets. */
  readonly weight: number
  readonly x: number
  readonly y: number
  readonly xx: number
  readonly xy: number
  readonly yy: number
  /** Tokens a second that streams made after their first, in the last step and at best of late. */
  readonly flow: number
  readonly best: number
  /** Requests at once that the fit allows; 0: not known. */
  readonly knee: number
  /** Engine time to first token, ms, and the prompt tokens that were read in it; 0: none yet. */
  readonly firstTokenMs: number
  readonly firstTokenTokens: number
  /** The shortest of late, ms; what an idle engine takes. */
  readonly firstTokenBestMs: number
}

export const UNLEARNED: Learned = {
  ...CEILING,
  ...{ weight: 0, x: 0, y: 0, xx: 0, xy: 0, yy: 0, flow: 0, best: 0, knee: 0 },
  ...{ firstTokenMs: 0, firstTokenTokens: 0, firstTokenBestMs: 0 },
}

/** What happened on one replica since the last step. */
export type Lesson = {
  readonly elapsedMs: number
  /** Answers that were streaming, on average, and the tokens they showed. */
  readonly streaming: number
  readonly outputTokens: number
  /** First tokens, the sum of their times in the engine, and of prompt tokens before them. */
  readonly firstTokens: number
  readonly firstTokenMsSum: number
  readonly firstTokenTokensSum: number
  /** Of the engine; null: unknown. */
  readonly requestsRunning: number | null
  readonly requestsWaiting: number | null
  readonly preemptions: number | null
  /** Requests that we have there. */
  readonly held: number
  readonly firstTokenTargetMs: number | null
}

/** Of the fit, a step: a minute ago counts half. */
const FORGET = 0.99
const SMOOTH = 0.2
/** The share of an engine's greatest throughput at which it is called full. */
const KNEE_RATIO = 0.8
/** Of the best throughput of late: below it, answers are held up by something. */
const FLOW_RATIO = 0.6
/** So few at once are never too many: there, prompts that are read blur the pace of answers. */
const KNEE_MIN = 32
/** Fewer streams or tokens than these say nothing of an engine's pace. */
const FIT_STREAMS_MIN = 2
const FIT_TOKENS_MIN = 20
/** Relative spread of the fit's counts below which its slope is noise. */
const FIT_SPREAD_MIN = 0.02
/** Share of the pace's changes that the counts must explain (r squared). */
const FIT_EXPLAINED_MIN = 0.7
const GROW = 1.1
const SHRINK = 0.9
/** First tokens this many times later than an idle engine's mean a queue that we cannot see. */
const LATE = 4

/** The next ceiling, one step a second or so. Lowered by what hurts, raised while it is used. */
export const nextCeiling = (before: Learned, lesson: Lesson): Learned => {
  const later = Math.max(0, lesson.outputTokens - lesson.firstTokens)
  const flow = (later / Math.max(1, lesson.elapsedMs)) * 1000
  const best = Math.max(before.best * FORGET, flow)
  const state = { ...before, flow, best, ...fitted(before, lesson), ...timed(before, lesson) }
  const used = Math.min(state.running, Math.max(1, lesson.held, lesson.requestsRunning ?? 0))
  if ((lesson.preemptions ?? 0) > 0) {
    return {
      ...state,
      running: Math.max(RUNNING_MIN, used * SHRINK),
      kvRatio: Math.max(KV_RATIO_MIN, state.kvRatio * SHRINK),
      prefillTokens: Math.max(PREFILL_TOKENS_MIN, state.prefillTokens / 2),
    }
  }
  const queueing = (lesson.requestsWaiting ?? 0) > WAITING_MAX
  const late = isLate(state, lesson)
  if (queueing || late) {
    return {
      ...state,
      running: late ? Math.max(RUNNING_MIN, used * SHRINK) : state.running,
      prefillTokens: Math.max(PREFILL_TOKENS_MIN, state.prefillTokens / 2),
    }
  }
  return { ...state, ...raised(state, used, lesson) }
}

/**
 * Engines that read prompts first (SGLang) make no tokens while new ones keep coming: a ceiling
 * that rises then would keep them at it. It waits until answers flow.
 */
const flows = ({ flow, best }: Learned, lesson: Lesson): boolean => {
  const { streaming, held } = lesson
  // Answers in one piece show no flow.
  if (streaming < FIT_STREAMS_MIN || streaming < held / 2) return true
  return flow > 0 && flow >= FLOW_RATIO * best
}

const raised = (state: Learned, used: number, lesson: Lesson): Ceiling => {
  // Prompts that are read between the steps blur the fit: where the cache is seen, that decides.
  const seen = lesson.requestsWaiting !== null
  const knee = seen || state.knee === 0 ? RUNNING_MAX : state.knee
  const flowing = flows(state, lesson)
  // Raised only where it is felt, so that a quiet night does not end in a ceiling of thousands.
  const felt = used >= state.running * 0.85
  const running =
    felt && flowing ? Math.max(state.running + 1, state.running * GROW) : state.running
  return {
    running: Math.min(RUNNING_MAX, Math.max(RUNNING_MIN, Math.min(running, knee))),
    kvRatio: Math.min(KV_RATIO, state.kvRatio + 0.005),
    prefillTokens: Math.min(PREFILL_TOKENS, state.prefillTokens + 128),
  }
}

const isLate = (state: Learned, lesson: Lesson): boolean => {
  if (lesson.firstTokens === 0) return false
  const meanMs = lesson.firstTokenMsSum / lesson.firstTokens
  const { firstTokenTargetMs: targetMs } = lesson
  if (targetMs !== null) return meanMs > targetMs
  // With readings, the engine's queue is seen; without, it shows in the time that it takes.
  const blind = lesson.requestsWaiting === null
  return blind && state.firstTokenBestMs > 0 && meanMs > LATE * state.firstTokenBestMs + 1000
}

type Sums = Pick<Learned, 'weight' | 'x' | 'y' | 'xx' | 'xy' | 'yy'>

/**
 * Time per token of `n` answers at once is near a + b·n: reading the weights, and each one's own
 * share. Throughput n / (a + b·n) nears 1 / b and never falls; 80 % of it are made by 4·a/b.
 */
const fitted = (before: Learned, lesson: Lesson): Partial<Learned> => {
  const { streaming, outputTokens, elapsedMs, held } = lesson
  // Answers in one piece show no tokens: where they are many, the pace is not known.
  const known = streaming >= FIT_STREAMS_MIN && streaming >= held / 2
  if (!known || outputTokens < FIT_TOKENS_MIN) return {}
  const msPerToken = (streaming * elapsedMs) / outputTokens
  const weight = before.weight * FORGET + 1
  const x = before.x * FORGET + streaming
  const y = before.y * FORGET + msPerToken
  const xx = before.xx * FORGET + streaming * streaming
  const xy = before.xy * FORGET + streaming * msPerToken
  const yy = before.yy * FORGET + msPerToken * msPerToken
  const sums = { weight, x, y, xx, xy, yy }
  const knee = kneeOf(sums)
  return { ...sums, knee: knee === null ? drifted(before.knee, streaming) : knee }
}

/** Null: the sums do not tell. */
const kneeOf = ({ weight, x, y, xx, xy, yy }: Sums): number | null => {
  const spread = weight * xx - x * x
  if (spread < FIT_SPREAD_MIN * x * x) return null
  const common = weight * xy - x * y
  const slope = common / spread
  const base = (y - slope * x) / weight
  const explained = (common * common) / (spread * (weight * yy - y * y))
  if (slope <= 0 || !(explained >= FIT_EXPLAINED_MIN)) return null
  const knee = (KNEE_RATIO / (1 - KNEE_RATIO)) * (Math.max(0, base) / slope)
  // A line says little far from where it was drawn.
  const usual = x / weight
  return Math.max(KNEE_MIN, Math.min(4 * usual, Math.max(usual / 2, knee)))
}

/** A knee that is not seen anew is tried a little further, or it would hold for ever. */
const drifted = (knee: number, streaming: number): number =>
  knee > 0 && streaming >= knee * 0.9 ? knee * 1.01 : knee

const timed = (before: Learned, lesson: Lesson): Partial<Learned> => {
  if (lesson.firstTokens === 0) return {}
  const ms = lesson.firstTokenMsSum / lesson.firstTokens
  const tokens = lesson.firstTokenTokensSum / lesson.firstTokens
  const smooth = (old: number, now: number) => (old === 0 ? now : old + SMOOTH * (now - old))
  const best = before.firstTokenBestMs
  return {
    firstTokenMs: smooth(before.firstTokenMs, ms),
    firstTokenTokens: smooth(before.firstTokenTokens, tokens),
    firstTokenBestMs: best === 0 || ms < best ? ms : best * 1.01,
  }
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
