/**
 * Whether a request that failed at one replica is tried at another, or by another model. Only who
 * has not answered yet is asked again: the caller of this sees to that.
 */
import type { RouteCause } from './gateway-manifest.ts'
import type { RoutePolicy } from './snapshot.ts'

/** What of a failed attempt is not the client's own mistake. */
export type Blame = {
  readonly kind: 'unreachable' | 'error' | 'timeout' | 'busy'
  /** The engine's status; null: it gave none. */
  readonly status: number | null
}

export type RetryPolicy = RoutePolicy['retry']

/** Of a route without a policy: the defaults of core/gateway-manifest.ts. */
export const USUAL_RETRY: RetryPolicy = { attempts: 2, on: ['unreachable', 'error'], budget: 0.1 }

/** Seconds over which a route's retries are measured against its requests. */
export const BUDGET_SECONDS = 10
/** A quiet route may retry so often in a second whatever its share (as in Linkerd's budget). */
const RETRIES_PER_SECOND_MIN = 3

/** An engine's refusal, judged by the status that the client would see; null: the client erred. */
export const blameOfStatus = (
  status: number,
  { engineStatus, busy }: { readonly engineStatus: number; readonly busy: boolean },
): Blame | null => {
  if (busy || status === 429) return { kind: 'busy', status: engineStatus }
  if (status === 408 || status === 504) return { kind: 'timeout', status: engineStatus }
  return status >= 500 ? { kind: 'error', status: engineStatus } : null
}

/** The cause in `on` that this meets, the single status before the kind; null: none. */
export const metCause = ({ kind, status }: Blame, on: readonly RouteCause[]): RouteCause | null =>
  on.find((cause) => cause === status) ?? on.find((cause) => cause === kind) ?? null

export type RetryAsk = {
  readonly policy: RetryPolicy
  readonly blame: Blame
  /** Retries of this request so far. */
  readonly retries: number
  /** The client's own library is retrying already (`x-stainless-retry-count`). */
  readonly sdkRetries: boolean
  /** Takes one from the route's budget. */
  readonly budget: () => boolean
}

/**
 * A replica that could not be reached has not seen the request: another may be asked whatever the
 * causes, the budget and the client's library say, for nothing is done twice.
 */
export const mayRetry = ({ policy, blame, retries, sdkRetries, budget }: RetryAsk): boolean => {
  if (retries >= policy.attempts) return false
  if (blame.kind === 'unreachable') return true
  return !sdkRetries && metCause(blame, policy.on) !== null && budget()
}

export type BudgetUse = {
  /** Over the last BUDGET_SECONDS. */
  readonly requests: number
  readonly retries: number
  readonly retriesThisSecond: number
}

/** `share` of the requests may retry; 0: none. */
export const withinBudget = (
  { requests, retries, retriesThisSecond }: BudgetUse,
  share: number,
): boolean =>
  share > 0 && (retriesThisSecond < RETRIES_PER_SECOND_MIN || retries + 1 <= requests * share)
