/**
 * What is wanted now, and its plan: checks files, plans them, takes them over, and plans anew when
 * the fleet's containers or nodes have changed. Placement is remembered by the containers' labels;
 * a wanted replica whose containers are away for a moment keeps its place by what was planned.
 */
import type { Clock } from '../clock.ts'
import type { InputFiles, Issue } from '../core/admin.ts'
import { type Desired, gatewayOf } from '../core/desired.ts'
import { rehearsed } from '../core/inventory.ts'
import type { Container, NodeObservation } from '../core/observed.ts'
import type { Plan } from '../core/plan.ts'
import { plan } from '../core/planner.ts'
import type { GpuProfiles } from '../core/profile.ts'
import type { Runtimes } from '../core/runtime.ts'
import type { Fleet } from '../fleet.ts'
import { parseFiles } from './load.ts'

export type WantedOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly profiles: GpuProfiles
  readonly runtimes: Runtimes
  /** Every node is played by the flight simulator on this machine. */
  readonly rehearse: boolean
  readonly rehearsalSpeed: number
}

export type Checked =
  | { readonly ok: true; readonly desired: Desired }
  | { readonly ok: false; readonly issues: readonly Issue[] }

export class Wanted {
  readonly #options: WantedOptions
  #desired: Desired
  #files: InputFiles = { inventory: null, manifests: [] }
  #shape = ''

  constructor(options: WantedOptions) {
    this.#options = options
    const { profiles } = options
    const gateway = gatewayOf(null, [])
    this.#desired = { inventory: { nodes: [] }, deployments: [], gateway, profiles }
  }

  get desired(): Desired {
    return this.#desired
  }

  get rehearsalSpeed(): number {
    return this.#options.rehearsalSpeed
  }

  get files(): InputFiles {
    return this.#files
  }

  /** Read and check files; an inventory of null is the one in use. Changes nothing. */
  check(files: InputFiles): Checked {
    const whole = { ...files, inventory: files.inventory ?? this.#files.inventory }
    const answer = parseFiles(whole, this.#options.profiles)
    if (!answer.ok) return answer
    const { inventory, deployments } = answer.desired
    const stopped = new Set(files.stopped)
    const desired = {
      ...answer.desired,
      inventory: this.#options.rehearse ? rehearsed(inventory) : inventory,
      deployments: deployments.map((one) =>
        stopped.has(one.name) ? { ...one, replicas: 0 } : one,
      ),
    }
    return { ok: true, desired }
  }

  /** `unseen`: whether a node nobody has looked at yet may be planned on, as if it were empty. */
  plan(desired: Desired, unseen: 'empty' | 'unknown' = 'unknown'): Plan {
    const { runtimes, rehearsalSpeed, fleet } = this.#options
    const observed = remembered(fleet)
    return plan({
      desired,
      observed: unseen === 'empty' ? [...observed, ...emptyNodes(desired, observed)] : observed,
      runtimes,
      options: { rehearsalSpeed },
    })
  }

  /** Take over what was checked. */
  use(files: InputFiles, desired: Desired): void {
    this.#files = { ...files, inventory: files.inventory ?? this.#files.inventory }
    this.#desired = desired
    this.#planned(this.plan(desired))
  }

  /** Plan anew if containers or the reach of nodes have changed since; cheap when they have not. */
  refresh(): void {
    const shape = shapeOf(this.#options.fleet)
    if (shape === this.#shape) return
    this.#planned(this.plan(this.#desired))
  }

  #planned(plan: Plan): void {
    const { fleet, clock } = this.#options
    this.#shape = shapeOf(fleet)
    const timeouts = new Map(
      this.#desired.deployments.map(({ name, readyTimeout, drainTimeout }) => [
        name,
        { readyMs: readyTimeout, drainMs: drainTimeout },
      ]),
    )
    fleet.planned(plan, timeouts, clock.now())
  }
}

/** Nodes of the inventory that are not among `observed`, as if they were there and empty. */
export const emptyNodes = (
  { inventory }: Pick<Desired, 'inventory'>,
  observed: readonly NodeObservation[] = [],
): readonly NodeObservation[] =>
  inventory.nodes
    .filter(({ name }) => !observed.some(({ node }) => node === name))
    .map(({ name }) => ({ node: name, reachable: true, containers: [], readAtMs: 0 }))

const shapeOf = (fleet: Fleet): string =>
  JSON.stringify(
    [...fleet.observations.values()].map(({ node, reachable, containers }) => [
      node,
      reachable,
      containers.map(({ name, labels }) => `${name} ${labels.specHash}`).sort(),
    ]),
  )

/** Observations, with the places of wanted replicas that have no container right now. */
const remembered = (fleet: Fleet): readonly NodeObservation[] => {
  const present = new Set(
    [...fleet.observations.values()].flatMap(({ containers }) =>
      containers.map(({ labels }) => `${labels.deployment}/${labels.replica}`),
    ),
  )
  const held = [...fleet.replicas.values()].flatMap(({ id, want }): readonly Container[] =>
    want === null || present.has(id)
      ? []
      : want.ranks.map(({ name, labels }) => ({
          name,
          labels,
          state: 'exited',
          exitCode: null,
          startedAtMs: 0,
          error: null,
        })),
  )
  return [...fleet.observations.values()].map((seen) => ({
    ...seen,
    containers: [...seen.containers, ...held.filter(({ labels }) => labels.node === seen.node)],
  }))
}
