/**
 * Who takes over a request from a replica that failed it: another of the route, or a fallback. Its
 * place there is asked for like everybody's, or one replica's death would flood the next.
 */
import type { ServerResponse } from 'node:http'
import type { RouteCause } from '../core/gateway-manifest.ts'
import { type Blame, mayRetry, metCause, USUAL_RETRY } from '../core/retry.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import { chooseTarget } from './choose.ts'
import { type Fallen, fallBack } from './fallback.ts'
import { enterQueue } from './place.ts'
import { mayContinue } from './prepare.ts'
import type { Asker } from './reserve.ts'
import type { GatewayState } from './state.ts'
import type { Ticket } from './ticket.ts'

/** A request that kills every replica that works on it must not go through all of them. */
const CONTINUATIONS_MAX = 3

export type SuccessionSetup = {
  readonly state: GatewayState
  readonly ticket: Ticket
  readonly asker: Asker
  readonly res: ServerResponse
  /** The route that was chosen first. */
  readonly from: GatewayRoute
}

export class Succession {
  readonly #setup: SuccessionSetup
  /** Replicas that have failed this request, by id. */
  readonly #failed = new Set<string>()

  constructor(setup: SuccessionSetup) {
    this.#setup = setup
  }

  /** Is there anybody at all who could? */
  exists(route: GatewayRoute): boolean {
    return route.targets.length > 1 || this.#setup.from.fallback !== undefined
  }

  failed(target: Target): void {
    this.#failed.add(target.id)
  }

  /**
   * Who tries from the beginning: another replica, or another route. Null: nobody may. A promise:
   * as soon as there is room and limits have answered; null then: there was none.
   */
  next(route: GatewayRoute, blame: Blame): Promise<Fallen | null> | null {
    const somebody = this.#other(route)
    // Asked last: it takes from the budget.
    const other = somebody !== null && this.#mayRetry(route, blame) ? somebody : null
    const cause = metCause(blame, this.#setup.from.fallback?.on ?? [])
    if (other === null && cause === null) return null
    return this.#next(route, { blame, other, cause })
  }

  /** Another replica that may go on with what the client has a part of. */
  heir(route: GatewayRoute): Target | null {
    const { ticket } = this.#setup
    if (!mayContinue(route) || ticket.continuations >= CONTINUATIONS_MAX) return null
    return this.#other(route)
  }

  /** As soon as there is room, there or at another heir; null: there was none. */
  async inherit(route: GatewayRoute, heir: Target): Promise<Fallen | null> {
    const { ticket } = this.#setup
    const before = nameOf(ticket)
    const target = await this.#placed(route, heir, true)
    if (target === null) return null
    ticket.continuations += 1
    ticket.note(`${before} broke off after ${ticket.produced} tokens: ${target.id} goes on`)
    return { route, target }
  }

  async #next(
    route: GatewayRoute,
    why: { blame: Blame; other: Target | null; cause: RouteCause | null },
  ): Promise<Fallen | null> {
    const { state, ticket, asker, res, from } = this.#setup
    const { blame, other, cause } = why
    const before = nameOf(ticket)
    const target = other === null ? null : await this.#placed(route, other, false)
    if (target !== null) {
      ticket.note(`${before} failed (${wordsOf(blame)}): ${target.id} is asked`)
      return { route, target }
    }
    if (cause === null) return null
    return orNobody(ticket, fallBack(state, { ticket, asker, res, from, cause }))
  }

  /** `other`: for what needs no place. Null: no room came in time, or the client left. */
  async #placed(route: GatewayRoute, other: Target, resumes: boolean): Promise<Target | null> {
    const { state, ticket, asker, res } = this.#setup
    const { ask, key } = ticket
    if (ask === null || key === null) return other
    ticket.leave()
    const failed = this.#failed
    const entering = enterQueue(state, { ticket, ask, key, asker, res, failed, resumes }, route)
    return orNobody(ticket, entering)
  }

  #mayRetry(route: GatewayRoute, blame: Blame): boolean {
    const { state, ticket, asker } = this.#setup
    const policy = route.policy?.retry ?? USUAL_RETRY
    return mayRetry({
      policy,
      blame,
      retries: ticket.retries,
      sdkRetries: Number(asker.headers['x-stainless-retry-count'] ?? 0) > 0,
      budget: () => state.retries.take(route.model, policy.budget),
    })
  }

  /** A replica that has not failed this request yet. */
  #other(route: GatewayRoute): Target | null {
    const { state, ticket } = this.#setup
    const current = state.table.targetsOf(route.deployment)
    const targets = current.filter(
      ({ id, slot }) => !this.#failed.has(id) && (ticket.home === null || ticket.home === slot),
    )
    return chooseTarget(state, { route, targets, affinity: ticket.affinity })
  }
}

/** The caller hears why the first one failed, not that others are full. */
const orNobody = async <Found>(ticket: Ticket, found: Promise<Found>): Promise<Found | null> => {
  try {
    return await found
  } catch (error) {
    if (!(error instanceof PenstockError)) throw error
    ticket.note(`nobody else has room: ${error.message}`)
    return null
  }
}

const nameOf = ({ target }: Ticket): string => target?.id ?? 'nobody'

const wordsOf = ({ kind, status }: Blame): string => (status === null ? kind : `${kind} ${status}`)
