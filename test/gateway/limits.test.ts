/** Limits over real sockets and threads: what passes, what is refused, and how the books end. */
import OpenAI, { RateLimitError } from 'openai'
import { afterEach, describe, expect, test } from 'vitest'
import { GatewaySchema } from '../../src/core/gateway-manifest.ts'
import { limitsOf } from '../../src/core/limits.ts'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import {
  chunk,
  DONE,
  JSON_TYPE,
  type Script,
  SSE,
  startEngine,
  usageChunk,
} from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  KEY,
  post,
  routeOf,
  snapshotOf,
  startWorld,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const limits = (...stated: readonly Readonly<Record<string, unknown>>[]) => {
  const routes = [{ model: 'qwq-32b', to: 'qwq-32b', limits: stated }]
  return GatewaySchema.parse({ kind: 'Gateway', routes }).routes.flatMap(limitsOf)
}

const HANG = { hang: true } as const

/**
 * What is left of a route's tokens, asked with a request that is larger than any burst: it is
 * refused, and charges nothing, while a single token is owed.
 */
const remaining = async (url: string): Promise<number> => {
  const probe = await post(url, chatBody({ max_tokens: 100, n: 50_000 }))
  await probe.text()
  const what = probe.status === 429 ? 'remaining' : 'limit'
  return Number(probe.headers.get(`x-ratelimit-${what}-tokens`))
}

const answer = (prompt: number, completion: number): Script => ({
  headers: JSON_TYPE,
  steps: [
    {
      send: JSON.stringify({
        choices: [{ index: 0, message: { content: 'x' }, finish_reason: 'stop' }],
        usage: { prompt_tokens: prompt, completion_tokens: completion },
      }),
    },
  ],
})

test('a 429 says which limit, when to come back, and what is left', async () => {
  const { url, engine, finished } = await startWorld(() => answer(7, 2), {
    route: {
      limits: limits(
        { per: 'consumer', requestsPerMinute: 2 },
        { per: 'route', tokensPerMinute: 600_000 },
      ),
    },
  })
  const first = await post(url, chatBody())
  expect(first.status).toBe(200)
  expect(first.headers.get('x-ratelimit-limit-requests')).toBe('2')
  expect(first.headers.get('x-ratelimit-remaining-requests')).toBe('1')
  expect(first.headers.get('x-ratelimit-reset-requests')).toBe('30s')
  expect(first.headers.get('x-ratelimit-limit-tokens')).toBe('600000')
  expect((await post(url, chatBody())).status).toBe(200)
  const refused = await post(url, chatBody())
  expect(refused.status).toBe(429)
  const body: unknown = await refused.json()
  expect(body).toMatchObject({
    error: { type: 'requests', code: 'rate_limit_exceeded', param: null },
  })
  expect(JSON.stringify(body)).toContain('2 requests per minute per consumer')
  const seconds = Number(refused.headers.get('retry-after'))
  const ms = Number(refused.headers.get('retry-after-ms'))
  expect(ms).toBeGreaterThan(20_000)
  expect(seconds).toBe(Math.ceil(ms / 1000))
  expect(refused.headers.get('x-should-retry')).toBe(null)
  expect(refused.headers.get('x-ratelimit-remaining-requests')).toBe('0')
  expect(engine.seen.length).toBe(2)
  await until('the reports', () => finished.length === 3)
  expect(finished[2]).toMatchObject({ status: 429, outcome: 'refused' })
})

test('the official client raises RateLimitError at once when the wait is long', async () => {
  const { url, engine } = await startWorld(() => answer(7, 2), {
    route: { limits: limits({ per: 'key', requestsPerDay: 1 }) },
  })
  const client = new OpenAI({ apiKey: KEY, baseURL: `${url}/v1` })
  const ask = () =>
    client.chat.completions.create({
      model: 'qwq-32b',
      messages: [{ role: 'user', content: 'hello' }],
    })
  await ask()
  const error: unknown = await ask().catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(RateLimitError)
  if (!(error instanceof RateLimitError)) return
  expect(error.code).toBe('rate_limit_exceeded')
  expect(error.headers?.get('x-should-retry')).toBe('false')
  expect(engine.seen.length).toBe(1)
})

test('a stream is charged by the usage that only the gateway asked for', async () => {
  const each = (text: string, tokens: number, finish: string | null = null) =>
    chunk(text, finish).replace(
      /\}\n\n$/,
      `,"usage":{"prompt_tokens":10,"total_tokens":${10 + tokens},"completion_tokens":${tokens}}}\n\n`,
    )
  const pieces = [each('', 0), each('a', 1), each('b', 40, 'stop'), usageChunk(10, 40), DONE]
  const { url, engine, finished } = await startWorld(
    () => ({ headers: SSE, steps: pieces.map((send) => ({ send })) }),
    { route: { limits: limits({ per: 'consumer', tokensPerDay: 10_000 }) } },
  )
  const bare = [chunk(''), chunk('a'), chunk('b', 'stop'), DONE].join('')
  const response = await post(url, chatBody({ stream: true, stream_options: undefined }))
  expect(response.headers.get('x-ratelimit-limit-tokens')).toBe('10000')
  expect(await response.text()).toBe(bare)
  expect(engine.seen[0]?.body.toString()).toContain(
    '"stream_options":{"include_usage":true,"continuous_usage_stats":true}',
  )
  const asked = { stream: true, stream_options: { include_usage: true } }
  const last = await post(url, chatBody(asked))
  expect(await last.text()).toBe(bare.replace(DONE, usageChunk(10, 40) + DONE))
  const all = {
    stream: true,
    stream_options: { ...asked.stream_options, continuous_usage_stats: true },
  }
  expect(await (await post(url, chatBody(all))).text()).toBe(pieces.join(''))
  await until('the reports', () => finished.length === 3)
  expect(finished[0]).toMatchObject({ promptTokens: 10, completionTokens: 40 })
  expect(await remaining(url)).toBe(10_000 - 3 * 50)
})

describe('every way out settles once', () => {
  /** What a request of a known cap leaves charged, by what was left afterwards. */
  const world = (script: () => Script, more: Partial<GatewayRoute> = {}) =>
    startWorld(script, {
      route: { limits: limits({ per: 'route', tokensPerDay: 10_000, concurrent: 1 }), ...more },
    })

  test('an engine that answers with an error gives all back', async () => {
    const { url, finished } = await world(() => ({ status: 500, headers: JSON_TYPE, steps: [] }))
    for (let nth = 0; nth < 3; nth += 1) expect((await post(url, chatBody())).status).toBe(500)
    await until('the reports', () => finished.length === 3)
    expect(await remaining(url)).toBe(10_000)
  })

  test('a client that leaves a stream pays for what was made, and frees its place', async () => {
    const steps = [{ send: chunk('') }, { send: chunk('a') }, { send: chunk('b') }]
    const { url, finished } = await world(() => ({ headers: SSE, steps: [...steps, HANG] }))
    for (let nth = 1; nth <= 3; nth += 1) {
      const leave = new AbortController()
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
        body: chatBody({ stream: true }),
        signal: leave.signal,
      })
      expect(response.status).toBe(200)
      await response.body?.getReader().read()
      expect((await post(url, chatBody())).status).toBe(429)
      leave.abort()
      await until('the report', () => finished.length === 2 * nth)
    }
    const left = await remaining(url)
    // The prompt is an estimate of some 30 tokens; the answer was at most three events.
    expect(left).toBeGreaterThan(10_000 - 3 * 60)
    expect(left).toBeLessThan(10_000)
  })

  test('a stream that the engine breaks off pays for what was made', async () => {
    const steps = [{ send: chunk('') }, { send: chunk('a') }, { reset: true } as const]
    const { url, finished } = await world(() => ({ headers: SSE, steps }))
    expect(await (await post(url, chatBody({ stream: true }))).text()).toContain('error')
    await until('the report', () => finished.length === 1)
    const left = await remaining(url)
    expect(left).toBeGreaterThan(10_000 - 60)
    expect(left).toBeLessThan(10_000)
  })

  test('a crashed thread frees its places; what it had reserved stays charged', async () => {
    const { url, handle } = await world(() => ({
      headers: SSE,
      steps: [{ send: chunk('a') }, HANG],
    }))
    const open = await post(url, chatBody({ stream: true, max_tokens: 1_000 }))
    expect(open.status).toBe(200)
    expect((await post(url, chatBody())).status).toBe(429)
    await handle.crash(0)
    const again = async (): Promise<number> => {
      const response = await post(url, chatBody({ stream: true })).catch(() => null)
      if (response === null) return again()
      void response.body?.cancel()
      return Number(response.headers.get('x-ratelimit-remaining-tokens'))
    }
    expect(await again()).toBeLessThan(10_000 - 512)
  })
})

test('a reload changes the amount and keeps what was used', async () => {
  const at = (amount: number) => ({ limits: limits({ per: 'route', tokensPerDay: amount }) })
  const { url, engine, handle, finished } = await startWorld(() => answer(600, 400), {
    route: at(10_000),
  })
  await post(url, chatBody())
  await until('the report', () => finished.length === 1)
  expect(await remaining(url)).toBe(9_000)
  handle.publish(snapshotOf([routeOf([targetOf(engine.url)], at(20_000))]))
  // The share of the window that is used up stays: a tenth.
  let left = 9_000
  while (left === 9_000) left = await remaining(url)
  expect(left).toBe(18_000)
})

test('what the token limit refuses, a stand-in takes and says so; `deny` rather has the 429', async () => {
  const small = closeLater(await startEngine(() => answer(1, 1)))
  const route = routeOf([targetOf(small.url, { id: 'small-0', slot: 1 })], {
    model: 'small',
    deployment: 'small',
    servedModel: 'small',
    limits: limits({ per: 'consumer', requestsPerDay: 2 }),
  })
  const { url, engine, finished } = await startWorld(() => answer(600, 400), {
    route: {
      limits: limits({ per: 'consumer', tokensPerDay: 1_000 }),
      standIn: { on: ['tokens'], fraction: 0, reason: '', saturated: false, route },
    },
  })
  const statuses: [number, string | null][] = []
  for (const headers of [{}, {}, { 'x-penstock-spillover': 'deny' }, {}, {}]) {
    const { status, headers: said } = await post(url, chatBody(), headers)
    statuses.push([status, said.get('x-penstock-spillover')])
  }
  // The last finds the stand-in's own limit used up.
  expect(statuses).toEqual([
    [200, null],
    [200, 'tokens'],
    [429, null],
    [200, 'tokens'],
    [429, null],
  ])
  expect([engine.seen.length, small.seen.length]).toEqual([1, 2])
  // Also then the caller hears of the limit on what he asked for.
  expect(await (await post(url, chatBody())).text()).toContain('1000 tokens per day per consumer')
  await until('the reports', () => finished.length === 6)
  expect(finished.map(({ spillover }) => spillover ?? null)).toEqual([
    null,
    'tokens',
    null,
    'tokens',
    null,
    null,
  ])
})

test.each([1e300, -1, 0, 2.5, null, 'x'])("n: %s is the engine's to refuse", async (n) => {
  const { url } = await startWorld(() => answer(1, 1), {
    route: { limits: limits({ per: 'route', tokensPerMinute: 100 }) },
  })
  const response = await post(url, chatBody({ n, max_tokens: 9e15, max_completion_tokens: -1 }))
  expect(response.status).toBe(200)
})

test('who is limited: a header, a cookie, a query parameter, an address', async () => {
  for (const [per, one, other] of [
    ['header:X-Team', { 'x-team': 'a' }, { 'x-team': 'b' }],
    ['cookie:team', { cookie: 'x=1; team=a' }, { cookie: 'team=b' }],
  ] as const) {
    const { url } = await startWorld(() => answer(1, 1), {
      route: { limits: limits({ per, requestsPerDay: 1 }) },
    })
    const statuses: number[] = []
    for (const headers of [one, one, other, {}, {}]) {
      statuses.push((await post(url, chatBody(), headers)).status)
    }
    expect(statuses).toEqual([200, 429, 200, 200, 429])
  }
})

describe.each([1, 4])('on %i threads', (threads) => {
  test.each([100, 60_000])('%i tokens a minute hold under 50 at once', async (amount) => {
    // Ten waves' worth of the small limit, twice the large one.
    const [prompt, completion] = amount === 100 ? [20, 30] : [100, 400]
    const { url, finished } = await startWorld(() => answer(prompt, completion), {
      threads,
      route: { limits: limits({ per: 'route', tokensPerMinute: amount }) },
    })
    const startedAtMs = performance.now()
    const waves: number[] = []
    for (let wave = 0; wave < 5; wave += 1) {
      const asked = Array.from({ length: 50 }, () => post(url, chatBody()))
      const statuses = (await Promise.all(asked)).map(({ status }) => status)
      waves.push(statuses.filter((status) => status === 200).length)
      expect(statuses.every((status) => status === 200 || status === 429)).toBe(true)
    }
    const refill = (amount * (performance.now() - startedAtMs)) / 60_000
    await until('the reports', () => finished.length === 250)
    const tokens = waves.reduce((sum, passed) => sum + passed, 0) * (prompt + completion)
    const allowed = amount + refill
    const line = `${threads} threads, ${amount} TPM: ${tokens} tokens passed, ${waves}`
    console.info(`${line}; overshoot ${Math.max(0, Math.round(tokens - allowed))}`)
    // One request may overstep a bucket that is not empty by less than what it had reserved.
    expect(tokens).toBeLessThanOrEqual(allowed + prompt + completion)
    expect(tokens).toBeGreaterThan(0)
  })
})
