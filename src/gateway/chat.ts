/** The story of a request: read what it asks, find its route, choose a replica, forward, settle. */
import type { ServerResponse } from 'node:http'
import { continues } from '../core/conversation.ts'
import { hashText, unitOf } from '../core/hash.ts'
import { splitOf } from '../core/routing.ts'
import type { GatewayRoute, SpillCause, Target } from '../core/snapshot.ts'
import { type Choice, chooseRoute, standInFor } from '../core/stand-in.ts'
import { PenstockError } from '../errors.ts'
import { adjusted } from './adjust.ts'
import { tiesOf } from './choose.ts'
import { type Fallen, fallBack, tokensAtMost } from './fallback.ts'
import { Exchange } from './forward.ts'
import { offered } from './offer.ts'
import { enterQueue, type PlaceAsk } from './place.ts'
import { prepare } from './prepare.ts'
import { RateLimited } from './rate-limited.ts'
import { readRequest, upstreamHeaders } from './read.ts'
import { type Asker, reserve } from './reserve.ts'
import type { Caller } from './respond.ts'
import { Saturated } from './saturated.ts'
import type { GatewayState } from './state.ts'
import { heldTo } from './stored.ts'
import type { Ticket } from './ticket.ts'
import { wishesOf } from './wishes.ts'

export type ChatStart = {
  readonly state: GatewayState
  readonly ticket: Ticket
  readonly asker: Asker
  readonly body: Uint8Array
  readonly res: ServerResponse
  readonly caller: Caller
}

/** Resolves when the exchange has begun, or throws the refusal; nothing has been written then. */
export const startChat = async (start: ChatStart): Promise<void> => {
  const { state, ticket, asker, res, caller } = start
  const { key, protocol } = ticket
  // The client left while its body was unpacked: its books are closed, and nothing may be charged.
  if (ticket.finished) return
  const wishes = wishesOf(asker.headers)
  ticket.priority = wishes.priority
  const read = readRequest(start.body, protocol, asker.headers)
  ticket.ask = read
  // The body may have taken longer to arrive than the drain to begin.
  if (state.draining) {
    throw new PenstockError('server_draining', 'the gateway is shutting down; try again')
  }
  if (key === null) throw new PenstockError('invalid_api_key', 'no API key given')
  const named = state.table.route(read.model, key, asker.headers)
  const asked = offered(named, protocol, read.model)
  ticket.asked = asked
  const consumer = state.table.consumer(key.consumer)
  const { body, ask } = adjusted(ticket, { body: start.body, ask: read, route: asked, consumer })
  ticket.ask = ask
  ticket.bodyBytes = body.length
  const home = heldTo(state, ticket, { route: asked, key, previous: ask.previous })
  const ties = tiesOf(home, { body, ask, asker, keyId: key.id })
  ticket.affinity = ties
  ticket.denies = wishes.denies || consumer?.spillover === 'deny'
  const share = splitOf(home, { sessionHash: ties.conversation, random: Math.random() })
  const later = continues(body, ask)
  const place = await admitted(state, share, { ticket, ask, key, asker, res, later })
  if (place === null || ticket.finished) return
  const { from, route, target } = place
  new Exchange({
    state,
    ticket,
    from,
    route,
    res,
    caller,
    headers: upstreamHeaders(asker.headers, protocol, ticket.id),
    stream: ask.stream,
    asker,
    prepare: (other) => prepare({ protocol, body, ask }, other),
  }).begin(target)
}

type Admission = PlaceAsk & { readonly later: boolean }

const NOTHING = { prompt: 0, completion: 0 }

/** `from`: the route that was chosen, of which `route` may be a fallback. */
type Admitted = {
  readonly from: GatewayRoute
  readonly route: GatewayRoute
  readonly target: Target
}

/**
 * Who answers, with its limits charged: the route that was asked for, or its stand-in, which may
 * also take what the route's token limits or its full queue refuse. A stand-in's answer counts on
 * its own limits. Null: the client left while it waited.
 */
const admitted = async (
  state: GatewayState,
  asked: GatewayRoute,
  admission: Admission,
): Promise<Admitted | null> => {
  const { ticket, later } = admission
  const { denies: deny } = ticket
  const tokens = tokensAtMost(ticket)
  const newShare = state.conversations.see(asked.deployment, later)
  // A conversation that is named stays where it is while the share of those sent away stays.
  const conversation = ticket.affinity?.conversation ?? null
  const draw = conversation === null ? Math.random() : unitOf(hashText('spill', conversation))
  const modest = state.queue.modest(asked, admission.key.consumer)
  const choice = chooseRoute(asked, { deny, draw, tokens, later, newShare, modest })
  if (choice.cause !== null) ticket.note(choiceText(asked, choice.cause, later))
  try {
    return await settleOn(state, admission, choice)
  } catch (error) {
    const refused = error instanceof PenstockError ? error : null
    if (refused === null || (choice.cause !== null && choice.cause !== 'saturation')) throw error
    // What was reserved for a place that never came.
    ticket.reservation?.settle(NOTHING)
    ticket.reservation = null
    ticket.fallback = null
    if (choice.cause === 'saturation') {
      // What was asked for has replicas still, though the stand-in has none any more.
      const away = refused.code === 'model_unavailable'
      const full = refused instanceof RateLimited || refused instanceof Saturated
      if (!full && !away) throw error
      ticket.note(`no room there: ${refused.message}`)
      return await settleOn(state, admission, { route: asked, cause: null })
    }
    for (const cause of spillCauses(refused)) {
      const other = standInFor(asked, cause, { deny, tokens })
      if (other === null) continue
      ticket.note(`spilled by ${cause}: ${refused.message}`)
      return standInOr(refused, () => settleOn(state, admission, { route: other.route, cause }))
    }
    throw error
  }
}

const choiceText = (asked: GatewayRoute, cause: SpillCause, later: boolean): string => {
  if (cause === 'unavailable') return `spilled: ${asked.why || 'no replica is ready'}`
  const { reason = '', fraction = 0 } = asked.standIn ?? {}
  const who = later ? 'goes on with a conversation' : 'begins a conversation'
  return `spilled: ${reason}, ${Math.round(fraction * 100)} % are; it ${who}`
}

/** Whoever is late for lack of room may go where there is room. */
const spillCauses = (refused: PenstockError): readonly SpillCause[] => {
  if (refused instanceof RateLimited) return refused.type === 'tokens' ? ['tokens'] : []
  if (refused instanceof Saturated) {
    return refused.spill === 'latency' ? ['latency', 'saturation'] : ['saturation']
  }
  // Its last replica went while it waited.
  return refused.code === 'model_unavailable' ? ['unavailable'] : []
}

/** A caller hears of the limit on what he asked for, not of one on a model he never named. */
const standInOr = async (
  refused: PenstockError,
  admit: () => Promise<Admitted | null>,
): Promise<Admitted | null> => {
  try {
    return await admit()
  } catch (error) {
    throw error instanceof RateLimited || error instanceof Saturated ? refused : error
  }
}

/** Nobody is charged or waits when no replica is ready. */
const settleOn = async (
  state: GatewayState,
  admission: Admission,
  { route, cause }: Choice,
): Promise<Admitted | null> => {
  const { ticket } = admission
  ticket.route = route
  ticket.spillover = cause
  if (!state.breakers.usable(route.targets).some(isReady)) {
    const other = await fallenBack(state, admission, route)
    return other === null ? null : { from: route, ...other }
  }
  // Limits in shared memory answer at once; those that several gateways share are waited for.
  const reserving = reserve(state, { ...admission, route })
  if (reserving !== undefined) await reserving
  const target = await enterQueue(state, admission, route)
  return target === null ? null : { from: route, route, target }
}

const isReady = ({ state }: Target): boolean => state === 'ready'

/** Nobody is ready: another route answers, or the caller hears why none does. Null: he left. */
const fallenBack = async (
  state: GatewayState,
  { ticket, asker, res }: Admission,
  from: GatewayRoute,
): Promise<Fallen | null> => {
  const falls = from.fallback?.on.includes('unavailable') === true
  const ask = { ticket, asker, res, from, cause: 'unavailable' } as const
  const other = falls ? await fallBack(state, ask) : null
  if (other !== null || ticket.finished) return other
  const { why: what, model } = from
  const why = what === '' ? 'no replica is ready' : what
  throw new PenstockError('model_unavailable', `${model} is not available: ${why}`, {
    param: 'model',
  })
}
