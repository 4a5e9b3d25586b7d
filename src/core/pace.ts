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
  /** Our answers that were streaming, and the tokens of each's one text after the first. */
  readonly streaming: number
  readonly laterTokens: number
  /** Requests that we have there, how many of them wait for a first token, and others' requests. */
  readonly held: number
  readonly unstarted: number
  readonly foreign: number
  /** What the engine says that it made; null: unknown. */
  readonly generatedTokens: number | null
  /** The ceiling that held. */
  readonly ceiling: number
}

/** Steps of a second: twenty of them count, in which prompts that are read come and go. */
const FORGET = 0.95
/** Fewer tokens than these say nothing. */
const TOKENS_MIN = 20
/**
 * So few answers, or so small a part of the ceiling, are not slow because they are too many: a
 * caller does not read, a prompt is long, an engine thinks of a tool.
 */
const ANSWERS_MIN = 8
const PART_MIN = 0.25
/** Nobody looked for so long: the machine slept, or this is the first look. */
const ELAPSED_MS_MAX = 10_000
/** Of a place more a step, where there is room for a part of one: it is tried. */
const CREEP = 0.1
/** Where an engine begins whose pace was just seen for the first time. */
const START = 16

export const paceAfter = (before: Pace, lesson: PaceLesson): Pace => {
  const { elapsedMs } = lesson
  const { paceStreams, paceTokens, paceMs } = before
  const made = madeBy(lesson)
  const few = Math.min(lesson.ceiling * PART_MIN, ANSWERS_MIN)
  if (made === null || made.answers < few || elapsedMs > ELAPSED_MS_MAX)
    return { paceStreams, paceTokens, paceMs }
  return {
    paceStreams: paceStreams * FORGET + made.answers * elapsedMs,
    paceTokens: paceTokens * FORGET + made.tokens,
    paceMs: paceMs * FORGET + elapsedMs,
  }
}

/**
 * Of all answers there, others' too, for they share its steps and the ceiling: our streams tell at
 * once how fast each is; of answers in one piece only the engine's counter knows.
 */
const madeBy = (lesson: PaceLesson): { answers: number; tokens: number } | null => {
  const { streaming, laterTokens, held, generatedTokens } = lesson
  const begun = Math.max(streaming, held - lesson.unstarted + lesson.foreign)
  if (streaming > 0 && streaming >= held / 2) {
    return { answers: begun, tokens: (laterTokens * begun) / streaming }
  }
  if (begun <= 0 || generatedTokens === null) return null
  return { answers: begun, tokens: generatedTokens }
}

/**
 * What is left of a ceiling that would go from `from` to `to` requests, where a token is to take
 * `targetMs`: never more than `to`, no less than `lowest` else, and no faster down than by
 * `shrink` a step.
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
  if (seenFirst) return Math.min(to, Math.max(bounds.lowest, START, places))
  // Quiet hours are within any pace: the ceiling that busy ones have found is kept for the next.
  if (answers <= places) return Math.min(to, Math.max(from + CREEP, places))
  return Math.min(to, Math.max(bounds.lowest, places, from * bounds.shrink))
}
