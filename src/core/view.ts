/**
 * What `GET /admin/v1/fleet` answers and the console draws. Ages, not just values: see design 6.
 */
import type { BreakerPhase } from './breaker.ts'
import type { Fit } from './fit.ts'
import type { NodeFacts } from './observed.ts'
import type { EngineSignal, Phase } from './runtime.ts'

export type Reading = { readonly value: number; readonly ageMs: number }

export type GpuView = {
  readonly index: number
  readonly uuid: string
  readonly name: string
  readonly utilizationRatio: number | null
  readonly memoryUsedBytes: number | null
  readonly memoryTotalBytes: number | null
  readonly powerWatts: number | null
  readonly temperatureCelsius: number | null
  readonly ageMs: number
}

export type NodeView = {
  readonly name: string
  readonly address: string
  readonly driver: string
  readonly rehearsal: boolean
  readonly reachable: boolean
  /** Why it is not reachable; empty when it is. */
  readonly reason: string
  readonly ageMs: number
  readonly facts: NodeFacts | null
  readonly profile: string | null
  readonly gpuCount: number
  /** GPU index to the replica that holds it. */
  readonly allocated: Readonly<Record<string, string>>
  readonly gpus: readonly GpuView[]
}

export type ReplicaState = 'pending' | 'starting' | 'ready' | 'draining' | 'stopped' | 'failed'

export type RankView = {
  readonly rank: number
  readonly node: string
  readonly gpus: readonly number[]
  readonly container: string
  readonly state: 'missing' | 'created' | 'running' | 'exited' | 'unknown'
  readonly exitCode: number | null
  readonly phase: Phase | null
  readonly phaseRatio: number | null
  readonly error: string | null
}

export type ReplicaView = {
  readonly id: string
  readonly state: ReplicaState
  readonly sinceMs: number
  readonly reason: string
  readonly endpoint: string
  readonly restarts: number
  readonly inFlight: number
  /** Whether the gateway asks it, leaves it alone for a while, or probes it. */
  readonly breaker: BreakerPhase
  /** Requests that the gateway gives it at a time, and how full it is by that: 1 is full. */
  readonly ceiling: number
  readonly saturation: number
  readonly ranks: readonly RankView[]
  readonly signals: Readonly<Partial<Record<EngineSignal, Reading>>>
  readonly promptTokensPerSecond: number | null
  readonly generationTokensPerSecond: number | null
}

export type DeploymentView = {
  readonly name: string
  readonly engine: string
  readonly weights: string
  readonly context: number
  readonly replicasWanted: number
  readonly removed: boolean
  readonly fit: Fit | null
  readonly refusals: readonly string[]
  /** Requests in the gateway's queue for it. */
  readonly waiting: number
  /** 1 is full, more while requests wait; null: no replica is ready. */
  readonly saturation: number | null
  readonly replicas: readonly ReplicaView[]
}

/** How the manifests on disk stand to what is in use. */
type ConfigView = {
  /** What is wrong with them, or waits for an apply; null: nothing. */
  readonly problem: string | null
  /** They cannot be used, and what was in use before still is. */
  readonly broken: boolean
  /** Times that a change was taken over, and that one could not be. */
  readonly reloads: number
  readonly failures: number
  readonly reloadedAtMs: number | null
}

/** How the gateway keeps its limits. */
export type LimitsView = {
  /** Times that a subject had to share an overflow bucket with others. */
  readonly overflows: number
  /** Null: this gateway is alone, and no Redis is given. */
  readonly redis: {
    /** Threads that ask Redis, and those that decide by this gateway's share of each limit. */
    readonly shared: number
    readonly local: number
    /** That were alive when Redis was last heard. */
    readonly gateways: number
    /** Requests decided by this gateway's share since its start. */
    readonly localDecisions: number
  } | null
}

export type FleetView = {
  readonly version: string
  readonly rehearsal: boolean
  /** How many times faster than real the rehearsed engines run. */
  readonly rehearsalSpeed: number
  readonly nowMs: number
  readonly generation: number
  readonly config: ConfigView
  readonly gateway: {
    readonly url: string
    readonly threads: number
    readonly inFlight: number
    readonly limits: LimitsView
  }
  readonly nodes: readonly NodeView[]
  readonly deployments: readonly DeploymentView[]
  readonly routes: readonly { readonly model: string; readonly to: string }[]
}
