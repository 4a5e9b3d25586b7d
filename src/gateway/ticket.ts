/**
 * A request's identity and its books: who asked what, who answers, and one report at the end.
 * Every way out calls `finish`; the first call counts. A replica's in-flight count is held from
 * `take` until then.
 */
import type { Affinity } from '../core/affinity.ts'
import type { Ask } from '../core/body.ts'
import type { Priority, RouteCause } from '../core/gateway-manifest.ts'
import type { Protocol } from '../core/protocol.ts'
import type { GatewayKey, GatewayRoute, Outcome, SpillCause, Target } from '../core/snapshot.ts'
import type { Ending, Usage } from '../core/usage.ts'
import type { Lease } from './lease.ts'
import type { Reservation } from './limits.ts'
import { standingHeaders } from './rate-limited.ts'
import type { GatewayState } from './state.ts'
import type { Place } from './waiting.ts'

export type Finish = { readonly status: number; readonly outcome: Outcome; readonly reason: string }

/** Outcomes for which an engine that has shown nothing has done nothing. */
const FRUITLESS: ReadonlySet<Outcome> = new Set(['refused', 'upstream_error'])

/** Each attempt, each stand-in; more says nothing new. */
const NOTES_MAX = 12

const UNUSED = { prompt: 0, completion: 0 }
const NO_ENDING: Ending = { finishReason: null, usage: null }

export class Ticket {
  readonly id: string
  readonly path: string
  readonly protocol: Protocol
  readonly startedAtMs = performance.now()
  key: GatewayKey | null = null
  ask: Ask | null = null
  /** The route of the name that was asked for, whoever answers. */
  asked: GatewayRoute | null = null
  /** What ties it to a replica; null: nothing, or not known yet. */
  affinity: Affinity | null = null
  /** The slot of the only replica that can answer, which keeps what it goes on from; null: any. */
  home: number | null = null
  /** Who answers: the route that was asked for, or its stand-in. */
  route: GatewayRoute | null = null
  /** Why a stand-in answers; null: none does. */
  spillover: SpillCause | null = null
  /** By header or by its consumer's settings: rather a refusal than another model. */
  denies = false
  /** Of its header; null: as its consumer's. */
  priority: Priority | null = null
  /** Why a fallback answers; null: none does. */
  fallback: RouteCause | null = null
  /** How many of the route's fallbacks were tried, able to answer or not. */
  fallbacksTried = 0
  /** Attempts that failed before this one. */
  retries = 0
  /** How often another replica went on with the answer. */
  continuations = 0
  /** Of the limits; null where none applies. */
  reservation: Reservation | null = null
  /** What the rules of the route and the consumer changed, in words; empty: nothing. */
  parameters = ''
  /** Bytes of the body, for the estimate to learn from. */
  bodyBytes = 0
  /** Tokens that a stream has shown so far: as the engine says, or one an event. */
  produced = 0
  readonly #state: GatewayState
  readonly #acceptedAtMs = Date.now()
  #target: Target | null = null
  /** Its room on the replica; null: it has none yet. */
  #lease: Lease | null = null
  /** Tokens that the client had when it got that room. */
  #had = 0
  #queueMs: number | null = null
  /** The target whose in-flight count we hold; the same as #target until the end. */
  #held: Target | null = null
  #firstTokenAtMs: number | null = null
  #finished = false
  readonly #notes: string[] = []

  constructor(state: GatewayState, id: string, protocol: Protocol) {
    this.#state = state
    this.id = id
    this.path = protocol.path
    this.protocol = protocol
  }

  get target(): Target | null {
    return this.#target
  }

  get finished(): boolean {
    return this.#finished
  }

  /** Milliseconds in the gateway's queue; null: it did not wait. */
  get queueMs(): number | null {
    return this.#queueMs
  }

  /** Its turn has come. False: the client left just before. */
  admit({ lease, queueMs }: Place): boolean {
    if (queueMs !== null) {
      this.#queueMs = (this.#queueMs ?? 0) + Math.round(queueMs)
      this.note(`waited ${(queueMs / 1000).toFixed(1)} s for its turn`)
    }
    this.#lease?.end(UNUSED)
    this.#lease = lease
    this.#had = this.produced
    if (this.#finished) lease.end(null)
    return !this.#finished
  }

  /** This replica answers from now on; an earlier one is let go. */
  take(target: Target): void {
    this.#release()
    this.#target = target
    this.#held = target
    this.#lease?.move(target)
    this.#state.counts.began(this.#state.thread, target.slot)
  }

  /** Nobody works on it until it has another place; a prompt that was for nothing costs nothing. */
  leave(): void {
    this.#release()
    this.#lease?.end(UNUSED)
    this.#lease = null
  }

  /** The replica keeps the answer under this id, for whoever asks for it later. */
  keptAs(id: string | null): void {
    if (id === null || !this.protocol.keeps || this.key === null || this.#target === null) return
    this.#state.answers.keep(this.key.consumer, id, this.#target.slot)
  }

  /** What decided something about this request, in words, with the figures. */
  note(text: string): void {
    if (this.#notes.length < NOTES_MAX) this.#notes.push(text)
  }

  firstToken(nowMs: number): void {
    this.#firstTokenAtMs ??= nowMs
  }

  finish({ status, outcome, reason }: Finish, ending: Ending = NO_ENDING): void {
    if (this.#finished) return
    this.#finished = true
    this.#release()
    const usage = this.protocol.metered ? ending.usage : null
    const { promptTokens = null, completionTokens = null } = usage ?? {}
    const all = completionTokens ?? this.produced
    const used = { prompt: promptTokens ?? 0, completion: all - this.#had }
    this.#lease?.end(promptTokens === null ? null : used)
    this.#settle(outcome, usage)
    this.#state.report({
      id: this.id,
      acceptedAtMs: this.#acceptedAtMs,
      path: this.path,
      consumer: this.key?.consumer ?? null,
      key: this.key?.id ?? null,
      modelAsked: this.ask?.model.slice(0, 256) ?? null,
      ...(this.asked === null ? {} : { route: this.asked.model }),
      modelServed: this.#target === null ? null : (this.route?.servedModel ?? null),
      deployment: this.route?.deployment ?? null,
      replica: this.#target?.id ?? null,
      stream: this.ask?.stream ?? false,
      status,
      outcome,
      reason,
      promptTokens: usage?.promptTokens ?? null,
      completionTokens: usage?.completionTokens ?? null,
      cachedTokens: usage?.cachedTokens ?? null,
      reasoningTokens: usage?.reasoningTokens ?? null,
      ttftMs: this.#firstTokenAtMs === null ? null : this.#firstTokenAtMs - this.startedAtMs,
      ...(this.#queueMs === null ? {} : { queueMs: this.#queueMs }),
      durationMs: performance.now() - this.startedAtMs,
      // A stand-in that refused, too, has answered nobody.
      ...(this.spillover === null || this.#target === null ? {} : { spillover: this.spillover }),
      ...(this.retries === 0 ? {} : { retries: this.retries }),
      ...(this.continuations === 0 ? {} : { continuations: this.continuations }),
      ...(this.#notes.length === 0 ? {} : { decision: this.#notes.join('; ') }),
    })
  }

  /** The limits' headers, for any answer after the reservation. */
  rateHeaders(): Readonly<Record<string, string | number>> {
    return this.reservation === null ? {} : standingHeaders(this.reservation.standings)
  }

  /** A stream has shown another token; `count`: so many by now, where the engine says. */
  token(count: number | null): void {
    this.produced = count ?? this.produced + 1
    this.reservation?.produced(this.produced)
    this.#lease?.produced(this.produced - this.#had)
  }

  #settle(outcome: Outcome, usage: Usage | null): void {
    this.#learn(usage)
    if (this.reservation === null) return
    const { expected } = this.reservation
    if (usage !== null && usage.promptTokens !== null) {
      const { promptTokens: prompt, completionTokens } = usage
      this.reservation.settle({ prompt, completion: completionTokens ?? this.produced })
    } else if (this.#target === null || (this.produced === 0 && FRUITLESS.has(outcome))) {
      this.reservation.settle({ prompt: 0, completion: 0 })
    } else if (this.ask?.stream === true) {
      this.reservation.settle({ prompt: expected.prompt, completion: this.produced })
    } else {
      // Cut off or too large to be read: what the engine did is unknown.
      this.reservation.settle(null)
    }
  }

  #learn(usage: Usage | null): void {
    const { key, ask, route, bodyBytes } = this
    if (usage === null || key === null || ask === null || route === null) return
    const { promptTokens, completionTokens } = usage
    if (promptTokens === null || bodyBytes === 0) return
    this.#state.estimator.learn({
      key: key.id,
      model: `${route.deployment} ${this.path}`,
      bodyBytes,
      choices: ask.sequences,
      promptTokens,
      completionTokens: completionTokens ?? 0,
    })
  }

  #release(): void {
    if (this.#held === null) return
    this.#state.counts.ended(this.#state.thread, this.#held.slot)
    this.#held = null
  }
}
