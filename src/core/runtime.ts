/**
 * The boundary between deciding and doing: what one rank is launched with (`RankSpec`), and the
 * interface of a runtime, which is pure: it knows one engine's command line, log and metric names.
 */
import { createHash } from 'node:crypto'
import type { NodeSpec } from './inventory.ts'
import type { Architecture, Deployment } from './manifest.ts'

/** `host` is an absolute path, or the name of a Docker volume. */
export type Mount = { readonly host: string; readonly inside: string; readonly readOnly: boolean }

/** Everything a driver needs to run one rank. A value: equal specs mean an equal container. */
export type RankSpec = {
  /** `penstock-<deployment>-<replica>-<rank>`, unique in the fleet. */
  readonly name: string
  readonly node: string
  readonly image: string
  /** The whole command line, program first; the image's entrypoint is never relied on. */
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  /** GPU indices on the node; empty on a cpu node. */
  readonly gpus: readonly number[]
  readonly mounts: readonly Mount[]
  readonly ipc: 'host' | 'private'
  readonly shmBytes: number
  readonly memlock: 'unlimited' | 'default'
  readonly privileged: boolean
  readonly capabilities: readonly string[]
  readonly devices: readonly string[]
  /** From SIGTERM to SIGKILL, milliseconds. */
  readonly stopGraceMs: number
  readonly labels: Labels
  /** Set when the flight simulator takes the engine's place on this node. */
  readonly rehearsal: Rehearsal | null
}

/**
 * What the simulator needs to know beyond the command line; passed as PENSTOCK_REHEARSAL (JSON).
 */
export type Rehearsal = {
  readonly node: string
  readonly gpus: readonly number[]
  readonly gpuName: string
  readonly memoryBytes: number
  readonly bandwidthBytesPerSecond: number
  readonly bf16Flops: number
  readonly fp8Flops: number
  readonly interconnectBytesPerSecond: number
  readonly powerLimitWatts: number
  readonly architecture: Architecture
  /** Clock factor: 1 is real time; it divides start-up and token times. */
  readonly speed: number
  /** The engine's version to play, such as `0.11`; absent: the newest the simulator knows. */
  readonly asVersion?: string
  /** Path of a file that says what to answer (runtimes/simulator/text/script.ts). */
  readonly script?: string
}

/** Label keys on every container; what runs is learned from them (and from nothing else). */
export const LABEL = {
  managed: 'dev.penstock.managed',
  deployment: 'dev.penstock.deployment',
  replica: 'dev.penstock.replica',
  rank: 'dev.penstock.rank',
  size: 'dev.penstock.size',
  specHash: 'dev.penstock.spec-hash',
  engine: 'dev.penstock.engine',
  node: 'dev.penstock.node',
  gpus: 'dev.penstock.gpus',
  port: 'dev.penstock.port',
  rehearsal: 'dev.penstock.rehearsal',
} as const

/** The labels, read. `port` is the engine's HTTP port on the node of rank 0. */
export type Labels = {
  readonly deployment: string
  readonly replica: number
  readonly rank: number
  readonly size: number
  readonly specHash: string
  readonly engine: string
  readonly node: string
  readonly gpus: readonly number[]
  readonly port: number
  readonly rehearsal: boolean
}

export const labelsToRecord = (labels: Labels): Record<string, string> => ({
  [LABEL.managed]: 'true',
  [LABEL.deployment]: labels.deployment,
  [LABEL.replica]: String(labels.replica),
  [LABEL.rank]: String(labels.rank),
  [LABEL.size]: String(labels.size),
  [LABEL.specHash]: labels.specHash,
  [LABEL.engine]: labels.engine,
  [LABEL.node]: labels.node,
  [LABEL.gpus]: labels.gpus.join(','),
  [LABEL.port]: String(labels.port),
  [LABEL.rehearsal]: String(labels.rehearsal),
})

const count = (text: string | undefined): number | null =>
  text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : null

/** Null when the container is not ours or its labels are damaged: then it is never touched. */
export const labelsFromRecord = (record: Readonly<Record<string, string>>): Labels | null => {
  const [replica, rank] = [count(record[LABEL.replica]), count(record[LABEL.rank])]
  const [size, port] = [count(record[LABEL.size]), count(record[LABEL.port])]
  const [deployment, specHash] = [record[LABEL.deployment], record[LABEL.specHash]]
  const [engine, node] = [record[LABEL.engine], record[LABEL.node]]
  if (record[LABEL.managed] !== 'true' || !deployment || !specHash || !engine || !node) return null
  if (replica === null || rank === null || size === null || port === null) return null
  const gpus = (record[LABEL.gpus] ?? '')
    .split(',')
    .filter((part) => part !== '')
    .map(Number)
  if (gpus.some((gpu) => !Number.isInteger(gpu))) return null
  const rehearsal = record[LABEL.rehearsal] === 'true'
  return { deployment, replica, rank, size, specHash, engine, node, gpus, port, rehearsal }
}

/** Which signals we read from every engine; units are in the name, ratios are 0..1. */
export type EngineSignal =
  | 'requestsRunning'
  | 'requestsWaiting'
  | 'kvCacheUsageRatio'
  | 'kvCapacityTokens'
  | 'promptTokensTotal'
  | 'generationTokensTotal'
  | 'preemptionsTotal'
  | 'prefixCacheHitTokensTotal'
  | 'prefixCacheQueryTokensTotal'
  | 'stepsTotal'

/** How a signal is read: from a sample's value, or from a label of an info metric. */
export type MetricAlias = {
  readonly metric: string
  /** `label` reads the number in that label; `product` multiplies the numbers of several labels. */
  readonly label?: string
  readonly product?: readonly string[]
  /** Several series (data-parallel engines, ranks) become one number. */
  readonly combine: 'sum' | 'max'
  /** Only series whose labels match. */
  readonly where?: Readonly<Record<string, string>>
}

/** Start-up as the operator sees it, in this order. */
export type Phase = 'pull' | 'start' | 'rendezvous' | 'weights' | 'profile' | 'graphs' | 'ready'
export type PhaseReading = { readonly phase: Phase; readonly ratio?: number }

/** What a runtime is asked: one rank of one replica, placed. */
export type LaunchAsk = {
  readonly deployment: Deployment
  readonly architecture: Architecture
  readonly replica: number
  readonly rank: number
  /** The nodes of the replica in rank order, with the GPUs taken on each. */
  readonly ranks: readonly { readonly node: NodeSpec; readonly gpus: readonly number[] }[]
  readonly httpPort: number
  readonly rendezvousPort: number
  /** What the fit reckoned with, so that the engine gets the plan's KV pool; null on a cpu node. */
  readonly memory: {
    readonly gpuBytes: number
    readonly fraction: number
    readonly overheadBytes: number
  } | null
}

/** A runtime's answer; core/launch.ts turns it into a RankSpec. */
export type Launch = {
  readonly image: string
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly mounts: readonly Mount[]
  readonly stopGraceMs: number
}

/** How one engine is launched and read. Pure: no I/O, no clock, no randomness. */
export type Runtime = {
  readonly name: string
  launch(ask: LaunchAsk): Launch
  /** What in `extraArguments` contradicts what Penstock sets; one sentence each. */
  contradictions(deployment: Deployment): readonly string[]
  /** HTTP path on rank 0 that answers 200 once the engine serves; its probe's time-out. */
  readonly ready: { readonly path: string; readonly probeTimeoutMs: number }
  /** Metric names, newest first; the first alias that is present counts. */
  readonly metrics: Readonly<Record<EngineSignal, readonly MetricAlias[]>>
  /** A log line to a start-up phase; null when the line says nothing about it. */
  phase(line: string): PhaseReading | null
  /** Share of VRAM the engine takes by default, and what it needs beside weights and KV, bytes. */
  readonly memory: { readonly fraction: number; readonly overheadBytes: number }
}

export type Runtimes = Readonly<Record<Deployment['engine'], Runtime>>

/** Hash of a replica's ranks without the hash itself: equal hash, equal containers. */
export const specHash = (ranks: readonly Omit<RankSpec, 'labels'>[]): string =>
  createHash('sha256')
    .update(JSON.stringify(sorted(ranks)))
    .digest('hex')
    .slice(0, 16)

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  )
}
