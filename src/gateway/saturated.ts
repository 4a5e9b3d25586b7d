/** A refusal because a model is full: how many wait, and when to come back. */
import type { SpillCause } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'

/** When it is not known how fast the queue moves, and the bounds of what is told. */
const COME_BACK_MS = 5_000
const COME_BACK_MS_MIN = 1_000
const COME_BACK_MS_MAX = 60_000
/** Of the wait that is told, at random more: not all are to come back at once. */
const COME_BACK_SPREAD = 0.25

/** What a caller is told of a predicted wait; null: not known. */
export const comeBackMs = (predictedMs: number | null): number => {
  const spread = (predictedMs ?? COME_BACK_MS) * (1 + COME_BACK_SPREAD * Math.random())
  return Math.round(Math.min(COME_BACK_MS_MAX, Math.max(COME_BACK_MS_MIN, spread)))
}

export class Saturated extends PenstockError {
  readonly waitMs: number
  /** Whether there is no room at all, or none in time for a first token. */
  readonly spill: Extract<SpillCause, 'saturation' | 'latency'>

  constructor(message: string, waitMs: number, spill: Saturated['spill'] = 'saturation') {
    super('model_saturated', message, { param: 'model' })
    this.waitMs = waitMs
    this.spill = spill
  }
}
