/**
 * Answers that a replica keeps: asked for again, cancelled, or gone on from. Only the replica that
 * made one has it, and only until it restarts.
 */
import type { ServerResponse } from 'node:http'
import type { Protocol } from '../core/protocol.ts'
import { within } from '../core/routing.ts'
import type { GatewayKey, GatewayRoute, Target } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import { Exchange } from './forward.ts'
import { offered } from './offer.ts'
import { upstreamHeaders } from './read.ts'
import type { Asker } from './reserve.ts'
import type { Caller } from './respond.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** The engines' ids are `resp_` and hexadecimal digits; a client may choose none of its own. */
const ID = /^[A-Za-z0-9_-]{1,128}$/
/** What the engines understand beside the id. */
const PARAMETERS = { stream: /^(true|false|1|0)$/i, starting_after: /^\d{1,9}$/ } as const

export type StoredStart = {
  readonly state: GatewayState
  readonly ticket: Ticket
  readonly asker: Asker
  readonly res: ServerResponse
  readonly caller: Caller
  /** From the path. */
  readonly id: string
}

/** Asks the replica that made the answer; throws the refusal. */
export const startStored = ({ state, ticket, asker, res, caller, id }: StoredStart): void => {
  const { key, protocol } = ticket
  if (key === null) throw new PenstockError('invalid_api_key', 'no API key given')
  const found = ID.test(id) ? holderOf(state, key, id) : null
  if (found === null) throw unknown(id)
  const { target } = found
  const route = offered(alone(found), protocol, found.route.servedModel)
  const query = queryOf(protocol, asker.url)
  ticket.route = route
  ticket.asked = route
  new Exchange({
    state,
    ticket,
    from: route,
    route,
    res,
    caller,
    headers: upstreamHeaders(asker.headers, protocol, ticket.id),
    stream: protocol.events !== null && /^(true|1)$/i.test(query.get('stream') ?? ''),
    asker,
    prepare: () => ({ path: pathOf(protocol, id, query), body: null, strip: null }),
  }).begin(target)
}

/**
 * The route, tied to the replica that keeps the answer that this one goes on from. Throws where
 * that is not known to be this consumer's, which the engine cannot tell, or its replica is gone.
 */
export const heldTo = (
  { answers }: GatewayState,
  ticket: Ticket,
  { route, key, previous }: { route: GatewayRoute; key: GatewayKey; previous: string | null },
): GatewayRoute => {
  const slot = previous === null ? null : answers.slotOf(key.consumer, previous)
  if (previous === null || !ticket.protocol.keeps) return route
  if (slot === null) throw unknown(previous, 'previous_response_id')
  const found = holderIn([route], slot)
  ticket.home = slot
  if (found !== null) return alone(found)
  throw new PenstockError(
    'not_found',
    `the answer '${previous}' was kept by a replica that is gone, or by another model; ` +
      'send the conversation itself',
    { param: 'previous_response_id' },
  )
}

type Held = { readonly route: GatewayRoute; readonly target: Target }

const holderOf = ({ answers, table }: GatewayState, key: GatewayKey, id: string): Held | null => {
  const slot = answers.slotOf(key.consumer, id)
  return slot === null ? null : holderIn(table.snapshot.routes, slot)
}

const holderIn = (routes: readonly GatewayRoute[], slot: number): Held | null => {
  for (const route of routes.flatMap((one) => [...within(one)])) {
    const target = route.targets.find((one) => one.slot === slot)
    if (target !== undefined) return { route, target }
  }
  return null
}

/** Nobody else has the answer. */
const alone = ({ route, target }: Held): GatewayRoute => {
  const { standIn: _standIn, fallback: _fallback, split: _split, ...rest } = route
  return { ...rest, targets: [target] }
}

const queryOf = ({ events }: Protocol, url: string): URLSearchParams => {
  const result = new URLSearchParams()
  if (events === null) return result
  const given = new URLSearchParams(url.split('?', 2)[1] ?? '')
  for (const [name, pattern] of Object.entries(PARAMETERS)) {
    const value = given.get(name)
    if (value !== null && pattern.test(value)) result.set(name, value)
  }
  return result
}

const pathOf = ({ path }: Protocol, id: string, query: URLSearchParams): string => {
  const filled = path.replace(':id', id)
  return query.size === 0 ? filled : `${filled}?${query}`
}

const unknown = (id: string, param = 'response_id'): PenstockError =>
  new PenstockError(
    'not_found',
    `no answer '${id.slice(0, 128)}' of yours is known here: the replica that made one keeps it ` +
      'until it restarts, if its engine keeps answers (vLLM: VLLM_ENABLE_RESPONSES_API_STORE)',
    { param },
  )
