/** Usage, put together: the ledger of requests, what machines cost, and the engines' counters. */
import { setImmediate as immediate } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import type { ProbeAnswer, ProbeAsk } from '../control/probe.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Reconciliation } from '../core/reconcile.ts'
import type { Runtimes } from '../core/runtime.ts'
import type { Signals } from '../core/signals.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import { type UsageAsk, type UsageReport, UsageSheet } from '../core/usage-report.ts'
import { PenstockError } from '../errors.ts'
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

/** Rows of one answer: a month of 10,000 consumers fits, and some megabytes of JSON. */
const ROWS_MAX = 50_000

/** Day by day, with a turn for everything else between them: a year takes seconds. */
export const usageSheet = async (
  store: Pick<Store, 'usage' | 'costs'>,
  ask: UsageAsk,
): Promise<UsageSheet> => {
  const sheet = new UsageSheet(ask)
  for (let day = ask.fromDay; day <= ask.toDay; day += 1) {
    const one = { fromDay: day, toDay: day }
    sheet.add(await store.usage({ ...one, by: ask.by }), await store.costs(one))
    if (sheet.size > ROWS_MAX) {
      const advice = 'ask for fewer days, or by fewer dimensions'
      throw new PenstockError('invalid_request', `that is more than ${ROWS_MAX} rows: ${advice}`)
    }
    await immediate()
  }
  return sheet
}

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
      const rehearsal = nodes.specs().some(({ rehearse }) => rehearse)
      return (await usageSheet(store, ask)).report(rehearsal)
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
