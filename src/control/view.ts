/** The fleet as the admin API and the console show it: every value with its age. */

import type { Gateway } from '../core/gateway-manifest.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Deployment } from '../core/manifest.ts'
import type { Container } from '../core/observed.ts'
import type { PlannedDeployment } from '../core/plan.ts'
import type { EngineSignal } from '../core/runtime.ts'
import type {
  DeploymentView,
  FleetView,
  NodeView,
  RankView,
  Reading,
  ReplicaView,
} from '../core/view.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import type { Pressure } from './pressure.ts'

export type ViewAsk = {
  readonly fleet: Fleet
  readonly nodes: readonly NodeSpec[]
  readonly deployments: readonly Deployment[]
  readonly gatewayManifest: Gateway
  readonly gateway: FleetView['gateway']
  readonly inFlight: (slot: number) => number
  readonly breaker: (slot: number) => ReplicaView['breaker']
  readonly pressure: Pressure
  readonly version: string
  readonly rehearsal: boolean
  readonly rehearsalSpeed: number
  readonly nowMs: number
}

export const fleetView = (ask: ViewAsk): FleetView => ({
  version: ask.version,
  rehearsal: ask.rehearsal,
  rehearsalSpeed: ask.rehearsalSpeed,
  nowMs: ask.nowMs,
  generation: ask.fleet.generation,
  config: { ...ask.fleet.config },
  gateway: ask.gateway,
  nodes: ask.nodes.map((node) => nodeView(ask, node)),
  deployments: deploymentViews(ask),
  routes: ask.gatewayManifest.routes.map(({ model, to }) => ({ model, to })),
})

const nodeView = ({ fleet, nowMs }: ViewAsk, node: NodeSpec): NodeView => {
  const seen = fleet.observations.get(node.name)
  const held = (seen?.containers ?? []).flatMap(({ labels }) =>
    labels.gpus.map((gpu) => [String(gpu), `${labels.deployment}/${labels.replica}`] as const),
  )
  const gpus = [...(fleet.gpus.get(node.name)?.values() ?? [])]
  return {
    name: node.name,
    address: node.address,
    driver: node.driver,
    rehearsal: node.rehearse,
    reachable: seen?.reachable ?? false,
    reason: seen === undefined ? 'not observed yet' : seen.reachable ? '' : seen.reason,
    ageMs: seen === undefined ? 0 : nowMs - seen.readAtMs,
    facts: fleet.facts.get(node.name) ?? null,
    profile: node.gpus?.profile ?? null,
    gpuCount: node.gpus?.count ?? 0,
    allocated: Object.fromEntries(held),
    gpus: gpus
      .sort((a, b) => a.index - b.index)
      .map(({ readAtMs, ...gpu }) => ({ ...gpu, ageMs: nowMs - readAtMs })),
  }
}

const deploymentViews = (ask: ViewAsk): readonly DeploymentView[] => {
  const byDeployment = Map.groupBy(ask.fleet.replicas.values(), ({ deployment }) => deployment)
  const wanted = ask.deployments.map((deployment) => {
    const planned = ask.fleet.plan.deployments.find(({ name }) => name === deployment.name)
    return wantedView(ask, deployment, planned, byDeployment.get(deployment.name) ?? [])
  })
  const names = new Set(ask.deployments.map(({ name }) => name))
  const removed = [...byDeployment]
    .filter(([name]) => !names.has(name))
    .map(([name, records]) => removedView(ask, name, records))
  return [...wanted, ...removed]
}

const wantedView = (
  ask: ViewAsk,
  deployment: Deployment,
  planned: PlannedDeployment | undefined,
  records: readonly ReplicaRecord[],
): DeploymentView => ({
  name: deployment.name,
  engine: deployment.engine,
  weights:
    deployment.weights.path ??
    deployment.weights.huggingface ??
    deployment.weights.modelscope ??
    '',
  context: deployment.context,
  replicasWanted: deployment.replicas,
  removed: false,
  fit: planned?.fit ?? null,
  refusals: [
    ...(planned?.refusals ?? []),
    ...(planned?.unplaced ?? []).map(
      ({ replica, reasons }) => `replica ${replica} has no place: ${reasons.join('; ')}`,
    ),
  ],
  waiting: ask.pressure.waiting(deployment.name),
  saturation: ask.pressure.model(deployment.name, ask.nowMs),
  replicas: sortedViews(ask, records),
})

const removedView = (
  ask: ViewAsk,
  name: string,
  records: readonly ReplicaRecord[],
): DeploymentView => ({
  name,
  engine: ask.fleet.containersOf(records[0]?.id ?? '')[0]?.labels.engine ?? '',
  weights: '',
  context: 0,
  replicasWanted: 0,
  removed: true,
  fit: null,
  refusals: [],
  waiting: ask.pressure.waiting(name),
  saturation: ask.pressure.model(name, ask.nowMs),
  replicas: sortedViews(ask, records),
})

const sortedViews = (ask: ViewAsk, records: readonly ReplicaRecord[]): readonly ReplicaView[] =>
  [...records].sort((a, b) => a.replica - b.replica).map((record) => replicaView(ask, record))

const replicaView = (ask: ViewAsk, record: ReplicaRecord): ReplicaView => {
  const { fleet, nowMs } = ask
  const signals: Partial<Record<EngineSignal, Reading>> = {}
  for (const [name, { value, readAtMs }] of fleet.signals.get(record.id) ?? []) {
    signals[name] = { value, ageMs: nowMs - readAtMs }
  }
  return {
    id: record.id,
    state: record.state,
    sinceMs: record.sinceMs,
    reason: record.reason,
    endpoint: record.endpoint,
    restarts: record.restarts,
    inFlight: ask.inFlight(record.slot),
    breaker: ask.breaker(record.slot),
    ceiling: ask.pressure.ceiling(record),
    saturation: ask.pressure.replica(record, nowMs),
    ranks: rankViews(ask, record),
    signals,
    promptTokensPerSecond: fleet.rates.get(record.id)?.promptTokensPerSecond ?? null,
    generationTokensPerSecond: fleet.rates.get(record.id)?.generationTokensPerSecond ?? null,
  }
}

const rankViews = ({ fleet }: ViewAsk, record: ReplicaRecord): readonly RankView[] => {
  const containers = fleet.containersOf(record.id)
  const expected =
    record.want?.ranks.map(({ name, node, gpus, labels }) => ({ name, node, gpus, labels })) ??
    containers.map(({ name, labels }) => ({ name, node: labels.node, gpus: labels.gpus, labels }))
  return expected.map(({ name, node, gpus, labels }) => {
    const container = containers.find((one) => one.name === name)
    const phase = record.phases.get(labels.rank)
    return {
      rank: labels.rank,
      node,
      gpus,
      container: name,
      state: rankState(fleet, node, container),
      exitCode: container?.exitCode ?? null,
      phase: phase?.phase ?? null,
      phaseRatio: phase?.ratio ?? null,
      error: container?.error ?? null,
    }
  })
}

const rankState = (
  fleet: Fleet,
  node: string,
  container: Container | undefined,
): RankView['state'] => {
  if (fleet.observations.get(node)?.reachable !== true) return 'unknown'
  return container?.state ?? 'missing'
}
