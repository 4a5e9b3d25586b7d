/** The story of a request: read what it asks, find its route, choose a replica, forward, settle. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { readAsk } from '../core/body.ts'
import { splitOf } from '../core/routing.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { type Choice, chooseRoute, standInFor } from '../core/stand-in.ts'
import { PenstockError } from '../errors.ts'
import { adjusted } from './adjust.ts'
import { chooseTarget, tiesOf } from './choose.ts'
import { type Fallen, fallBack, tokensAtMost } from './fallback.ts'
import { Exchange } from './forward.ts'
import { offered } from './offer.ts'
import { prepare } from './prepare.ts'
import { RateLimited } from './rate-limited.ts'
import { type Asker, type ReserveAsk, reserve } from './reserve.ts'
import type { Caller } from './respond.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** Request headers that engines can use; nothing else is passed on, keys and cookies least. */
const FORWARDED = ['traceparent', 'tracestate'] as const

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
  const read = readAsk(start.body, ticket.protocol)
  if ('message' in read) {
    throw new PenstockError('invalid_request', read.message, refusedParam(read.param))
  }
  ticket.ask = read
  const { key } = ticket
  // The body may have taken longer to arrive than the drain to begin.
  if (state.draining) {
    throw new PenstockError('server_draining', 'the gateway is shutting down; try again')
  }
  if (key === null) throw new PenstockError('invalid_api_key', 'no API key given')
  const { protocol } = ticket
  const named = state.table.route(read.model, key, asker.headers)
  const asked = offered(named, protocol, read.model)
  ticket.asked = asked
  const consumer = state.table.consumer(key.consumer)
  const { body, ask } = adjusted(ticket, { body: start.body, ask: read, route: asked, consumer })
  ticket.ask = ask
  ticket.bodyBytes = body.length
  const ties = tiesOf(asked, { body, ask, asker, keyId: key.id })
  ticket.affinity = ties
  const share = splitOf(asked, { sessionHash: ties.conversation, random: Math.random() })
  const { from, route, target } = await admitted(state, share, { ticket, ask, key, asker })
  new Exchange({
    state,
    ticket,
    from,
    route,
    res,
    caller,
    headers: upstreamHeaders(asker.headers, ticket.id),
    stream: ask.stream,
    asker,
    prepare: (other) => prepare({ protocol, body, ask }, other),
  }).begin(target)
}

type Admission = Omit<ReserveAsk, 'route'>
/** `from`: the route that was chosen, of which `route` may be a fallback. */
type Admitted = {
  readonly from: GatewayRoute
  readonly route: GatewayRoute
  readonly target: Target
}

/**
 * Who answers, with its limits charged: the route that was asked for, or its stand-in, which may
 * also take what the route's token limits refuse. A stand-in's answer counts on its own limits.
 */
const admitted = async (
  state: GatewayState,
  asked: GatewayRoute,
  admission: Admission,
): Promise<Admitted> => {
  const { ticket, asker } = admission
  const deny = asker.headers['x-penstock-spillover'] === 'deny'
  const tokens = tokensAtMost(ticket)
  const choice = chooseRoute(asked, { deny, draw: Math.random(), tokens })
  try {
    return await settleOn(state, admission, choice)
  } catch (error) {
    if (!(error instanceof RateLimited) || error.type !== 'tokens') throw error
    const other = choice.cause === null ? standInFor(asked, 'tokens', { deny, tokens }) : null
    if (other === null) throw error
    return standInOr(error, () =>
      settleOn(state, admission, { route: other.route, cause: 'tokens' }),
    )
  }
}

/** A caller hears of the limit on what he asked for, not of one on a model he never named. */
const standInOr = async (
  refused: RateLimited,
  admit: () => Promise<Admitted>,
): Promise<Admitted> => {
  try {
    return await admit()
  } catch (error) {
    throw error instanceof RateLimited ? refused : error
  }
}

/** Chooses the replica before anything is charged. */
const settleOn = async (
  state: GatewayState,
  admission: Admission,
  { route, cause }: Choice,
): Promise<Admitted> => {
  const { ticket } = admission
  ticket.route = route
  ticket.spillover = cause
  const target = chooseTarget(state, { route, affinity: ticket.affinity })
  if (target === null) return { from: route, ...(await fallenBack(state, admission, route)) }
  // Limits in shared memory answer at once; those that several gateways share are waited for.
  const reserving = reserve(state, { ...admission, route })
  if (reserving !== undefined) await reserving
  return { from: route, route, target }
}

const refusedParam = (param: string | null) => (param === null ? {} : { param })

/** Nobody is ready: another route answers, or the caller hears why none does. */
const fallenBack = async (
  state: GatewayState,
  { ticket, asker }: Admission,
  from: GatewayRoute,
): Promise<Fallen> => {
  const falls = from.fallback?.on.includes('unavailable') === true
  const ask = { ticket, asker, from, cause: 'unavailable' } as const
  const other = falls ? await fallBack(state, ask) : null
  if (other !== null) return other
  const { why: what, model } = from
  const why = what === '' ? 'no replica is ready' : what
  throw new PenstockError('model_unavailable', `${model} is not available: ${why}`, {
    param: 'model',
  })
}

/** Whatever type the client declared, the body was read as JSON and is sent as JSON. */
const upstreamHeaders = (headers: IncomingHttpHeaders, id: string): string[] => {
  const result = ['content-type', 'application/json', 'accept-encoding', 'identity']
  result.push('x-request-id', id)
  const { connection } = headers
  const listed = connection === undefined ? '' : connection.toLowerCase()
  for (const name of FORWARDED) {
    const value = headers[name]
    if (typeof value === 'string' && !listed.includes(name)) result.push(name, value)
  }
  return result
}
