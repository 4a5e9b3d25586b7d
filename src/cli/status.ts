/** `penstock status`: the fleet on one screen. */
import { z } from 'zod'
import type { Settings } from '../config.ts'
import { STALE_MS } from '../core/signals.ts'
import { adminClient } from './client.ts'
import { age, bold, EXIT, type ExitCode, print, printJson, table, yellow } from './output.ts'
import type { Flags } from './program.ts'

const Reading = z.object({ value: z.number(), ageMs: z.number() }).optional()
const Rank = z.looseObject({
  rank: z.number(),
  node: z.string(),
  gpus: z.array(z.number()),
  state: z.string(),
  phase: z.string().nullable(),
  phaseRatio: z.number().nullable(),
})
const Replica = z.looseObject({
  id: z.string(),
  state: z.string(),
  sinceMs: z.number(),
  reason: z.string(),
  endpoint: z.string(),
  restarts: z.number(),
  inFlight: z.number(),
  ranks: z.array(Rank),
  signals: z.object({
    requestsRunning: Reading,
    requestsWaiting: Reading,
    kvCacheUsageRatio: Reading,
  }),
})
const Fleet = z.looseObject({
  rehearsal: z.boolean(),
  nowMs: z.number(),
  config: z.looseObject({ problem: z.string().nullable() }),
  gateway: z.looseObject({
    limits: z.looseObject({
      redis: z.looseObject({ local: z.number(), gateways: z.number() }).nullable(),
    }),
  }),
  nodes: z.array(
    z.looseObject({
      name: z.string(),
      address: z.string(),
      driver: z.string(),
      rehearsal: z.boolean(),
      reachable: z.boolean(),
      reason: z.string(),
      profile: z.string().nullable(),
      gpuCount: z.number(),
      allocated: z.record(z.string(), z.string()),
    }),
  ),
  deployments: z.array(
    z.looseObject({
      name: z.string(),
      engine: z.string(),
      replicasWanted: z.number(),
      refusals: z.array(z.string()),
      replicas: z.array(Replica),
    }),
  ),
})
type Fleet = z.output<typeof Fleet>
type Replica = z.output<typeof Replica>

/** What an operator must know that no row of a table shows. */
const notices = ({ config, gateway }: Fleet): readonly string[] => {
  const { redis } = gateway.limits
  const away = redis !== null && redis.local > 0
  return [
    ...(config.problem === null ? [] : [config.problem]),
    ...(away ? [`Redis is away: limits go by this gateway's share, 1/${redis.gateways}`] : []),
  ]
}

export const status = async (settings: Settings, { json }: Flags): Promise<ExitCode> => {
  const answer = await adminClient(settings).json('GET', '/admin/v1/fleet')
  if (json) {
    printJson(answer)
    return EXIT.done
  }
  const fleet = Fleet.parse(answer)
  print(nodesText(fleet))
  print('')
  print(deploymentsText(fleet))
  for (const line of notices(fleet)) print(`\n${yellow(line)}`)
  return EXIT.done
}

const nodesText = (fleet: Fleet): string => {
  const rows = fleet.nodes.map((node) => [
    node.name,
    node.address,
    node.rehearsal ? `${node.driver}, rehearsal` : node.driver,
    node.gpuCount === 0 ? 'no GPU' : `${node.gpuCount} x ${node.profile}`,
    `${Object.keys(node.allocated).length} in use`,
    node.reachable ? 'reachable' : `unreachable: ${node.reason}`,
  ])
  const title = fleet.rehearsal ? yellow('REHEARSAL: no GPU, no model; the engines are played') : ''
  const text = table([['NODE', 'ADDRESS', 'DRIVER', 'GPUS', 'USE', 'STATE'], ...rows])
  return title === '' ? text : `${title}\n${text}`
}

const shown = (reading: z.output<typeof Reading>, unit: (value: number) => string): string =>
  reading === undefined || reading.ageMs > STALE_MS ? '–' : unit(reading.value)

const replicaRows = (replica: Replica, nowMs: number): readonly string[][] => {
  const { requestsRunning, requestsWaiting, kvCacheUsageRatio } = replica.signals
  const first = [
    replica.id,
    replica.state,
    age(nowMs - replica.sinceMs),
    shown(requestsRunning, String),
    shown(requestsWaiting, String),
    shown(kvCacheUsageRatio, (ratio) => `${Math.round(ratio * 100)} %`),
    String(replica.restarts),
    replica.state === 'ready' ? replica.endpoint : replica.reason,
  ]
  const ranks = replica.ranks.map(({ rank, node, gpus, state, phase, phaseRatio }) => {
    const share = phaseRatio === null ? '' : ` ${Math.round(phaseRatio * 100)} %`
    const where = gpus.length === 0 ? node : `${node} gpu ${gpus.join(',')}`
    return [
      `  rank ${rank}`,
      state,
      '',
      '',
      '',
      '',
      '',
      `${where} ${phase ?? ''}${share}`.trimEnd(),
    ]
  })
  return [first, ...ranks]
}

const deploymentsText = (fleet: Fleet): string => {
  if (fleet.deployments.length === 0) {
    return 'Nothing is deployed. `make deploy-models` applies manifests/.'
  }
  const head = ['REPLICA', 'STATE', 'FOR', 'RUNNING', 'WAITING', 'KV', 'RESTARTS', 'WHERE, WHY']
  const rows = fleet.deployments.flatMap(({ replicas }) =>
    replicas.flatMap((replica) => replicaRows(replica, fleet.nowMs)),
  )
  const refused = fleet.deployments.flatMap(({ name, refusals }) =>
    refusals.map((reason) => `${bold(name)}: ${reason}`),
  )
  return [table([head, ...rows]), ...refused].join('\n')
}
