/** Types of a plan; see planner.ts for the decision. */
import type { Fit } from './fit.ts'
import type { RankSpec } from './runtime.ts'

export type ReplicaId = string

export const replicaId = (deployment: string, replica: number): ReplicaId =>
  `${deployment}/${replica}`

export type PlannedReplica = {
  readonly id: ReplicaId
  readonly deployment: string
  readonly replica: number
  readonly ranks: readonly RankSpec[]
  readonly specHash: string
  /** `http://host:port` of rank 0. */
  readonly endpoint: string
  /** Why here. */
  readonly reason: string
  /** Other nodes and why each was not taken; at most 50, the rest counted in the last reason. */
  readonly rejected: readonly { readonly node: string; readonly reason: string }[]
}

export type PlannedDeployment = {
  readonly name: string
  readonly engine: string
  readonly fit: Fit
  readonly replicas: readonly PlannedReplica[]
  /** Replicas with no place, and why. */
  readonly unplaced: readonly { readonly replica: number; readonly reasons: readonly string[] }[]
  /** Why the whole deployment is refused, with what would make it fit; empty when accepted. */
  readonly refusals: readonly string[]
}

/** One change to one replica as a group. `replace`: drain, stop all ranks, start the new ones. */
export type Action =
  | { readonly kind: 'start'; readonly id: ReplicaId; readonly reason: string }
  | { readonly kind: 'replace'; readonly id: ReplicaId; readonly reason: string }
  | { readonly kind: 'stop'; readonly id: ReplicaId; readonly reason: string }

export type Plan = {
  readonly deployments: readonly PlannedDeployment[]
  readonly actions: readonly Action[]
  /** Replicas that already run as wanted. */
  readonly unchanged: readonly ReplicaId[]
}
