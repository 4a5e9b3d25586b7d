/** One call of an official SDK and what its caller gets to see; the same for every language. */
import { z } from 'zod'

/** Plain data: the Python side reads it as JSON. */
export type Call = {
  /**
   * `chat` and `stream` are chat.completions.create, `respond` and `response stream` are
   * responses.create, `model` and `models` look at models; `get` and `post` any path.
   */
  readonly do:
    | 'chat'
    | 'stream'
    | 'respond'
    | 'response stream'
    | 'model'
    | 'models'
    | 'get'
    | 'post'
  /** Null: no Authorization header at all. */
  readonly key: string | null
  readonly model: string
  readonly path?: string
  /** The body of `post`, sent byte for byte. */
  readonly raw?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
  /** Leaves a stream after so many pieces. */
  readonly stopAfter?: number
  /** Sleeps as long as it is told; else only notes how long that would be. */
  readonly sleeps?: boolean
}

const Answered = z.strictObject({
  status: z.number(),
  retryAfter: z.string().nullable(),
  retryAfterMs: z.string().nullable(),
  shouldRetry: z.string().nullable(),
})

export const Outcome = z.strictObject({
  /** The class of what was raised; null: nothing. */
  raised: z.string().nullable(),
  status: z.number().nullable(),
  type: z.string().nullable(),
  code: z.string().nullable(),
  param: z.string().nullable(),
  requestId: z.string().nullable(),
  /** The error body's own message; where there is none, the exception's. */
  message: z.string(),
  /** What the caller had of the answer before it ended. */
  text: z.string(),
  /** Requests sent: the first and the SDK's retries. */
  attempts: z.number(),
  /** One for each request that was answered at all. */
  answers: z.array(Answered),
  /** How long the SDK sleeps before each retry. */
  waitsMs: z.array(z.number()),
})
export type Outcome = z.infer<typeof Outcome>
export type Answered = z.infer<typeof Answered>

/** One official SDK at its defaults: two retries. `base` ends in `/v1`. */
export type Sdk = {
  readonly name: 'js' | 'python'
  readonly call: (base: string, call: Call, signal?: AbortSignal) => Promise<Outcome>
  readonly close: () => Promise<void>
}
