/**
 * Placement: which nodes and GPUs a replica gets, or why none. Filter, score, pick; the same input
 * gives the same place whatever the order of the nodes. Packs tightly: the node that keeps least
 * free wins, so that whole machines stay free for the deployments that need whole machines.
 * Refuses to know what runs already (core/planner.ts) and how a rank is launched (core/launch.ts).
 */
import type { Fit } from './fit.ts'
import type { NodeSpec } from './inventory.ts'
import type { Architecture, Deployment } from './manifest.ts'
import { choose, type Machine, type Occupancy } from './occupancy.ts'
import type { GpuProfiles } from './profile.ts'
import { plural, ranges, thousands } from './units.ts'
import { CACHE_VOLUME, weightsProblem } from './weights.ts'

/** One rank's place. `slot`, the lowest GPU index or a cpu node's slot, makes the port. */
export type Seat = {
  readonly node: NodeSpec
  readonly gpus: readonly number[]
  readonly slot: number
}

/** What a deployment asks of a node; the same for all its replicas. */
export type Demand = {
  readonly deployment: Deployment
  readonly architecture: Architecture
  /** The fit by GPU profile; null for cpu nodes, where nothing is checked. */
  readonly fits: ReadonlyMap<string, Fit>
}

export type Scene = {
  readonly occupancy: Occupancy
  readonly profiles: GpuProfiles
  /** Nodes that cannot be reached or were not observed yet, and why. */
  readonly away: ReadonlyMap<string, string>
}

export type Rejection = { readonly node: string; readonly reason: string }
export type Placement =
  | {
      readonly seats: readonly Seat[]
      readonly reason: string
      readonly rejected: readonly Rejection[]
    }
  | { readonly seats: null; readonly rejected: readonly Rejection[] }

/** Nodes that a deployment can use at all; asked once, used for each of its replicas. */
export type Candidates = {
  readonly eligible: readonly Machine[]
  readonly rejected: readonly Rejection[]
}

/** GPUs (or slots of a cpu node) that one rank takes. */
export const perNode = ({ parallel }: Deployment): number =>
  (parallel.tensor * parallel.pipeline) / parallel.nodes

/** Filter by what does not change while the plan is made. */
export const candidates = (demand: Demand, scene: Scene): Candidates => {
  const eligible: Machine[] = []
  const rejected: Rejection[] = []
  for (const machine of scene.occupancy.machines) {
    const reason = unfit(demand, machine.node, scene)
    if (reason === null) eligible.push(machine)
    else rejected.push({ node: machine.node.name, reason })
  }
  return { eligible, rejected }
}

/** Why a node cannot be used, whatever is free on it; null when it can. */
export const unfit = (demand: Demand, node: NodeSpec, scene: Scene): string | null => {
  const { deployment } = demand
  const named = deployment.nodes?.includes(node.name)
  if (named === false) return 'not in `nodes` of the manifest'
  const away = scene.away.get(node.name)
  if (away !== undefined) return away
  const files = weightsProblem(deployment.weights, node)
  if (files !== null) return files
  if (node.device === 'cpu') return unfitCpu(demand, node, named === true)
  return unfitGpu(demand, node, scene.profiles)
}

const unfitCpu = ({ deployment }: Demand, node: NodeSpec, named: boolean): string | null => {
  if (!named) return 'a cpu node: used only when `nodes` of the manifest names it'
  if (deployment.parallel.nodes > 1) return 'a cpu node: cannot be one of several in a replica'
  return node.rehearse ? 'rehearsal needs a GPU profile, this is a cpu node' : null
}

const unfitGpu = (demand: Demand, node: NodeSpec, profiles: GpuProfiles): string | null => {
  const { deployment, fits } = demand
  if (node.gpus === undefined) return 'no GPUs declared'
  const { profile, count } = node.gpus
  if (!profiles.has(profile)) return `GPU profile ${profile} is not known`
  const each = perNode(deployment)
  if (count < each) {
    const group = deployment.parallel.nodes > 1 ? ' on each node' : ''
    return `has ${plural(count, `${profile} GPU`)}, ${each} needed${group}`
  }
  const judged = fits.get(profile)
  if (judged === undefined || !judged.ok) {
    return `${profile} is too small: ${briefly(judged)}`
  }
  if (deployment.parallel.nodes > 1 && node.fabric === undefined) {
    return 'no `fabric` declared, needed to form a group with other nodes'
  }
  return null
}

const briefly = (judged: Fit | undefined): string => {
  if (judged === undefined) return 'no fit'
  if (judged.kvBytesPerGpu <= 0) return 'no room for a KV cache'
  return `KV pool of ${thousands(judged.kvPoolTokens)} tokens, ${thousands(judged.context)} needed`
}

/**
 * The best place among the candidates. `pinned` seats are given (ranks that run already): they are
 * kept, and the others join them on nodes of the same GPU profile.
 */
export const place = (
  demand: Demand,
  scene: Scene,
  { eligible, rejected }: Candidates,
  pinned: ReadonlyMap<number, Seat> = new Map(),
): Placement => {
  const { nodes } = demand.deployment.parallel
  const missing = nodes - pinned.size
  const taken = new Set([...pinned.values()].map(({ node }) => node.name))
  const kind = [...pinned.values()].map(({ node }) => kindOf(node))[0]
  const isOpen = ({ node, free }: Machine): boolean =>
    free >= seatsOn(demand, node) &&
    (pinned.size === 0 || (!taken.has(node.name) && kindOf(node) === kind))
  const chosen =
    missing === 1
      ? first(eligible, isOpen, demand, scene)
      : group(eligible.filter(isOpen), demand, scene, missing)
  if (chosen === null) return { seats: null, rejected: whyNot(demand, scene, eligible, rejected) }
  const joined = [...chosen]
  const seats = Array.from({ length: nodes }, (_, rank) => {
    const given = pinned.get(rank)
    if (given !== undefined) return given
    const machine = joined.shift()
    return machine === undefined ? null : seatOn(machine, demand)
  }).filter((seat) => seat !== null)
  if (seats.length < nodes)
    return { seats: null, rejected: whyNot(demand, scene, eligible, rejected) }
  const others = firstOthers(eligible, seats)
  return {
    seats,
    reason: reasonOf(seats, chosen),
    rejected: shown(
      [...whyOthers(others, chosen, demand, scene), ...rejected.slice(0, REJECTED_MAX + 1)],
      eligible.length - seats.length + rejected.length,
    ),
  }
}

/** Nodes of a group must be alike: same GPUs, and all rehearsed or none. */
const kindOf = (node: NodeSpec): string =>
  `${node.gpus?.profile ?? node.device}${node.rehearse ? ', rehearsed' : ''}`

const seatsOn = ({ deployment }: Demand, node: NodeSpec): number =>
  node.device === 'cpu' ? 1 : perNode(deployment)

const seatOn = (machine: Machine, demand: Demand): Seat | null => {
  const indices = choose(machine.holders, seatsOn(demand, machine.node))
  const slot = indices?.[0]
  if (indices === null || slot === undefined) return null
  return { node: machine.node, gpus: machine.node.device === 'cpu' ? [] : indices, slot }
}

/** Least left free, then least VRAM, then the smaller machine; names decide ties. */
const better = (a: Machine, b: Machine, demand: Demand, { profiles }: Scene): number => {
  const device = Number(a.node.device === 'cpu') - Number(b.node.device === 'cpu')
  if (device !== 0) return device
  const left = a.free - seatsOn(demand, a.node) - (b.free - seatsOn(demand, b.node))
  if (left !== 0) return left
  if (a.node.gpus?.profile !== b.node.gpus?.profile) {
    const memory = vram(a, profiles) - vram(b, profiles)
    if (memory !== 0) return memory
  }
  if (a.size !== b.size) return a.size - b.size
  return a.node.name < b.node.name ? -1 : a.node.name > b.node.name ? 1 : 0
}

const vram = ({ node }: Machine, profiles: GpuProfiles): number =>
  profiles.get(node.gpus?.profile ?? '')?.memoryBytes.value ?? 0

const first = (
  eligible: readonly Machine[],
  isOpen: (machine: Machine) => boolean,
  demand: Demand,
  scene: Scene,
): readonly Machine[] | null => {
  let best: Machine | null = null
  for (const machine of eligible) {
    if (!isOpen(machine)) continue
    if (best === null || better(machine, best, demand, scene) < 0) best = machine
  }
  return best === null ? null : [best]
}

/** The tightest of the groups of like nodes that are large enough. */
const group = (
  open: readonly Machine[],
  demand: Demand,
  scene: Scene,
  size: number,
): readonly Machine[] | null => {
  const kinds = Map.groupBy(open, ({ node }) => kindOf(node))
  const groups = [...kinds.values()]
    .filter((machines) => machines.length >= size)
    .map((machines) => machines.toSorted((a, b) => better(a, b, demand, scene)).slice(0, size))
  const last = (machines: readonly Machine[]) => machines[size - 1]
  groups.sort((a, b) => {
    const [left, right] = [last(a), last(b)]
    return left === undefined || right === undefined ? 0 : better(left, right, demand, scene)
  })
  // Rank 0 is the first by name: the operator knows where to look.
  return groups[0]?.toSorted((a, b) => (a.node.name < b.node.name ? -1 : 1)) ?? null
}

const reasonOf = (seats: readonly Seat[], chosen: readonly Machine[]): string => {
  const [only] = seats
  const left = (node: NodeSpec) => {
    const machine = chosen.find((one) => one.node.name === node.name)
    return machine === undefined ? 0 : machine.free
  }
  if (seats.length === 1 && only?.node.device === 'cpu')
    return `named in \`nodes\`: slot ${only.slot}`
  const parts = seats.map(({ node, gpus }) => {
    const free = left(node)
    const rest = free === 0 ? '' : ` of ${free} free`
    return `${node.name} GPU ${ranges(gpus)}${rest}`
  })
  const why = seats.length === 1 ? 'leaves the fewest GPUs free' : 'alike and joined by a fabric'
  const volume = seats.some(({ node }) => node.weights === undefined && node.driver === 'docker')
  const note = volume
    ? `; no \`weights\` on the node: Docker's volume ${CACHE_VOLUME} keeps them`
    : ''
  return `${parts.join(', ')}: ${why}${note}`
}

/** As many as are shown: the rest is only counted. */
const firstOthers = (eligible: readonly Machine[], seats: readonly Seat[]): readonly Machine[] => {
  const others: Machine[] = []
  for (const machine of eligible) {
    if (others.length > REJECTED_MAX) break
    if (!seats.some(({ node }) => node.name === machine.node.name)) others.push(machine)
  }
  return others
}

const whyOthers = (
  others: readonly Machine[],
  chosen: readonly Machine[],
  demand: Demand,
  scene: Scene,
): readonly Rejection[] => {
  const kinds = new Set(chosen.map(({ node }) => kindOf(node)))
  const best = Math.max(...chosen.map(({ node, free }) => free - seatsOn(demand, node)))
  return others.map((machine) => {
    const { node, free } = machine
    const need = seatsOn(demand, node)
    const reason =
      free < need
        ? heldWords(machine, need, scene)
        : chosen.length > 1 && !kinds.has(kindOf(node))
          ? 'of another kind than the other nodes of the group'
          : free - need > best
            ? `would leave ${plural(free - need, 'GPU')} free, the choice leaves ${best}`
            : 'as good: the order of sizes and names decided'
    return { node: node.name, reason }
  })
}

const whyNot = (
  demand: Demand,
  scene: Scene,
  eligible: readonly Machine[],
  rejected: readonly Rejection[],
): readonly Rejection[] => {
  const { nodes } = demand.deployment.parallel
  const full = eligible.slice(0, REJECTED_MAX + 1).map((machine) => {
    const need = seatsOn(demand, machine.node)
    const reason =
      machine.free < need
        ? heldWords(machine, need, scene)
        : `free, but ${nodes} free nodes of one kind (${kindOf(machine.node)}) are needed`
    return { node: machine.node.name, reason }
  })
  const some = [...full, ...rejected.slice(0, REJECTED_MAX + 1)]
  return shown(some, eligible.length + rejected.length)
}

const heldWords = (machine: Machine, need: number, { occupancy }: Scene): string =>
  `${machine.free} of ${machine.size} free, ${need} needed: ${occupancy.heldWords(machine)}`

/** A plan for a thousand nodes is still read by a person. */
const REJECTED_MAX = 50

const shown = (all: readonly Rejection[], total: number): readonly Rejection[] => {
  if (total <= REJECTED_MAX) return all
  const head = all.slice(0, REJECTED_MAX)
  const rest = total - head.length
  return head.map((one, index) =>
    index < head.length - 1
      ? one
      : { ...one, reason: `${one.reason} (and ${plural(rest, 'node')} more, not shown)` },
  )
}
