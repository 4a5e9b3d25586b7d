/** A refusal because a model is full: how many wait, and when to come back. */
import type { SpillCause } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'

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
