/**
 * Whether a request goes to its route's stand-in. Control has decided how many (core/spillover);
 * here one request is judged: may it, would it fit, is there somebody to answer.
 */
import { spillChance } from './conversation.ts'
import type { GatewayRoute, SpillCause, StandIn, Target } from './snapshot.ts'

export type SpillAsk = {
  /** `x-penstock-spillover: deny`: rather a refusal than another model. */
  readonly deny: boolean
  /** A number in [0, 1) that the caller draws. */
  readonly draw: number
  /** Upper bound of prompt and answer, for the stand-in's context. */
  readonly tokens: number
  /** Whether it goes on with a conversation, and the share of requests that begin one. */
  readonly later: boolean
  readonly newShare: number
  /** Its consumer has less than its share of the full model: others make room first. */
  readonly modest: boolean
}

/** What decides about one that is refused elsewhere. */
type Refused = Pick<SpillAsk, 'deny' | 'tokens'>

export type Choice = { readonly route: GatewayRoute; readonly cause: SpillCause | null }

/** Before anything is sent: the route itself, or its stand-in with the cause. */
export const chooseRoute = (route: GatewayRoute, ask: SpillAsk): Choice => {
  const cause = route.targets.some(isReady) ? 'saturation' : 'unavailable'
  const other = standInFor(route, cause, ask)
  if (other === null) return { route, cause: null }
  const stays = ask.modest || ask.draw >= spillChance(other.fraction, ask)
  if (cause === 'saturation' && stays) return { route, cause: null }
  return { route: other.route, cause }
}

/** The stand-in, if this request may go there for this cause and would be answered there. */
export const standInFor = (
  { standIn }: GatewayRoute,
  cause: SpillCause,
  { deny, tokens }: Refused,
): StandIn | null => {
  if (standIn === undefined || deny || !standIn.on.includes(cause)) return null
  const { saturated, route } = standIn
  if (saturated || tokens > route.context || !route.targets.some(isReady)) return null
  return standIn
}

const isReady = ({ state }: Target): boolean => state === 'ready'
