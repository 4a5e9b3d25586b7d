/** Routes on a running gateway: names, callers, shares, and which replica a request is tied to. */
import { hash } from 'node:crypto'
import { afterAll, describe, expect, test } from 'vitest'
import { patternOf } from '../../src/core/pattern.ts'
import type { GatewayRoute, GatewaySnapshot, RouteMatch } from '../../src/core/snapshot.ts'
import { completion, type Engine, JSON_TYPE, startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  KEY,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'

afterAll(closeAll)

const engineOf = async (): Promise<Engine> =>
  closeLater(await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })))

const worldOf = async (routes: readonly GatewayRoute[], more: Partial<GatewaySnapshot> = {}) => {
  const gateway = await startTestGateway(snapshotOf(routes, more))
  closeLater(gateway.handle)
  return gateway
}

const named = (
  model: string,
  deployment: string,
  { url, ...match }: Partial<RouteMatch> & { readonly url: string },
): GatewayRoute =>
  routeOf([targetOf(url, { id: `${deployment}-0` })], {
    model,
    deployment,
    servedModel: deployment,
    match: { ...patternOf(model), aliases: [], when: null, ...match },
  })

const replicaOf = async (
  url: string,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>> = {},
): Promise<string> => {
  const response = await post(url, chatBody(body), headers)
  await response.text()
  return response.headers.get('x-penstock-replica') ?? String(response.status)
}

const GROUP_KEY = 'sk-ps-group-0123456789abcdef'
const LIST_KEY = 'sk-ps-list-0123456789abcdef'
const KEYS = {
  keys: [
    { hash: hash('sha256', KEY), id: 'key-1', consumer: 'alice', models: null },
    { hash: hash('sha256', GROUP_KEY), id: 'key-2', consumer: 'bob', models: null },
    { hash: hash('sha256', LIST_KEY), id: 'key-3', consumer: 'carol', models: ['gpt-4o', 'qw*'] },
  ],
  consumers: [
    {
      name: 'bob',
      group: 'batch',
      weight: 1,
      priority: 'normal',
      maxPriority: 'normal',
      spillover: 'allow',
      parameters: null,
    },
  ],
} as const satisfies Partial<GatewaySnapshot>
const bearer = (key: string) => ({ authorization: `Bearer ${key}` })

describe('names', () => {
  const started = async () => {
    const engine = await engineOf()
    const { url } = engine
    const routes = [
      named('/^claude-\\d/', 'regex', { url }),
      named('gpt-*', 'prefix', { url, aliases: ['best'] }),
      named('qwq-32b', 'qwq', { url, aliases: ['gpt-4o'] }),
      named('qwq-32b', 'batch', { url, when: { groups: ['batch'] } }),
    ]
    // The route for the group stands before the one for all.
    return { engine, ...(await worldOf(routes.toReversed(), KEYS)) }
  }

  let shared: ReturnType<typeof started> | null = null
  const world = () => {
    shared ??= started()
    return shared
  }

  test('each finds its route, and the engine reads its own name', async () => {
    const { url, engine } = await world()
    const asked = ['qwq-32b', 'gpt-4o', 'gpt-5', 'best', 'claude-3-opus']
    const replicas: string[] = []
    for (const model of asked) replicas.push(await replicaOf(url, { model }))
    expect(replicas).toEqual(['qwq-0', 'qwq-0', 'prefix-0', 'prefix-0', 'regex-0'])
    const sent = engine.seen.map(({ body }) => JSON.parse(body.toString()).model)
    expect(sent).toEqual(['qwq', 'qwq', 'prefix', 'prefix', 'regex'])
    expect(await replicaOf(url, { model: 'qwq-32b' }, bearer(GROUP_KEY))).toBe('batch-0')
  })

  test('an unknown one is 404 with what there is and a guess', async () => {
    const { url } = await world()
    const response = await post(url, chatBody({ model: 'qwq-32' }))
    expect(response.status).toBe(404)
    expect(await response.json()).toEqual({
      error: {
        message:
          "the model 'qwq-32' does not exist (did you mean 'qwq-32b'?); " +
          'this key may use qwq-32b, gpt-4o, best, gpt-*, /^claude-\\d/',
        type: 'invalid_request_error',
        param: 'model',
        code: 'model_not_found',
      },
    })
  })

  test('a key lists names and patterns; others are 403', async () => {
    const { url } = await world()
    const status = async (model: string) =>
      (await post(url, chatBody({ model }), bearer(LIST_KEY))).status
    expect([await status('gpt-4o'), await status('qwq-32b')]).toEqual([200, 200])
    expect([await status('gpt-5'), await status('claude-3')]).toEqual([403, 403])
  })

  test('GET /v1/models has names and aliases, and what the key names of a pattern', async () => {
    const { url } = await world()
    const listed = async (key: string) => {
      const answer: unknown = await (
        await fetch(`${url}/v1/models`, { headers: bearer(key) })
      ).json()
      return JSON.stringify(answer).match(/(?<="id":")[^"]+/g)
    }
    expect(await listed(KEY)).toEqual(['qwq-32b', 'gpt-4o', 'best'])
    expect(await listed(LIST_KEY)).toEqual(['qwq-32b', 'gpt-4o'])
    const one = await fetch(`${url}/v1/models/gpt-5`, { headers: bearer(KEY) })
    expect(await one.json()).toMatchObject({ id: 'gpt-5', max_model_len: 32_768 })
  })

  test('a hostile name costs nothing', async () => {
    const { url: engineUrl } = await engineOf()
    const { url } = await worldOf([named('/^(a+)+$/', 'regex', { url: engineUrl })])
    const name = `${'a'.repeat(199)}!`
    const answers = await Promise.all(
      Array.from({ length: 50 }, async () => (await post(url, chatBody({ model: name }))).status),
    )
    // A backtracking engine would still be at the first of them.
    expect(new Set(answers)).toEqual(new Set([404]))
  })
})

describe('a split', () => {
  test('about its share by draw; a conversation always on the same side', async () => {
    const [main, canary] = [await engineOf(), await engineOf()]
    const share = named('qwq-32b', 'canary', { url: canary.url })
    const route = {
      ...named('qwq-32b', 'qwq', { url: main.url }),
      split: [{ percent: 30, route: share }],
    }
    const { url } = await worldOf([route])
    const all = await Promise.all(Array.from({ length: 100 }, () => replicaOf(url, {})))
    // 30 give or take 5 standard deviations (4.6).
    expect(Math.abs(all.filter((one) => one === 'canary-0').length - 30)).toBeLessThanOrEqual(23)
    const sides = new Set<string>()
    for (let session = 0; session < 12; session += 1) {
      const headers = { 'x-session-id': `session ${session}` }
      const [first, ...rest] = await Promise.all(
        Array.from({ length: 4 }, () => replicaOf(url, {}, headers)),
      )
      for (const one of rest) expect(one).toBe(first)
      sides.add(first ?? '')
    }
    expect(sides).toEqual(new Set(['qwq-0', 'canary-0']))
  })
})

describe('replicas', () => {
  const balanced = async (balance: 'session' | 'prefix' | 'round-robin') => {
    const engine = await engineOf()
    const targets = [0, 1, 2].map((slot) => targetOf(engine.url, { id: `qwq-${slot}`, slot }))
    const policy = policyOf({ balance, queue: { ceiling: 'none', depth: 10, wait: 1000 } })
    return worldOf([routeOf(targets, { policy })], KEYS)
  }

  test('session: by header, by the body’s user, by the key', async () => {
    const { url } = await balanced('session')
    const homes = new Set<string>()
    for (let user = 0; user < 20; user += 1) {
      const body = { user: `user ${user}` }
      const home = await replicaOf(url, body)
      expect(await replicaOf(url, { ...body, messages: [] })).toBe(home)
      homes.add(home)
    }
    expect(homes.size).toBe(3)
    const header = { 'x-session-id': 'one' }
    const home = await replicaOf(url, { user: 'a' }, header)
    expect(await replicaOf(url, { user: 'b' }, header)).toBe(home)
    expect(await replicaOf(url, {})).toBe(await replicaOf(url, {}))
  })

  test('prefix: every turn of a conversation on one replica, conversations on all', async () => {
    const { url } = await balanced('prefix')
    const homes = new Set<string>()
    for (let talk = 0; talk < 20; talk += 1) {
      const messages = [
        { role: 'system', content: 'You are helpful.' },
        { role: 'user', content: `question ${talk}` },
      ]
      const home = await replicaOf(url, { messages })
      messages.push({ role: 'assistant', content: 'answer' }, { role: 'user', content: 'and?' })
      expect(await replicaOf(url, { messages, temperature: 1 })).toBe(home)
      homes.add(home)
    }
    expect(homes.size).toBe(3)
  })

  test('round robin: one after the other', async () => {
    const { url } = await balanced('round-robin')
    const order: string[] = []
    for (let turn = 0; turn < 6; turn += 1) order.push(await replicaOf(url, {}))
    expect(new Set(order.slice(0, 3)).size).toBe(3)
    expect(order.slice(3)).toEqual(order.slice(0, 3))
  })
})
