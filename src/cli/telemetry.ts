/** Telemetry wired to the fleet: scrapes, GPU readings, history, metrics, recent requests. */
import type { Clock } from '../clock.ts'
import type { Series } from '../core/admin.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Runtimes } from '../core/runtime.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import type { FleetView } from '../core/view.ts'
import type { Driver } from '../drivers/driver.ts'
import type { Fleet } from '../fleet.ts'
import type { Store } from '../store/store.ts'
import { createGpuWatch, type GpuRank } from '../telemetry/gpus.ts'
import { createHistory } from '../telemetry/history.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createScraper, type ScrapeTarget } from '../telemetry/scrape.ts'
import type { Log } from './log.ts'
import { openUsageBooks, type UsageBooks } from './usage-books.ts'
import { VERSION } from './version.ts'

/** Kept in memory for the console; the store keeps more. */
const RECENT_MAX = 1000
const RECORD_EVERY_MS = 1000

export type TelemetryOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly driverOf: (node: string) => Driver | null
  readonly runtimes: Runtimes
  readonly store: Store
  readonly log: Log
  readonly nodes: { specs(): readonly NodeSpec[] }
  readonly wanted: { readonly rehearsalSpeed: number }
}

export type Telemetry = {
  readonly books: UsageBooks
  finished(requests: readonly FinishedRequest[]): void
  threadRestarted(): void
  requests(limit: number): readonly FinishedRequest[]
  history(sinceMs: number): readonly Series[]
  metrics(): Promise<string>
  /** From now on the view is recorded; it needs a gateway, which needs `finished`. */
  watch(view: () => FleetView, inFlight: (slot: number) => number): void
  close(): Promise<void>
}

export const startTelemetry = async (options: TelemetryOptions): Promise<Telemetry> => {
  const { fleet, clock, driverOf, runtimes, store, log } = options
  const metrics = createMetrics({ version: VERSION })
  const history = createHistory()
  const recent = [...(await store.recentRequests(RECENT_MAX))]
  const books = await openUsageBooks(options)
  let view: (() => FleetView) | null = null
  const scraper = createScraper({
    targets: () => scrapeTargets(fleet),
    runtimes,
    clock,
    onSample: ({ replica, signals, rates, readAtMs }) => {
      fleet.rated(replica, rates)
      fleet.sampled(replica, signals, readAtMs)
      books.sampled(replica, signals, readAtMs)
    },
    onError: ({ replica, message, failures, rates }) => {
      fleet.rated(replica, rates)
      metrics.scrapeFailed(replica)
      if (failures === 1) log.info(`${replica}: metrics not read: ${message}`)
    },
  })
  const gpus = createGpuWatch({
    ranks: () => gpuRanks(fleet),
    driverOf,
    clock,
    onReading: (node, reading) => fleet.gpuRead(node, reading),
    onError: (node, rank, message) =>
      log.info(`node ${node}: no GPU readings: ${rank}: ${message}`),
  })
  const stopRecording = clock.every(RECORD_EVERY_MS, () => {
    if (view !== null) history.record(view())
  })
  return {
    books,
    finished: (requests) => {
      books.finished(requests)
      recent.unshift(...[...requests].reverse())
      recent.length = Math.min(recent.length, RECENT_MAX)
      for (const request of requests) metrics.observeRequest(request)
      fleet.changed()
    },
    threadRestarted: () => metrics.gatewayThreadRestarted(),
    requests: (limit) => recent.slice(0, limit),
    history: (sinceMs) => history.since(sinceMs),
    metrics: async () => {
      if (view !== null) metrics.observeFleet(view())
      return metrics.metricsText()
    },
    watch: (given, inFlight) => {
      view = given
      books.watch(inFlight)
    },
    close: async () => {
      stopRecording()
      await Promise.all([scraper.stop(), gpus.stop()])
      books.close()
    },
  }
}

const scrapeTargets = (fleet: Fleet): readonly ScrapeTarget[] =>
  [...fleet.replicas.values()].flatMap(({ id, state, endpoint, want }) => {
    const engine = want?.ranks[0]?.labels.engine
    if (engine === undefined || (state !== 'ready' && state !== 'draining')) return []
    return [{ replica: id, url: endpoint, engine }]
  })

const gpuRanks = (fleet: Fleet): readonly GpuRank[] =>
  [...fleet.observations.values()]
    .filter(({ reachable }) => reachable)
    .flatMap(({ node, containers }) =>
      containers
        .filter(({ state, labels }) => state === 'running' && labels.gpus.length > 0)
        .map(({ name, labels }) => ({ name, node, gpus: labels.gpus })),
    )
