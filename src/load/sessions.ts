/**
 * Who asks what: consumers of unequal weight, each with conversations that go on. All sessions of a
 * consumer begin with its system prompt, and each turn repeats the turns before it, so that a
 * prefix cache has what it has in life. The whole course is decided by the seed, not by answers:
 * what the assistant said is filler of the answer's length. Pure.
 */
import { drawn, type Lengths } from './lengths.ts'
import type { Random } from './random.ts'
import { words } from './text.ts'

type Message = {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export type WeightedModel = { readonly model: string; readonly weight: number }

export type SessionsAsk = {
  readonly models: readonly WeightedModel[]
  readonly consumers: number
  readonly lengths: Lengths
}

export type PlannedRequest = {
  /** From 0, in the order of sending. */
  readonly index: number
  /** Simulated seconds from the start. */
  readonly atSeconds: number
  readonly consumer: number
  readonly session: number
  /** From 1. */
  readonly turn: number
  readonly model: string
  readonly messages: readonly Message[]
  /** What the messages are meant to come to, the template's own tokens left out. */
  readonly promptTokens: number
  /** Answer length to ask for. */
  readonly answerTokens: number
}

/** From the answer to the next question, on average: ours, the time to read and to type. */
const THINK_SECONDS = 30
/** Pace at which an answer is taken to come when the next turn is dated. */
const ANSWER_TOKENS_PER_SECOND = 20
/** Conversations waiting for their next turn; with more, the oldest is over. */
const OPEN_MAX = 4000
/** The template puts a few tokens around every message. */
const MESSAGE_TOKENS = 5

type Part = { readonly role: Message['role']; readonly seed: number; readonly tokens: number }
type Session = {
  readonly id: number
  readonly consumer: number
  readonly model: string
  readonly parts: Part[]
  turn: number
  turnsLeft: number
  readyAtSeconds: number
}

/** The heaviest consumer asks twice as often as the second, three times as often as the third. */
export const consumerWeights = (count: number): readonly number[] =>
  Array.from({ length: count }, (_, index) => 1 / (index + 1))

/** One request for each arrival. */
export function* plan(
  ask: SessionsAsk,
  times: Iterable<number>,
  random: Random,
): Generator<PlannedRequest> {
  const book = new Book(ask, random)
  let index = 0
  for (const atSeconds of times) {
    yield book.request(index, atSeconds)
    index += 1
  }
}

class Book {
  readonly #ask: SessionsAsk
  readonly #who: Random
  readonly #what: Random
  readonly #weights: readonly number[]
  readonly #prefixSeeds: readonly number[]
  /** By consumer, oldest first. */
  readonly #open: Session[][]
  #openCount = 0
  #nextId = 0

  constructor(ask: SessionsAsk, random: Random) {
    this.#ask = ask
    this.#who = random.fork(11)
    this.#what = random.fork(12)
    this.#weights = consumerWeights(ask.consumers)
    const prefixes = random.fork(13)
    this.#prefixSeeds = this.#weights.map(() => prefixes.bits())
    this.#open = this.#weights.map(() => [])
  }

  request(index: number, atSeconds: number): PlannedRequest {
    const consumer = this.#who.weighted(this.#weights)
    const session = this.#waiting(consumer, atSeconds) ?? this.#begun(consumer)
    const { lengths } = this.#ask
    const turn = session.turn + 1
    const spread = turn === 1 ? lengths.first : lengths.later
    session.parts.push(part('user', drawn(spread, this.#what), this.#what))
    const promptTokens = tokensOf(session.parts)
    const answerTokens = fitting(lengths, promptTokens, drawn(lengths.answer, this.#what))
    const request = {
      index,
      atSeconds,
      consumer,
      session: session.id,
      turn,
      model: session.model,
      messages: session.parts.map(written),
      promptTokens,
      answerTokens,
    }
    session.turn = turn
    session.turnsLeft -= 1
    session.parts.push(part('assistant', kept(lengths, answerTokens), this.#what))
    const answerSeconds = answerTokens / ANSWER_TOKENS_PER_SECOND
    session.readyAtSeconds = atSeconds + answerSeconds + this.#what.exponential(THINK_SECONDS)
    if (session.turnsLeft > 0 && goesOn(lengths, session.parts)) this.#keep(session)
    return request
  }

  #waiting(consumer: number, atSeconds: number): Session | null {
    const open = this.#open[consumer] ?? []
    const index = open.findIndex(({ readyAtSeconds }) => readyAtSeconds <= atSeconds)
    if (index === -1) return null
    this.#openCount -= 1
    return open.splice(index, 1)[0] ?? null
  }

  #begun(consumer: number): Session {
    const { models, lengths } = this.#ask
    const chosen = models[this.#who.weighted(models.map(({ weight }) => weight))]
    const seed = this.#prefixSeeds[consumer] ?? 0
    const prefix: Part = { role: 'system', seed, tokens: lengths.prefixTokens }
    const id = this.#nextId
    this.#nextId += 1
    return {
      id,
      consumer,
      model: chosen?.model ?? '',
      parts: lengths.prefixTokens === 0 ? [] : [prefix],
      turn: 0,
      turnsLeft: this.#who.geometric(lengths.turns),
      readyAtSeconds: 0,
    }
  }

  #keep(session: Session): void {
    const open = this.#open[session.consumer] ?? []
    open.push(session)
    this.#openCount += 1
    if (this.#openCount <= OPEN_MAX) return
    const oldest = this.#open.reduce((most, one) => (one.length > most.length ? one : most), open)
    oldest.shift()
    this.#openCount -= 1
  }
}

const part = (role: Part['role'], tokens: number, random: Random): Part => ({
  role,
  seed: random.bits(),
  tokens,
})

const written = ({ role, seed, tokens }: Part): Message => ({ role, content: words(seed, tokens) })

const tokensOf = (parts: readonly Part[]): number =>
  parts.reduce((sum, { tokens }) => sum + tokens + MESSAGE_TOKENS, 0)

/** Is there room behind the history for the longest question and an ordinary answer? */
const goesOn = ({ later, answer, contextTokens }: Lengths, parts: readonly Part[]): boolean =>
  contextTokens === 0 || tokensOf(parts) + later.max + answer.mean < contextTokens

const fitting = ({ contextTokens }: Lengths, prompt: number, answer: number): number =>
  contextTokens === 0 ? answer : Math.max(1, Math.min(answer, contextTokens - prompt))

const kept = ({ keptRatio }: Lengths, answerTokens: number): number =>
  Math.max(1, Math.round(answerTokens * keptRatio))
