/** Who takes over a request from a replica that failed it: another of the route, or a fallback. */
import { type Blame, mayRetry, metCause, USUAL_RETRY } from '../core/retry.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import { chooseTarget } from './choose.ts'
import { type Fallen, fallBack } from './fallback.ts'
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
  /** The route that was chosen first. */
  readonly from: GatewayRoute
}

export class Succession {
  readonly #setup: SuccessionSetup
  /** Replicas that have failed this request, by id. */
  #failed: readonly string[] = []

  constructor(setup: SuccessionSetup) {
    this.#setup = setup
  }

  /** Is there anybody at all who could? */
  exists(route: GatewayRoute): boolean {
    return route.targets.length > 1 || this.#setup.from.fallback !== undefined
  }

  failed(target: Target): void {
    this.#failed = [...this.#failed, target.id]
  }

  /** Another replica that may try from the beginning. */
  retry(route: GatewayRoute, blame: Blame): Target | null {
    const { state, ticket, asker } = this.#setup
    const other = this.#other(route)
    if (other === null) return null
    const policy = route.policy?.retry ?? USUAL_RETRY
    const may = mayRetry({
      policy,
      blame,
      retries: ticket.retries,
      sdkRetries: Number(asker.headers['x-stainless-retry-count'] ?? 0) > 0,
      budget: () => state.retries.take(route.model, policy.budget),
    })
    if (!may) return null
    ticket.retries += 1
    ticket.note(`${nameOf(ticket)} failed (${wordsOf(blame)}): ${other.id} is asked`)
    return other
  }

  /** Another route, as soon as its limits have answered; null: there is none for this cause. */
  fallBack(blame: Blame): Promise<Fallen | null> | null {
    const { state, ticket, asker, from } = this.#setup
    const cause = metCause(blame, from.fallback?.on ?? [])
    if (cause === null) return null
    return fallBack(state, { ticket, asker, from, cause })
  }

  /** Another replica goes on with what the client has a part of. */
  inherits({ id }: Target): void {
    const { ticket } = this.#setup
    ticket.continuations += 1
    ticket.note(`${nameOf(ticket)} broke off after ${ticket.produced} tokens: ${id} goes on`)
  }

  /** Another replica that may go on with what the client has a part of. */
  heir(route: GatewayRoute): Target | null {
    const { ticket } = this.#setup
    if (!mayContinue(route) || ticket.continuations >= CONTINUATIONS_MAX) return null
    return this.#other(route)
  }

  /** A replica that has not failed this request yet. */
  #other(route: GatewayRoute): Target | null {
    const { state, ticket } = this.#setup
    const current = state.table.targetsOf(route.deployment)
    const targets = current.filter(
      ({ id, slot }) =>
        !this.#failed.includes(id) && (ticket.home === null || ticket.home === slot),
    )
    return chooseTarget(state, { route, targets, affinity: ticket.affinity })
  }
}

const nameOf = ({ target }: Ticket): string => target?.id ?? 'nobody'

const wordsOf = ({ kind, status }: Blame): string => (status === null ? kind : `${kind} ${status}`)
