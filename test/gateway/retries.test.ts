/** Another replica and another route in place of one that failed. */
import { afterEach, describe, expect, test } from 'vitest'
import type { RouteCause } from '../../src/core/gateway-manifest.ts'
import { limitsOf } from '../../src/core/limits.ts'
import type { GatewayRoute, RoutePolicy } from '../../src/core/snapshot.ts'
import {
  chunk,
  completion,
  DONE,
  type Engine,
  JSON_TYPE,
  type Script,
  SSE,
  type Step,
  startEngine,
} from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const retrying = (retry: Partial<RoutePolicy['retry']>): RoutePolicy =>
  policyOf({
    retry: { attempts: 2, on: ['unreachable', 'error'], budget: 0.1, ...retry },
    queue: { ceiling: 'none', depth: 10, wait: 1_000 },
  })

const json = (status: number, message = 'no'): Script => ({
  status,
  headers: JSON_TYPE,
  steps: [{ send: JSON.stringify({ error: { message, code: status } }) }],
})
const ANSWER: Script = { headers: JSON_TYPE, steps: [{ send: completion('hi') }] }
const WHOLE = chunk('a') + chunk('b', 'stop') + DONE
const STREAM: Script = { headers: SSE, steps: [{ send: WHOLE }] }
const sse = (...steps: Step[]): Script => ({ headers: SSE, headFirst: true, steps })
const event = (data: object): Step => ({ send: `data: ${JSON.stringify(data)}\n\n` })

/** The first is always asked first: the second seems to be loaded. */
const pair = async (first: Script, second: Script, more: Partial<GatewayRoute> = {}) => {
  const engines: Engine[] = []
  for (const script of [first, second]) engines.push(closeLater(await startEngine(() => script)))
  const targets = engines.map(({ url }, slot) =>
    targetOf(url, { id: `r${slot}`, slot, requestsRunning: slot * 50, requestsWaiting: slot * 50 }),
  )
  const route = routeOf(targets, { firstTokenTimeoutMs: 300, ...more })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  const seen = (): readonly number[] => engines.map((engine) => engine.seen.length)
  return { ...gateway, engines, seen, route }
}

const failures: readonly (readonly [string, RouteCause, Script])[] = [
  ['500', 'error', json(500)],
  ['502', 'error', json(502)],
  ['503', 'error', json(503, 'shutting down')],
  ['a connection that is reset', 'error', { steps: [{ reset: true }] }],
  ['429', 'busy', json(429)],
  ['a full queue', 'busy', json(503, 'The request queue is full.')],
  ['silence', 'timeout', { steps: [{ hang: true }], headers: JSON_TYPE }],
  ['one status of several', 500, json(500)],
]
const early: readonly (readonly [string, RouteCause, Script])[] = [
  [
    'a first event that is an error',
    'error',
    sse(event({ error: { message: 'x' } }), { send: DONE }),
  ],
  [
    'a full queue in a stream',
    'busy',
    sse(event({ error: { message: 'queue is full', code: 503 } })),
  ],
  ['a stream that ends without an event', 'error', sse()],
  ['a stream that is reset at once', 'error', sse({ waitMs: 20 }, { reset: true })],
  ['a stream of silence', 'timeout', sse({ hang: true })],
  [
    'half an event',
    'error',
    sse({ send: 'data: {"id":"x","cho' }, { waitMs: 20 }, { reset: true }),
  ],
]

describe.each([false, true])('before the first byte (stream: %s)', (stream) => {
  const body = chatBody({ stream })
  const good = stream ? STREAM : ANSWER
  const cases = stream ? [...failures, ...early] : failures

  test.each(cases)('%s is retried elsewhere when %s is a cause', async (_, cause, script) => {
    const { url, seen, finished, handle } = await pair(script, good, {
      policy: retrying({ on: [cause] }),
    })
    const response = await post(url, body)
    expect(response.status).toBe(200)
    expect(await response.text()).toBe(stream ? WHOLE : completion('hi'))
    expect(response.headers.get('x-penstock-replica')).toBe('r1')
    expect(seen()).toEqual([1, 1])
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ outcome: 'ok', replica: 'r1', retries: 1 })
    expect([0, 1].map((slot) => handle.inFlight(slot))).toEqual([0, 0])
  })

  test.each(cases)('%s is not when %s is none', async (_, cause, script) => {
    const on: RouteCause[] = (['error', 'timeout', 'busy'] as const).filter((one) => one !== cause)
    const others = cause === 500 ? [] : on
    const { url, seen } = await pair(script, good, { policy: retrying({ on: others }) })
    const response = await post(url, body)
    expect(response.status).toBeGreaterThanOrEqual(429)
    await response.text()
    expect(seen()).toEqual([1, 0])
  })

  test("the client's own mistake is never retried", async () => {
    const all: RouteCause[] = [
      'unavailable',
      'unreachable',
      'error',
      'timeout',
      'busy',
      400,
      404,
      422,
    ]
    for (const status of [400, 404, 413, 422]) {
      const { url, seen } = await pair(json(status), good, { policy: retrying({ on: all }) })
      expect((await post(url, body)).status).toBe(status)
      expect(seen()).toEqual([1, 0])
    }
  })

  test('a client whose library retries is not helped twice', async () => {
    const { url, seen } = await pair(json(500), good)
    const response = await post(url, body, { 'x-stainless-retry-count': '1' })
    expect(response.status).toBe(500)
    expect(seen()).toEqual([1, 0])
    expect((await post(url, body, { 'x-stainless-retry-count': '0' })).status).toBe(200)
  })
})

test('never the same replica twice, and not for ever', async () => {
  const engines: Engine[] = []
  for (let index = 0; index < 5; index += 1) {
    engines.push(closeLater(await startEngine(() => json(500))))
  }
  const targets = engines.map(({ url }, slot) => targetOf(url, { id: `r${slot}`, slot }))
  const gateway = await startTestGateway(
    snapshotOf([routeOf(targets, { policy: retrying({ attempts: 3 }) })]),
  )
  closeLater(gateway.handle)
  expect((await post(gateway.url, chatBody())).status).toBe(500)
  const seen = engines.map((engine) => engine.seen.length)
  expect(Math.max(...seen)).toBe(1)
  expect(seen.reduce((sum, one) => sum + one, 0)).toBe(4)
})

test('a storm of failures is not doubled: retries stay within the budget', async () => {
  const engines: Engine[] = []
  for (const _ of [0, 1]) engines.push(closeLater(await startEngine(() => json(429))))
  const targets = engines.map(({ url }, slot) => targetOf(url, { id: `r${slot}`, slot }))
  const route = routeOf(targets, { policy: retrying({ on: ['busy'], budget: 0.1 }) })
  const gateway = await startTestGateway(snapshotOf([route]), 2)
  closeLater(gateway.handle)
  const startedAtMs = performance.now()
  const count = 300
  await Promise.all(
    Array.from({ length: count }, async () => {
      const response = await post(gateway.url, chatBody())
      expect(response.status).toBe(429)
      await response.text()
    }),
  )
  const seconds = Math.ceil((performance.now() - startedAtMs) / 1_000) + 1
  const asked = engines.reduce((sum, engine) => sum + engine.seen.length, 0)
  expect(asked).toBeGreaterThan(count)
  expect(asked - count).toBeLessThanOrEqual(count * 0.1 + seconds * 3)
})

describe('a fallback', () => {
  const route = (url: string, name: string, slot: number, more: Partial<GatewayRoute> = {}) =>
    routeOf([targetOf(url, { id: `${name}-0`, slot })], {
      model: name,
      deployment: name,
      servedModel: name,
      policy: retrying({ attempts: 0 }),
      firstTokenTimeoutMs: 300,
      ...more,
    })

  type Settings = {
    readonly main: Script | null
    /** How `main` answers its second request and those after; absent: always the same. */
    readonly next?: readonly Script[]
    readonly others: readonly (readonly [Script, Partial<GatewayRoute>])[]
    readonly on?: readonly RouteCause[]
    readonly limited?: boolean
  }

  const world = async ({
    main,
    next = [],
    others,
    on = ['unavailable', 'unreachable', 'error'],
    limited,
  }: Settings) => {
    const engines: Engine[] = []
    const later = [...next]
    let current = main ?? ANSWER
    const ownScript = (): Script => {
      const now = current
      current = later.shift() ?? now
      return now
    }
    for (const script of [
      ownScript,
      ...others.map(
        ([one]) =>
          () =>
            one,
      ),
    ]) {
      engines.push(closeLater(await startEngine(script)))
    }
    const routes = others.map(([, more], at) =>
      route(engines[at + 1]?.url ?? '', `other-${at}`, at + 1, more),
    )
    const own = route(engines[0]?.url ?? '', 'main', 0, {
      fallback: { on, routes },
      ...(main === null ? { targets: [] } : {}),
      ...(limited === true ? { limits: LIMIT } : {}),
    })
    const gateway = await startTestGateway(snapshotOf([own]))
    closeLater(gateway.handle)
    const seen = (): readonly number[] => engines.map((engine) => engine.seen.length)
    return { ...gateway, engines, seen }
  }
  const LIMIT = limitsOf({
    model: 'main',
    limits: [{ per: 'consumer', tokensPerDay: 100_000 }],
  })
  const ASK = chatBody({ model: 'main' })

  test('answers under its own name, and says so', async () => {
    const { url, engines, finished } = await world({ main: json(500), others: [[ANSWER, {}]] })
    const response = await post(url, ASK)
    expect(response.status).toBe(200)
    expect(response.headers.get('x-penstock-model')).toBe('other-0')
    expect(response.headers.get('x-penstock-fallback')).toBe('error')
    expect(response.headers.get('x-penstock-spillover')).toBeNull()
    expect(JSON.parse(engines[1]?.seen[0]?.body.toString() ?? '')).toMatchObject({
      model: 'other-0',
    })
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({
      modelAsked: 'main',
      modelServed: 'other-0',
      deployment: 'other-0',
      outcome: 'ok',
    })
  })

  test('stands in when nobody is ready', async () => {
    const { url } = await world({ main: null, others: [[ANSWER, {}]] })
    const response = await post(url, ASK)
    expect(response.headers.get('x-penstock-fallback')).toBe('unavailable')
    expect(response.status).toBe(200)
  })

  test('the next one when it fails, too, in order; the last failure is the answer', async () => {
    const { url, seen } = await world({
      main: json(500),
      others: [
        [json(502), {}],
        [ANSWER, {}],
      ],
    })
    expect((await post(url, ASK)).headers.get('x-penstock-model')).toBe('other-1')
    expect(seen()).toEqual([1, 1, 1])
    const failing = await world({
      main: json(500),
      others: [
        [json(502), {}],
        [json(503, 'down'), {}],
      ],
    })
    expect((await post(failing.url, ASK)).status).toBe(503)
    expect(failing.seen()).toEqual([1, 1, 1])
  })

  test('the order holds from an unavailable route on', async () => {
    const { url, seen } = await world({
      main: null,
      others: [
        [json(500), {}],
        [ANSWER, {}],
      ],
    })
    expect((await post(url, ASK)).headers.get('x-penstock-model')).toBe('other-1')
    expect(seen()).toEqual([0, 1, 1])
  })

  test('is not asked for other causes, for the client’s mistakes, or against its will', async () => {
    for (const [main, on, headers] of [
      [json(500), ['timeout'], {}],
      [json(400), ['error', 'busy', 'timeout', 400], {}],
      [json(500), ['error'], { 'x-penstock-spillover': 'deny' }],
    ] as const) {
      const { url, seen } = await world({ main, on, others: [[ANSWER, {}]] })
      expect((await post(url, ASK, headers)).status).toBeGreaterThanOrEqual(400)
      expect(seen()).toEqual([1, 0])
    }
  })

  test('with too small a context, or a limit that refuses, is passed over', async () => {
    const limits = limitsOf({ model: 'x', limits: [{ per: 'key', requestsPerDay: 1 }] })
    const { url, seen } = await world({
      main: json(500),
      others: [
        [ANSWER, { context: 16 }],
        [ANSWER, { limits }],
        [ANSWER, {}],
      ],
    })
    expect((await post(url, ASK)).headers.get('x-penstock-model')).toBe('other-1')
    expect((await post(url, ASK)).headers.get('x-penstock-model')).toBe('other-2')
    expect(seen()).toEqual([2, 0, 1, 1])
  })

  test('its tokens count on its own limits, and those of the route asked are given back', async () => {
    const limits = limitsOf({ model: 'o', limits: [{ per: 'consumer', tokensPerDay: 50_000 }] })
    const answer = JSON.parse(completion('long'))
    const usage = { prompt_tokens: 700, completion_tokens: 200, total_tokens: 900 }
    const body = JSON.stringify({ ...answer, usage })
    const long: Script = { headers: JSON_TYPE, steps: [{ send: body }] }
    const { url, finished } = await world({
      main: json(500),
      next: [ANSWER, json(500)],
      limited: true,
      others: [[long, { limits }]],
    })
    const asked = async () => {
      const response = await post(url, ASK)
      expect(response.status).toBe(200)
      await response.text()
      const of = (what: string) => Number(response.headers.get(`x-ratelimit-${what}-tokens`))
      return {
        model: response.headers.get('x-penstock-model'),
        limit: of('limit'),
        left: of('remaining'),
      }
    }
    const first = await asked()
    expect(first).toMatchObject({ model: 'other-0', limit: 50_000 })
    const reserved = 50_000 - first.left
    // Far more than what is told apart below: what is not given back would be seen.
    expect(reserved).toBeGreaterThan(300)
    await until('the first report', () => finished.length === 1)
    const own = await asked()
    expect(own).toMatchObject({ model: 'main', limit: 100_000 })
    expect(Math.abs(100_000 - reserved - own.left)).toBeLessThan(5)
    await until('the second report', () => finished.length === 2)
    const third = await asked()
    expect(third).toMatchObject({ model: 'other-0', limit: 50_000 })
    // The first answer's tokens, and as many that are expected of this one: its like was seen.
    const taken = 50_000 - third.left
    expect(taken).toBeLessThanOrEqual(2 * 900)
    expect(taken).toBeGreaterThan(2 * 900 - 50)
  })

  test('streams, too; and not once the client has a part', async () => {
    const dying = sse({ send: chunk('a') }, { waitMs: 20 }, { reset: true })
    const { url, seen } = await world({ main: dying, others: [[STREAM, {}]] })
    const text = await (await post(url, chatBody({ model: 'main', stream: true }))).text()
    expect(text.startsWith(chunk('a'))).toBe(true)
    expect(text).toContain('stream_interrupted')
    expect(text).not.toContain('[DONE]')
    expect(seen()).toEqual([1, 0])
    const early = await world({ main: sse(), others: [[STREAM, {}]] })
    expect(await (await post(early.url, chatBody({ model: 'main', stream: true }))).text()).toBe(
      WHOLE,
    )
  })
})
