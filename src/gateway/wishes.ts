/** What a caller may ask of the gateway itself, by header. */

import { PRIORITIES, type Priority } from '../core/gateway-manifest.ts'
import { PenstockError } from '../errors.ts'

const SPILLOVERS = ['allow', 'deny'] as const

export type Wishes = {
  /** Rather a refusal than another model's answer. */
  readonly denies: boolean
  /** Null: as its consumer's. Clamped to what that may ask for. */
  readonly priority: Priority | null
}

/**
 * Throws invalid_request for a value that means nothing: a misspelt `deny` would be answered by
 * the very model that the caller did not want.
 */
export const wishesOf = (headers: Readonly<Record<string, unknown>>): Wishes => ({
  denies: wishOf(headers, 'x-penstock-spillover', SPILLOVERS) === 'deny',
  priority: wishOf(headers, 'x-penstock-priority', PRIORITIES),
})

const SHOWN_MAX = 40

const wishOf = <Value extends string>(
  headers: Readonly<Record<string, unknown>>,
  name: string,
  known: readonly Value[],
): Value | null => {
  const said = headers[name]
  if (said === undefined || said === '') return null
  const value = known.find((one) => one === said)
  if (value !== undefined) return value
  const shown = JSON.stringify(String(said).slice(0, SHOWN_MAX))
  throw new PenstockError(
    'invalid_request',
    `header ${name}: expected ${known.join(' or ')}, found ${shown}`,
    { param: name },
  )
}
