/** The two sides of a request being answered: the exchange holds the sockets, the answer relays. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Rename } from '../core/reasoning.ts'
import type { GatewayRoute } from '../core/snapshot.ts'
import type { Ending } from '../core/usage.ts'
import type { UsageStrip } from '../core/usage-strip.ts'
import { baseHeaders, type Caller, type Failure, type Headers } from './respond.ts'
import type { Finish, Ticket } from './ticket.ts'

/** What an answer may do. */
export type Line = {
  readonly res: ServerResponse
  readonly caller: Caller
  readonly ticket: Ticket
  readonly route: GatewayRoute
  readonly keepAliveMs: number
  /** Takes out the usage that only we asked for; null: nothing to take out. */
  readonly strip: UsageStrip | null
  /** A stand-in on another engine: its thinking goes out under the name that was expected. */
  readonly rename: Rename | null
  /** Writes to the client and stops reading the engine until the client has caught up. */
  write(bytes: Uint8Array | string): void
  /** Could another replica go on with the answer, as far as the route is concerned? */
  readonly continuable: boolean
  /** May the request be kept, with so many bytes of answer, for another to go on with? */
  mayKeep(textBytes: number): boolean
  /** Nobody else can take over any more: what was kept for that is let go. */
  letGo(): void
  /** All is said: the books are closed before the client can read so, and ask again. */
  settle(finish: Finish, ending: Ending): void
  /** The answer is over: books are closed, and the engine is cut off if it still sends. */
  finish(finish: Finish, ending: Ending): void
  fail(failure: Failure): void
}

/** How one kind of answer is relayed. The line calls none of these after the end. */
export type Answer = {
  /** Has the client anything of it: nothing, a part, or all. */
  readonly standing: 'unsent' | 'begun' | 'done'
  head(status: number, headers: IncomingHttpHeaders): void
  data(chunk: Buffer, nowMs: number): void
  /** The engine finished its response. */
  end(): void
  /** What to ask another replica for, whose bytes then follow; null: it cannot be gone on with. */
  resumed(body: Uint8Array): Uint8Array | null
  /** Tells the client, as far as that is still possible, and finishes. */
  failed(failure: Failure): void
  tick(nowMs: number): void
  /** What is known of the answer so far. */
  ending(): Ending
}

/** Headers of an answer that a replica gave. */
export const answerHeaders = ({ caller, ticket, route }: Line): Record<string, string | number> => {
  const headers = baseHeaders(caller)
  headers['x-penstock-model'] = route.servedModel
  if (ticket.target !== null) headers['x-penstock-replica'] = ticket.target.id
  Object.assign(headers, ticket.rateHeaders())
  if (ticket.queueMs !== null) headers['x-penstock-queue-ms'] = ticket.queueMs
  if (ticket.spillover !== null) headers['x-penstock-spillover'] = ticket.spillover
  if (ticket.parameters !== '') headers['x-penstock-parameters'] = ticket.parameters
  if (ticket.fallback !== null) headers['x-penstock-fallback'] = ticket.fallback
  return headers
}

/** A failure that a replica caused says which. */
export const withReplica = (failure: Failure, line: Line): Failure => {
  const headers: Headers = { ...failure.headers, ...answerHeaders(line) }
  return { ...failure, headers }
}
