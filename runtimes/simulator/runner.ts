/**
 * The shell around the step loop: one timer for all requests. It runs steps when their simulated
 * end has come; when the machine is behind, several steps run at once and their tokens leave in
 * one chunk, in order.
 */
import type { SimulatedClock } from './clock.ts'
import type { Engine, StepResult } from './physics/engine.ts'
import type { FinishReason, Sequence, SequenceInput } from './physics/sequence.ts'

/** Whoever waits for a sequence. */
export type SequenceListener = {
  token(sequence: Sequence): void
  finished(sequence: Sequence): void
  /** After one or more steps: send what has gathered. */
  flush(): void
}

/** How long steps may run in a row before other work gets a turn, real milliseconds. */
const BURST_MS = 15

/** With no more answers than this a chunk carries one token, as a real engine's does. */
const ONE_EACH_MAX = 64

export class Runner {
  readonly engine: Engine
  readonly clock: SimulatedClock
  readonly #onStep: (result: StepResult) => void
  readonly #onEnd: (sequence: Sequence) => void
  readonly #onIdle: () => void
  readonly #listeners = new Map<Sequence, SequenceListener>()
  readonly #dirty = new Set<SequenceListener>()
  /** How to cancel what is to run next. */
  #next: (() => void) | null = null
  #cursorMs = 0
  #frozen = false

  constructor(
    engine: Engine,
    clock: SimulatedClock,
    hooks: {
      onStep: (result: StepResult) => void
      onEnd: (sequence: Sequence) => void
      onIdle: () => void
    },
  ) {
    this.engine = engine
    this.clock = clock
    this.#onStep = hooks.onStep
    this.#onEnd = hooks.onEnd
    this.#onIdle = hooks.onIdle
  }

  get open(): number {
    return this.#listeners.size
  }

  /** Forward steps stop, requests stay: a collective that waits for a lost rank. */
  get frozen(): boolean {
    return this.#frozen
  }

  submit(input: SequenceInput, listener: SequenceListener): Sequence | null {
    const sequence = this.engine.add(input, this.clock.now())
    if (sequence === null) return null
    this.#listeners.set(sequence, listener)
    this.#wake()
    return sequence
  }

  /** The client left, or the engine dies; the KV is free at once. */
  abort(sequence: Sequence, reason: FinishReason = 'abort'): void {
    if (sequence.state === 'finished') return
    this.engine.abort(sequence, this.clock.now(), reason)
    this.#end(sequence)
    this.#wake()
  }

  abortAll(reason: FinishReason): void {
    for (const sequence of [...this.#listeners.keys()]) {
      const listener = this.#listeners.get(sequence)
      this.abort(sequence, reason)
      listener?.finished(sequence)
      listener?.flush()
    }
  }

  freeze(): void {
    this.#frozen = true
    this.#stopTimers()
  }

  stop(): void {
    this.freeze()
    this.#listeners.clear()
  }

  #wake(): void {
    if (this.#next === null && !this.#frozen) {
      this.#next = this.clock.soon(() => this.#pump())
    }
  }

  #pump(): void {
    this.#stopTimers()
    if (this.#frozen) return
    const began = this.clock.realNow()
    for (;;) {
      const endsMs = this.engine.endsMs ?? this.#begin()
      if (endsMs === null) {
        this.#onIdle()
        break
      }
      const now = this.clock.now()
      if (endsMs > now) {
        this.#next = this.clock.after(endsMs - now, () => this.#pump())
        break
      }
      this.#dispatch(this.engine.finish())
      if (this.#dirty.size <= ONE_EACH_MAX) this.#flush()
      if (this.clock.realNow() - began > BURST_MS) {
        this.#next = this.clock.soon(() => this.#pump())
        break
      }
    }
    this.#flush()
  }

  #flush(): void {
    for (const listener of this.#dirty) listener.flush()
    this.#dirty.clear()
  }

  /** Steps follow without a gap while there is work: lateness of timers does not add up. */
  #begin(): number | null {
    const now = this.clock.now()
    const gap = now - this.#cursorMs
    const startMs = gap < 2000 * Math.max(1, this.clock.speed / 10) ? this.#cursorMs : now
    const from = this.engine.running.length > 0 ? startMs : now
    return this.engine.begin(from)
  }

  #dispatch(result: StepResult): void {
    this.#cursorMs = result.endMs
    this.#onStep(result)
    for (const sequence of result.emitted) {
      const listener = this.#listeners.get(sequence)
      if (listener === undefined) continue
      listener.token(sequence)
      this.#dirty.add(listener)
    }
    for (const sequence of result.finished) {
      const listener = this.#listeners.get(sequence)
      this.#end(sequence)
      listener?.finished(sequence)
    }
  }

  #end(sequence: Sequence): void {
    if (!this.#listeners.delete(sequence)) return
    this.#onEnd(sequence)
  }

  #stopTimers(): void {
    this.#next?.()
    this.#next = null
  }
}
