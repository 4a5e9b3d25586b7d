/**
 * Who holds which GPU while a plan is made. Lives only inside one call of core/planner.ts. A cpu
 * node has slots in place of GPUs: they keep the ports of its replicas apart, nothing else.
 */
import type { NodeSpec } from './inventory.ts'
import type { ReplicaId } from './plan.ts'
import { ranges } from './units.ts'

/** Replicas on one cpu node; its memory is not checked, so the number only bounds the ports. */
const CPU_SLOTS = 8

export type Machine = {
  readonly node: NodeSpec
  /** GPUs, or slots of a cpu node. */
  readonly size: number
  /** By index: the replica that holds it, or null. */
  readonly holders: readonly (ReplicaId | null)[]
  readonly free: number
}

type Mutable = { node: NodeSpec; size: number; holders: (ReplicaId | null)[]; free: number }

/** `GPU 0-3 held by a/0; GPU 4 held by b/0, which this plan stops`. */
const holderWords = ({ node, holders }: Machine, leaving: ReadonlySet<ReplicaId>): string => {
  const by = new Map<ReplicaId, number[]>()
  for (const [index, holder] of holders.entries()) {
    if (holder === null) continue
    const indices = by.get(holder)
    if (indices === undefined) by.set(holder, [index])
    else indices.push(index)
  }
  const what = node.device === 'cpu' ? 'slot' : 'GPU'
  return [...by]
    .map(([id, indices]) => {
      const soon = leaving.has(id) ? ', which this plan stops' : ''
      return `${what} ${ranges(indices)} held by ${id}${soon}`
    })
    .join('; ')
}

export class Occupancy {
  readonly #machines: ReadonlyMap<string, Mutable>
  readonly #held = new Map<ReplicaId, { machine: Mutable; index: number }[]>()
  readonly #leaving: ReadonlySet<ReplicaId>
  readonly #words = new Map<string, string>()

  /** In the order of names, so that a plan does not depend on the order of a file. */
  constructor(nodes: readonly NodeSpec[], leaving: ReadonlySet<ReplicaId> = new Set()) {
    this.#leaving = leaving
    const sorted = [...nodes].sort((a, b) => (a.name < b.name ? -1 : 1))
    this.#machines = new Map(
      sorted.map((node) => {
        const size = node.device === 'cpu' ? CPU_SLOTS : (node.gpus?.count ?? 0)
        return [node.name, { node, size, holders: Array(size).fill(null), free: size }]
      }),
    )
  }

  get machines(): readonly Machine[] {
    return [...this.#machines.values()]
  }

  machine(node: string): Machine | null {
    return this.#machines.get(node) ?? null
  }

  /** Who holds what on a machine; asked for each replica anew, so remembered until it changes. */
  heldWords(machine: Machine): string {
    const { name } = machine.node
    const known = this.#words.get(name)
    if (known !== undefined) return known
    const words = holderWords(machine, this.#leaving)
    this.#words.set(name, words)
    return words
  }

  /** Indices outside the node and indices held already are left as they are. */
  hold(node: string, indices: readonly number[], id: ReplicaId): void {
    const machine = this.#machines.get(node)
    if (machine === undefined) return
    const held = this.#held.get(id) ?? []
    this.#held.set(id, held)
    this.#words.delete(node)
    for (const index of indices) {
      if (machine.holders[index] !== null) continue
      machine.holders[index] = id
      machine.free -= 1
      held.push({ machine, index })
    }
  }

  /** Give back everything that a replica holds. */
  release(id: ReplicaId): void {
    for (const { machine, index } of this.#held.get(id) ?? []) {
      machine.holders[index] = null
      machine.free += 1
      this.#words.delete(machine.node.name)
    }
    this.#held.delete(id)
  }
}

/**
 * Which `count` indices to take, lowest first; null when too few are free. Aligned neighbours are
 * preferred (GPUs 4-5, not 3-4: they share a switch), and among those the ones in the fullest
 * surrounding block, as a buddy allocator does, so that large blocks stay whole.
 */
export const choose = (
  holders: readonly (ReplicaId | null)[],
  count: number,
): readonly number[] | null => {
  const free = holders.flatMap((holder, index) => (holder === null ? [index] : []))
  if (free.length < count || count < 1) return null
  const isFree = (start: number) =>
    start + count <= holders.length &&
    Array.from({ length: count }, (_, step) => start + step).every((at) => holders[at] === null)
  const windows = free.filter(isFree)
  const aligned = windows.filter((start) => start % count === 0)
  const best = (aligned.length > 0 ? aligned : windows).reduce<number | null>(
    (chosen, start) =>
      chosen === null || fuller(holders, { start, than: chosen, count }) ? start : chosen,
    null,
  )
  if (best === null) return free.slice(0, count)
  return Array.from({ length: count }, (_, step) => best + step)
}

const fuller = (
  holders: readonly (ReplicaId | null)[],
  { start, than, count }: { start: number; than: number; count: number },
): boolean => {
  for (let block = count * 2; block <= holders.length; block *= 2) {
    const freeAround = (at: number) => {
      const from = Math.floor(at / block) * block
      return holders.slice(from, from + block).filter((holder) => holder === null).length
    }
    const difference = freeAround(start) - freeAround(than)
    if (difference !== 0) return difference < 0
  }
  return false
}
