/**
 * One answer, token by token: thinking, then content or a tool call, then the end token.
 * The same prompt and seed give the same text.
 */
import type { TokenSource } from '../physics/sequence.ts'
import { CORPUS, type Language } from './corpus.ts'
import { Random } from './random.ts'
import { pieces, tokenId } from './tokens.ts'

export type Channel = 'reasoning' | 'content' | 'tool'

export type Said = { readonly channel: Channel; readonly text: string }

export type AnswerPlan = {
  readonly seed: number
  readonly language: Language
  readonly topic: string
  readonly thinks: boolean
  /** Fixed words instead of the corpus, in order: thoughts, JSON, a tool's arguments, an echo. */
  readonly script: readonly Said[] | null
  readonly stop: readonly string[]
  /** The end token is not drawn before this many tokens. */
  readonly minTokens: number
  readonly ignoreEnd: boolean
}

/** Medians, tokens; reasoning models think longer than they speak. */
const LENGTH = { thinking: 220, content: 120, sigma: 0.6 }

const END_OF_THINKING = tokenId('</think>')
const END = tokenId('<|im_end|>')

export class Answer implements TokenSource {
  ended = false
  /** The stop string that ended it, if one did. */
  stopped: string | null = null
  reasoningTokens = 0
  readonly #plan: AnswerPlan
  readonly #random: Random
  readonly #thinkingTokens: number
  readonly #contentTokens: number
  readonly #stopLength: number
  readonly #toldThought: boolean
  /** Parts of the script still to come. */
  readonly #parts: Said[]
  #channel: Channel
  #queue: readonly string[] = []
  #at = 0
  #sentence = 0
  #spoken = 0
  #total = 0
  #held = ''
  #piece = ''

  constructor(plan: AnswerPlan) {
    this.#plan = plan
    this.#random = new Random(plan.seed)
    this.#thinkingTokens = this.#random.around(LENGTH.thinking, LENGTH.sigma)
    this.#contentTokens = this.#random.around(LENGTH.content, LENGTH.sigma)
    this.#stopLength = Math.max(0, ...plan.stop.map((text) => text.length))
    this.#parts = [...(plan.script ?? [])]
    this.#channel = plan.thinks ? 'reasoning' : 'content'
    const thought = plan.thinks && this.#parts[0]?.channel === 'reasoning'
    if (!plan.thinks || thought) this.#nextPart()
    this.#toldThought = thought
  }

  /** Which part of the answer the last token belongs to. */
  get channel(): Channel {
    return this.#channel
  }

  /** Text that may be shown after the last token; a stop string's beginning is held back. */
  get piece(): string {
    return this.#piece
  }

  next(): number {
    this.#total += 1
    this.#piece = ''
    const long = this.#total > this.#plan.minTokens
    if (this.#channel === 'reasoning') {
      this.reasoningTokens += 1
      const enough = this.#toldThought || this.#spoken >= this.#thinkingTokens
      if (enough && this.#at >= this.#queue.length) {
        this.#channel = 'content'
        this.#spoken = 0
        this.#queue = []
        this.#at = 0
        this.#sentence = 0
        this.#nextPart()
        return END_OF_THINKING
      }
    } else if (this.#over() && long && !this.#plan.ignoreEnd) {
      this.ended = true
      this.#piece = this.#held
      return END
    }
    return this.#speak()
  }

  /** Text still held back when the answer is cut by its length. */
  rest(): string {
    const text = this.#held
    this.#held = ''
    return text
  }

  /** Goes on to the next part of the script; false when there is none. */
  #nextPart(): boolean {
    const part = this.#parts.shift()
    if (part === undefined) return false
    this.#channel = part.channel
    this.#queue = pieces(part.text)
    this.#at = 0
    return true
  }

  #over(): boolean {
    while (this.#at >= this.#queue.length && this.#nextPart());
    if (this.#at < this.#queue.length) return false
    return this.#plan.script !== null || this.#spoken >= this.#contentTokens
  }

  #speak(): number {
    if (this.#at >= this.#queue.length) this.#nextSentence()
    const piece = this.#queue[this.#at] ?? ' '
    this.#at += 1
    this.#spoken += 1
    if (this.#stopLength === 0 || this.#channel !== 'content') this.#piece = piece
    else this.#holdBack(piece)
    return tokenId(piece)
  }

  /** vLLM and SGLang keep back as many characters as a stop string could still need. */
  #holdBack(piece: string): void {
    const text = this.#held + piece
    for (const stop of this.#plan.stop) {
      const at = stop === '' ? -1 : text.indexOf(stop)
      if (at < 0) continue
      this.#piece = text.slice(0, at)
      this.#held = ''
      this.stopped = stop
      this.ended = true
      return
    }
    const safe = Math.max(0, text.length - this.#stopLength + 1)
    this.#piece = text.slice(0, safe)
    this.#held = text.slice(safe)
  }

  #nextSentence(): void {
    const corpus = CORPUS[this.#plan.language]
    const sentences = this.#channel === 'reasoning' ? corpus.thinking : corpus.answer
    // In order at first, so that the answer has a beginning; then as the seed says.
    const index = this.#sentence < 3 ? this.#sentence : 1 + this.#random.below(sentences.length - 1)
    this.#sentence += 1
    const sentence = sentences[index] ?? ''
    this.#queue = sentencePieces(sentence.replace('{}', this.#plan.topic))
    this.#at = 0
  }
}

/** The same sentences come up again and again: cut them once. Bounded, oldest out first. */
const CUT_MAX = 4096
const cut = new Map<string, readonly string[]>()

const sentencePieces = (sentence: string): readonly string[] => {
  const known = cut.get(sentence)
  if (known !== undefined) return known
  const fresh = pieces(sentence)
  if (cut.size >= CUT_MAX) {
    const [oldest] = cut.keys()
    if (oldest !== undefined) cut.delete(oldest)
  }
  cut.set(sentence, fresh)
  return fresh
}
