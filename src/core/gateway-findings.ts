/**
 * What a Gateway says that cannot be: names of nothing, routes that nobody reaches, shares of more
 * than everybody. Only what its schema alone cannot see (core/desired.ts has the other documents).
 */
import type { Finding, Path, Sourced } from './desired.ts'
import type { Gateway, Parameters, Route } from './gateway-manifest.ts'
import { limitsOf } from './limits.ts'
import { patternOf, patternProblem } from './pattern.ts'

type Asked = {
  /** Null: some may stand in a file that could not be read, so that no name is called unknown. */
  readonly deploymentNames: readonly Sourced<string>[] | null
  readonly guess: (word: string, known: Iterable<string>) => string
}
type At = (...path: Path) => Pick<Finding, 'document' | 'path'>

/** Each is tried for a name that no other route has. */
const REGEXES_MAX = 100

export const gatewayFindings = (
  { document, value }: Sourced<Gateway>,
  asked: Asked,
): readonly Finding[] => {
  const at: At = (...path) => ({ document, path })
  const unknown = unknownName(value, asked)
  const groups = new Set(Object.values(value.consumers).flatMap(({ group }) => group ?? []))
  return [
    ...value.routes.flatMap((route, index) => [
      ...leadsTo(route, unknown, (...path) => at('routes', index, ...path)),
      ...groupFindings(route, groups, asked.guess, (...path) => at('routes', index, ...path)),
      ...nameFindings(route, (...path) => at('routes', index, ...path)),
      ...limitFindings(route, (...path) => at('routes', index, ...path)),
      ...paceFindings(route, value, (...path) => at('routes', index, ...path)),
      ...clampFindings(route.parameters, (...path) => at('routes', index, ...path)),
    ]),
    ...sharedNames(value, at),
    ...manyRegexes(value, at),
    ...Object.entries(value.consumers).flatMap(([name, { parameters }]) =>
      clampFindings(parameters, (...path) => at('consumers', name, ...path)),
    ),
    ...Object.keys(value.backends).flatMap((name) => [
      ...sameAsDeployment(name, asked, at),
      ...urlFindings(value.backends[name]?.url ?? '', at('backends', name, 'url')),
    ]),
  ]
}

/** Groups are made by their consumers alone: one of another name has nobody in it. */
const groupFindings = (
  { when }: Route,
  groups: ReadonlySet<string>,
  guess: Asked['guess'],
  at: At,
): readonly Finding[] =>
  (when?.groups ?? []).flatMap((name, index) => {
    if (groups.has(name)) return []
    const message = `no consumer is in the group ${name}${guess(name, groups)}`
    return [{ ...at('when', 'groups', index), message }]
  })

type Unknown = (name: string) => string | null

const unknownName = ({ backends }: Gateway, { deploymentNames: names, guess }: Asked): Unknown => {
  if (names === null) return () => null
  const known = new Set([...names.map(({ value }) => value), ...Object.keys(backends)])
  return (name) =>
    known.has(name)
      ? null
      : `no deployment or backend ${name} in the manifests${guess(name, known)}`
}

/** Every name of a deployment or backend in a route, with what is wrong with it there. */
const leadsTo = (route: Route, unknown: Unknown, at: At): readonly Finding[] => {
  const { to, split, spillover, fallback } = route
  const found: Finding[] = []
  const check = (name: string, path: Path, clash: string | null = null): void => {
    const message = clash ?? unknown(name)
    if (message !== null) found.push({ ...at(...path), message })
  }
  check(to, ['to'])
  const shares = new Set([to])
  for (const [index, share] of split.entries()) {
    check(share.to, ['split', index, 'to'], twice(shares, share.to, 'this route'))
  }
  const percent = split.reduce((sum, share) => sum + share.percent, 0)
  if (percent > 100) {
    found.push({ ...at('split'), message: `${percent} percent together, more than all callers` })
  }
  if (spillover !== undefined) {
    const self = spillover.to === to ? 'a route cannot spill to its own deployment' : null
    check(spillover.to, ['spillover', 'to'], self)
  }
  const tried = new Set([to])
  for (const [index, name] of (fallback?.to ?? []).entries()) {
    check(name, ['fallback', 'to', index], twice(tried, name, 'this route'))
  }
  return found
}

const twice = (seen: Set<string>, name: string, where: string): string | null => {
  if (seen.has(name)) return `${name} is named twice in ${where}`
  seen.add(name)
  return null
}

const nameFindings = ({ model, aliases }: Route, at: At): readonly Finding[] => {
  const found: Finding[] = []
  const message = patternProblem(model)
  if (message !== null) found.push({ ...at('model'), message })
  for (const [index, alias] of aliases.entries()) {
    if (patternOf(alias).kind === 'exact' && !alias.includes('*')) continue
    const message = 'an alias is one name: expected no pattern'
    found.push({ ...at('aliases', index), message })
  }
  return found
}

const manyRegexes = ({ routes }: Gateway, at: At): readonly Finding[] => {
  const places = routes.flatMap(({ model }, index) =>
    patternOf(model).kind === 'regex' ? [index] : [],
  )
  const first = places[REGEXES_MAX]
  if (first === undefined) return []
  const message = `more than ${REGEXES_MAX} regular expressions: expected names or prefixes`
  return [{ ...at('routes', first, 'model'), message }]
}

type Named = { readonly route: Route; readonly path: Path; readonly alias: boolean }

/** Models and aliases are names of one space; two routes may share one only for other callers. */
const sharedNames = ({ routes }: Gateway, at: At): readonly Finding[] => {
  const byName = new Map<string, Named[]>()
  return routes.flatMap((route, index) => {
    const own: readonly (readonly [string, Path, boolean])[] = [
      [route.model, ['routes', index, 'model'], false],
      ...route.aliases.map(
        (alias, nth) => [alias, ['routes', index, 'aliases', nth], true] as const,
      ),
    ]
    return own.flatMap(([name, path, alias]) => {
      const earlier = byName.get(name) ?? []
      const clash = earlier.find((other) => !separate(other.route, route))
      byName.set(name, [...earlier, { route, path, alias }])
      if (clash === undefined) return []
      const message = clashMessage(name, clash, route)
      const other = clash.route === route ? {} : { other: at(...clash.path) }
      return [{ ...at(...path), message, ...other }]
    })
  })
}

/** Whether the earlier route leaves callers to the later one. */
const separate = (earlier: Route, later: Route): boolean => {
  if (earlier === later || earlier.when === undefined) return false
  return later.when === undefined || conditions(earlier.when) !== conditions(later.when)
}

const conditions = (when: NonNullable<Route['when']>): string =>
  JSON.stringify([
    when.consumers?.toSorted(),
    when.groups?.toSorted(),
    when.keys?.toSorted(),
    Object.entries(when.headers ?? {})
      .map(([name, value]) => [name.toLowerCase(), value])
      .toSorted(),
  ])

const clashMessage = (name: string, { route, alias }: Named, later: Route): string => {
  const shown = JSON.stringify(name)
  if (route === later) return `${shown} is named twice in this route`
  if (route.when === undefined && later.when !== undefined) {
    return `is never reached: every caller of ${shown} is taken`
  }
  return alias ? `another route has the alias ${shown}` : `another route has the model ${shown}`
}

/** Streams are kept fast by the ceiling: where there is none, nothing would come of it. */
const paceFindings = (
  { to, perTokenTarget }: Route,
  { routes, backends }: Gateway,
  at: At,
): readonly Finding[] => {
  if (perTokenTarget === undefined) return []
  const found = (message: string): readonly Finding[] => [{ ...at('perTokenTarget'), message }]
  if (perTokenTarget === 0) return found('expected more than 0, such as 100ms')
  if (Object.hasOwn(backends, to)) {
    return found(`${to} is a backend: how many it answers at once is its affair`)
  }
  const open = routes.find((other) => other.to === to && other.queue.ceiling === 'none')
  if (open === undefined) return []
  return found(`needs a ceiling: route ${open.model} sends ${to} all that comes (ceiling: none)`)
}

const limitFindings = ({ limits }: Route, at: At): readonly Finding[] =>
  limits.flatMap((limit, position) => {
    if (limitsOf({ model: '', limits: [limit] }).length > 0) return []
    const message = 'limits nothing: expected an amount, such as tokensPerMinute or concurrent'
    return [{ ...at('limits', position), message }]
  })

const clampFindings = (parameters: Parameters | undefined, at: At): readonly Finding[] =>
  Object.entries(parameters?.clamp ?? {}).flatMap(([name, { min, max }]) => {
    const place = at('parameters', 'clamp', name)
    if (min === undefined && max === undefined) {
      return [{ ...place, message: 'clamps nothing: expected min, max or both' }]
    }
    if (min === undefined || max === undefined || min <= max) return []
    return [{ ...place, message: `min ${min} is more than max ${max}` }]
  })

const sameAsDeployment = (name: string, { deploymentNames }: Asked, at: At): readonly Finding[] => {
  const same = deploymentNames?.find(({ value }) => value === name)
  if (same === undefined) return []
  const message = `a deployment is named ${name} too`
  const other = { document: same.document, path: ['name'] }
  return [{ ...at('backends', name), message, other }]
}

const urlFindings = (url: string, place: ReturnType<At>): readonly Finding[] => {
  const { username, password, search, hash } = new URL(url)
  if (username !== '' || password !== '') {
    return [{ ...place, message: 'a url holds no user and password: expected a key' }]
  }
  if (search === '' && hash === '') return []
  return [{ ...place, message: 'expected a url without ? and #' }]
}
