/** When to try again: what an engine says of it, and what a client is told (gateways.md 5.2). */
import type { IncomingHttpHeaders } from 'node:http'

export type Backoff = {
  /** Whole milliseconds to wait; null: it does not say. */
  readonly waitMs: number | null
  /** `x-should-retry`; null: it does not say. */
  readonly shouldRetry: 'true' | 'false' | null
}

/** Nobody waits longer; an engine that says more means "not today". */
const WAIT_MS_MAX = 86_400_000

/**
 * `retry-after-ms`, else `retry-after` in seconds or as a date (RFC 9110 10.2.3), in the order in
 * which the SDKs read them. What is not a time in the future says nothing.
 */
export const backoffOf = (headers: IncomingHttpHeaders, nowMs: number): Backoff => {
  const waits = [
    Number.parseFloat(text(headers['retry-after-ms'])),
    secondsOrDate(text(headers['retry-after']), nowMs),
  ]
  const waitMs = waits.find((wait) => wait > 0) ?? null
  const shouldRetry = text(headers['x-should-retry'])
  return {
    waitMs: waitMs === null ? null : Math.min(WAIT_MS_MAX, Math.ceil(waitMs)),
    shouldRetry: shouldRetry === 'true' || shouldRetry === 'false' ? shouldRetry : null,
  }
}

const secondsOrDate = (value: string, nowMs: number): number =>
  /^\s*[\d.]+\s*$/.test(value) ? Number.parseFloat(value) * 1000 : Date.parse(value) - nowMs

const text = (value: string | string[] | undefined): string =>
  typeof value === 'string' ? value : ''

/**
 * Beyond this the caller's own program has to decide. The SDKs do not agree: Python's gives up by
 * itself beyond 120 s, older JavaScript ones ask again after a second or two, and openai 6.49
 * sleeps for as long as it is told, be it a day (both read in their code).
 */
const SDK_WAIT_MS_MAX = 60_000

/** Both forms of the wait, and for a long one the word to the SDKs not to try again. */
export const retryHeaders = (waitMs: number): Record<string, string | number> => {
  const headers = { 'retry-after': Math.ceil(waitMs / 1000), 'retry-after-ms': waitMs }
  return waitMs > SDK_WAIT_MS_MAX ? { ...headers, 'x-should-retry': 'false' } : headers
}
