/** The story of a request: read what it asks, find its route, choose a replica, forward, settle. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { pickTarget } from '../core/balance.ts'
import { type Ask, readAsk, splice } from '../core/body.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { type Choice, chooseRoute, standInFor } from '../core/stand-in.ts'
import { type Edit, UsageStrip, usageEdit } from '../core/usage-strip.ts'
import { PenstockError } from '../errors.ts'
import { Exchange } from './forward.ts'
import { RateLimited } from './rate-limited.ts'
import { type Asker, type ReserveAsk, reserve } from './reserve.ts'
import type { Caller } from './respond.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** Request headers that engines can use; nothing else is passed on, keys and cookies least. */
const FORWARDED = ['traceparent', 'tracestate'] as const

/** Below what English, Chinese and code have: a prompt is rather taken for longer than it is. */
const BYTES_PER_TOKEN = 2.5

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
  const { state, ticket, asker, body, res, caller } = start
  const ask = readAsk(body, ticket.protocol)
  if ('message' in ask) {
    throw new PenstockError('invalid_request', ask.message, refusedParam(ask.param))
  }
  ticket.ask = ask
  ticket.bodyBytes = body.length
  const { key } = ticket
  // The body may have taken longer to arrive than the drain to begin.
  if (state.draining) {
    throw new PenstockError('server_draining', 'the gateway is shutting down; try again')
  }
  if (key === null) throw new PenstockError('invalid_api_key', 'no API key given')
  const { route, target } = admitted(state, { ticket, ask, key, asker })
  const usage = ask.stream && route.limits?.length ? usageEdit(body, ask.usage, ask.start) : null
  new Exchange({
    state,
    ticket,
    route,
    res,
    caller,
    path: ticket.path,
    headers: upstreamHeaders(asker.headers, ticket.id),
    body: edited(body, { ask, route, usage }),
    stream: ask.stream,
    strip: usage === null ? null : new UsageStrip(route.engine, ask.usage.last),
  }).begin(target)
}

type Admission = Omit<ReserveAsk, 'route'>
type Admitted = { readonly route: GatewayRoute; readonly target: Target }

/**
 * Who answers, with its limits charged: the route that was asked for, or its stand-in, which may
 * also take what the route's token limits refuse. A stand-in's answer counts on its own limits.
 */
const admitted = (state: GatewayState, admission: Admission): Admitted => {
  const { ticket, ask, key, asker } = admission
  const deny = asker.headers['x-penstock-spillover'] === 'deny'
  const tokens = Math.ceil(ticket.bodyBytes / BYTES_PER_TOKEN) + (ask.maxTokens ?? 0)
  const asked = state.table.route(ask.model, key)
  const choice = chooseRoute(asked, { deny, draw: Math.random(), tokens })
  try {
    return settleOn(state, admission, choice)
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
const standInOr = (refused: RateLimited, admit: () => Admitted): Admitted => {
  try {
    return admit()
  } catch (error) {
    throw error instanceof RateLimited ? refused : error
  }
}

/** Chooses the replica before anything is charged. */
const settleOn = (
  state: GatewayState,
  admission: Admission,
  { route, cause }: Choice,
): Admitted => {
  const { ticket } = admission
  ticket.route = route
  ticket.spillover = cause
  const target = choose(state, route)
  reserve(state, { ...admission, route })
  return { route, target }
}

type Editing = {
  readonly ask: Ask
  readonly route: GatewayRoute
  readonly usage: Edit | null
}

/** The body as the engine gets it: its own name of the model, and our wish for usage. */
const edited = (body: Uint8Array, { ask, route, usage }: Editing): Uint8Array => {
  const name = Buffer.from(JSON.stringify(route.servedModel))
  const model = route.servedModel === ask.model ? null : { range: ask.modelRange, insert: name }
  const edits = [model, usage]
    .filter((edit) => edit !== null)
    .toSorted((a, b) => b.range.start - a.range.start)
  // From the end, so that the places of the earlier ones stay right.
  const result = edits.reduce((bytes, { range, insert }) => splice(bytes, range, insert), body)
  return ask.start === 0 ? result : result.subarray(ask.start)
}

const refusedParam = (param: string | null) => (param === null ? {} : { param })

const choose = ({ counts }: GatewayState, route: GatewayRoute): Target => {
  const target = pickTarget({
    targets: route.targets,
    policy: route.policy,
    inFlightOf: (slot) => counts.inFlight(slot),
    random: Math.random(),
    nowMs: Date.now(),
  })
  if (target !== null) return target
  const why = route.why === '' ? 'no replica is ready' : route.why
  throw new PenstockError('model_unavailable', `${route.model} is not available: ${why}`, {
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
