/** What a published measurement says: set-up, load, figures, and what we use it for. */
import type { Gpu } from './gpus.ts'

/**
 * Mean prompt and answer tokens, and how they scatter: all alike; 0.8 to 1.2 of the mean; from
 * 0 to twice the mean (`--random-range-ratio 0`); or as ShareGPT's (calibration/trace.ts).
 */
type Lengths = {
  readonly prompt: number
  readonly answer: number
  readonly spread: 'none' | 'near' | 'wide' | 'sharegpt'
}

export type Load = Lengths & {
  /** Requests open at once; a finished one is replaced. A burst: as many as there are. */
  readonly concurrency: number
  readonly requests: number
}

export type Measured = {
  /** Output tokens of the whole group a second. */
  readonly outputPerSecond?: number
  readonly tpotMs?: number
  readonly ttftMs?: number
}

export type Use =
  | { readonly role: 'fit' }
  | { readonly role: 'held-out' }
  | { readonly role: 'excluded'; readonly why: string }

export type Row = {
  readonly name: string
  readonly model: string
  readonly gpu: Gpu
  /** GPUs of one node. */
  readonly gpus: number
  readonly engine: 'vllm' | 'sglang'
  /** Flags that decide batch, memory and parallelism; the rest are the engine's defaults. */
  readonly flags: string
  /** Null: the source does not say enough to repeat the load. */
  readonly load: Load | null
  readonly measured: Measured
  readonly source: string
  readonly use: Use
}

/** What rows of one table have in common. */
export type RowOf = Pick<Row, 'model' | 'gpu' | 'gpus' | 'engine' | 'flags' | 'source'>

export const FIT: Use = { role: 'fit' }
export const HELD_OUT: Use = { role: 'held-out' }
export const EXCLUDED = (why: string): Use => ({ role: 'excluded', why })

/** So many requests open at a time, four rounds of them. */
export const closed = (
  concurrency: number,
  prompt: number,
  answer: number,
  spread: Load['spread'] = 'none',
): Load => ({
  concurrency,
  requests: 4 * concurrency,
  prompt,
  answer,
  spread,
})

/**
 * The burst of 1,000 ShareGPT prompts of `vllm bench serve`. About 203 answer tokens in the mean
 * (vLLM's print-outs: 203,068 in all); 1.08 prompt tokens to each, from the row's own totals
 * (2353 tokens/s of which 1131.6 are output).
 */
export const SHAREGPT: Load = {
  concurrency: 1000,
  requests: 1000,
  prompt: 219,
  answer: 203,
  spread: 'sharegpt',
}
