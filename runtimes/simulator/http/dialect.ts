/** Where the two engines' wire shapes differ; everything else of serving is shared. */
import type { Refusal, Reply } from './wire.ts'

export type Usage = {
  readonly prompt: number
  readonly completion: number
  readonly cached: number
  readonly reasoning: number
}

/** A piece of one choice, ready to send. */
export type Piece = {
  readonly index: number
  readonly reasoning: string
  readonly content: string
  /** Arguments of the tool call; null when it is not one. */
  readonly tool: {
    readonly name: string
    readonly id: string
    readonly first: boolean
    readonly arguments: string
  } | null
  readonly logprobs: readonly string[] | null
}

export type Ending = { readonly reason: string; readonly stopped: string | null }

/** A whole choice of an answer that is not streamed. */
export type Choice = {
  readonly index: number
  readonly reasoning: string | null
  readonly content: string | null
  readonly tool: { readonly name: string; readonly id: string; readonly arguments: string } | null
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
  usage(usage: Usage): unknown
  /** `usage` on every chunk: null where it is not asked for, undefined where the key is absent. */
  chunk(head: Head, choices: string, usage: unknown): string
  /** JSON of one entry of `choices` in a chunk. */
  role(index: number): string
  piece(kind: Head['kind'], piece: Piece): string
  ending(kind: Head['kind'], index: number, ending: Ending): string
  whole(head: Head, choices: readonly Choice[], usage: unknown): unknown
  /** An engine failure in the middle of a stream: the event before [DONE]. */
  streamError(refusal: Refusal): string
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
