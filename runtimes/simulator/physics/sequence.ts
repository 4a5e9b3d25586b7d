/** One answer being computed, as the step loop sees it. */
import { BlockHasher } from './blocks.ts'

/** Gives the answer token by token; `ended` turns true with the token that ends it. */
export type TokenSource = {
  next(): number
  readonly ended: boolean
}

export type FinishReason = 'stop' | 'length' | 'abort' | 'error'

export type SequenceInput = {
  readonly prompt: Int32Array
  readonly maxTokens: number
  readonly priority: number
  readonly salt: number
  readonly source: TokenSource
  /** How many answers this request asked for (`n`), for the metrics. */
  readonly siblings: number
  /** Whether the client reads token by token; SGLang's counters tell these apart. */
  readonly streaming?: boolean
  /** The prompt is all: no token follows, the answer is what the last layer says of it. */
  readonly pooling?: boolean
}

export class Sequence {
  readonly promptTokens: number
  readonly maxTokens: number
  readonly priority: number
  readonly siblings: number
  readonly streaming: boolean
  readonly pooling: boolean
  readonly source: TokenSource
  readonly arrivedMs: number
  /** Hashes of all full blocks of prompt and answer so far. */
  readonly hashes: number[] = []
  readonly blocks: number[] = []
  state: 'waiting' | 'running' | 'finished' = 'waiting'
  finish: FinishReason | null = null
  /** Tokens whose KV is there. */
  computed = 0
  /** Of the prompt, how much was found in the cache at first admission. */
  cached = 0
  produced = 0
  preemptions = 0
  /** Tokens of this step, set by the scheduler. */
  scheduled = 0
  admittedMs = -1
  firstTokenMs = -1
  lastTokenMs = -1
  endedMs = -1
  readonly #hasher: BlockHasher

  constructor(input: SequenceInput, blockTokens: number, arrivedMs: number) {
    this.promptTokens = input.prompt.length
    this.maxTokens = input.maxTokens
    this.priority = input.priority
    this.siblings = input.siblings
    this.streaming = input.streaming ?? false
    this.pooling = input.pooling ?? false
    this.source = input.source
    this.arrivedMs = arrivedMs
    this.#hasher = new BlockHasher(blockTokens, input.salt)
    for (const token of input.prompt) this.#push(token)
  }

  /** Tokens known so far; the last one has no KV yet. */
  get tokens(): number {
    return this.promptTokens + this.produced
  }

  get prefilling(): boolean {
    return this.tokens - this.computed > 1 || this.computed < this.promptTokens
  }

  /** Why it is at its end, once its last token is computed; null: it goes on. */
  get ending(): FinishReason | null {
    if (this.pooling || this.source.ended) return 'stop'
    return this.produced >= this.maxTokens ? 'length' : null
  }

  /** All of a prompt that only was to be read is read. */
  pooled(nowMs: number): void {
    this.firstTokenMs = nowMs
    this.lastTokenMs = nowMs
  }

  /** Draws the next token from the source. */
  advance(nowMs: number): void {
    this.#push(this.source.next())
    this.produced += 1
    if (this.firstTokenMs < 0) this.firstTokenMs = nowMs
    this.lastTokenMs = nowMs
  }

  #push(token: number): void {
    const hash = this.#hasher.push(token)
    if (hash !== 0) this.hashes.push(hash)
  }
}
