/** What one thread knows of a replica between two of its readings. */
import type { Due } from '../core/ceiling.ts'
import type { Target } from '../core/snapshot.ts'

export type Watched<Lease> = {
  readonly leases: Lease[]
  /** When known ones ended of which the next reading may still tell. */
  gone: number[]
  target: Target
  due: Due
  readAtMs: number
  seenPreemptions: number | null
  /** When they were read; our clock. */
  seenAtMs: number
  foreign: number
  /** The last step of any thread that this one knows of. */
  steppedAtMs: number
  growthAt: number
}

export const watchedOf = <Lease>(target: Target): Watched<Lease> => ({
  leases: [],
  gone: [],
  target,
  due: { firstTokenMs: null, perTokenMs: null },
  readAtMs: -1,
  seenPreemptions: null,
  seenAtMs: 0,
  foreign: 0,
  steppedAtMs: 0,
  growthAt: 0,
})
