/**
 * The shell around the step loop: one timer for all requests. It runs steps when their simulated
 * end has come, then sends what they gave, both in slices, so that a wave of ten thousand chunks
 * keeps no new request and no probe waiting. Steps go first: when the machine is behind, tokens of
 * several steps leave in one chunk, in order, as those of a busy API server do.
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

/**
 * How long steps, and then sending, may go on before other work gets a turn, real milliseconds.
 * Short, because libuv accepts one connection a turn: 2 ms let some hundreds a second come in.
 */
const TURN_MS = 2
/** Chunks between two looks at the clock: some tens of microseconds each. */
const LOOK_EVERY = 32

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
  #thawedMs = 0
  /** Real milliseconds by which steps are ahead of sending. */
  #steppedMs = 0

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
    this.#forget(sequence)
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

  /** What the engine has computed still leaves. */
  freeze(): void {
    this.#frozen = true
    this.#stopTimers()
    this.#flush(null)
  }

  /** The hang is over: work goes on where it stood, time lost is not made up for. */
  thaw(): void {
    if (!this.#frozen) return
    this.#frozen = false
    this.#thawedMs = this.clock.now()
    this.#wake()
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
    const nextMs = this.#steppedMs > 0 ? this.#cursorMs : this.#stepsDue()
    this.#flush(TURN_MS)
    const waitMs = nextMs === null ? 0 : nextMs - this.clock.now()
    if (this.#dirty.size > 0 || (nextMs !== null && waitMs <= 0)) this.#wake()
    else if (nextMs !== null) {
      this.#next = this.clock.after(waitMs, () => this.#pump())
    }
  }

  /** Runs the steps whose end has come, for a turn; says when the next one ends, if any. */
  #stepsDue(): number | null {
    const beganMs = this.clock.realNow()
    for (;;) {
      const endsMs = this.engine.endsMs ?? this.#begin()
      if (endsMs === null) {
        this.#onIdle()
        return null
      }
      if (endsMs > this.clock.now()) return endsMs
      this.#dispatch(this.engine.finish())
      if (this.#dirty.size <= ONE_EACH_MAX) this.#flush(null)
      const lastedMs = this.clock.realNow() - beganMs
      if (lastedMs <= TURN_MS) continue
      // Sending gets as long as the steps had; the look after that begins the step that follows.
      this.#steppedMs = lastedMs
      return this.#cursorMs
    }
  }

  /** Those who have waited longest first, for a turn; null: all of them. */
  #flush(turnMs: number | null): void {
    const beganMs = this.clock.realNow()
    let sent = 0
    for (const listener of this.#dirty) {
      this.#dirty.delete(listener)
      listener.flush()
      sent += 1
      if (turnMs === null || sent % LOOK_EVERY !== 0) continue
      const lastedMs = this.clock.realNow() - beganMs
      if (lastedMs <= turnMs) continue
      this.#steppedMs -= lastedMs
      return
    }
    this.#steppedMs = 0
  }

  /** Steps follow without a gap while there is work: lateness of timers does not add up. */
  #begin(): number | null {
    const now = this.clock.now()
    const gap = now - this.#cursorMs
    const startMs = gap < 2000 * Math.max(1, this.clock.speed / 10) ? this.#cursorMs : now
    const from = this.engine.running.length > 0 ? startMs : now
    return this.engine.begin(Math.max(from, this.#thawedMs))
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
      this.#forget(sequence)?.finished(sequence)
    }
  }

  /** Its listener hears no more of it, flushes included; what has gathered leaves with the end. */
  #forget(sequence: Sequence): SequenceListener | undefined {
    const listener = this.#listeners.get(sequence)
    if (listener === undefined) return undefined
    this.#listeners.delete(sequence)
    this.#dirty.delete(listener)
    this.#onEnd(sequence)
    return listener
  }

  #stopTimers(): void {
    this.#next?.()
    this.#next = null
  }
}
