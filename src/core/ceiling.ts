/**
 * How full a replica is let become: learned from what it does, a step a second, by whichever
 * thread's turn it is. Lowered by preemptions and late first tokens, raised while it is felt.
 */
import { WAITING_MAX } from './admission.ts'
import { type Pace, paceAfter, withinPace } from './pace.ts'

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

/** All that `nextCeiling` remembers; plain numbers, for they lie in shared memory. */
export type Learned = Ceiling &
  Pace & {
    /** Sums of a fit of time per token over requests at once, which forgets. */
    readonly weight: number
    readonly x: number
    readonly y: number
    readonly xx: number
    readonly xy: number
    readonly yy: number
    /** Tokens a second that streams made after their first, in the last step and at best lately. */
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
  ...{ paceStreams: 0, paceTokens: 0, paceMs: 0 },
}

/** What happened on one replica since the last step. */
export type Lesson = {
  readonly elapsedMs: number
  /** Answers that were streaming, and the tokens they showed; of several texts, each's share. */
  readonly streaming: number
  readonly outputTokens: number
  /** First tokens, the sum of their times in the engine, and of prompt tokens before them. */
  readonly firstTokens: number
  readonly firstTokenMsSum: number
  readonly firstTokenTokensSum: number
  /** Of the engine; null: unknown. */
  readonly requestsRunning: number | null
  readonly requestsWaiting: number | null
  readonly kvCacheUsageRatio: number | null
  readonly preemptions: number | null
  /** Requests that we have there. */
  readonly held: number
  /** Of those without a first token; requests of others, as far as readings show them. */
  readonly unstarted: number
  readonly foreign: number
  /** By the engine's own counter; null: unknown. */
  readonly generatedTokens: number | null
  /** What routes to it ask for. */
  readonly due: Due
}

/** When its routes want tokens, ms; null: whenever they come. */
export type Due = {
  readonly firstTokenMs: number | null
  /** Time per output token of a streaming answer, after the first. */
  readonly perTokenMs: number | null
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
  const laterTokens = Math.max(0, lesson.outputTokens - lesson.firstTokens)
  const pace = paceAfter(before, { ...lesson, laterTokens, ceiling: before.running })
  const next = { ...withoutPace(before, lesson, laterTokens), ...pace }
  const { perTokenMs: targetMs } = lesson.due
  if (targetMs === null) return next
  const change = { from: before.running, to: next.running }
  // However slow others make it, some of ours run.
  const bounds = { lowest: RUNNING_MIN + lesson.foreign, shrink: SHRINK }
  return { ...next, running: withinPace(change, { before, now: pace, targetMs }, bounds) }
}

const withoutPace = (before: Learned, lesson: Lesson, later: number): Learned => {
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
  const seen = lesson.requestsWaiting !== null && lesson.kvCacheUsageRatio !== null
  const knee = seen || state.knee === 0 ? RUNNING_MAX : state.knee
  const flowing = flows(state, lesson)
  // Raised only where it is felt, so that a quiet night does not end in a ceiling of thousands.
  const felt = used >= Math.floor(state.running) * 0.85
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
  const { firstTokenMs: targetMs } = lesson.due
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
