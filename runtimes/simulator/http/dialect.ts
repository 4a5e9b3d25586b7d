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

/** Tokens that were made, and how many likelier ones are shown beside each. */
export type Logprobs = { readonly tokens: readonly string[]; readonly top: number }

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
  readonly logprobs: Logprobs | null
}

export type Ending = { readonly reason: string; readonly stopped: string | null }

/** A whole choice of an answer that is not streamed. */
export type Choice = {
  readonly index: number
  readonly reasoning: string | null
  readonly content: string | null
  readonly tool: Omit<ToolText, 'first'> | null
  readonly logprobs: Logprobs | null
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
  /** An engine failure in the middle of a stream, with what ends a stream then. */
  streamError(refusal: Refusal): string
  /** What ends a whole stream; empty where the last event says so itself. */
  readonly done: string
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

export const DONE = 'data: [DONE]\n\n'

/** What else the model could have said; made up, but always the same beside the same token. */
const OTHERS = [' the', ',', ' a', '的', ' of', '.', ' and', '\n', ' to', '是']
const LOGPROB = -0.125

const entry = (token: string, rank: number) => ({
  token,
  logprob: LOGPROB - rank * 1.25,
  bytes: [...Buffer.from(token)],
})

/** The chosen token first, then those less likely; `top` of them together. */
const likeliest = (token: string, top: number) => {
  const others = OTHERS.filter((other) => other !== token)
  const start = token.length % others.length
  return Array.from({ length: Math.min(top, others.length + 1) }, (_, rank) =>
    entry(rank === 0 ? token : (others[(start + rank) % others.length] ?? ''), rank),
  )
}

/** Log probabilities are made up, but have the shape: one entry a token. */
export const chatLogprobs = (made: Logprobs | null): unknown =>
  made === null
    ? null
    : {
        content: made.tokens.map((token) => ({
          ...entry(token, 0),
          top_logprobs: likeliest(token, made.top),
        })),
      }

export const textLogprobs = (made: Logprobs | null): unknown => {
  if (made === null) return null
  const { tokens, top } = made
  let offset = 0
  const offsets = tokens.map((token) => {
    offset += token.length
    return offset - token.length
  })
  return {
    text_offset: offsets,
    token_logprobs: tokens.map(() => LOGPROB),
    tokens,
    top_logprobs: tokens.map((token) =>
      Object.fromEntries(
        likeliest(token, Math.max(1, top)).map(({ token: text, logprob }) => [text, logprob]),
      ),
    ),
  }
}
