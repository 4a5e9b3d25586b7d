/** Which replica of a route a request is sent to: its policy, with the figures of this moment. */
import { type Affinity, affinityOf } from '../core/affinity.ts'
import { pickTarget } from '../core/balance.ts'
import type { Ask } from '../core/body.ts'
import { nextNewShare } from '../core/conversation.ts'
import { within } from '../core/routing.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import type { Asker } from './reserve.ts'
import type { GatewayState } from './state.ts'

/** Whose turn it is, by deployment: one count for all routes would give each every second turn. */
export class Turns {
  readonly #counts = new Map<string, number>()

  next(deployment: string): number {
    const turn = this.#counts.get(deployment) ?? 0
    this.#counts.set(deployment, (turn + 1) % Number.MAX_SAFE_INTEGER)
    return turn
  }

  /** Forgets deployments that are gone. */
  keep(deployments: ReadonlySet<string>): void {
    for (const name of this.#counts.keys()) if (!deployments.has(name)) this.#counts.delete(name)
  }
}

/** How many of a deployment's requests begin a conversation, lately. */
export class Conversations {
  readonly #shares = new Map<string, number>()

  /** Counts one in; the share as it was before. */
  see(deployment: string, later: boolean): number {
    const before = this.#shares.get(deployment) ?? 1
    this.#shares.set(deployment, nextNewShare(before, later))
    return before
  }

  /** Forgets deployments that are gone. */
  keep(deployments: ReadonlySet<string>): void {
    for (const name of this.#shares.keys()) if (!deployments.has(name)) this.#shares.delete(name)
  }
}

export type ChooseAsk = {
  readonly route: GatewayRoute
  /** Absent: the route's, as the snapshot has them. */
  readonly targets?: readonly Target[]
  /** Null: it is tied to none. */
  readonly affinity: Affinity | null
  /** Replicas, by id, that are left out. */
  readonly exclude?: ReadonlySet<string>
}

/** A ready replica that its breaker lets us ask; null: there is none. */
export const chooseTarget = (
  { counts, breakers, turns, thread }: GatewayState,
  { route, targets = route.targets, affinity, exclude }: ChooseAsk,
): Target | null =>
  pickTarget({
    targets: breakers.usable(targets),
    policy: route.policy,
    inFlightOf: (slot) => counts.inFlight(slot),
    random: Math.random(),
    nowMs: Date.now(),
    // Threads begin at different replicas.
    turn: route.policy?.balance === 'round-robin' ? thread + turns.next(route.deployment) : 0,
    sessionHash: affinity?.session,
    prefixHash: affinity?.prefix,
    exclude,
  })

export type TiesAsk = {
  readonly body: Uint8Array
  readonly ask: Ask
  readonly asker: Asker
  readonly keyId: string
}

/** What ties the request to a replica, as far as any that may answer it cares. */
export const tiesOf = (route: GatewayRoute, { body, ask, asker, keyId }: TiesAsk): Affinity => {
  const wantsPrefix = [...within(route)].some(({ policy }) => policy?.balance === 'prefix')
  return affinityOf({ body, ask, headers: asker.headers, keyId, wantsPrefix })
}
