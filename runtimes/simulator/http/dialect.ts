/** Where the two engines' wire shapes differ; everything else of serving is shared. */
import type { Refusal, Reply } from './wire.ts'

export type Usage = {
  readonly prompt: number
  readonly completion: number
  /** Prompt tokens found in the cache, and those written to it in whole blocks. */
  readonly cached: number
  readonly created: number
  readonly reasoning: number
}

export type ToolText = {
  readonly name: string
  readonly id: string
  readonly first: boolean
  readonly arguments: string
}

/** A piece of one choice, ready to send. */
export type Piece = {
  readonly index: number
  readonly reasoning: string
  readonly content: string
  /** Null when the piece is not part of a tool call. */
  readonly tool: ToolText | null
  readonly logprobs: readonly string[] | null
}

export type Ending = { readonly reason: string; readonly stopped: string | null }

/** A whole choice of an answer that is not streamed. */
export type Choice = {
  readonly index: number
  readonly reasoning: string | null
  readonly content: string | null
  readonly tool: Omit<ToolText, 'first'> | null
  readonly logprobs: readonly string[] | null
  readonly ending: Ending
}

export type Head = {
  readonly kind: 'chat' | 'completion'
  readonly id: string
  readonly created: number
  readonly model: string
}

export type Dialect = {
  error(refusal: Refusal): Reply
  /** An engine failure in the middle of a stream: the event before [DONE]. */
  streamError(refusal: Refusal): string
  /** The status line and headers of a stream go out before the first token. */
  readonly firstOpens: boolean
  /** `usage` of every chunk (continuous_usage_stats), and of the last one. */
  chunkUsage(head: Head, usage: Usage): unknown
  lastUsage(head: Head, usage: Usage): unknown
  /** `usage` null: not asked for. Each gives a whole event with its empty line. */
  chunk(head: Head, choices: string, usage: unknown): string
  lastChunk(head: Head, choices: string, usage: unknown): string
  /** The event before the first token of a choice; empty where there is none. */
  opening(head: Head, index: number, usage: unknown): string
  /** JSON of one entry of `choices`. */
  piece(kind: Head['kind'], piece: Piece, ending: Ending | null): string
  whole(head: Head, choices: readonly Choice[], usage: Usage): unknown
}

export const quote = (text: string): string => JSON.stringify(text)

/** Log probabilities are made up, but have the shape: one entry a token. */
export const chatLogprobs = (tokens: readonly string[] | null): unknown =>
  tokens === null
    ? null
    : {
        content: tokens.map((token) => ({
          token,
          logprob: -0.125,
          bytes: [...Buffer.from(token)],
          top_logprobs: [],
        })),
      }

export const textLogprobs = (tokens: readonly string[] | null): unknown => {
  if (tokens === null) return null
  let offset = 0
  const offsets = tokens.map((token) => {
    offset += token.length
    return offset - token.length
  })
  return {
    text_offset: offsets,
    token_logprobs: tokens.map(() => -0.125),
    tokens,
    top_logprobs: tokens.map((token) => ({ [token]: -0.125 })),
  }
}
