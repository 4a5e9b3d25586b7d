/**
 * Fit: bytes needed against bytes there, per GPU, with the sum shown.
 */
export type FitTerm = { readonly what: string; readonly bytes: number }

export type Fit = {
  readonly ok: boolean
  /** VRAM of one GPU, bytes, and the share that the engine may use. */
  readonly memoryBytes: number
  readonly memoryFraction: number
  readonly budgetBytes: number
  readonly weightsBytesPerGpu: number
  readonly overheadBytesPerGpu: number
  /** What is left for the KV cache on each GPU; may be negative. */
  readonly kvBytesPerGpu: number
  readonly kvBytesPerTokenPerGpu: number
  /** Tokens that the KV pool of one replica holds. */
  readonly kvPoolTokens: number
  /** How many requests of full context the pool holds at once. */
  readonly fullContextRequests: number
  /** Why it does not fit, and what would make it fit; empty when ok. */
  readonly reasons: readonly string[]
  readonly remedies: readonly string[]
}
