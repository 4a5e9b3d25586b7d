/**
 * The plan: from what is wanted and what was observed to where every replica runs, with which
 * containers, and what has to change. Three passes: judge each deployment; keep what runs where it
 * runs; place the rest, largest first. Whatever runs holds its GPUs until it is seen to be gone.
 * Pure and deterministic, whatever the order of nodes and observations.
 */
import type { Desired } from './desired.ts'
import { type Judged, judge } from './judge.ts'
import type { NodeObservation } from './observed.ts'
import { Occupancy } from './occupancy.ts'
import type { Scene } from './placement.ts'
import { type Action, type Plan, type PlannedDeployment, replicaId } from './plan.ts'
import type { Runtimes } from './runtime.ts'
import { type Found, findReplicas, heldBy } from './seats.ts'
import { type Outcome, placeNew, settle } from './settle.ts'

export type PlanAsk = {
  readonly desired: Pick<Desired, 'inventory' | 'deployments' | 'profiles'>
  readonly observed: readonly NodeObservation[]
  readonly runtimes: Runtimes
  readonly options: {
    /** Clock factor of rehearsed engines. */
    readonly rehearsalSpeed: number
  }
}

export const plan = (ask: PlanAsk): Plan => {
  const { desired, observed, runtimes, options } = ask
  const { inventory, deployments, profiles } = desired
  const found = findReplicas(observed)
  const wanted = new Set(
    deployments.flatMap(({ name, replicas }) =>
      indices(replicas).map((one) => replicaId(name, one)),
    ),
  )
  const scene = sceneOf(ask, found, wanted)
  const judged = deployments.map((deployment) =>
    judge(deployment, inventory.nodes, { runtime: runtimes[deployment.engine], profiles }),
  )
  const context = { scene, speed: options.rehearsalSpeed, blind: blindNodes(observed) }
  const outcomes = new Map<string, Outcome>()
  const open = judged.flatMap((one) =>
    indices(one.deployment.replicas).flatMap((replica) => {
      const id = replicaId(one.deployment.name, replica)
      const outcome = settle({ id, replica, judged: one, found: found.get(id) ?? null }, context)
      if (outcome.kind !== 'open') outcomes.set(id, outcome)
      return outcome.kind === 'open' ? [outcome.task] : []
    }),
  )
  for (const [id, outcome] of placeNew(open, context)) outcomes.set(id, outcome)
  const ordered = [...wanted].flatMap((id) => outcomes.get(id) ?? [])
  return {
    deployments: judged.map((one) => deploymentOf(one, outcomes)),
    actions: [...stops(found, wanted, deployments), ...ordered.flatMap(actionOf).toSorted(byKind)],
    unchanged: ordered.flatMap((one) => (one.kind === 'kept' ? [one.replica.id] : [])),
  }
}

const indices = (count: number): readonly number[] => Array.from({ length: count }, (_, at) => at)

const sceneOf = (
  { desired, observed }: PlanAsk,
  found: ReadonlyMap<string, Found>,
  wanted: ReadonlySet<string>,
): Scene => {
  const { inventory, profiles } = desired
  const seen = new Map(observed.map((one) => [one.node, one]))
  const away = new Map<string, string>()
  for (const { name } of inventory.nodes) {
    const one = seen.get(name)
    if (one === undefined) away.set(name, 'not observed yet')
    else if (!one.reachable) away.set(name, `unreachable: ${one.reason}`)
  }
  // What leaves holds its GPUs still: they come free, but not within this plan.
  const leaving = new Set([...found.keys()].filter((id) => !wanted.has(id)))
  const occupancy = new Occupancy(inventory.nodes, leaving)
  const scene = { occupancy, profiles, away }
  // Where two claim the same GPU, the wanted one has it: the other is about to be stopped.
  const claims = [...found.values()].toSorted(
    (a, b) => Number(leaving.has(a.id)) - Number(leaving.has(b.id)) || (a.id < b.id ? -1 : 1),
  )
  for (const { id, ranks, extra } of claims) {
    for (const container of [...ranks.values(), ...extra]) {
      occupancy.hold(container.labels.node, heldBy(container, scene), id)
    }
  }
  return scene
}

/** Unreachable, and nothing is known of what runs there: a rank that is missing may be there. */
const blindNodes = (observed: readonly NodeObservation[]): ReadonlySet<string> =>
  new Set(
    observed
      .filter(({ reachable, containers }) => !reachable && containers.length === 0)
      .map(({ node }) => node),
  )

const stops = (
  found: ReadonlyMap<string, Found>,
  wanted: ReadonlySet<string>,
  deployments: Desired['deployments'],
): readonly Action[] =>
  [...found.values()]
    .filter(({ id }) => !wanted.has(id))
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
    .map(({ id, deployment, replica }) => {
      const known = deployments.find(({ name }) => name === deployment)
      const reason =
        known === undefined
          ? 'no longer in the manifests'
          : `replicas is ${known.replicas}, this is number ${replica + 1}`
      return { kind: 'stop', id, reason }
    })

const actionOf = (outcome: Outcome): readonly Action[] =>
  outcome.kind === 'start' || outcome.kind === 'replace'
    ? [{ kind: outcome.kind, id: outcome.replica.id, reason: outcome.why }]
    : []

const byKind = (a: Action, b: Action): number =>
  Number(a.kind === 'start') - Number(b.kind === 'start')

const deploymentOf = (
  { deployment, best, refusals, demand }: Judged,
  outcomes: ReadonlyMap<string, Outcome>,
): PlannedDeployment => {
  const own = indices(deployment.replicas).map((replica) => ({
    replica,
    outcome: outcomes.get(replicaId(deployment.name, replica)),
  }))
  const replicas = own.flatMap(({ outcome }) =>
    outcome === undefined || !('replica' in outcome) ? [] : [outcome.replica],
  )
  const unplaced = own.flatMap(({ replica, outcome }) =>
    outcome === undefined || outcome.kind === 'start' || outcome.reasons === undefined
      ? []
      : [{ replica, reasons: outcome.reasons }],
  )
  const profile = outcomes.get(replicas[0]?.id ?? '')?.profile
  const fit = demand?.fits.get(profile ?? '') ?? best
  return { name: deployment.name, engine: deployment.engine, fit, replicas, unplaced, refusals }
}
