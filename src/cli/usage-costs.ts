/** Writes down what the machines cost while they stand there, and who held them. */
import type { Clock } from '../clock.ts'
import {
  accrue,
  type CostedNode,
  type CostRow,
  type Holder,
  mergeCosts,
  type Span,
} from '../core/cost.ts'
import { DAY_MS } from '../core/day.ts'
import type { NodeSpec } from '../core/inventory.ts'
import { errorLine } from '../errors.ts'
import type { Fleet } from '../fleet.ts'
import type { Store } from '../store/store.ts'

/** How finely busy is told from idle: an answer makes the second busy in which it ran. */
const LOOK_EVERY_MS = 1000
/** After kill -9 so much counts as time in which nobody looked. */
const WRITE_EVERY_MS = 10_000
/** Not having looked for longer than this is having been away. */
const AWAY_MS = 60_000
/** A database found after years is not made to list each of their days. */
const AWAY_MAX_MS = 400 * DAY_MS

export type CostsOptions = {
  readonly store: Pick<Store, 'recordCosts' | 'costsUntilMs'>
  readonly clock: Clock
  readonly fleet: Fleet
  readonly nodes: () => readonly NodeSpec[]
  readonly rehearsalSpeed: () => number
  readonly inFlight: (slot: number) => number
  /** Replicas that answered since this was last asked. */
  readonly takeAnswered: () => ReadonlySet<string>
  readonly log: { error(message: string): void }
}

export type Costs = {
  /** Everything up to now is written down. */
  write(): void
  close(): void
}

export const startCosts = (options: CostsOptions): Costs => {
  const { clock, store, log } = options
  let pending: readonly CostRow[] = []
  let untilMs = clock.now()
  let lookedMs = clock.monotonic()
  let writtenMs = lookedMs
  let since = store.costsUntilMs()
  const look = (): void => {
    const nodes = costedNodes(options)
    const nowMs = clock.now()
    const sinceMs = clock.monotonic() - lookedMs
    lookedMs += sinceMs
    untilMs = nowMs
    const span: Span = { fromMs: nowMs - sinceMs, toMs: nowMs }
    const real = nodes.filter(({ speed }) => speed === 1)
    const rows = sinceMs > AWAY_MS ? accrue(real, span, true) : accrue(nodes, span, false)
    pending = mergeCosts([...pending, ...rows])
    if (since === null || nodes.length === 0) return
    // The first look at an inventory: nobody looked since the last Penstock of this home ended.
    const fromMs = Math.max(since, nowMs - AWAY_MAX_MS)
    pending = mergeCosts([...pending, ...accrue(real, { fromMs, toMs: span.fromMs }, true)])
    since = null
  }
  const write = (): void => {
    look()
    writtenMs = lookedMs
    // Until an inventory is known, how long nobody looked is still to be written down.
    if (since !== null) return
    try {
      store.recordCosts(pending, untilMs)
      pending = []
    } catch (error) {
      log.error(`what the machines cost could not be written, tried again: ${errorLine(error)}`)
    }
  }
  const stop = clock.every(LOOK_EVERY_MS, () => {
    if (clock.monotonic() - writtenMs >= WRITE_EVERY_MS) write()
    else look()
  })
  return {
    write,
    close: () => {
      stop()
      write()
    },
  }
}

const costedNodes = (options: CostsOptions): readonly CostedNode[] => {
  const answered = options.takeAnswered()
  return options.nodes().flatMap((node) => {
    const { name, cost, gpus, rehearse } = node
    if (cost === undefined) return []
    const speed = rehearse ? options.rehearsalSpeed() : 1
    const holders = holdersOf(options, node, answered)
    return [{ name, cost, gpuCount: gpus?.count ?? 0, holders, speed }]
  })
}

const holdersOf = (
  { fleet, inFlight }: CostsOptions,
  node: NodeSpec,
  answered: ReadonlySet<string>,
): readonly Holder[] =>
  (fleet.observations.get(node.name)?.containers ?? []).flatMap(({ state, labels }) => {
    const parts = node.gpus === undefined ? 1 : labels.gpus.length
    if (state === 'exited' || parts === 0) return []
    const id = `${labels.deployment}/${labels.replica}`
    const slot = fleet.replicas.get(id)?.slot
    const busy = answered.has(id) || (slot !== undefined && inFlight(slot) > 0)
    return [{ deployment: labels.deployment, parts, busy }]
  })
