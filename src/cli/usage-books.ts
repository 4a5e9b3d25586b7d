/** Usage, put together: the ledger of requests, what machines cost, and the engines' counters. */
import type { Clock } from '../clock.ts'
import type { ProbeAnswer, ProbeAsk } from '../control/probe.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Reconciliation } from '../core/reconcile.ts'
import type { Runtimes } from '../core/runtime.ts'
import type { Signals } from '../core/signals.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import { type UsageAsk, type UsageReport, usageReport } from '../core/usage-report.ts'
import type { Fleet } from '../fleet.ts'
import type { Store } from '../store/store.ts'
import type { Log } from './log.ts'
import { startCosts } from './usage-costs.ts'
import { openEngineBooks } from './usage-engines.ts'
import { openLedger } from './usage-ledger.ts'

export type BooksOptions = {
  readonly store: Store
  readonly clock: Clock
  readonly fleet: Fleet
  readonly runtimes: Runtimes
  readonly nodes: { specs(): readonly NodeSpec[] }
  readonly wanted: { readonly rehearsalSpeed: number }
  readonly log: Log
}

type Probe = (ask: ProbeAsk) => Promise<ProbeAnswer>

export type UsageBooks = {
  finished(requests: readonly FinishedRequest[]): void
  sampled(replica: string, signals: Signals, readAtMs: number): void
  probing(probe: Probe): Probe
  usage(ask: UsageAsk): Promise<UsageReport>
  reconcile(): Promise<Reconciliation>
  /** From now on it is known how many requests a replica answers; that needs a gateway. */
  watch(inFlight: (slot: number) => number): void
  /** After the gateway has closed: nothing comes any more, and all of it is on the disk. */
  close(): void
}

export const openUsageBooks = async (options: BooksOptions): Promise<UsageBooks> => {
  const { store, nodes, wanted } = options
  let inFlight = (_slot: number): number => 0
  const ledger = openLedger(options)
  const engines = await openEngineBooks(options)
  const costs = startCosts({
    ...options,
    nodes: () => nodes.specs(),
    rehearsalSpeed: () => wanted.rehearsalSpeed,
    inFlight: (slot) => inFlight(slot),
    takeAnswered: () => ledger.takeAnswered(),
  })
  return {
    finished: (requests) => ledger.add(requests),
    sampled: (replica, signals, readAtMs) => engines.sampled(replica, signals, readAtMs),
    probing: (probe) => engines.probing(probe),
    usage: async (ask) => {
      costs.write()
      const [rows, spent] = [await store.usage(ask), await store.costs(ask)]
      const rehearsal = nodes.specs().some(({ rehearse }) => rehearse)
      return usageReport({ ask, rows, costs: spent, rehearsal })
    },
    reconcile: () => engines.reconcile((slot) => inFlight(slot)),
    watch: (given) => {
      inFlight = given
    },
    close: () => {
      ledger.close()
      engines.close()
      costs.close()
    },
  }
}
