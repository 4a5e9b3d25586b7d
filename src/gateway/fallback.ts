/** The next of a route's fallbacks that can answer a request which its own replicas did not. */
import type { RouteCause } from '../core/gateway-manifest.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { chooseTarget } from './choose.ts'
import { RateLimited } from './rate-limited.ts'
import { type Asker, reserve } from './reserve.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** Below what English, Chinese and code have: a prompt is rather taken for longer than it is. */
const BYTES_PER_TOKEN = 2.5

/** Upper bound of prompt and answer. */
export const tokensAtMost = ({ bodyBytes, ask, protocol }: Ticket): number =>
  // A recording's bytes say nothing of tokens.
  protocol.body === 'form' ? 0 : Math.ceil(bodyBytes / BYTES_PER_TOKEN) + (ask?.maxTokens ?? 0)

const NOTHING = { prompt: 0, completion: 0 }

export type FallbackAsk = {
  readonly ticket: Ticket
  readonly asker: Asker
  /** The route that was chosen first. */
  readonly from: GatewayRoute
  readonly cause: RouteCause
}

export type Fallen = { readonly route: GatewayRoute; readonly target: Target }

/**
 * The ticket then names the fallback's route, holds its reservation in place of the one before,
 * and remembers which were tried. Null: none can answer, and the ticket is as it was but for that.
 */
export const fallBack = async (state: GatewayState, ask: FallbackAsk): Promise<Fallen | null> => {
  const { ticket, from, cause } = ask
  const routes = from.fallback?.routes ?? []
  // Who wants no stand-in wants no other model for whatever reason.
  if (ticket.denies) return null
  for (let at = ticket.fallbacksTried; at < routes.length; at += 1) {
    // The client may have left while a limit was asked.
    if (ticket.finished) return null
    ticket.fallbacksTried = at + 1
    const route = routes[at]
    if (route === undefined || tokensAtMost(ticket) > route.context) continue
    // As things stand now: the request may be older than several snapshots.
    const targets = state.table.targetsOf(route.deployment)
    const target = chooseTarget(state, { route, targets, affinity: ticket.affinity })
    if (target === null || !(await reserved(state, ask, route))) continue
    ticket.route = route
    ticket.fallback = cause
    ticket.note(`${from.model} is ${cause}: ${route.model} answers in its place`)
    return { route, target }
  }
  return null
}

/** What was reserved before was for nothing; a limit that refuses leaves it as it was. */
const reserved = async (
  state: GatewayState,
  { ticket, asker }: FallbackAsk,
  route: GatewayRoute,
): Promise<boolean> => {
  const { key, ask, reservation: before } = ticket
  if (key === null || ask === null) return false
  try {
    await reserve(state, { ticket, route, ask, key, asker })
  } catch (error) {
    if (error instanceof RateLimited) return false
    throw error
  }
  if (ticket.reservation === before) ticket.reservation = null
  before?.settle(NOTHING)
  if (!ticket.finished) return true
  // The client left in the meantime: its books are closed, and nobody else would settle this.
  ticket.reservation?.settle(NOTHING)
  return false
}
