/**
 * Which route answers, by the name that was asked for and by who asks. An exact name or alias
 * comes first, then the longest prefix, then regular expressions in the order of the file; among
 * equal ones the first whose `when` fits. A route whose `when` does not fit is as if it were not
 * there. Also: what a key may use, and which share of a route's callers its others answer.
 */
import { hashText, unitOf } from './hash.ts'
import { nearest } from './nearest.ts'
import { patternOf, Regexes } from './pattern.ts'
import type { GatewayKey, GatewayRoute, RouteMatch, Target } from './snapshot.ts'

export type Asking = {
  readonly key: GatewayKey
  /** Of the consumer; null: none. */
  readonly group: string | null
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
}

export type Routed =
  | { readonly ok: true; readonly route: GatewayRoute }
  | {
      readonly ok: false
      readonly code: 'model_not_found' | 'model_not_allowed'
      readonly message: string
    }

/** How many model names an error names; the rest are counted. */
const NAMED_MODELS_MAX = 20
/** Among so many the nearest name is sought: anybody may ask for a name that is not there. */
const GUESSED_FROM_MAX = 300
const SHOWN_NAME_MAX = 200

export class Routing {
  readonly #routes: readonly GatewayRoute[]
  readonly #exact = new Map<string, GatewayRoute[]>()
  readonly #prefixes = new Map<string, GatewayRoute[]>()
  /** Longest first. */
  readonly #lengths: readonly number[]
  readonly #regexes: readonly GatewayRoute[]
  readonly #compiled: Regexes

  /** `before`: what this replaces; its regular expressions need not be parsed again. */
  constructor(routes: readonly GatewayRoute[], before: Routing | null = null) {
    this.#routes = routes
    this.#compiled = new Regexes(before === null ? null : before.#compiled)
    for (const route of routes) {
      const { kind, pattern, aliases } = matchOf(route)
      for (const alias of aliases) push(this.#exact, alias, route)
      if (kind === 'exact') push(this.#exact, pattern, route)
      if (kind === 'prefix') push(this.#prefixes, pattern, route)
      if (kind === 'regex') this.#compiled.of(pattern)
    }
    this.#compiled.seal()
    const lengths = new Set([...this.#prefixes.keys()].map(({ length }) => length))
    this.#lengths = [...lengths].toSorted((a, b) => b - a)
    this.#regexes = routes.filter((route) => matchOf(route).kind === 'regex')
  }

  /** The route that answers, or why none does. */
  find(name: string, asking: Asking): Routed {
    const route = this.#first(name, asking)
    if (route === null) {
      const message = `the model '${shown(name)}' does not exist${this.#guess(name, asking)}`
      return { ok: false, code: 'model_not_found', message: `${message}; ${this.#may(asking)}` }
    }
    if (this.#allows(asking.key, route, name)) return { ok: true, route: served(route, name) }
    const message = `this key may not use the model '${shown(name)}'; ${this.#may(asking)}`
    return { ok: false, code: 'model_not_allowed', message }
  }

  /**
   * Every name that can be said in full and that this caller may use, with its route, in the order
   * of the manifest; what only a pattern covers is left out, but for names that the key lists.
   */
  names(asking: Asking): readonly { readonly name: string; readonly route: GatewayRoute }[] {
    const declared = this.#routes.flatMap((route) => {
      const { kind, pattern, aliases } = matchOf(route)
      return kind === 'exact' ? [pattern, ...aliases] : aliases
    })
    const listed = (asking.key.models ?? []).filter((one) => patternOf(one).kind === 'exact')
    return [...new Set([...declared, ...listed])].flatMap((name) => {
      const route = this.#first(name, asking)
      return route !== null && this.#allows(asking.key, route, name)
        ? [{ name, route: served(route, name) }]
        : []
    })
  }

  #first(name: string, asking: Asking): GatewayRoute | null {
    const fits = (route: GatewayRoute): boolean => whenFits(matchOf(route).when, asking)
    const exact = this.#exact.get(name)?.find(fits)
    if (exact !== undefined) return exact
    for (const length of this.#lengths) {
      const found = this.#prefixes.get(name.slice(0, length))?.find((route) => {
        return this.#compiled.matches(matchOf(route), name) && fits(route)
      })
      if (found !== undefined) return found
    }
    const byRegex = this.#regexes.find(
      (route) => fits(route) && this.#compiled.matches(matchOf(route), name),
    )
    return byRegex ?? null
  }

  /** A key lists names, aliases of a name, patterns of its own and patterns as routes have them. */
  #allows({ models }: GatewayKey, route: GatewayRoute, name: string): boolean {
    if (models === null) return true
    const { kind, aliases } = matchOf(route)
    return models.some((one) => {
      if (one === name || one === route.model) return true
      // Another name of the same model; a pattern's alias is only one of the names it covers.
      if (kind === 'exact' && aliases.includes(one)) return true
      const pattern = patternOf(one)
      return pattern.kind !== 'exact' && this.#compiled.matches(pattern, name)
    })
  }

  #guess(name: string, asking: Asking): string {
    const known = this.names(asking).slice(0, GUESSED_FROM_MAX)
    const near = nearest(
      name,
      known.map((one) => one.name),
    )
    return near === null ? '' : ` (did you mean '${near}'?)`
  }

  /** Names and patterns, as they are written. */
  #may(asking: Asking): string {
    const names = this.names(asking).map(({ name }) => name)
    const patterns = this.#routes.filter((route) => {
      const { kind, when } = matchOf(route)
      if (kind === 'exact' || !whenFits(when, asking)) return false
      return asking.key.models === null || asking.key.models.includes(route.model)
    })
    const all = [...names, ...new Set(patterns.map(({ model }) => model))]
    if (all.length === 0) return 'this key may use no model'
    const rest = all.length - NAMED_MODELS_MAX
    const more = rest > 0 ? ` and ${rest} more` : ''
    return `this key may use ${all.slice(0, NAMED_MODELS_MAX).join(', ')}${more}`
  }
}

const push = (map: Map<string, GatewayRoute[]>, name: string, route: GatewayRoute): void => {
  const routes = map.get(name)
  if (routes === undefined) map.set(name, [route])
  else if (!routes.includes(route)) routes.push(route)
}

const shown = (name: string): string =>
  name.length > SHOWN_NAME_MAX ? `${name.slice(0, SHOWN_NAME_MAX)}…` : name

/** A route without `match` is for its exact name, for everybody. */
const matchOf = ({ match, model }: GatewayRoute): RouteMatch =>
  match ?? { kind: 'exact', pattern: model, aliases: [], when: null }

/** Every condition that is given holds; of a list, one. */
const whenFits = (when: RouteMatch['when'], { key, group, headers }: Asking): boolean => {
  if (when === null) return true
  if (when.consumers !== undefined && !when.consumers.includes(key.consumer)) return false
  if (when.groups !== undefined && !when.groups.some((one) => one === group)) return false
  if (when.keys !== undefined && !when.keys.includes(key.id)) return false
  return Object.entries(when.headers ?? {}).every(([name, wanted]) => {
    const value = headers[name.toLowerCase()]
    return value !== undefined && String(value).trim() === wanted
  })
}

/**
 * The route with the name under which its model is asked for upstream. A deployment's is fixed;
 * a backend goes by its own list, then by the route's name, then by what the client said. The same
 * for those that answer in the route's place.
 */
const served = (route: GatewayRoute, asked: string): GatewayRoute =>
  leadsOut(route) ? renamed(route, asked, matchOf(route)) : route

const renamed = (route: GatewayRoute, asked: string, match: RouteMatch): GatewayRoute => {
  const { models, standIn, split, fallback } = route
  const own = match.kind === 'exact' ? match.pattern : asked
  const listed =
    models === undefined ? undefined : (listedAs(models, asked) ?? listedAs(models, own))
  return {
    ...route,
    servedModel: models === undefined ? route.servedModel : (listed ?? own),
    ...(standIn === undefined
      ? {}
      : { standIn: { ...standIn, route: renamed(standIn.route, asked, match) } }),
    ...(split === undefined
      ? {}
      : { split: split.map((one) => ({ ...one, route: renamed(one.route, asked, match) })) }),
    ...(fallback === undefined
      ? {}
      : {
          fallback: {
            ...fallback,
            routes: fallback.routes.map((one) => renamed(one, asked, match)),
          },
        }),
  }
}

/** No name of a client's finds what every object has. */
const listedAs = (models: Readonly<Record<string, string>>, name: string): string | undefined =>
  Object.hasOwn(models, name) ? models[name] : undefined

/** Whether the route, or one that may answer in its place, is a backend's. */
const leadsOut = (route: GatewayRoute): boolean => [...within(route)].some(({ models }) => models)

/** A route and all that may answer in its place. */
export function* within(route: GatewayRoute): Generator<GatewayRoute> {
  yield route
  for (const one of route.split ?? []) yield* within(one.route)
  if (route.standIn !== undefined) yield* within(route.standIn.route)
  for (const one of route.fallback?.routes ?? []) yield* within(one)
}

export type SplitAsk = {
  /** Of the conversation: it stays where it is; null: there is none, each request is drawn. */
  readonly sessionHash: number | null
  /** In [0, 1). */
  readonly random: number
}

/**
 * The route itself, or one of its split. A share without a ready replica is the route's own: a
 * canary that is down takes nobody with it.
 */
export const splitOf = (route: GatewayRoute, { sessionHash, random }: SplitAsk): GatewayRoute => {
  if (route.split === undefined || route.split.length === 0) return route
  // Seeded by the route's name: not the same conversations are the first of every split.
  const place = sessionHash === null ? random : unitOf(hashText(route.model, sessionHash))
  let upTo = 0
  for (const { percent, route: other } of route.split) {
    upTo += percent / 100
    if (place < upTo) return other.targets.some(isReady) ? other : route
  }
  return route
}

const isReady = ({ state }: Target): boolean => state === 'ready'
