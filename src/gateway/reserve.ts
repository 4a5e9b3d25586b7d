/** A request's reservation: on whom each limit counts, and how much is expected. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Ask } from '../core/body.ts'
import type { GatewayKey, GatewayRoute } from '../core/snapshot.ts'
import type { Amounts, Reservation } from './limits.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** A header or cookie may be long; it is hashed, and a megabyte of it is not. */
const SUBJECT_MAX = 1_024

export type Asker = {
  readonly headers: IncomingHttpHeaders
  /** Of the connection: headers that say otherwise can be written by anybody. */
  readonly ip: string
  readonly url: string
}

export type ReserveAsk = {
  readonly ticket: Ticket
  readonly route: GatewayRoute
  readonly ask: Ask
  readonly key: GatewayKey
  readonly asker: Asker
}

/** Sets the ticket's reservation, or throws RateLimited. A promise only where others are asked. */
export const reserve = (
  state: GatewayState,
  { ticket, route, ask, key, asker }: ReserveAsk,
): undefined | Promise<void> => {
  const { limits } = route
  if (limits === undefined || limits.length === 0) return undefined
  const amounts = expectedOf(state, { ticket, route, ask, key })
  const subject = (per: string): string => subjectOf(per, key, asker)
  const reservation = state.limits.reserve(limits, subject, amounts)
  if (reservation instanceof Promise) return keep(ticket, reservation)
  ticket.reservation = reservation
  return undefined
}

/** The client may leave while others are asked: its books are closed then, and it owes nothing. */
const keep = async (ticket: Ticket, asked: Promise<Reservation>): Promise<void> => {
  const reservation = await asked
  if (ticket.finished) reservation.settle({ prompt: 0, completion: 0 })
  else ticket.reservation = reservation
}

/** What a request is expected to weigh, tokens. */
export const expectedOf = (
  { estimator }: GatewayState,
  { ticket, route, ask, key }: Omit<ReserveAsk, 'asker'>,
): Amounts => {
  const { prompt, completion } = estimator.expect({
    key: key.id,
    model: `${route.deployment} ${ticket.path}`,
    bodyBytes: ticket.bodyBytes,
    maxTokens: ask.maxTokens,
    choices: ask.sequences,
  })
  const { weighs } = ticket.protocol
  return {
    prompt: weighs === 'answer' || weighs === 'prompt' ? prompt : 0,
    completion: weighs === 'answer' ? completion : 0,
  }
}

/** An absent header, parameter or cookie is a subject of its own: all without it share. */
const subjectOf = (per: string, key: GatewayKey, { headers, ip, url }: Asker): string => {
  switch (per) {
    case 'consumer':
      return key.consumer
    case 'key':
      return key.id
    case 'route':
      return ''
    case 'ip':
      return ip
  }
  const colon = per.indexOf(':')
  const [source, name] = [per.slice(0, colon), per.slice(colon + 1)]
  const value =
    source === 'header'
      ? headerOf(headers, name)
      : source === 'query'
        ? new URLSearchParams(url.split('?', 2)[1] ?? '').get(name)
        : cookieOf(headers.cookie ?? '', name)
  return value === null ? 'absent' : `is ${value.slice(0, SUBJECT_MAX)}`
}

const headerOf = (headers: IncomingHttpHeaders, name: string): string | null => {
  const value = headers[name.toLowerCase()]
  return value === undefined ? null : String(value)
}

const cookieOf = (cookies: string, name: string): string | null => {
  for (const cookie of cookies.split(';')) {
    const at = cookie.indexOf('=')
    if (at > 0 && cookie.slice(0, at).trim() === name) return cookie.slice(at + 1).trim()
  }
  return null
}
