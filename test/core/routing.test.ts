/** Which route answers, by name and by caller. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hashText } from '../../src/core/hash.ts'
import { patternOf } from '../../src/core/pattern.ts'
import { type Asking, Routing, splitOf } from '../../src/core/routing.ts'
import type { GatewayRoute, RouteMatch } from '../../src/core/snapshot.ts'
import { routeOf, targetOf } from '../support/gateway.ts'

const ready = [targetOf('http://127.0.0.1:1')]

const route = (
  model: string,
  deployment: string,
  match: Partial<RouteMatch> = {},
  more: Partial<GatewayRoute> = {},
): GatewayRoute =>
  routeOf(ready, {
    model,
    deployment,
    servedModel: deployment,
    match: { ...patternOf(model), aliases: [], when: null, ...match },
    ...more,
  })

const asking = (more: Partial<Asking> & { models?: readonly string[] } = {}): Asking => ({
  key: { hash: '', id: 'key-1', consumer: 'alice', models: more.models ?? null },
  group: null,
  headers: {},
  ...more,
})

const to = (routing: Routing, name: string, who: Asking = asking()): string => {
  const found = routing.find(name, who)
  return found.ok ? found.route.deployment : found.code
}

describe('by name', () => {
  const routing = new Routing([
    route('/^qwen.*coder/', 'first-regex'),
    route('/coder/', 'second-regex'),
    route('*', 'rest'),
    route('qwen*', 'prefix'),
    route('qwen-32b*', 'longer-prefix'),
    route('qwen-32b', 'exact', { aliases: ['gpt-4o', 'qwen-32b-latest'] }),
  ])

  test('the exact name, an alias, the longest prefix, wherever they stand in the file', () => {
    expect(to(routing, 'qwen-32b')).toBe('exact')
    expect(to(routing, 'gpt-4o')).toBe('exact')
    expect(to(routing, 'qwen-32b-latest')).toBe('exact')
    expect(to(routing, 'qwen-32b-awq')).toBe('longer-prefix')
    expect(to(routing, 'qwen-coder')).toBe('prefix')
    expect(to(routing, 'anything')).toBe('rest')
    expect(to(routing, 'Qwen-32b')).toBe('rest')
  })

  test('regular expressions in the order of the file', () => {
    const only = new Routing([route('/^qwen.*coder/', 'first'), route('/coder/', 'second')])
    expect(to(only, 'qwen-coder')).toBe('first')
    expect(to(only, 'starcoder')).toBe('second')
    expect(to(only, 'star')).toBe('model_not_found')
  })

  test('a name of more than 200 characters is nobody’s, and is not run through expressions', () => {
    const long = `qwen-${'x'.repeat(196)}`
    expect(to(routing, long)).toBe('model_not_found')
    expect(to(routing, long.slice(0, 200))).toBe('prefix')
  })

  test('a new table does not parse an old expression again', () => {
    const routes = [route('/^(a|b)*c$/', 'regex')]
    const second = new Routing(routes, new Routing(routes))
    expect(to(second, 'abac')).toBe('regex')
    expect(to(new Routing([route('/c/', 'other')], second), 'abac')).toBe('other')
  })

  test('is as a plain search finds it', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '-'), minLength: 1, maxLength: 5 })
    const written = letters.chain((name) => fc.constantFrom(name, `${name}*`, `/${name}/`))
    fc.assert(
      fc.property(fc.uniqueArray(written, { maxLength: 12 }), letters, (models, name) => {
        const patterns = models.map((model, at) => ({ ...patternOf(model), at }))
        const exact = patterns.find(({ kind, pattern }) => kind === 'exact' && pattern === name)
        const prefix = patterns
          .filter(({ kind, pattern }) => kind === 'prefix' && name.startsWith(pattern))
          .toSorted((a, b) => b.pattern.length - a.pattern.length)[0]
        const regex = patterns.find(
          ({ kind, pattern }) => kind === 'regex' && name.includes(pattern),
        )
        const expected = exact ?? prefix ?? regex
        const found = to(new Routing(models.map((model, at) => route(model, `d${at}`))), name)
        expect(found).toBe(expected === undefined ? 'model_not_found' : `d${expected.at}`)
      }),
    )
  })
})

describe('by caller', () => {
  const when = (given: NonNullable<RouteMatch['when']>) => ({ when: given })
  const routing = new Routing([
    route('r1', 'for-batch', when({ groups: ['batch'] })),
    route('r1', 'for-bob', when({ consumers: ['bob'] })),
    route('r1', 'for-key', when({ keys: ['key-7'] })),
    route('r1', 'for-header', when({ headers: { 'X-Canary': 'yes' } })),
    route('r1', 'for-all'),
    route('hidden', 'secret', when({ groups: ['staff'] })),
    route('hid*', 'open'),
  ])

  test('the first route that fits', () => {
    expect(to(routing, 'r1')).toBe('for-all')
    expect(to(routing, 'r1', asking({ group: 'batch' }))).toBe('for-batch')
    const key = { hash: '', id: 'key-7', consumer: 'carol', models: null }
    expect(to(routing, 'r1', asking({ key }))).toBe('for-key')
    expect(to(routing, 'r1', asking({ key: { ...key, consumer: 'bob' } }))).toBe('for-bob')
    expect(to(routing, 'r1', asking({ headers: { 'x-canary': 'yes' } }))).toBe('for-header')
    expect(to(routing, 'r1', asking({ headers: { 'x-canary': 'no' } }))).toBe('for-all')
  })

  test('every condition must hold', () => {
    const both = new Routing([
      route('m', 'both', when({ groups: ['a', 'b'], headers: { 'x-canary': 'yes' } })),
    ])
    expect(to(both, 'm', asking({ group: 'b' }))).toBe('model_not_found')
    expect(to(both, 'm', asking({ group: 'b', headers: { 'x-canary': 'yes' } }))).toBe('both')
  })

  test('one that does not fit is as if it were not there: not found, not listed, not named', () => {
    expect(to(routing, 'hidden')).toBe('open')
    expect(to(routing, 'hidden', asking({ group: 'staff' }))).toBe('secret')
    const listed = (who: Asking) => routing.names(who).map(({ name }) => name)
    expect(listed(asking())).toEqual(['r1', 'hidden'])
    const closed = new Routing([route('hidden', 'secret', when({ groups: ['staff'] }))])
    expect(closed.names(asking())).toEqual([])
    const found = closed.find('hiddn', asking())
    expect(found.ok ? '' : found.message).toBe(
      "the model 'hiddn' does not exist; this key may use no model",
    )
  })
})

describe('by key', () => {
  const routing = new Routing([
    route('qwq-32b', 'qwq', { aliases: ['qwq'] }),
    route('deepseek-r1', 'r1'),
    route('gpt-*', 'openai', { aliases: ['big'] }),
    route('/^claude/', 'anthropic'),
  ])
  const by = (name: string, ...models: string[]) => to(routing, name, asking({ models }))
  const no = 'model_not_allowed'

  test('a name, an alias of a name, a pattern of the key’s, a pattern of the route’s', () => {
    expect([by('qwq', 'qwq-32b'), by('qwq-32b', 'qwq'), by('qwq', 'r1')]).toEqual([
      'qwq',
      'qwq',
      no,
    ])
    expect([by('qwq-32b', 'qw*'), by('deepseek-r1', 'qw*')]).toEqual(['qwq', no])
    expect([by('gpt-5', 'gpt-*'), by('big', 'gpt-*')]).toEqual(['openai', 'openai'])
    expect([by('claude-4', '/^claude/'), by('claude-4', '/4$/')]).toEqual([
      'anthropic',
      'anthropic',
    ])
  })

  test('one name of a pattern does not open the pattern', () => {
    expect([by('gpt-5', 'gpt-5'), by('gpt-5-pro', 'gpt-5')]).toEqual(['openai', no])
    expect([by('big', 'big'), by('gpt-5', 'big')]).toEqual(['openai', no])
  })

  test('lists names that can be said in full', () => {
    const listed = (...models: string[]) =>
      routing.names(asking({ models })).map(({ name }) => name)
    expect(routing.names(asking()).map(({ name }) => name)).toEqual([
      'qwq-32b',
      'qwq',
      'deepseek-r1',
      'big',
    ])
    expect(listed('gpt-5', 'qwq')).toEqual(['qwq-32b', 'qwq', 'gpt-5'])
    expect(listed('gpt-*')).toEqual(['big'])
  })

  test('an unknown name: what there is, patterns as they are written, and a guess', () => {
    const said = (name: string, ...models: string[]) => {
      const found = routing.find(name, models.length === 0 ? asking() : asking({ models }))
      return found.ok ? '' : found.message
    }
    expect(said('deepseek-r2')).toBe(
      "the model 'deepseek-r2' does not exist (did you mean 'deepseek-r1'?); " +
        'this key may use qwq-32b, qwq, deepseek-r1, big, gpt-*, /^claude/',
    )
    expect(said('deepseek-r2', 'qwq-32b', 'gpt-*')).toBe(
      "the model 'deepseek-r2' does not exist; this key may use qwq-32b, qwq, big, gpt-*",
    )
    expect(said('deepseek-r1', 'qwq-32b')).toBe(
      "this key may not use the model 'deepseek-r1'; this key may use qwq-32b, qwq",
    )
  })
})

describe('the name upstream', () => {
  const served = (routing: Routing, name: string) => {
    const found = routing.find(name, asking())
    return found.ok ? found.route : null
  }

  test('is the deployment’s own, whatever the pattern; a backend’s by its list or as asked', () => {
    const models = { big: 'gpt-5', 'gpt-4': 'gpt-4-turbo' }
    const routing = new Routing([
      route('qwen*', 'qwq'),
      route('gpt-*', 'openai', { aliases: ['big'] }, { models }),
      route('small', 'openai', { aliases: ['tiny'] }, { models: { small: 'gpt-5-mini' } }),
    ])
    expect(served(routing, 'qwen-7b')?.servedModel).toBe('qwq')
    expect(served(routing, 'gpt-5')?.servedModel).toBe('gpt-5')
    expect(served(routing, 'gpt-4')?.servedModel).toBe('gpt-4-turbo')
    expect(served(routing, 'big')?.servedModel).toBe('gpt-5')
    expect(served(routing, 'tiny')?.servedModel).toBe('gpt-5-mini')
    const proto = new Routing([route('*', 'openai', {}, { models: {} })])
    expect(served(proto, 'constructor')?.servedModel).toBe('constructor')
  })

  test('also of those that answer in its place', () => {
    const backend = route('x', 'openai', {}, { models: { r1: 'deepseek-chat' } })
    const own = route('x', 'qwq')
    const main = route(
      'r1',
      'r1',
      { aliases: ['best'] },
      {
        standIn: { on: [], fraction: 0, reason: '', saturated: false, route: backend },
        fallback: { on: [], routes: [own, backend] },
        split: [{ percent: 5, route: backend }],
      },
    )
    const found = served(new Routing([main]), 'best')
    expect(found?.servedModel).toBe('r1')
    expect(found?.standIn?.route.servedModel).toBe('deepseek-chat')
    expect(found?.fallback?.routes.map(({ servedModel }) => servedModel)).toEqual([
      'qwq',
      'deepseek-chat',
    ])
    expect(found?.split?.[0]?.route.servedModel).toBe('deepseek-chat')
  })
})

describe('a split', () => {
  const other = (name: string, targets = ready) => routeOf(targets, { deployment: name })
  const split = (...shares: readonly (readonly [number, string])[]) =>
    route(
      'r1',
      'main',
      {},
      {
        split: shares.map(([percent, name]) => ({ percent, route: other(name) })),
      },
    )

  test('each gets its percent of draws, the route the rest', () => {
    const main = split([5, 'canary'], [20, 'next'])
    const counts = new Map<string, number>()
    for (let draw = 0; draw < 1000; draw += 1) {
      const { deployment } = splitOf(main, { sessionHash: null, random: draw / 1000 })
      counts.set(deployment, (counts.get(deployment) ?? 0) + 1)
    }
    expect(Object.fromEntries(counts)).toEqual({ canary: 50, next: 200, main: 750 })
  })

  test('a conversation stays where it is; a larger share moves nobody back', () => {
    const where = (percent: number, conversation: number) =>
      splitOf(split([percent, 'canary']), {
        sessionHash: hashText(`conversation ${conversation}`),
        random: (conversation * 0.37) % 1,
      }).deployment
    const all = Array.from({ length: 5_000 }, (_, at) => [where(10, at), where(30, at)])
    // 500 give or take 5 standard deviations (21).
    expect(Math.abs(all.filter(([one]) => one === 'canary').length - 500)).toBeLessThan(106)
    expect(all.filter(([small, large]) => small === 'canary' && large !== 'canary')).toEqual([])
    expect(where(100, 1)).toBe('canary')
    expect(where(0, 1)).toBe('main')
  })

  test('a share whose replicas are not ready is the route’s own', () => {
    const main = route('r1', 'main', {}, { split: [{ percent: 100, route: other('canary', []) }] })
    expect(splitOf(main, { sessionHash: null, random: 0 }).deployment).toBe('main')
  })
})
