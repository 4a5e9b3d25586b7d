/**
 * The drivers of the inventory's nodes, and the watch over them: each node is listed about once a
 * second, one listing at a time, and what was seen goes into the fleet. A node that does not answer
 * keeps its last containers, marked unreachable, because unknown is not empty.
 */
import type { Clock } from '../clock.ts'
import type { Inventory, NodeSpec } from '../core/inventory.ts'
import type { Driver } from '../drivers/driver.ts'
import { errorLine } from '../errors.ts'
import type { Fleet } from '../fleet.ts'

const OBSERVE_EVERY_MS = 1000
/** A Docker Engine under load answers a list in seconds; beyond this the node counts as away. */
const LIST_TIMEOUT_MS = 10_000
const FACTS_EVERY_MS = 60_000

type Watched = {
  readonly spec: NodeSpec
  readonly driver: Driver
  busy: boolean
  factsAtMs: number
}

export type NodesOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly driverFor: (node: NodeSpec) => Driver
  readonly log: (line: string) => void
}

export class Nodes {
  readonly #options: NodesOptions
  readonly #watched = new Map<string, Watched>()
  readonly #closing = new AbortController()
  #stop: (() => void) | null = null

  constructor(options: NodesOptions) {
    this.#options = options
  }

  /** Take over an inventory: new nodes are watched, changed and removed ones closed. */
  async use(inventory: Inventory): Promise<void> {
    const { fleet, driverFor } = this.#options
    const wanted = new Map(inventory.nodes.map((node) => [node.name, node]))
    const leaving = [...this.#watched].filter(
      ([name, { spec }]) => JSON.stringify(wanted.get(name)) !== JSON.stringify(spec),
    )
    for (const [name] of leaving) {
      this.#watched.delete(name)
      fleet.lost(name)
    }
    for (const node of inventory.nodes) {
      if (this.#watched.has(node.name)) continue
      const driver = driverFor(node)
      this.#watched.set(node.name, { spec: node, driver, busy: false, factsAtMs: 0 })
    }
    await Promise.all(leaving.map(([, { driver }]) => driver.close()))
  }

  driver(node: string): Driver | null {
    return this.#watched.get(node)?.driver ?? null
  }

  specs(): readonly NodeSpec[] {
    return [...this.#watched.values()].map(({ spec }) => spec)
  }

  start(): void {
    this.#stop ??= this.#options.clock.every(OBSERVE_EVERY_MS, () => {
      void this.observe()
    })
  }

  /** One look at every node that is not being looked at; resolves when all have answered. */
  async observe(): Promise<void> {
    await Promise.all([...this.#watched.values()].map((watched) => this.#look(watched)))
  }

  async #look(watched: Watched): Promise<void> {
    if (watched.busy || this.#closing.signal.aborted) return
    watched.busy = true
    const { fleet, clock, log } = this.#options
    const { driver, spec } = watched
    // The start of the listing: what happened after it may be missing from the answer.
    const readAtMs = clock.now()
    const before = fleet.observations.get(spec.name)
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(LIST_TIMEOUT_MS)])
    try {
      if (readAtMs - watched.factsAtMs > FACTS_EVERY_MS || before?.reachable === false) {
        fleet.facts.set(spec.name, await driver.facts(signal))
        watched.factsAtMs = readAtMs
      }
      const containers = await driver.list(signal)
      if (this.#watched.get(spec.name) !== watched) return
      fleet.observed({ node: spec.name, reachable: true, containers, readAtMs })
      if (before?.reachable === false) log(`node ${spec.name}: reachable again`)
    } catch (error) {
      if (this.#closing.signal.aborted || this.#watched.get(spec.name) !== watched) return
      const reason = errorLine(error)
      const containers = before?.containers ?? []
      fleet.observed({ node: spec.name, reachable: false, reason, containers, readAtMs })
      if (before?.reachable !== false) log(`node ${spec.name}: unreachable: ${reason}`)
    } finally {
      watched.busy = false
    }
  }

  async close(): Promise<void> {
    this.#stop?.()
    this.#closing.abort()
    await Promise.all([...this.#watched.values()].map(({ driver }) => driver.close()))
  }
}
