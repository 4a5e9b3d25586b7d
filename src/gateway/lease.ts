/**
 * A request's room on a replica, from admission to its end: it is counted in the shared slots, in
 * the steps in which an engine comes to know of it, and its tokens are paid for as they show.
 */
import type { Answer } from '../core/admission.ts'
import { serviceOf } from '../core/fair-queue.ts'
import type { Target } from '../core/snapshot.ts'
import type { AdmissionSlots, Cell } from './admission-slots.ts'

/**
 * Answers in one piece show no first token: their prompt is taken as read after as long as others
 * took lately, or this for each token.
 */
const READ_MS_PER_TOKEN = 0.5
const READ_MS_MIN = 50
const READ_MS_MAX = 5_000
/** An answer that has outgrown what was expected is expected to go on for this share of itself. */
const BEYOND_RATIO = 0.25

export type Weight = { readonly prompt: number; readonly completion: number }

/** Who pays for a lease's tokens, and hears when it ends. */
export type Payer = {
  readonly weight: number
  charge(parts: number): void
  /** One of its requests has a place. */
  ran(): void
  /** There may be room now; `over`: the request has ended. */
  freed(over: boolean): void
}

export type LeaseAsk = {
  readonly weight: Weight
  readonly payer: Payer
  readonly streams: boolean
  /** Texts that are generated side by side (`n`). */
  readonly sequences: number
}

/** What a lease tells of itself. */
type Host = {
  readonly slots: Pick<AdmissionSlots, 'firstToken'>
  readonly now: () => number
  add(slot: number, cell: Cell, by: number): void
  enlist(target: Target, lease: Lease): void
  strike(target: Target, lease: Lease): void
  /** One of which readings know has ended. */
  ended(target: Target): void
}

export class Lease {
  /** Where it stands in its replica's list; written by that only. */
  place = -1
  readonly #host: Host
  readonly #weight: Weight
  readonly #payer: Payer
  readonly #streams: boolean
  readonly #sequences: number
  #target: Target | null = null
  #sentAtMs = 0
  #startedAtMs: number | null = null
  /** The engine's readings know of it; they know its prompt. */
  #known = false
  #read = false
  #produced = 0
  /** Tokens of each of its texts that were told. */
  #toldTokens = 0
  /** Parts of a token that are too few to be charged yet. */
  #owed = 0
  #prompted = false
  #grown = false

  constructor(host: Host, ask: LeaseAsk) {
    this.#host = host
    this.#weight = ask.weight
    this.#payer = ask.payer
    this.#streams = ask.streams
    this.#sequences = ask.sequences
  }

  /** Another replica tries it: from the beginning. */
  move(target: Target): void {
    if (this.#target?.id === target.id && this.#startedAtMs === null) return
    this.leave()
    this.#target = target
    this.#sentAtMs = this.#host.now()
    this.#startedAtMs = null
    this.#known = false
    this.#read = false
    this.#grown = false
    this.#host.enlist(target, this)
    const { prompt, completion } = this.#weight
    this.#add('held', 1)
    this.#add('fresh', 1)
    this.#add('unstarted', 1)
    this.#add('unstartedTokens', prompt)
    this.#add('unseenTokens', prompt)
    this.#add('growthTokens', completion)
  }

  /** Its prompt is paid for when it goes, and only once. */
  sent(): void {
    if (this.#prompted) return
    this.#prompted = true
    this.#pay({ prompt: this.#weight.prompt, completion: 0 })
  }

  /** It has shown so many tokens by now. */
  produced(tokens: number): void {
    const more = tokens - this.#produced
    if (more <= 0) return
    this.#produced = tokens
    this.#pay({ prompt: 0, completion: more })
    if (this.#target === null) return
    if (this.#startedAtMs === null) this.#start(true)
    const each = Math.trunc(this.#produced / this.#sequences)
    this.#add('outputTokens', each - this.#toldTokens)
    this.#toldTokens = each
  }

  /** A reading was made of the engine, which has seen what happened before. */
  seen(beforeMs: number): void {
    if (this.#sentAtMs > beforeMs) return
    this.#know()
    if (this.#read || this.#startedAtMs === null || this.#startedAtMs > beforeMs) return
    this.#read = true
    this.#add('unseenTokens', -this.#weight.prompt)
  }

  /** An answer in one piece shows nothing before its end. */
  age(nowMs: number): void {
    if (this.#startedAtMs !== null || this.#streams || this.#target === null) return
    const { ms, tokens } = this.#host.slots.firstToken(this.#target.slot)
    const perToken = tokens > 0 ? ms / tokens : READ_MS_PER_TOKEN
    const readMs = Math.max(READ_MS_MIN, this.#weight.prompt * perToken)
    if (nowMs - this.#sentAtMs > Math.min(READ_MS_MAX, readMs)) this.#start(false)
  }

  answer(): Answer {
    this.#grown = true
    const { prompt, completion } = this.#weight
    const left = completion - this.#produced
    return {
      tokens: prompt + this.#produced,
      remaining: Math.ceil(Math.max(left, this.#produced * BEYOND_RATIO)),
    }
  }

  /** The request is over; `used` where it is known, else what it has shown. */
  end(used: { readonly prompt: number; readonly completion: number } | null): void {
    if (this.#target === null) return
    this.leave()
    if (used !== null) {
      this.#pay({
        prompt: this.#prompted ? used.prompt - this.#weight.prompt : 0,
        completion: Math.max(0, used.completion - this.#produced),
      })
    }
    this.#payer.freed(true)
  }

  /** Gives the room back without ending. */
  leave(): void {
    const target = this.#target
    if (target === null) return
    const { prompt, completion } = this.#weight
    this.#add('held', -1)
    if (this.#known) this.#host.ended(target)
    else this.#know()
    if (this.#startedAtMs === null) {
      this.#add('unstarted', -1)
      this.#add('unstartedTokens', -prompt)
    } else if (this.#streams) this.#add('streaming', -1)
    if (!this.#read) this.#add('unseenTokens', -prompt)
    // Once all answers were looked at together, the next look leaves it out.
    if (!this.#grown) this.#add('growthTokens', -completion)
    this.#host.strike(target, this)
    this.#target = null
  }

  #start(shown: boolean): void {
    const nowMs = this.#host.now()
    this.#startedAtMs = nowMs
    const { prompt } = this.#weight
    this.#know()
    this.#add('unstarted', -1)
    this.#add('unstartedTokens', -prompt)
    if (this.#streams) this.#add('streaming', 1)
    if (!shown) return
    this.#add('firstTokens', 1)
    this.#add('firstTokenMs', Math.round(nowMs - this.#sentAtMs))
    this.#add('firstTokenPrompt', prompt)
    this.#payer.freed(false)
  }

  #know(): void {
    if (this.#known) return
    this.#known = true
    this.#add('fresh', -1)
  }

  #pay(tokens: { prompt: number; completion: number }): void {
    this.#owed += serviceOf(tokens, this.#payer.weight)
    const whole = Math.trunc(this.#owed)
    if (whole === 0) return
    this.#owed -= whole
    this.#payer.charge(whole)
  }

  #add(cell: Cell, by: number): void {
    if (this.#target !== null) this.#host.add(this.#target.slot, cell, by)
  }
}
