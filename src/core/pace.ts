/**
 * How many answers at once keep the time per output token that a route asks for. By Little's law
 * that is the engine's tokens a second times that time. More at once bring more tokens a second,
 * so the number nears its true value from below or above, and never leaps over it.
 */

/** Decayed sums over the last seconds; plain numbers, for they lie in shared memory. */
export type Pace = {
  /** Answers times milliseconds that they ran; their tokens; milliseconds. */
  readonly paceStreams: number
  readonly paceTokens: number
  readonly paceMs: number
}

export type PaceLesson = {
  readonly elapsedMs: number
  /** Answers that were streaming, and the tokens that they showed after their first. */
  readonly streaming: number
  readonly laterTokens: number
  /** Requests that we have there. */
  readonly held: number
  /** What the engine says of itself; null: unknown. */
  readonly requestsRunning: number | null
  readonly generationTokensPerSecond: number | null
}

/** Steps of a second: ten of them count, in which prompts that are read come and go. */
const FORGET = 0.9
/** Fewer tokens than these say nothing. */
const TOKENS_MIN = 20
/** Of a place more a step, where there is room for a part of one: it is tried. */
const CREEP = 0.1
/** Where an engine begins whose pace was just seen for the first time. */
const START = 16

export const paceAfter = (before: Pace, lesson: PaceLesson): Pace => {
  const { elapsedMs } = lesson
  const { paceStreams, paceTokens, paceMs } = before
  const made = madeBy(lesson)
  if (made === null) return { paceStreams, paceTokens, paceMs }
  return {
    paceStreams: paceStreams * FORGET + made.answers * elapsedMs,
    paceTokens: paceTokens * FORGET + made.tokens,
    paceMs: paceMs * FORGET + elapsedMs,
  }
}

/** Our own streams tell it at once; of answers in one piece only the engine knows. */
const madeBy = (lesson: PaceLesson): { answers: number; tokens: number } | null => {
  const { streaming, laterTokens, held, requestsRunning, elapsedMs } = lesson
  if (streaming > 0 && streaming >= held / 2) return { answers: streaming, tokens: laterTokens }
  const { generationTokensPerSecond: rate } = lesson
  if (requestsRunning === null || requestsRunning === 0 || rate === null) return null
  return { answers: requestsRunning, tokens: (rate * elapsedMs) / 1000 }
}

/**
 * What is left of a ceiling that would go from `from` to `to` requests, where a token is to take
 * `targetMs`: no less than `lowest`, and no faster down than by `shrink` a step.
 */
export const withinPace = (
  change: { readonly from: number; readonly to: number },
  pace: { readonly before: Pace; readonly now: Pace; readonly targetMs: number },
  bounds: { readonly lowest: number; readonly shrink: number },
): number => {
  const { before, now, targetMs } = pace
  const { from, to } = change
  if (now.paceTokens < TOKENS_MIN) return to
  const answers = now.paceStreams / now.paceMs
  const places = (now.paceTokens / now.paceMs) * targetMs
  const seenFirst = before.paceTokens < TOKENS_MIN
  if (seenFirst) return Math.max(bounds.lowest, Math.min(to, Math.max(START, places)))
  // Quiet hours are within any pace: the ceiling that busy ones have found is kept for the next.
  if (answers <= places) return Math.min(to, Math.max(from + CREEP, places))
  return Math.max(bounds.lowest, Math.min(to, Math.max(places, from * bounds.shrink)))
}
