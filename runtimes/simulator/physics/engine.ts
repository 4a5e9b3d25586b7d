/**
 * The step loop of an engine, pure: no clock, no timers; the shell says what time it is. One step
 * is `begin(now)` (schedule; says when it ends) and `finish(now)` (tokens appear). vLLM mixes
 * decodes and prefill chunks in a step and preempts by recompute (vllm/v1/core/sched/scheduler.py);
 * SGLang runs prefill batches before decode batches and retracts (srt/managers/scheduler.py).
 */
import { Admission, NEW_TOKEN_RATIO, type Retraction } from './admission.ts'
import { BlockPool } from './blocks.ts'
import type { CostModel, StepLoad } from './cost.ts'
import { WaitingQueue } from './queue.ts'
import { type FinishReason, Sequence, type SequenceInput } from './sequence.ts'
import { noTotals, type Totals } from './totals.ts'
import { preemptionVictim, retractionVictim } from './victim.ts'

export type EngineConfig = {
  readonly style: 'vllm' | 'sglang'
  readonly poolTokens: number
  readonly blockTokens: number
  /** Tokens in one step; null: a whole prompt in one. */
  readonly batchTokensMax: number | null
  readonly runningMax: number
  readonly queuedMax: number | null
  readonly prefixCache: boolean
  readonly priority: 'off' | 'low-first' | 'high-first'
  /** SGLang: share of an answer's limit that a running request is reserved at first. */
  readonly newTokenRatio?: number | undefined
}

/** What a step did; arrays are reused by the next step. */
export type StepResult = {
  readonly startMs: number
  readonly endMs: number
  readonly load: Readonly<StepLoad>
  /** Sequences that have a new token. */
  readonly emitted: readonly Sequence[]
  readonly finished: readonly Sequence[]
}

export class Engine {
  readonly config: EngineConfig
  readonly pool: BlockPool
  readonly waiting: WaitingQueue
  readonly running: Sequence[] = []
  readonly totals: Totals = noTotals()
  /** What the step in flight began with; null: nobody was sent back. SGLang only. */
  retraction: Retraction | null = null
  readonly #cost: CostModel
  readonly #batch: Sequence[] = []
  /** SGLang's; vLLM asks for no more than the next chunk. */
  readonly #admission: Admission | null
  readonly #load: StepLoad = {
    decodeTokens: 0,
    decodeContext: 0,
    prefillTokens: 0,
    prefillContext: 0,
  }
  #step: { startMs: number; endMs: number } | null = null

  constructor(config: EngineConfig, cost: CostModel) {
    this.config = config
    this.#cost = cost
    const ratio = config.newTokenRatio ?? NEW_TOKEN_RATIO
    this.#admission = config.style === 'sglang' ? new Admission(ratio, config.blockTokens) : null
    this.pool = new BlockPool(Math.floor(config.poolTokens / config.blockTokens))
    const sign = config.priority === 'low-first' ? 1 : config.priority === 'high-first' ? -1 : 0
    this.waiting = new WaitingQueue((sequence) => sign * sequence.priority)
  }

  /** Null when the bounded queue is full. */
  add(input: SequenceInput, nowMs: number): Sequence | null {
    if (this.full) return null
    // No answer outgrows the pool: such a sequence would preempt itself for ever.
    const room = this.pool.count * this.config.blockTokens - input.prompt.length
    if (room < (input.pooling === true ? 0 : 1))
      throw new Error('the prompt is larger than the whole pool')
    const maxTokens = Math.min(input.maxTokens, room)
    const sequence = new Sequence({ ...input, maxTokens }, this.config.blockTokens, nowMs)
    this.waiting.push(sequence)
    return sequence
  }

  /** vLLM's bound counts running requests too (`--max-num-queued-reqs`), SGLang's does not. */
  get full(): boolean {
    const { queuedMax, style } = this.config
    if (queuedMax === null) return false
    const held = this.waiting.size + (style === 'vllm' ? this.running.length : 0)
    return held >= queuedMax
  }

  abort(sequence: Sequence, nowMs: number, reason: FinishReason = 'abort'): void {
    if (sequence.state === 'finished') return
    if (sequence.state === 'waiting') this.waiting.forget()
    this.#end(sequence, reason, nowMs)
  }

  get idle(): boolean {
    return this.running.length === 0 && this.waiting.size === 0
  }

  /** Tokens of KV held by sequences. */
  get usedTokens(): number {
    return this.pool.used * this.config.blockTokens
  }

  /** SGLang's `new_token_ratio`; null for vLLM. */
  get newTokenRatio(): number | null {
    return this.#admission === null ? null : this.#admission.ratio
  }

  /** When the step in flight ends; null when there is none. */
  get endsMs(): number | null {
    return this.#step === null ? null : this.#step.endMs
  }

  /** Schedules the next step. Null: nothing to do. */
  begin(nowMs: number): number | null {
    if (this.#step !== null) throw new Error('a step is in flight')
    this.retraction = null
    this.#schedule(nowMs)
    if (this.#batch.length === 0) return null
    const endMs = nowMs + this.#cost.stepMs(this.#load)
    this.#step = { startMs: nowMs, endMs }
    return endMs
  }

  /** A round in which one preempted itself may leave nothing to do: then there is another. */
  #schedule(nowMs: number): void {
    for (;;) {
      this.#batch.length = 0
      this.#load.decodeTokens = 0
      this.#load.decodeContext = 0
      this.#load.prefillTokens = 0
      this.#load.prefillContext = 0
      const before = this.totals.preemptions
      if (this.config.style === 'vllm') this.#scheduleMixed(nowMs)
      else this.#scheduleSeparate(nowMs)
      // Each round without a batch has preempted somebody: there are at most as many as run.
      if (this.#batch.length > 0 || this.totals.preemptions === before) break
    }
    if (this.running.length === 0) this.#admission?.reset()
  }

  /** Ends the step in flight: KV is written, tokens appear, finished sequences leave. */
  finish(): StepResult {
    const step = this.#step
    if (step === null) throw new Error('no step is in flight')
    this.#step = null
    this.totals.steps += 1
    const emitted: Sequence[] = []
    const finished: Sequence[] = []
    for (const sequence of this.#batch) {
      const count = sequence.scheduled
      sequence.scheduled = 0
      if (sequence.state !== 'running') continue
      this.#computed(sequence, count)
      if (sequence.computed < sequence.tokens) continue
      if (sequence.produced === 0) {
        this.totals.promptTokens += sequence.promptTokens
        this.totals.cachedTokens += sequence.cached
      }
      if (sequence.pooling) sequence.pooled(step.endMs)
      else {
        sequence.advance(step.endMs)
        this.totals.generationTokens += 1
      }
      emitted.push(sequence)
      const reason = sequence.ending
      if (reason === null) continue
      this.#end(sequence, reason, step.endMs)
      finished.push(sequence)
    }
    return { ...step, load: this.#load, emitted, finished }
  }

  /** Running requests first, one token each or a prefill chunk; then newcomers fill the budget. */
  #scheduleMixed(nowMs: number): void {
    let budget = this.config.batchTokensMax ?? Number.POSITIVE_INFINITY
    let preempted = false
    for (let index = 0; index < this.running.length && budget > 0; index += 1) {
      const sequence = this.running[index]
      if (sequence === undefined) break
      const want = Math.min(sequence.tokens - sequence.computed, budget)
      while (!this.#grow(sequence, want)) {
        const victim = preemptionVictim(this.running, this.config.priority)
        preempted = true
        this.#preempt(victim)
        if (victim === sequence) break
      }
      if (sequence.state !== 'running') break
      this.#plan(sequence, want)
      budget -= want
    }
    if (!preempted) this.#admit(nowMs, budget)
  }

  /** A prefill batch if anything can be admitted or is half done, else one decode step for all. */
  #scheduleSeparate(nowMs: number): void {
    let budget = this.config.batchTokensMax ?? Number.POSITIVE_INFINITY
    for (const sequence of this.running) {
      if (!sequence.prefilling || budget <= 0) continue
      const want = Math.min(sequence.tokens - sequence.computed, budget)
      if (!this.#grow(sequence, want)) continue
      this.#plan(sequence, want)
      budget -= want
    }
    if (budget > 0) this.#admit(nowMs, budget)
    if (this.#batch.length === 0 && this.running.length > 0) this.#decode()
  }

  /** SGLang's decode step: when blocks are short, the least done go back to the queue's end. */
  #decode(): void {
    const decoding = this.running.filter((sequence) => !sequence.prefilling)
    let all = decoding.length > 0 ? decoding : [...this.running]
    const [before, free] = [this.totals.preemptions, this.pool.free]
    while (this.#missing(all) > this.pool.free) {
      const victim = retractionVictim(this.running)
      this.#retract(victim)
      all = all.filter((sequence) => sequence !== victim)
    }
    const requests = this.totals.preemptions - before
    const from = this.newTokenRatio ?? 0
    if (requests === 0) this.#admission?.decay()
    else {
      this.#admission?.retracted(all)
      const tokens = (this.pool.free - free) * this.config.blockTokens
      this.retraction = { requests, tokens, from, to: this.newTokenRatio ?? 0 }
    }
    for (const sequence of all) {
      const want = this.#want(sequence)
      if (this.#grow(sequence, want)) this.#plan(sequence, want)
    }
  }

  #want(sequence: Sequence): number {
    const whole = sequence.tokens - sequence.computed
    return Math.min(whole, this.config.batchTokensMax ?? whole)
  }

  /** Blocks that these need for their next step and do not hold. */
  #missing(all: readonly Sequence[]): number {
    let blocks = 0
    for (const sequence of all) {
      const tokens = sequence.computed + this.#want(sequence)
      blocks += Math.ceil(tokens / this.config.blockTokens) - sequence.blocks.length
    }
    return blocks
  }

  /** Waiting requests, in order, while slots, tokens and blocks last. */
  #admit(nowMs: number, budgetTokens: number): void {
    const admission = this.#admission
    if (admission?.shut === true && this.config.priority === 'off') return
    let budget = budgetTokens
    let promised: number | null = null
    while (budget > 0 && this.running.length < this.config.runningMax) {
      const sequence = this.waiting.peek()
      if (sequence === null) return
      promised ??= admission?.promised(this.running) ?? 0
      this.#claimPrefix(sequence)
      const whole = sequence.tokens - sequence.computed
      const want = Math.min(whole, budget)
      const free = this.pool.free * this.config.blockTokens - promised
      const alone = this.running.length === 0
      const room = alone || (admission?.hasRoom(sequence, free) ?? true)
      if (!room || !this.#grow(sequence, want)) {
        if (admission !== null) admission.shut = !alone
        this.#drop(sequence)
        return
      }
      this.waiting.shift()
      sequence.state = 'running'
      if (sequence.admittedMs < 0) {
        sequence.admittedMs = nowMs
        sequence.cached = sequence.computed
      }
      this.totals.prefixQueries += sequence.tokens
      this.totals.prefixHits += sequence.computed
      this.running.push(sequence)
      this.#plan(sequence, want)
      budget -= want
      promised += admission?.promise(sequence) ?? 0
    }
  }

  /** Finds as much of the known tokens in the cache as there is; one token is always computed. */
  #claimPrefix(sequence: Sequence): void {
    if (!this.config.prefixCache || sequence.blocks.length > 0) return
    const most = Math.floor((sequence.tokens - 1) / this.config.blockTokens)
    for (let index = 0; index < most; index += 1) {
      const block = this.pool.find(sequence.hashes[index] ?? 0)
      if (block < 0) break
      this.pool.claim(block)
      sequence.blocks.push(block)
    }
    sequence.computed = sequence.blocks.length * this.config.blockTokens
  }

  #plan(sequence: Sequence, count: number): void {
    sequence.scheduled = count
    this.#batch.push(sequence)
    if (count === 1 && !sequence.prefilling) {
      this.#load.decodeTokens += 1
      this.#load.decodeContext += sequence.tokens
    } else {
      this.#load.prefillTokens += count
      this.#load.prefillContext += count * (sequence.computed + count / 2)
    }
  }

  /** Makes room for `count` more tokens; false when blocks are short, and then nothing changed. */
  #grow(sequence: Sequence, count: number): boolean {
    const needed = Math.ceil((sequence.computed + count) / this.config.blockTokens)
    const more = needed - sequence.blocks.length
    if (more > this.pool.free) return false
    for (let index = 0; index < more; index += 1) sequence.blocks.push(this.pool.take())
    return true
  }

  #computed(sequence: Sequence, count: number): void {
    const { blockTokens, prefixCache } = this.config
    const before = Math.floor(sequence.computed / blockTokens)
    sequence.computed += count
    if (!prefixCache) return
    const after = Math.floor(sequence.computed / blockTokens)
    for (let index = before; index < after; index += 1) {
      const [block, hash] = [sequence.blocks[index], sequence.hashes[index]]
      if (block !== undefined && hash !== undefined) this.pool.name(block, hash)
    }
  }

  #preempt(sequence: Sequence): void {
    const planned = this.#batch.indexOf(sequence)
    if (planned >= 0) this.#unplan(planned, sequence)
    this.#putBack(sequence)
    this.waiting.unshift(sequence)
  }

  /** As `preempt`, but it waits its turn again. */
  #retract(sequence: Sequence): void {
    this.#putBack(sequence)
    this.waiting.push(sequence)
  }

  #putBack(sequence: Sequence): void {
    this.totals.preemptions += 1
    sequence.preemptions += 1
    this.#leave(sequence)
    this.#drop(sequence)
    sequence.state = 'waiting'
  }

  #unplan(index: number, sequence: Sequence): void {
    this.#batch.splice(index, 1)
    const count = sequence.scheduled
    if (count === 1 && !sequence.prefilling) {
      this.#load.decodeTokens -= 1
      this.#load.decodeContext -= sequence.tokens
    } else {
      this.#load.prefillTokens -= count
      this.#load.prefillContext -= count * (sequence.computed + count / 2)
    }
    sequence.scheduled = 0
  }

  /** Gives all blocks back, the last first, so that the tail is evicted before the shared head. */
  #drop(sequence: Sequence): void {
    for (let index = sequence.blocks.length - 1; index >= 0; index -= 1) {
      const block = sequence.blocks[index]
      if (block !== undefined) this.pool.release(block)
    }
    sequence.blocks.length = 0
    sequence.computed = 0
  }

  #leave(sequence: Sequence): void {
    const index = this.running.indexOf(sequence)
    if (index < 0) return
    this.running.splice(index, 1)
    if (this.#admission !== null) this.#admission.shut = false
  }

  #end(sequence: Sequence, reason: FinishReason, nowMs: number): void {
    this.#leave(sequence)
    this.#drop(sequence)
    sequence.state = 'finished'
    sequence.finish = reason
    sequence.endedMs = nowMs
  }
}
