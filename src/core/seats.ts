/**
 * Where a replica runs already, read from the labels of its containers: Penstock remembers nothing
 * else, so it can die and come back. Decides whether that place still serves what is wanted.
 */
import type { Container, NodeObservation } from './observed.ts'
import { type Demand, perNode, type Scene, type Seat, unfit } from './placement.ts'
import type { ReplicaId } from './plan.ts'
import { replicaId } from './plan.ts'

export type Found = {
  readonly id: ReplicaId
  readonly deployment: string
  readonly replica: number
  /** One container a rank, the best of them where there are several; by rank. */
  readonly ranks: ReadonlyMap<number, Container>
  /** Ranks that exist more than once, in words, and the containers that are too many. */
  readonly doubles: readonly string[]
  readonly extra: readonly Container[]
}

/** All replicas that have containers, by id. A node that cannot be reached counts as last seen. */
export const findReplicas = (
  observed: readonly NodeObservation[],
): ReadonlyMap<ReplicaId, Found> => {
  const containers = observed
    .flatMap((one) => one.containers)
    .toSorted((a, b) => rankingOf(a) - rankingOf(b) || (a.labels.node < b.labels.node ? -1 : 1))
  const byId = Map.groupBy(containers, ({ labels }) => replicaId(labels.deployment, labels.replica))
  return new Map(
    [...byId].map(([id, members]) => {
      const ranks = new Map<number, Container>()
      const doubles: string[] = []
      const extra: Container[] = []
      for (const container of members) {
        const { rank, node } = container.labels
        const other = ranks.get(rank)
        if (other === undefined) ranks.set(rank, container)
        else {
          doubles.push(`rank ${rank} is on ${other.labels.node} and on ${node}`)
          extra.push(container)
        }
      }
      const { deployment, replica } = members[0]?.labels ?? { deployment: '', replica: 0 }
      return [id, { id, deployment, replica, ranks, doubles, extra }]
    }),
  )
}

const rankingOf = ({ state }: Container): number =>
  state === 'running' ? 0 : state === 'created' ? 1 : 2

/** Indices of the occupancy that a container holds: its GPUs, or its slot on a cpu node. */
export const heldBy = ({ labels }: Container, scene: Scene): readonly number[] => {
  if (labels.gpus.length > 0) return labels.gpus
  const node = scene.occupancy.machine(labels.node)?.node
  return node === undefined ? [] : [labels.port - node.ports.http]
}

/**
 * The seats of the ranks that were found, as far as they still serve; null when the place as a
 * whole does not (other size, node gone or no longer allowed, other GPU count).
 */
export const seatsOf = (
  found: Found,
  demand: Demand,
  scene: Scene,
): ReadonlyMap<number, Seat> | null => {
  const size = demand.deployment.parallel.nodes
  const seats = new Map<number, Seat>()
  for (const [rank, container] of found.ranks) {
    const { labels } = container
    if (labels.size !== size || rank >= size) return null
    const node = scene.occupancy.machine(labels.node)?.node
    if (node === undefined) return null
    // A node that is away keeps what runs on it: unknown is not gone.
    const reason = unfit(demand, node, { ...scene, away: new Map() })
    if (reason !== null) return null
    const wanted = node.device === 'cpu' ? 0 : perNode(demand.deployment)
    const count = node.gpus?.count ?? 0
    if (labels.gpus.length !== wanted || labels.gpus.some((gpu) => gpu >= count)) return null
    const [slot] = heldBy(container, scene)
    if (slot === undefined || slot < 0) return null
    seats.set(rank, { node, gpus: labels.gpus, slot })
  }
  const kinds = new Set([...seats.values()].map(({ node }) => node.gpus?.profile ?? node.device))
  const names = new Set([...seats.values()].map(({ node }) => node.name))
  return kinds.size === 1 && names.size === seats.size ? seats : null
}

/** Where the found ranks are, in rank order, asked of nothing: for what is kept or left. */
export const looseSeats = ({ ranks }: Found, scene: Scene): readonly Seat[] =>
  [...ranks]
    .toSorted(([a], [b]) => a - b)
    .flatMap(([, container]) => {
      const { labels } = container
      const node = scene.occupancy.machine(labels.node)?.node
      const [slot] = heldBy(container, scene)
      return node === undefined || slot === undefined ? [] : [{ node, gpus: labels.gpus, slot }]
    })
