/** What both metric sets are told, and give. */
import type { StepResult } from '../physics/engine.ts'
import type { Sequence } from '../physics/sequence.ts'

export type HttpOutcome = {
  readonly route: string
  readonly method: string
  readonly status: number
  readonly seconds: number
}

export type EngineMetrics = {
  /** After each step. */
  step(result: StepResult): void
  /** A sequence ended, for whatever reason. */
  ended(sequence: Sequence): void
  /** The last time the tokens of a step were dispatched nothing was left to do. */
  idle(): void
  /** A request was refused because the bounded queue was full. */
  rejected(): void
  http(outcome: HttpOutcome): void
  text(): string
  /** SGLang: tokens per second over the last report's decode steps. */
  throughput?(): number
}
