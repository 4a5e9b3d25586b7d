/**
 * A request's identity and its books: who asked what, who answers, and one report at the end.
 * Every way out calls `finish`; the first call counts. A replica's in-flight count is held from
 * `take` until then.
 */
import type { Ask } from '../core/body.ts'
import type { GatewayKey, GatewayRoute, Outcome, SpillCause, Target } from '../core/snapshot.ts'
import type { Ending } from '../core/usage.ts'
import type { GatewayState } from './state.ts'

export type Finish = { readonly status: number; readonly outcome: Outcome; readonly reason: string }

const NO_ENDING: Ending = { finishReason: null, usage: null }

export class Ticket {
  readonly id: string
  readonly path: string
  readonly startedAtMs = performance.now()
  key: GatewayKey | null = null
  ask: Ask | null = null
  /** Who answers: the route that was asked for, or its stand-in. */
  route: GatewayRoute | null = null
  /** Why a stand-in answers; null: none does. */
  spillover: SpillCause | null = null
  readonly #state: GatewayState
  readonly #acceptedAtMs = Date.now()
  #target: Target | null = null
  /** The target whose in-flight count we hold; the same as #target until the end. */
  #held: Target | null = null
  #firstTokenAtMs: number | null = null
  #finished = false

  constructor(state: GatewayState, id: string, path: string) {
    this.#state = state
    this.id = id
    this.path = path
  }

  get target(): Target | null {
    return this.#target
  }

  get finished(): boolean {
    return this.#finished
  }

  /** This replica answers from now on; an earlier one is let go. */
  take(target: Target): void {
    this.#release()
    this.#target = target
    this.#held = target
    this.#state.counts.began(this.#state.thread, target.slot)
  }

  firstToken(nowMs: number): void {
    this.#firstTokenAtMs ??= nowMs
  }

  finish({ status, outcome, reason }: Finish, ending: Ending = NO_ENDING): void {
    if (this.#finished) return
    this.#finished = true
    this.#release()
    const { usage } = ending
    this.#state.report({
      id: this.id,
      acceptedAtMs: this.#acceptedAtMs,
      path: this.path,
      consumer: this.key?.consumer ?? null,
      key: this.key?.id ?? null,
      modelAsked: this.ask?.model.slice(0, 256) ?? null,
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
      durationMs: performance.now() - this.startedAtMs,
      ...(this.spillover === null ? {} : { spillover: this.spillover }),
    })
  }

  #release(): void {
    if (this.#held === null) return
    this.#state.counts.ended(this.#state.thread, this.#held.slot)
    this.#held = null
  }
}
