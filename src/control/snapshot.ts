/** What the gateway threads need to know, from the fleet: immutable and whole. */

import type { Gateway, Route } from '../core/gateway-manifest.ts'
import { limitsOf } from '../core/limits.ts'
import type { Deployment } from '../core/manifest.ts'
import { patternOf } from '../core/pattern.ts'
import type { EngineSignal } from '../core/runtime.ts'
import { STALE_MS } from '../core/signals.ts'
import type {
  Fallback,
  GatewayConsumer,
  GatewayKey,
  GatewayRoute,
  GatewaySnapshot,
  RouteMatch,
  RoutePolicy,
  StandIn,
  Target,
} from '../core/snapshot.ts'
import { STAND_IN_MAX_RATIO } from '../core/spillover.ts'
import { taskOf } from '../core/task.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import type { Backends } from './backends.ts'
import type { Spillovers } from './spillover.ts'

export type SnapshotAsk = {
  readonly fleet: Fleet
  readonly spillovers: Spillovers
  readonly backends: Backends
  readonly deployments: readonly Deployment[]
  readonly gateway: Gateway
  readonly keys: readonly GatewayKey[]
  readonly version: number
  readonly rehearsal: boolean
  readonly nowMs: number
}

export const gatewaySnapshot = (ask: SnapshotAsk): GatewaySnapshot => {
  const { gateway, fleet } = ask
  ask.spillovers.keep(new Set(ask.deployments.map(({ name }) => name)))
  ask.backends.keep(gateway.backends)
  fleet.keepBackends(new Set(Object.keys(gateway.backends)))
  return {
    version: ask.version,
    routes: gateway.routes.flatMap((route) => {
      const own = gatewayRoute(ask, route)
      if (own === null) return []
      return [{ ...own, ...standIn(ask, route), ...split(ask, route), ...fallback(ask, route) }]
    }),
    keys: ask.keys,
    consumers: consumersOf(gateway),
    maxBodyBytes: gateway.maxBody,
    keepAliveMs: gateway.keepAlive,
    rehearsal: ask.rehearsal,
  }
}

/** Without what may answer in its place; null when what it leads to is gone. */
const gatewayRoute = (ask: SnapshotAsk, route: Route): GatewayRoute | null => {
  const answers = deploymentOf(ask, route) ?? backendOf(ask, route)
  if (answers === null) return null
  return {
    model: route.model,
    ...answers,
    firstTokenTimeoutMs: route.firstTokenTimeout,
    stallTimeoutMs: route.stallTimeout,
    limits: limitsOf(route),
    match: matchOf(route),
    policy: policyOf(route, answers.models === undefined),
  }
}

type Answers = Pick<
  GatewayRoute,
  'deployment' | 'engine' | 'task' | 'servedModel' | 'models' | 'context' | 'targets' | 'why'
>

const deploymentOf = (ask: SnapshotAsk, { to }: Route): Answers | null => {
  const deployment = ask.deployments.find(({ name }) => name === to)
  if (deployment === undefined) return null
  const records = [...ask.fleet.replicas.values()].filter((r) => r.deployment === to)
  const task = taskOf(deployment.engine, deployment.extraArguments)
  return {
    deployment: deployment.name,
    engine: deployment.engine,
    ...(task === undefined ? {} : { task }),
    servedModel: deployment.name,
    context: deployment.context,
    targets: records.flatMap((record) => target(ask, record)),
    why: why(deployment, records),
  }
}

const backendOf = (ask: SnapshotAsk, { to, model }: Route): Answers | null => {
  const { backends } = ask.gateway
  const backend = Object.hasOwn(backends, to) ? backends[to] : undefined
  if (backend === undefined) return null
  return {
    deployment: to,
    engine: 'external',
    // core/routing.ts puts in the name for what was asked.
    servedModel: model,
    models: backend.models,
    context: backend.context,
    ...ask.backends.of(to, backend, ask.nowMs),
  }
}

const matchOf = ({ model, aliases, when }: Route): RouteMatch => ({
  ...patternOf(model),
  aliases,
  when: when ?? null,
})

/** What others run has a queue of its own, and no figures that a ceiling could follow. */
const policyOf = (route: Route, ours: boolean): RoutePolicy => {
  const { balance, slowStart, retry, continueStreams } = route
  const queue = ours ? route.queue : { ...route.queue, ceiling: 'none' as const }
  return {
    balance,
    slowStart,
    retry,
    queue,
    continueStreams,
    firstTokenTargetMs: route.firstTokenTarget ?? null,
    perTokenTargetMs: route.perTokenTarget ?? null,
    parameters: route.parameters ?? null,
  }
}

const consumersOf = ({ consumers }: Gateway): readonly GatewayConsumer[] =>
  Object.entries(consumers).map(([name, { group, parameters, ...rest }]) => ({
    name,
    ...rest,
    group: group ?? null,
    parameters: parameters ?? null,
  }))

/** Who answers in a route's place has limits of its own, and a pace that it can keep. */
const INSTEAD = { limits: [], perTokenTarget: undefined }

/** Who answers in a route's place has the settings of its own route, else those of that one. */
const inPlaceOf = (ask: SnapshotAsk, route: Route, to: string): GatewayRoute | null => {
  const own = ask.gateway.routes.find((other) => other.to === to)
  return gatewayRoute(ask, own ?? { ...route, ...INSTEAD, model: to, to })
}

const standIn = (ask: SnapshotAsk, route: Route): { standIn?: StandIn } => {
  const { spillover } = route
  if (spillover === undefined || spillover.to === route.to) return {}
  const other = inPlaceOf(ask, route, spillover.to)
  if (other === null) return {}
  const { state } = ask.spillovers.of(route.to, ask.nowMs)
  const { ratio } = ask.spillovers.of(spillover.to, ask.nowMs)
  const { fraction, reason } = state
  const saturated = ratio !== null && ratio >= STAND_IN_MAX_RATIO
  return { standIn: { on: spillover.on, fraction, reason, saturated, route: other } }
}

/** The same route, with its limits, on another deployment; what may answer in its place as well. */
const split = (ask: SnapshotAsk, route: Route): Pick<GatewayRoute, 'split'> => {
  const shares = route.split.flatMap(({ to, percent }) => {
    const there = { ...route, to }
    const other = gatewayRoute(ask, there)
    if (other === null || percent === 0) return []
    return [{ percent, route: { ...other, ...standIn(ask, there), ...fallback(ask, there) } }]
  })
  return shares.length === 0 ? {} : { split: shares }
}

const fallback = (ask: SnapshotAsk, route: Route): { fallback?: Fallback } => {
  if (route.fallback === undefined) return {}
  const { on, to } = route.fallback
  const others = to.filter((name) => name !== route.to)
  const routes = others.flatMap((name) => inPlaceOf(ask, route, name) ?? [])
  return routes.length === 0 ? {} : { fallback: { on, routes } }
}

const target = (
  { fleet, deployments, nowMs }: SnapshotAsk,
  record: ReplicaRecord,
): readonly Target[] => {
  if (record.state !== 'ready' && record.state !== 'draining') return []
  const signal = (name: EngineSignal): number | null => {
    const reading = fleet.signals.get(record.id)?.get(name)
    return reading === undefined || nowMs - reading.readAtMs > STALE_MS ? null : reading.value
  }
  if (record.endpoint === '') return []
  const read = fleet.signals.get(record.id)?.get('requestsRunning')?.readAtMs
  return [
    {
      id: record.id,
      url: record.endpoint,
      slot: record.slot,
      state: record.state,
      requestsRunning: signal('requestsRunning'),
      requestsWaiting: signal('requestsWaiting'),
      kvCacheUsageRatio: signal('kvCacheUsageRatio'),
      kvCapacityTokens: signal('kvCapacityTokens'),
      maxRunning: maxRunningOf(deployments, record.deployment),
      preemptions: fleet.preemptions.get(record.id) ?? null,
      generationTokensTotal: signal('generationTokensTotal'),
      ...(read === undefined ? {} : { readAtMs: read }),
      ...(record.state === 'ready' ? { readySinceMs: record.sinceMs } : {}),
    },
  ]
}

const maxRunningOf = (deployments: readonly Deployment[], wanted: string): number | null =>
  deployments.find(({ name }) => name === wanted)?.maxRunning ?? null

/** For a caller who gets a 503: what is going on, as far as it is his business. */
const why = (deployment: Deployment, records: readonly ReplicaRecord[]): string => {
  if (deployment.replicas === 0) return `${deployment.name} is scaled to 0 replicas`
  const [record] = records
  if (record === undefined) return `${deployment.name} has no replica yet`
  return records.map(stateWords).join('; ')
}

const stateWords = (record: ReplicaRecord): string => {
  if (record.state !== 'starting') return `${record.id} is ${record.state}`
  const phases = [...record.phases].map(([rank, { phase, ratio }]) =>
    ratio === undefined ? `rank ${rank}: ${phase}` : `rank ${rank}: ${phase} ${percent(ratio)}`,
  )
  return phases.length === 0
    ? `${record.id} is starting`
    : `${record.id} is starting (${phases.join(', ')})`
}

const percent = (ratio: number): string => `${Math.round(ratio * 100)} %`
