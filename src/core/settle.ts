/**
 * What becomes of one wanted replica. If it runs: keep it, start what is missing of it, or replace
 * it, where it is if that place still serves. If not: place it. A replica that runs is never given
 * up for a specification that is refused or has no place.
 */

import { unchecked } from './fit.ts'
import { exitWords } from './group.ts'
import type { Judged } from './judge.ts'
import { type RankSpecs, rankSpecs } from './launch.ts'
import {
  type Candidates,
  candidates,
  type Demand,
  place,
  type Rejection,
  type Scene,
  type Seat,
} from './placement.ts'
import type { PlannedReplica, ReplicaId } from './plan.ts'
import { hostPort } from './ranks.ts'
import { type Found, looseSeats, seatsOf } from './seats.ts'

export type Outcome = {
  /** GPU profile of the place. */
  readonly profile?: string | undefined
  /** Why the wanted specification has no place, though the replica runs. */
  readonly reasons?: readonly string[]
} & (
  | { readonly kind: 'kept'; readonly replica: PlannedReplica }
  | { readonly kind: 'start' | 'replace'; readonly replica: PlannedReplica; readonly why: string }
  | { readonly kind: 'unplaced'; readonly reasons: readonly string[] }
  | { readonly kind: 'refused' }
)

/** A wanted replica, and what was found of it. */
export type Case = {
  readonly id: ReplicaId
  readonly replica: number
  readonly judged: Judged
  readonly found: Found | null
}

export type Task = Case & { readonly demand: Demand; readonly pinned: ReadonlyMap<number, Seat> }

export type SettleContext = {
  readonly scene: Scene
  readonly speed: number
  readonly blind: ReadonlySet<string>
}

export const settle = (
  one: Case,
  context: SettleContext,
): Outcome | { readonly kind: 'open'; readonly task: Task } => {
  const { judged, found } = one
  const { demand, refusals } = judged
  if (demand === null || refusals.length > 0) {
    return keptAsIs(one, context, 'the manifest is refused now') ?? { kind: 'refused' }
  }
  const seats = found === null ? null : owned(seatsOf(found, demand, context.scene), one, context)
  if (found === null || seats === null) {
    return { kind: 'open', task: { ...one, demand, pinned: new Map() } }
  }
  const size = demand.deployment.parallel.nodes
  if (seats.size < size) return { kind: 'open', task: { ...one, demand, pinned: seats } }
  const ordered = Array.from({ length: size }, (_, rank) => seats.get(rank) ?? null)
  return compare(one, found, { seats: ordered.filter((seat) => seat !== null), context, demand })
}

/** Null when another replica holds one of the GPUs too: then this place is not its own. */
const owned = (
  seats: ReadonlyMap<number, Seat> | null,
  { id }: Case,
  { scene }: SettleContext,
): ReadonlyMap<number, Seat> | null => {
  const mine = [...(seats?.values() ?? [])].every(({ node, gpus, slot }) => {
    const holders = scene.occupancy.machine(node.name)?.holders ?? []
    return (gpus.length > 0 ? gpus : [slot]).every((index) => holders[index] === id)
  })
  return mine ? seats : null
}

type At = {
  readonly seats: readonly Seat[]
  readonly demand: Demand
  readonly context: SettleContext
}

/** All seats stand: is what runs there what is wanted? */
const compare = (one: Case, found: Found, at: At): Outcome => {
  const specs = specsAt(one, at)
  const away = awayWords(at)
  const profile = at.seats[0]?.node.gpus?.profile
  const planned = (reason: string) => replicaOf(one, specs, { reason, rejected: [] })
  const changes = changesOf(found, specs)
  if (changes !== null) {
    return {
      kind: 'replace',
      profile,
      replica: planned(`stays at its place${away}`),
      why: `${changes}${away}`,
    }
  }
  if (found.doubles.length > 0) {
    return {
      kind: 'replace',
      profile,
      replica: planned('stays at its place'),
      why: found.doubles.join('; '),
    }
  }
  const dead = [...found.ranks.values()].filter(({ state }) => state !== 'running')
  if (dead.length === 0) return { kind: 'kept', profile, replica: planned(`runs here${away}`) }
  const why = dead
    .toSorted((a, b) => a.labels.rank - b.labels.rank)
    .map((rank) => `rank ${rank.labels.rank} on ${rank.labels.node} ${exitWords(rank)}`)
    .join('; ')
  return {
    kind: 'start',
    profile,
    replica: planned(`stays at its place${away}`),
    why: `${why}${away}`,
  }
}

const awayWords = ({ seats, context }: At): string => {
  const away = seats.filter(({ node }) => context.scene.away.has(node.name))
  const names = away.map(({ node }) => node.name).join(', ')
  return away.length === 0 ? '' : `; waits for ${names}, which cannot be reached`
}

/** Place what has no place yet: the most GPUs first, because they are the hardest to find. */
export const placeNew = (
  tasks: readonly Task[],
  context: SettleContext,
): ReadonlyMap<ReplicaId, Outcome> => {
  const size = ({ judged }: Task) => {
    const { tensor, pipeline, nodes } = judged.deployment.parallel
    return [tensor * pipeline, nodes] as const
  }
  const sorted = tasks.toSorted((a, b) => {
    const [[gpusA, nodesA], [gpusB, nodesB]] = [size(a), size(b)]
    const name = (one: Task) => one.judged.deployment.name
    return (
      b.pinned.size - a.pinned.size ||
      gpusB - gpusA ||
      nodesB - nodesA ||
      (name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : a.replica - b.replica)
    )
  })
  const usable = new Map<string, Candidates>()
  return new Map(
    sorted.map((task) => {
      const { name } = task.judged.deployment
      const known = usable.get(name) ?? candidates(task.demand, context.scene)
      usable.set(name, known)
      return [task.id, placeOne(task, known, context)]
    }),
  )
}

const placeOne = (task: Task, usable: Candidates, context: SettleContext): Outcome => {
  const { scene } = context
  const { occupancy } = scene
  const { id, demand, pinned, found } = task
  const before = found === null ? [] : looseSeats(found, scene)
  // Its own GPUs are free to itself, and to nobody else until it is seen to have left them.
  occupancy.release(id)
  for (const seat of pinned.values()) holdSeat(scene, seat, id)
  const placed = blindly(task, context) ?? place(demand, scene, usable, pinned)
  const seats = placed.seats ?? []
  for (const seat of [...seats, ...before]) holdSeat(scene, seat, id)
  if (placed.seats === null) {
    const reasons = placed.rejected.map(({ node, reason }) => `${node}: ${reason}`)
    const kept = keptAsIs(task, context, 'what is wanted now has no place')
    return kept === null ? { kind: 'unplaced', reasons } : { ...kept, reasons }
  }
  const at = { seats: placed.seats, demand, context }
  const specs = specsAt(task, at)
  const replica = replicaOf(task, specs, placed)
  const profile = placed.seats[0]?.node.gpus?.profile
  if (found === null) return { kind: 'start', profile, replica, why: 'not running' }
  const gone = placed.seats.flatMap(({ node }, rank) =>
    found.ranks.has(rank) ? [] : [`rank ${rank} on ${node.name} is gone`],
  )
  if (pinned.size === 0)
    return { kind: 'replace', profile, replica, why: moveWords(before, placed.seats) }
  const changes = changesOf(found, specs)
  return changes === null
    ? { kind: 'start', profile, replica, why: `${gone.join('; ')}${awayWords(at)}` }
    : { kind: 'replace', profile, replica, why: changes }
}

const holdSeat = ({ occupancy }: Scene, { node, gpus, slot }: Seat, id: ReplicaId): void =>
  occupancy.hold(node.name, gpus.length > 0 ? gpus : [slot], id)

/**
 * Some ranks are seen and one is not, while a node is out of sight: it is most likely there. A
 * second copy elsewhere would break the group that perhaps runs, so its place is kept for it.
 */
const blindly = (task: Task, context: SettleContext): ReturnType<typeof place> | null => {
  const { scene, blind } = context
  if (task.pinned.size === 0 || blind.size === 0) return null
  const away = new Map([...scene.away].filter(([node]) => !blind.has(node)))
  const { eligible } = candidates(task.demand, { ...scene, away })
  const unseen = eligible.filter(({ node }) => blind.has(node.name))
  const placed = place(task.demand, scene, { eligible: unseen, rejected: [] }, task.pinned)
  return placed.seats === null ? null : placed
}

/** What runs stays, although it cannot be had anew: null when it does not run as a whole. */
const keptAsIs = (one: Case, context: SettleContext, because: string): Outcome | null => {
  const { found, judged } = one
  if (found === null || judged.demand === null) return null
  const containers = [...found.ranks.values()]
  const size = containers[0]?.labels.size ?? 0
  if (containers.length !== size || containers.some(({ state }) => state !== 'running')) return null
  const seats = looseSeats(found, context.scene)
  const [leader] = seats
  const labels = found.ranks.get(0)?.labels
  if (seats.length !== size || leader === undefined || labels === undefined) return null
  const hash = labels.specHash
  const endpoint = `http://${hostPort(leader.node.address, labels.port)}`
  const specs = specsAt(one, { seats, demand: judged.demand, context })
  // Its own hash, so that it counts as wanted; with that of the new one it would be replaced.
  const ranks = specs.ranks.map((rank) => ({ ...rank, labels: { ...rank.labels, specHash: hash } }))
  const reason = `keeps running as it is: ${because}`
  const replica = replicaOf(one, { ranks, specHash: hash, endpoint }, { reason, rejected: [] })
  return { kind: 'kept', profile: seats[0]?.node.gpus?.profile, replica }
}

const specsAt = ({ judged, replica }: Case, { seats, demand, context }: At): RankSpecs => {
  const { deployment, runtime } = judged
  const profile = seats[0]?.node.gpus?.profile ?? ''
  return rankSpecs({
    deployment,
    architecture: demand.architecture,
    replica,
    seats,
    fit: demand.fits.get(profile) ?? unchecked(deployment, true, []),
    runtime,
    profiles: context.scene.profiles,
    rehearsalSpeed: context.speed,
  })
}

const replicaOf = (
  { id, replica, judged }: Case,
  specs: RankSpecs,
  placed: { readonly reason: string; readonly rejected: readonly Rejection[] },
): PlannedReplica => ({
  id,
  deployment: judged.deployment.name,
  replica,
  ranks: specs.ranks,
  specHash: specs.specHash,
  endpoint: specs.endpoint,
  reason: placed.reason,
  rejected: placed.rejected,
})

/** Null when the hash is the same. Labels tell some of what changed, the hash only that. */
const changesOf = (found: Found, specs: RankSpecs): string | null => {
  const [was] = [...found.ranks.values()].filter(({ labels }) => labels.specHash !== specs.specHash)
  const now = specs.ranks[was?.labels.rank ?? 0]?.labels
  if (was === undefined || now === undefined) return null
  const told: string[] = []
  const { labels } = was
  if (labels.engine !== now.engine) told.push(`engine ${labels.engine} -> ${now.engine}`)
  if (labels.port !== now.port) told.push(`port ${labels.port} -> ${now.port}`)
  if (labels.rehearsal !== now.rehearsal) {
    told.push(now.rehearsal ? 'a rehearsal now' : 'no longer a rehearsal')
  }
  const hashes = `hash ${labels.specHash.slice(0, 8)} -> ${specs.specHash.slice(0, 8)}`
  return `${told.length === 0 ? 'spec changed' : told.join(', ')} (${hashes})`
}

const moveWords = (before: readonly Seat[], after: readonly Seat[]): string => {
  const words = (seats: readonly Seat[]) =>
    seats
      .map(({ node, gpus }) => (gpus.length === 0 ? node.name : `${node.name}[${gpus.join(',')}]`))
      .join(' + ')
  const from = before.length === 0 ? 'a node that is no longer declared' : words(before)
  return `its place no longer serves: ${from} -> ${words(after)}`
}
