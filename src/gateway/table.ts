/** A snapshot, indexed for the request path: keys by hash, routes by model, models by key. */
import type { GatewayKey, GatewayRoute, GatewaySnapshot, Target } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'

/** How many model names an error names; the rest are counted. */
const NAMED_MODELS_MAX = 20

export class Table {
  readonly snapshot: GatewaySnapshot
  readonly #keys: ReadonlyMap<string, GatewayKey>
  readonly #routes: ReadonlyMap<string, GatewayRoute>

  constructor(snapshot: GatewaySnapshot) {
    this.snapshot = snapshot
    this.#keys = new Map(snapshot.keys.map((key) => [key.hash, key]))
    this.#routes = new Map(snapshot.routes.map((route) => [route.model, route]))
  }

  key(hash: string): GatewayKey | null {
    return this.#keys.get(hash) ?? null
  }

  /** The routes that this key may use, in the order of the manifest. */
  routesFor(key: GatewayKey): readonly GatewayRoute[] {
    return this.snapshot.routes.filter((route) => allows(key, route.model))
  }

  /** Exact match. Unknown: 404 with what this key may use; not this key's: 403. */
  route(model: string, key: GatewayKey): GatewayRoute {
    const route = this.#routes.get(model)
    if (route === undefined) throw this.#unknown(model, key)
    if (allows(key, model)) return route
    throw new PenstockError(
      'model_not_allowed',
      `this key may not use the model '${model}'; ${this.#usable(key)}`,
      { param: 'model' },
    )
  }

  /** The engine behind a model name; null when the route is gone. */
  engineOf(model: string): string | null {
    return this.#routes.get(model)?.engine ?? null
  }

  /** Replicas of a deployment as of now, also of one that is only a stand-in; none when gone. */
  targetsOf(deployment: string): readonly Target[] {
    const routes = this.snapshot.routes.flatMap((route) =>
      route.standIn === undefined ? [route] : [route, route.standIn.route],
    )
    return routes.find((route) => route.deployment === deployment)?.targets ?? []
  }

  urls(): ReadonlySet<string> {
    const targets = this.snapshot.routes.flatMap(({ targets, standIn }) =>
      standIn === undefined ? targets : [...targets, ...standIn.route.targets],
    )
    return new Set(targets.map(({ url }) => url))
  }

  #unknown(model: string, key: GatewayKey): PenstockError {
    const name = model.length > 200 ? `${model.slice(0, 200)}…` : model
    return new PenstockError(
      'model_not_found',
      `the model '${name}' does not exist; ${this.#usable(key)}`,
      { param: 'model' },
    )
  }

  #usable(key: GatewayKey): string {
    const models = this.routesFor(key).map(({ model }) => model)
    if (models.length === 0) return 'this key may use no model'
    const rest = models.length - NAMED_MODELS_MAX
    const more = rest > 0 ? ` and ${rest} more` : ''
    return `this key may use ${models.slice(0, NAMED_MODELS_MAX).join(', ')}${more}`
  }
}

const allows = (key: GatewayKey, model: string): boolean =>
  key.models === null || key.models.includes(model)
