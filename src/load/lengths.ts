/** How long prompts and answers are, from published measurements. Pure. */
import type { Random } from './random.ts'

/** Log-normal, cut to a range. `mean` is that of the uncut distribution, in tokens. */
export type Spread = {
  readonly mean: number
  /** Standard deviation of the logarithm; 0: always the mean. */
  readonly sigma: number
  readonly min: number
  readonly max: number
}

export type Lengths = {
  readonly name: string
  /** What the user writes: first in a session, and in later turns of it. */
  readonly first: Spread
  readonly later: Spread
  readonly answer: Spread
  /** Share of an answer that goes into the next turn's prompt: chat templates drop the thinking. */
  readonly keptRatio: number
  /** Turns of a session on average. */
  readonly turns: number
  /** Tokens of the system prompt that all sessions of one consumer begin with. */
  readonly prefixTokens: number
  /** A session ends before a turn that may not fit, and an answer is cut to fit; 0: never. */
  readonly contextTokens: number
}

/** The smallest context that the published distributions are run with, less a few for templates. */
const CONTEXT_TOKENS = 32_000

/** CachedAttention (Gao et al., USENIX ATC 2024) counts 5.75 turns a ShareGPT conversation. */
const SHAREGPT_TURNS = 5.75

/**
 * ShareGPT: vLLM's benchmark on 1,000 conversations of it counts 229,711 prompt and 203,068 answer
 * tokens (vllm-project/vllm pull request 18566). The means are from there; the spreads are ours,
 * chosen so that the median prompt is about half the mean, as in that heavy-tailed set.
 */
const SHAREGPT: Lengths = {
  name: 'sharegpt',
  first: { mean: 230, sigma: 1.2, min: 4, max: 4096 },
  later: { mean: 230, sigma: 1.2, min: 4, max: 4096 },
  answer: { mean: 203, sigma: 1, min: 4, max: 2048 },
  keptRatio: 1,
  turns: SHAREGPT_TURNS,
  prefixTokens: 200,
  contextTokens: CONTEXT_TOKENS,
}

/**
 * Reasoning models: DeepSeek-R1 thinks 12,000 tokens on average about an AIME question (model card
 * of DeepSeek-R1-0528). Everyday questions are shorter: here the median is 2,000 and one answer in
 * twenty reaches that average (2000 e^(1.1 * 1.645) = 12,200); the mean is 2000 e^(1.1^2 / 2).
 * Four fifths of it is thinking, as ServeGen (Xiang et al. 2025) reports of DeepSeek-R1's traffic.
 */
const REASONING: Lengths = {
  name: 'reasoning',
  first: { mean: 230, sigma: 1.2, min: 4, max: 4096 },
  later: { mean: 230, sigma: 1.2, min: 4, max: 4096 },
  answer: { mean: 3662, sigma: 1.1, min: 64, max: 24_576 },
  keptRatio: 0.2,
  turns: 3,
  prefixTokens: 200,
  contextTokens: CONTEXT_TOKENS,
}

/**
 * Long context: the trace of Mooncake (Qin et al. 2024) has 7,590 prompt and 182 answer tokens on
 * average, its prompts beginning alike. A document, then short questions about it; the longest
 * fits a context of 32,768.
 */
const LONG_CONTEXT: Lengths = {
  name: 'long-context',
  first: { mean: 7590, sigma: 0.9, min: 512, max: 28_000 },
  later: { mean: 60, sigma: 0.8, min: 4, max: 512 },
  answer: { mean: 182, sigma: 0.8, min: 4, max: 1024 },
  keptRatio: 1,
  turns: 3,
  prefixTokens: 200,
  contextTokens: CONTEXT_TOKENS,
}

const PUBLISHED = [SHAREGPT, REASONING, LONG_CONTEXT]
export const LENGTH_NAMES: readonly string[] = PUBLISHED.map(({ name }) => name)

/** One message a session, so that each prompt has this length. */
const fixed = (name: string, prompt: number, answer: number): Lengths => {
  const always = (mean: number): Spread => ({ mean, sigma: 0, min: mean, max: mean })
  return {
    name,
    first: always(prompt),
    later: always(prompt),
    answer: always(answer),
    keptRatio: 1,
    turns: 1,
    prefixTokens: 0,
    contextTokens: 0,
  }
}

const TOKENS_MAX = 1_000_000

/** `sharegpt`, `reasoning`, `long-context` or `fixed:IN/OUT`; null for anything else. */
export const lengthsOf = (text: string): Lengths | null => {
  const match = /^fixed:(\d{1,7})\/(\d{1,7})$/.exec(text)
  if (match === null) return PUBLISHED.find(({ name }) => name === text) ?? null
  const [prompt, answer] = [Number(match[1]), Number(match[2])]
  if (prompt < 1 || answer < 1 || prompt > TOKENS_MAX || answer > TOKENS_MAX) return null
  return fixed(text, prompt, answer)
}

/** Whole tokens. */
export const drawn = ({ mean, sigma, min, max }: Spread, random: Random): number => {
  const value = mean * Math.exp(sigma * random.normal() - (sigma * sigma) / 2)
  return Math.round(Math.min(max, Math.max(min, value)))
}
