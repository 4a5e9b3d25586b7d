/** One view of the fleet to gauges. Unknown and stale have no series: a gap, never a zero. */
import { STALE_MS } from '../core/signals.ts'
import type {
  DeploymentView,
  FleetView,
  LimitsView,
  NodeView,
  RankView,
  Reading,
  ReplicaState,
  ReplicaView,
} from '../core/view.ts'
import type { FleetMetrics } from './declarations.ts'

const BREAKER_PHASES: readonly ReplicaView['breaker'][] = ['closed', 'open', 'half-open']
const REPLICA_STATES: readonly ReplicaState[] = [
  'pending',
  'starting',
  'ready',
  'draining',
  'stopped',
  'failed',
]
const RANK_STATES: readonly RankView['state'][] = [
  'missing',
  'created',
  'running',
  'exited',
  'unknown',
]

/** `failures`: failed scrapes by replica; those of replicas that are gone are dropped from it. */
export const exportFleet = (
  metrics: FleetMetrics,
  view: FleetView,
  failures: Map<string, number>,
): void => {
  for (const metric of Object.values(metrics)) metric.reset()
  metrics.rehearsal.set(view.rehearsal ? 1 : 0)
  metrics.generation.set(view.generation)
  const { reloads, failures: reloadFailures, broken, reloadedAtMs } = view.config
  metrics.reloads.inc(reloads)
  metrics.reloadFailures.inc(reloadFailures)
  metrics.reloadOk.set(broken ? 0 : 1)
  // What has no value is left out: a zero would be 1970, and an alarm where nothing is amiss.
  if (reloadedAtMs === null) metrics.reloadedAt.remove()
  else metrics.reloadedAt.set(reloadedAtMs / 1000)
  metrics.inFlight.set(view.gateway.inFlight)
  metrics.threads.set(view.gateway.threads)
  exportLimits(metrics, view.gateway.limits)
  for (const node of view.nodes) exportNode(metrics, node)
  const present = new Set<string>()
  for (const deployment of view.deployments) {
    metrics.queueDepth.set({ deployment: deployment.name }, deployment.waiting)
    if (deployment.saturation !== null) {
      metrics.saturation.set({ model: deployment.name }, deployment.saturation)
    }
    metrics.replicasWanted.set({ deployment: deployment.name }, deployment.replicasWanted)
    for (const replica of deployment.replicas) {
      present.add(replica.id)
      exportReplica(metrics, deployment, replica)
      const labels = { deployment: deployment.name, replica: replica.id }
      metrics.scrapeFailures.inc(labels, failures.get(replica.id) ?? 0)
    }
  }
  for (const replica of failures.keys()) if (!present.has(replica)) failures.delete(replica)
}

const exportLimits = (metrics: FleetMetrics, { overflows, redis }: LimitsView): void => {
  metrics.limitOverflows.inc(overflows)
  if (redis === null) {
    metrics.redisUp.remove()
    metrics.limitGateways.remove()
    return
  }
  metrics.redisUp.set(redis.local === 0 ? 1 : 0)
  metrics.limitsShared.set({ state: 'redis' }, redis.shared)
  metrics.limitsShared.set({ state: 'local' }, redis.local)
  metrics.limitGateways.set(redis.gateways)
  metrics.localDecisions.inc(redis.localDecisions)
}

const exportNode = (metrics: FleetMetrics, node: NodeView): void => {
  metrics.nodeReachable.set({ node: node.name }, node.reachable ? 1 : 0)
  metrics.nodeAge.set({ node: node.name }, node.ageMs / 1000)
  for (const gpu of node.gpus) {
    const labels = { node: node.name, gpu: String(gpu.index), uuid: gpu.uuid }
    metrics.gpuAge.set(labels, gpu.ageMs / 1000)
    if (gpu.ageMs > STALE_MS) continue
    if (gpu.utilizationRatio !== null) metrics.gpuUtilization.set(labels, gpu.utilizationRatio)
    if (gpu.memoryUsedBytes !== null) metrics.gpuMemoryUsed.set(labels, gpu.memoryUsedBytes)
    if (gpu.memoryTotalBytes !== null) metrics.gpuMemorySize.set(labels, gpu.memoryTotalBytes)
    if (gpu.powerWatts !== null) metrics.gpuPower.set(labels, gpu.powerWatts)
    if (gpu.temperatureCelsius !== null) {
      metrics.gpuTemperature.set(labels, gpu.temperatureCelsius)
    }
  }
}

const exportReplica = (
  metrics: FleetMetrics,
  deployment: DeploymentView,
  replica: ReplicaView,
): void => {
  const labels = { deployment: deployment.name, replica: replica.id }
  for (const state of REPLICA_STATES) {
    metrics.state.set({ ...labels, state }, replica.state === state ? 1 : 0)
  }
  for (const { rank, node, state: now } of replica.ranks) {
    for (const state of RANK_STATES) {
      const where = { ...labels, rank: String(rank), node, state }
      metrics.rankState.set(where, now === state ? 1 : 0)
    }
  }
  metrics.restarts.inc(labels, replica.restarts)
  metrics.admissionCeiling.set(labels, replica.ceiling)
  metrics.breaker.set(labels, BREAKER_PHASES.indexOf(replica.breaker))
  metrics.replicaInFlight.set(labels, replica.inFlight)
  for (const [signal, reading] of Object.entries(replica.signals)) {
    metrics.signalAge.set({ ...labels, signal }, reading.ageMs / 1000)
  }
  const { requestsRunning, requestsWaiting, kvCacheUsageRatio, kvCapacityTokens } = replica.signals
  for (const [gauge, value] of [
    [metrics.running, fresh(requestsRunning)],
    [metrics.waiting, fresh(requestsWaiting)],
    [metrics.kvUsage, fresh(kvCacheUsageRatio)],
    [metrics.kvCapacity, fresh(kvCapacityTokens)],
    [metrics.promptRate, replica.promptTokensPerSecond],
    [metrics.generationRate, replica.generationTokensPerSecond],
  ] as const) {
    if (value !== null) gauge.set(labels, value)
  }
}

/** The value while it may be believed. */
export const fresh = (reading: Reading | undefined): number | null =>
  reading === undefined || reading.ageMs > STALE_MS ? null : reading.value
