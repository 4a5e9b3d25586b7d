/** A snapshot, indexed for the request path: keys by hash, routes by name and caller. */
import type { Due } from '../core/ceiling.ts'
import { type Asking, Routing, within } from '../core/routing.ts'
import type {
  GatewayConsumer,
  GatewayKey,
  GatewayRoute,
  GatewaySnapshot,
  Target,
} from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'

type Headers = Asking['headers']

export class Table {
  readonly snapshot: GatewaySnapshot
  readonly #keys: ReadonlyMap<string, GatewayKey>
  readonly #consumers: ReadonlyMap<string, GatewayConsumer>
  readonly #routing: Routing
  /** By deployment or backend, also of those that only answer in another's place. */
  readonly #targets = new Map<string, readonly Target[]>()

  /** `before`: what this replaces. */
  constructor(snapshot: GatewaySnapshot, before: Table | null = null) {
    this.snapshot = snapshot
    this.#keys = new Map(snapshot.keys.map((key) => [key.hash, key]))
    this.#consumers = new Map((snapshot.consumers ?? []).map((one) => [one.name, one]))
    this.#routing = new Routing(snapshot.routes, before === null ? null : before.#routing)
    for (const route of snapshot.routes) {
      for (const { deployment, targets } of within(route)) this.#targets.set(deployment, targets)
    }
  }

  key(hash: string): GatewayKey | null {
    return this.#keys.get(hash) ?? null
  }

  /** What gateway.yaml says of a consumer; null: nothing. */
  consumer(name: string): GatewayConsumer | null {
    return this.#consumers.get(name) ?? null
  }

  /** The names that this caller may use, in the order of the manifest, each with its route. */
  names(key: GatewayKey, headers: Headers): ReturnType<Routing['names']> {
    return this.#routing.names(this.#asking(key, headers))
  }

  /** Unknown: 404 with what this key may use; not this key's: 403. */
  route(model: string, key: GatewayKey, headers: Headers = {}): GatewayRoute {
    const found = this.#routing.find(model, this.#asking(key, headers))
    if (found.ok) return found.route
    throw new PenstockError(found.code, found.message, { param: 'model' })
  }

  /** Replicas of a deployment as of now; none when it is gone. */
  targetsOf(deployment: string): readonly Target[] {
    return this.#targets.get(deployment) ?? []
  }

  /** Also those that only answer in another's place. */
  *everyRoute(): Generator<GatewayRoute> {
    for (const route of this.snapshot.routes) yield* within(route)
  }

  /** Each replica once, with the earliest tokens that any of its routes wants. */
  everyTarget(): readonly { readonly target: Target; readonly due: Due }[] {
    const all = new Map<string, { readonly target: Target; readonly due: Due }>()
    for (const { targets, policy } of this.everyRoute()) {
      for (const target of targets) {
        const due = all.get(target.id)?.due
        const firstTokenMs = earlier(due?.firstTokenMs, policy?.firstTokenTargetMs)
        const perTokenMs = earlier(due?.perTokenMs, policy?.perTokenTargetMs)
        all.set(target.id, { target, due: { firstTokenMs, perTokenMs } })
      }
    }
    return [...all.values()]
  }

  /** Deployments and backends, also those that only answer in another's place. */
  deployments(): ReadonlySet<string> {
    return new Set(this.#targets.keys())
  }

  urls(): ReadonlySet<string> {
    return new Set([...this.#targets.values()].flat().map(({ url }) => url))
  }

  #asking(key: GatewayKey, headers: Headers): Asking {
    return { key, group: this.consumer(key.consumer)?.group ?? null, headers }
  }
}

/** The smaller of two that may be missing. */
const earlier = (...dues: readonly (number | null | undefined)[]): number | null => {
  const known = dues.filter((due) => due !== null && due !== undefined)
  return known.length === 0 ? null : Math.min(...known)
}
