/** A refusal by a limit, and what the `x-ratelimit` headers say (gateways.md 5.2, 5.3). */
import type { GatewayLimit } from '../core/limits.ts'
import { PenstockError } from '../errors.ts'
import { retryHeaders } from './retry-after.ts'

export type Standing = {
  readonly limit: GatewayLimit
  readonly remaining: number
  /** Until nothing is owed. */
  readonly resetMs: number
}

export class RateLimited extends PenstockError {
  readonly limit: GatewayLimit
  readonly waitMs: number
  readonly standings: readonly Standing[]

  constructor(limit: GatewayLimit, waitMs: number, standings: readonly Standing[]) {
    const again = `try again in ${goDuration(waitMs)}`
    super('rate_limit_exceeded', `the limit of ${limit.text} is reached; ${again}`)
    this.limit = limit
    this.waitMs = waitMs
    this.standings = standings
  }

  /** OpenAI's `type` of a 429: what there was too much of. */
  get type(): string {
    const { measure } = this.limit
    return measure === 'requests' || measure === 'concurrent' ? 'requests' : 'tokens'
  }

  headers(): Record<string, string | number> {
    return { ...standingHeaders(this.standings), ...retryHeaders(this.waitMs) }
  }
}

/** Of several limits on one thing, the one of which least is left. */
export const standingHeaders = (
  standings: readonly Standing[],
): Record<string, string | number> => {
  const headers: Record<string, string | number> = {}
  for (const thing of ['requests', 'tokens'] as const) {
    const [tightest] = standings
      .filter(({ limit }) => (limit.measure === 'requests') === (thing === 'requests'))
      .toSorted((a, b) => a.remaining - b.remaining)
    if (tightest === undefined) continue
    headers[`x-ratelimit-limit-${thing}`] = tightest.limit.amount
    headers[`x-ratelimit-remaining-${thing}`] = tightest.remaining
    headers[`x-ratelimit-reset-${thing}`] = goDuration(tightest.resetMs)
  }
  return headers
}

/** Whole milliseconds as Go's time.Duration prints them: `12ms`, `1.5s`, `6m0s`, `1h0m0s`. */
export const goDuration = (ms: number): string => {
  if (ms === 0) return '0s'
  if (ms < 1000) return `${ms}ms`
  const hours = Math.floor(ms / 3_600_000)
  const minutes = Math.floor((ms % 3_600_000) / 60_000)
  const seconds = `${(ms % 60_000) / 1000}s`
  if (hours > 0) return `${hours}h${minutes}m${seconds}`
  return minutes > 0 ? `${minutes}m${seconds}` : seconds
}
