/**
 * What drivers saw. Unknown is not empty: an unreachable node keeps its last containers, marked.
 */
import type { Labels } from './runtime.ts'

export type ContainerState = 'created' | 'running' | 'exited'

export type Container = {
  readonly name: string
  readonly labels: Labels
  readonly state: ContainerState
  /** Null while it runs, or when nobody could say. */
  readonly exitCode: number | null
  /** Epoch milliseconds; 0 when never started. */
  readonly startedAtMs: number
  /** What the substrate says about a failure (OOM killed, OCI error), one line. */
  readonly error: string | null
}

export type NodeFacts = {
  /** For instance `Docker Engine 28.2.2`, `process`. */
  readonly engine: string
  readonly hostname: string
  readonly cpus: number
  readonly memoryBytes: number
}

export type NodeObservation =
  | {
      readonly node: string
      readonly reachable: true
      readonly containers: readonly Container[]
      readonly readAtMs: number
    }
  | {
      readonly node: string
      readonly reachable: false
      readonly reason: string
      /** The last containers seen there, still assumed to hold their GPUs. */
      readonly containers: readonly Container[]
      readonly readAtMs: number
    }
