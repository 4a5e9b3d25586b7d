/** What the gateway threads need to know, from the fleet: immutable and whole. */

import type { Gateway } from '../core/gateway-manifest.ts'
import { limitsOf } from '../core/limits.ts'
import type { Deployment } from '../core/manifest.ts'
import type { EngineSignal } from '../core/runtime.ts'
import { STALE_MS } from '../core/signals.ts'
import type {
  GatewayKey,
  GatewayRoute,
  GatewaySnapshot,
  StandIn,
  Target,
} from '../core/snapshot.ts'
import { STAND_IN_MAX_RATIO } from '../core/spillover.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import type { Spillovers } from './spillover.ts'

export type SnapshotAsk = {
  readonly fleet: Fleet
  readonly spillovers: Spillovers
  readonly deployments: readonly Deployment[]
  readonly gateway: Gateway
  readonly keys: readonly GatewayKey[]
  readonly version: number
  readonly rehearsal: boolean
  readonly nowMs: number
}

export const gatewaySnapshot = (ask: SnapshotAsk): GatewaySnapshot => {
  ask.spillovers.keep(new Set(ask.deployments.map(({ name }) => name)))
  return {
    version: ask.version,
    routes: ask.gateway.routes.flatMap((route) => {
      const own = gatewayRoute(ask, route)
      return own === null ? [] : [{ ...own, ...standIn(ask, route) }]
    }),
    keys: ask.keys,
    maxBodyBytes: ask.gateway.maxBody,
    keepAliveMs: ask.gateway.keepAlive,
    rehearsal: ask.rehearsal,
  }
}

type Route = Gateway['routes'][number]

const gatewayRoute = (ask: SnapshotAsk, route: Route): GatewayRoute | null => {
  const deployment = ask.deployments.find(({ name }) => name === route.to)
  if (deployment === undefined) return null
  const records = [...ask.fleet.replicas.values()].filter((r) => r.deployment === route.to)
  return {
    model: route.model,
    deployment: deployment.name,
    engine: deployment.engine,
    servedModel: deployment.name,
    context: deployment.context,
    firstTokenTimeoutMs: route.firstTokenTimeout,
    stallTimeoutMs: route.stallTimeout,
    targets: records.flatMap((record) => target(ask, record)),
    why: why(deployment, records),
    limits: limitsOf(route),
  }
}

/** The stand-in keeps the settings of its own route if it has one, else of the one it helps. */
const standIn = (ask: SnapshotAsk, route: Route): { standIn?: StandIn } => {
  const { spillover } = route
  if (spillover === undefined) return {}
  const own = ask.gateway.routes.find(({ to }) => to === spillover.to)
  const other = gatewayRoute(
    ask,
    own ?? { ...route, model: spillover.to, to: spillover.to, limits: [] },
  )
  if (other === null) return {}
  const { state } = ask.spillovers.of(route.to, ask.nowMs)
  const { ratio } = ask.spillovers.of(spillover.to, ask.nowMs)
  const { fraction, reason } = state
  const saturated = ratio !== null && ratio >= STAND_IN_MAX_RATIO
  return { standIn: { on: spillover.on, fraction, reason, saturated, route: other } }
}

const target = ({ fleet, nowMs }: SnapshotAsk, record: ReplicaRecord): readonly Target[] => {
  if (record.state !== 'ready' && record.state !== 'draining') return []
  const signal = (name: EngineSignal): number | null => {
    const reading = fleet.signals.get(record.id)?.get(name)
    return reading === undefined || nowMs - reading.readAtMs > STALE_MS ? null : reading.value
  }
  if (record.endpoint === '') return []
  return [
    {
      id: record.id,
      url: record.endpoint,
      slot: record.slot,
      state: record.state,
      requestsRunning: signal('requestsRunning'),
      requestsWaiting: signal('requestsWaiting'),
      kvCacheUsageRatio: signal('kvCacheUsageRatio'),
    },
  ]
}

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
