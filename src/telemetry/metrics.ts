/**
 * Penstock's own metrics. Requests are counted as they end; everything about the fleet is filled
 * in from the latest view when somebody scrapes, so what has vanished has no series.
 */
import type { FinishedRequest } from '../core/snapshot.ts'
import type { FleetView } from '../core/view.ts'
import { type Declarations, declare } from './declarations.ts'
import { exportFleet } from './export.ts'

/** Consumers and routes beyond this share the label "other". */
const LABEL_VALUES_MAX = 500

export type Metrics = {
  observeRequest(request: FinishedRequest): void
  /** The newest view replaces the one before. */
  observeFleet(view: FleetView): void
  scrapeFailed(replica: string): void
  gatewayThreadRestarted(): void
  /** Prometheus text, format 0.0.4. */
  metricsText(): Promise<string>
  readonly contentType: string
}

export const createMetrics = (build: { readonly version: string }): Metrics => {
  const metrics = declare()
  metrics.buildInfo.set({ version: build.version, node: process.versions.node }, 1)
  const consumers = new BoundedLabel(LABEL_VALUES_MAX)
  const routes = new BoundedLabel(LABEL_VALUES_MAX)
  const failures = new Map<string, number>()
  let fleet: FleetView | null = null
  return {
    observeRequest: (request) => count(metrics, request, { consumers, routes }),
    observeFleet: (view) => {
      fleet = view
    },
    scrapeFailed: (replica) => failures.set(replica, (failures.get(replica) ?? 0) + 1),
    gatewayThreadRestarted: () => metrics.threadRestarts.inc(),
    metricsText: () => {
      if (fleet !== null) exportFleet(metrics.fleet, fleet, failures)
      return metrics.registry.metrics()
    },
    contentType: metrics.registry.contentType,
  }
}

/** The first `max` values that come keep their names. */
class BoundedLabel {
  readonly #max: number
  readonly #seen = new Set<string>()

  constructor(max: number) {
    this.#max = max
  }

  of(value: string): string {
    if (this.#seen.has(value)) return value
    if (this.#seen.size >= this.#max) return 'other'
    this.#seen.add(value)
    return value
  }
}

type Labels = { readonly consumers: BoundedLabel; readonly routes: BoundedLabel }

/** Null: an answer in one piece, a broken one, or one without a second token. */
const perTokenMsOf = (request: FinishedRequest): number | null => {
  const { stream, outcome, durationMs, ttftMs, completionTokens } = request
  if (
    !stream ||
    outcome !== 'ok' ||
    ttftMs === null ||
    completionTokens === null ||
    completionTokens < 2
  )
    return null
  const perTokenMs = (durationMs - ttftMs) / (completionTokens - 1)
  return Number.isFinite(perTokenMs) ? Math.max(0, perTokenMs) : null
}

const count = (metrics: Declarations, request: FinishedRequest, labels: Labels): void => {
  // What a client asked for names a route only once it was resolved, and a pattern's route goes by
  // the pattern: else anybody could make as many series as there are strings.
  const resolved = request.deployment === null ? null : (request.route ?? request.modelAsked)
  const route = resolved === null ? 'none' : labels.routes.of(resolved)
  const consumer = request.consumer === null ? 'none' : labels.consumers.of(request.consumer)
  const status = `${Math.floor(request.status / 100)}xx`
  metrics.requests.inc({ route, status, outcome: request.outcome })
  metrics.consumerRequests.inc({ consumer })
  if (request.spillover !== undefined) {
    const to = request.deployment ?? 'none'
    metrics.spilled.inc({ from: route, to, reason: request.spillover })
  }
  // Figures come from engines in the end; prom-client throws at what is no number.
  if (Number.isFinite(request.durationMs)) {
    metrics.duration.observe({ route }, request.durationMs / 1000)
  }
  if (request.queueMs !== undefined) {
    metrics.queueWait.observe({ route }, request.queueMs / 1000)
  }
  if (request.ttftMs !== null && Number.isFinite(request.ttftMs))
    metrics.ttft.observe({ route }, request.ttftMs / 1000)
  const perTokenMs = perTokenMsOf(request)
  if (perTokenMs !== null) metrics.tpot.observe({ route }, perTokenMs / 1000)
  const tokens = {
    prompt: request.promptTokens,
    completion: request.completionTokens,
    cached: request.cachedTokens,
    reasoning: request.reasoningTokens,
  }
  for (const [kind, amount] of Object.entries(tokens)) {
    if (amount === null || !Number.isSafeInteger(amount) || amount <= 0) continue
    metrics.tokens.inc({ route, kind }, amount)
    metrics.consumerTokens.inc({ consumer, kind }, amount)
  }
}
