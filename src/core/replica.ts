/** Replica states and the single table of transitions between them. */
import type { ReplicaState } from './view.ts'

const ARROWS: Readonly<Record<ReplicaState, readonly ReplicaState[]>> = {
  pending: ['starting', 'failed', 'stopped'],
  starting: ['ready', 'failed', 'draining', 'stopped', 'pending'],
  // Somebody removed every container behind our back: it starts again without a stop.
  ready: ['draining', 'failed', 'starting'],
  draining: ['stopped', 'starting', 'failed', 'pending'],
  stopped: ['pending', 'starting', 'failed'],
  failed: ['pending', 'starting', 'stopped', 'draining'],
}

/** Whether a replica may go from `from` to `to`; staying is always allowed. */
export const mayBecome = (from: ReplicaState, to: ReplicaState): boolean =>
  from === to || ARROWS[from].includes(to)

/**
 * Delay before restart number `restarts` (0 for the first), milliseconds: 1 s doubling to 60 s.
 * A group that dies at once must not hammer a registry or a fabric; one that died once should be
 * back before the operator has opened a terminal.
 */
export const backoffMs = (restarts: number): number =>
  Math.min(60_000, 1000 * 2 ** Math.min(Math.max(0, restarts), 6))

/** After this long in `ready` a failure counts as the first again. */
export const STABLE_AFTER_MS = 600_000
