/** A request's place on a replica: at once below the ceiling, else after its turn in the queue. */
import type { ServerResponse } from 'node:http'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import { chooseTarget } from './choose.ts'
import { expectedOf, type ReserveAsk } from './reserve.ts'
import type { GatewayState } from './state.ts'
import type { Place } from './waiting.ts'

export type PlaceAsk = Omit<ReserveAsk, 'route'> & {
  readonly res: ServerResponse
  /** Replicas, by id, that have failed it; absent: none. */
  readonly failed?: ReadonlySet<string>
  /** Another goes on with an answer of which the client has a part. */
  readonly resumes?: boolean
}

const NONE: ReadonlySet<string> = new Set()

/** Who answers; null: the client left while it waited. Throws what Waiting.enter throws. */
export const enterQueue = async (
  state: GatewayState,
  ask: PlaceAsk,
  route: GatewayRoute,
): Promise<Target | null> => {
  const { failed = NONE, resumes = false } = ask
  const { ticket, key, res } = ask
  // He left while his limits were asked: nothing may be charged to him any more.
  if (ticket.finished) return null
  if (ticket.protocol.weighs === 'none') return anyOf(state, route, failed)
  const expected = expectedOf(state, { ...ask, route })
  const { home } = ticket
  // What the client has is read again, and does not come again.
  const had = resumes ? ticket.produced : 0
  const entered = state.queue.enter({
    route,
    consumer: key.consumer,
    priority: ticket.priority,
    // An image is a long text by its bytes; more than a context can neither be read nor answered.
    weight: {
      prompt: Math.min(route.context, expected.prompt + had),
      completion: Math.min(route.context, Math.max(1, expected.completion - had)),
    },
    streams: ask.ask.stream,
    sequences: ask.ask.sequences,
    res,
    tied: home !== null,
    resumes,
    // As things stand then: the route may have waited through several snapshots.
    pick: (exclude) => {
      const { affinity } = ticket
      const current = state.table.targetsOf(route.deployment)
      const targets = current.filter(
        ({ id, slot }) => (home === null || slot === home) && !failed.has(id),
      )
      return chooseTarget(state, { route, targets, affinity, exclude })
    },
  })
  // Below the ceiling there is nothing to wait for, not even a turn of the event loop.
  const place: Place | null = entered instanceof Promise ? await entered : entered
  return place !== null && ticket.admit(place) ? place.target : null
}

/** For what no GPU works on: full replicas do as well. */
const anyOf = (state: GatewayState, route: GatewayRoute, exclude: ReadonlySet<string>): Target => {
  const targets = state.table.targetsOf(route.deployment)
  const target = chooseTarget(state, { route, targets, affinity: null, exclude })
  if (target !== null) return target
  const message = `${route.model} is not available: no replica is ready`
  throw new PenstockError('model_unavailable', message, { param: 'model' })
}
