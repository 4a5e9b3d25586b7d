/** The next of a route's fallbacks that can answer a request which its own replicas did not. */
import type { ServerResponse } from 'node:http'
import type { RouteCause } from '../core/gateway-manifest.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { chooseTarget } from './choose.ts'
import type { Reservation } from './limits.ts'
import { enterQueue } from './place.ts'
import { RateLimited } from './rate-limited.ts'
import { type Asker, reserve } from './reserve.ts'
import { Saturated } from './saturated.ts'
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
  readonly res: ServerResponse
  /** The route that was chosen first. */
  readonly from: GatewayRoute
  readonly cause: RouteCause
}

export type Fallen = { readonly route: GatewayRoute; readonly target: Target }

/**
 * The ticket then names the fallback's route, has its reservation and its place instead of those
 * before, and remembers which were tried. Null: none can answer, or the client left. Throws
 * Saturated where those that could are full.
 */
export const fallBack = async (state: GatewayState, ask: FallbackAsk): Promise<Fallen | null> => {
  const { ticket, from, cause } = ask
  const routes = from.fallback?.routes ?? []
  // Who wants no stand-in wants no other model for whatever reason.
  if (ticket.denies) return null
  let full: Saturated | null = null
  for (let at = ticket.fallbacksTried; at < routes.length; at += 1) {
    // The client may have left while a limit was asked.
    if (ticket.finished) return null
    ticket.fallbacksTried = at + 1
    const route = routes[at]
    if (route === undefined || tokensAtMost(ticket) > route.context) continue
    // As things stand now: the request may be older than several snapshots.
    const targets = state.table.targetsOf(route.deployment)
    if (chooseTarget(state, { route, targets, affinity: ticket.affinity }) === null) continue
    const target = await placed(state, ask, route)
    if (target instanceof Saturated) full = target
    if (target === null || target instanceof Saturated) continue
    ticket.route = route
    ticket.fallback = cause
    ticket.note(`${from.model} is ${cause}: ${route.model} answers in its place`)
    return { route, target }
  }
  if (full !== null) throw full
  return null
}

/** Within its limits, and where there is room; null: a limit refused, or the client left. */
const placed = async (
  state: GatewayState,
  { ticket, asker, res }: FallbackAsk,
  route: GatewayRoute,
): Promise<Target | Saturated | null> => {
  const { key, ask, reservation: before } = ticket
  if (key === null || ask === null) return null
  let own: Reservation | null = null
  try {
    await reserve(state, { ticket, route, ask, key, asker })
    own = ticket.reservation === before ? null : ticket.reservation
    ticket.reservation = own
    ticket.leave()
    const target = await enterQueue(state, { ticket, ask, key, asker, res }, route)
    // What was reserved before was for nothing.
    before?.settle(NOTHING)
    return target
  } catch (error) {
    own?.settle(NOTHING)
    ticket.reservation = before
    // The client left in the meantime: its books are closed, and nobody else would settle this.
    if (ticket.finished) before?.settle(NOTHING)
    if (!(error instanceof RateLimited || error instanceof Saturated)) throw error
    ticket.note(`no room at ${route.model}: ${error.message}`)
    return error instanceof Saturated ? error : null
  }
}
