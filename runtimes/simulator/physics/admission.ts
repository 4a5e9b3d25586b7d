/**
 * SGLang's guess of how much of what was asked for will really be generated: it decides how many
 * requests run at once (srt/managers/schedule_policy.py, PrefillAdder, and scheduler_components/
 * new_token_ratio_tracker.py). The environment variables named are the engine's own.
 */
import type { Sequence } from './sequence.ts'

/** `SGLANG_INIT_NEW_TOKEN_RATIO`; times `--schedule-conservativeness`, at most 1. */
export const NEW_TOKEN_RATIO = 0.7
/** `SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR`: where the ratio ends, as a share of where it begins. */
const LEAST_SHARE = 0.14
/** `SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS`: decode steps without a retraction to get there. */
const DECAY_STEPS = 600
/** `SGLANG_RETRACT_DECODE_STEPS`: tokens that each is granted after a retraction. */
const GRANTED_STEPS = 20
/** `SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION`: nobody is reserved more. */
const CLIP_TOKENS = 4096

/** Requests sent back for want of KV, tokens that this gained, and the ratio before and after. */
export type Retraction = {
  readonly requests: number
  readonly tokens: number
  readonly from: number
  readonly to: number
}

/** Tokens that a newcomer must find room for, beside its prompt. */
const asked = (sequence: Sequence): number =>
  Math.min(Math.max(0, sequence.maxTokens - sequence.produced), CLIP_TOKENS)

export class Admission {
  readonly #initialRatio: number
  readonly #blockTokens: number
  #ratio: number
  /** One found no room: nobody is let in before somebody leaves (`batch_is_full`). */
  shut = false

  constructor(initialRatio: number, blockTokens: number) {
    this.#initialRatio = initialRatio
    this.#ratio = initialRatio
    this.#blockTokens = blockTokens
  }

  /** Share of what running requests may still generate that is kept free for them. */
  get ratio(): number {
    return this.#ratio
  }

  /** A decode step went well. */
  decay(): void {
    const least = this.#initialRatio * LEAST_SHARE
    const step = (this.#initialRatio - least) / DECAY_STEPS
    this.#ratio = Math.max(least, this.#ratio - step)
  }

  /** Some were sent back: what those left have done of what they asked for, and a little more. */
  retracted(left: readonly Sequence[]): void {
    const done = left.reduce((sum, { produced }) => sum + produced, 0)
    const most = left.reduce((sum, { maxTokens }) => sum + maxTokens, 0)
    this.#ratio = Math.min(1, (done + GRANTED_STEPS * left.length) / (most + 1))
  }

  /** Nothing runs any more. */
  reset(): void {
    this.#ratio = this.#initialRatio
  }

  /** Tokens kept free for those that run; the ones of this prefill batch are promised all. */
  promised(running: readonly Sequence[]): number {
    let tokens = 0
    for (const sequence of running) {
      const newcomer = sequence.scheduled > 0
      tokens += newcomer ? this.promise(sequence) : asked(sequence) * this.#ratio
    }
    return tokens
  }

  /** Of one in this prefill batch: nothing ahead while its prompt is not computed to the end. */
  promise(sequence: Sequence): number {
    const last = sequence.computed + sequence.scheduled >= sequence.tokens
    return (last ? asked(sequence) : 0) + this.#blockTokens
  }

  /** A newcomer needs room for its prompt, its answer and a page. */
  hasRoom(sequence: Sequence, freeTokens: number): boolean {
    const needed = sequence.tokens - sequence.computed + asked(sequence) + this.#blockTokens
    return needed < freeTokens
  }
}
