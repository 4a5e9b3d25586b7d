/** Limits that two gateways share, on a real Redis that is killed, frozen and emptied. */
import { afterEach, describe, expect, test } from 'vitest'
import { GatewaySchema } from '../../src/core/gateway-manifest.ts'
import { limitsOf } from '../../src/core/limits.ts'
import { chunk, JSON_TYPE, type Script, SSE, startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  type TestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'
import { PASSWORD, REDIS, startRedis, type TestRedis, watchPings } from '../support/redis.ts'

afterEach(closeAll)

type Stated = Readonly<Record<string, unknown>>

const limits = (...stated: readonly Stated[]) => {
  const routes = [{ model: 'qwq-32b', to: 'qwq-32b', limits: stated }]
  return GatewaySchema.parse({ kind: 'Gateway', routes }).routes.flatMap(limitsOf)
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

const STREAM = { stream: true }
const HANG: Script = { headers: SSE, steps: [{ send: chunk('a') }, { hang: true }] }

type Ask = {
  readonly script: Script
  readonly limits: readonly Stated[]
  readonly gateways?: number
  readonly threads?: number
  readonly redis?: TestRedis
}

const sharing = (gateway: TestGateway): number => gateway.handle.limits().redis?.shared ?? 0
const away = (gateway: TestGateway): number => gateway.handle.limits().redis?.local ?? 0

const knowOfEachOther = (gateways: readonly TestGateway[]): boolean =>
  gateways.every(({ handle }) => handle.limits().redis?.gateways === gateways.length)

/** Gateways on one Redis and one engine. */
const world = async ({ script, gateways: count = 2, threads = 1, ...ask }: Ask) => {
  const redis = ask.redis ?? closeLater(await startRedis())
  const engine = closeLater(await startEngine(() => script))
  const snapshot = snapshotOf([routeOf([targetOf(engine.url)], { limits: limits(...ask.limits) })])
  const gateways: TestGateway[] = []
  for (let nth = 0; nth < count; nth += 1) {
    const more = { redis: { url: redis.url, password: PASSWORD } }
    const gateway = await startTestGateway(snapshot, threads, more)
    closeLater(gateway.handle)
    gateways.push(gateway)
  }
  await until('Redis to be asked', () => gateways.every((one) => sharing(one) === threads))
  const [first, second] = gateways
  if (first === undefined) throw new Error('no gateway')
  return { redis, engine, gateways, first, second: second ?? first }
}

const statusOf = async (gateway: TestGateway, more: Stated = {}): Promise<number> => {
  const response = await post(gateway.url, chatBody(more))
  await response.text()
  return response.status
}

const remaining = async (gateway: TestGateway): Promise<number> => {
  const probe = await post(gateway.url, chatBody({ max_tokens: 100, n: 50_000 }))
  await probe.text()
  const what = probe.status === 429 ? 'remaining' : 'limit'
  return Number(probe.headers.get(`x-ratelimit-${what}-tokens`))
}

describe.skipIf(!REDIS)('two gateways on one Redis', { timeout: 120_000 }, () => {
  test('count together, and say what is left of the whole', async () => {
    const { first, second } = await world({
      script: answer(7, 2),
      limits: [{ per: 'consumer', requestsPerDay: 3, tokensPerDay: 10_000 }],
    })
    const answers = [await post(first.url, chatBody()), await post(second.url, chatBody())]
    expect(answers.map((one) => one.headers.get('x-ratelimit-remaining-requests'))).toEqual([
      '2',
      '1',
    ])
    await until('settled', () => first.finished.length + second.finished.length === 2)
    expect(await statusOf(first)).toBe(200)
    const refused = await post(second.url, chatBody())
    expect(refused.status).toBe(429)
    expect(refused.headers.get('x-ratelimit-remaining-requests')).toBe('0')
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(20_000)
    // All or nothing, and settled to the token: three answers of nine.
    expect(refused.headers.get('x-ratelimit-remaining-tokens')).toBe(String(10_000 - 27))
    expect(first.handle.limits().redis).toMatchObject({ shared: 1, local: 0, localDecisions: 0 })
  })

  test('no log line and no error holds the password', async () => {
    const { first, redis } = await world({ script: answer(1, 1), limits: [], gateways: 1 })
    await redis.kill()
    await until('it is missed', () => away(first) === 1)
    expect(first.lines.join('\n')).toMatch(/Redis is away/)
    expect(first.lines.join('\n')).not.toContain(PASSWORD)
  })

  test('places are leases: those of a gateway that crashed end by themselves', async () => {
    const { first, second } = await world({
      script: HANG,
      limits: [{ per: 'route', concurrent: 2 }],
    })
    const held = [await post(first.url, chatBody(STREAM))]
    held.push(await post(second.url, chatBody(STREAM)))
    expect(held.map(({ status }) => status)).toEqual([200, 200])
    expect(await statusOf(second)).toBe(429)
    const crashedAtMs = performance.now()
    await first.handle.crash(0)
    // Longer than a lease: what lives is renewed, what is dead is not.
    let waited = 0
    while ((await post(second.url, chatBody(STREAM))).status !== 200) {
      waited = performance.now() - crashedAtMs
      if (waited > 60_000) throw new Error('the place of the crashed gateway never came free')
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
    console.info(`the place of a crashed gateway was free after ${Math.round(waited / 1000)} s`)
    expect(waited).toBeGreaterThan(5_000)
    expect((await post(second.url, chatBody(STREAM))).status).toBe(429)
  })

  test('a client that leaves a stream frees its place at once', async () => {
    const { first, second } = await world({
      script: HANG,
      limits: [{ per: 'route', concurrent: 1 }],
    })
    const leave = new AbortController()
    const { status } = await fetch(`${first.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sk-ps-test-0123456789abcdef' },
      body: chatBody(STREAM),
      signal: leave.signal,
    })
    expect(status).toBe(200)
    expect(await statusOf(second)).toBe(429)
    leave.abort()
    await until('the report', () => first.finished.length === 1)
    const leftAtMs = performance.now()
    // Its lease would have ended after 15 s.
    const within = () => performance.now() - leftAtMs < 5_000
    let again = 429
    while (again === 429 && within()) again = (await post(second.url, chatBody(STREAM))).status
    expect([again, within()]).toEqual([200, true])
  })
})

/** How many keys of a kind there are whose value is not the one given. */
const countOf = async (redis: TestRedis, kind: string, except = ''): Promise<number> => {
  const value = "redis.call('TYPE', key).ok == 'string' and redis.call('GET', key) or '-'"
  const each = `if (${value}) ~= ARGV[1] then count = count + 1 end`
  const keys = `redis.call('KEYS', '{penstock}:${kind}:*')`
  const script = `local count = 0 for _, key in ipairs(${keys}) do ${each} end return count`
  return Number((await redis.say('EVAL', script, '0', except)).slice(1))
}

describe.skipIf(!REDIS)('requests that end in every way', { timeout: 120_000 }, () => {
  test('are each settled, and no place is left taken', async () => {
    const { redis, gateways } = await world({
      script: { ...answer(7, 2), steps: [{ waitMs: 15 }, ...answer(7, 2).steps] },
      limits: [{ per: 'route', tokensPerDay: 1_000_000, concurrent: 30 }],
    })
    const [first, second] = gateways
    const statuses: number[] = []
    const ask = async (nth: number): Promise<void> => {
      const gateway = nth % 2 === 0 ? first : second
      // Some leave before Redis has answered, some while the engine works, some never.
      const leave = AbortSignal.timeout(nth % 3 === 0 ? 60_000 : nth % 37)
      const response = await fetch(`${gateway?.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: 'Bearer sk-ps-test-0123456789abcdef' },
        body: chatBody(),
        signal: leave,
      })
      await response.text()
      statuses.push(response.status)
    }
    for (let wave = 0; wave < 6; wave += 1) {
      const all = Array.from({ length: 50 }, (_, nth) => ask(wave * 50 + nth))
      await Promise.allSettled(all)
    }
    // Of those that left there is a report where their body had arrived.
    await until('the books to be closed', () =>
      gateways.every((one) => one.handle.totalInFlight() === 0),
    )
    let open = 1
    for (let tries = 0; open > 0 && tries < 200; tries += 1) {
      open = (await countOf(redis, 'r', 'done')) + (await countOf(redis, 'p'))
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(open).toBe(0)
    expect(await countOf(redis, 'r')).toBeGreaterThan(50)
    const answered = statuses.filter((status) => status === 200).length
    const refused = statuses.filter((status) => status === 429).length
    console.info(`${answered} answered, ${refused} refused, ${300 - answered - refused} left`)
    expect(answered + refused).toBeLessThan(300)
    expect(answered).toBeGreaterThan(50)
  })
})

describe.skipIf(!REDIS)('a Redis that does not let us in', { timeout: 120_000 }, () => {
  test.each([
    ['a wrong password', 'not-this-one', /WRONGPASS|invalid.*password/],
    ['no password', null, /NOAUTH/],
  ])('%s: said once, and each gateway goes by its share', async (_, password, said) => {
    const redis = closeLater(await startRedis())
    const engine = closeLater(await startEngine(() => answer(1, 1)))
    const route = { limits: limits({ per: 'route', requestsPerDay: 10 }) }
    const snapshot = snapshotOf([routeOf([targetOf(engine.url)], route)])
    const gateway = await startTestGateway(snapshot, 1, { redis: { url: redis.url, password } })
    closeLater(gateway.handle)
    await until('it is said', () => said.test(gateway.lines.join('\n')))
    const statuses: number[] = []
    for (let nth = 0; nth < 7; nth += 1) statuses.push(await statusOf(gateway))
    expect(statuses.filter((status) => status === 200)).toHaveLength(5)
    expect(gateway.lines.filter((line) => line.includes('Redis is away'))).toHaveLength(1)
  })
})

/** Until so many gateways have said what they used while Redis was away, of one bucket. */
const reported = async (redis: TestRedis, gateways: number): Promise<void> => {
  const script = "return redis.call('HLEN', redis.call('KEYS', '{penstock}:o:*')[1] or 'none')"
  let fields = 0
  for (let tries = 0; fields < gateways + 2 && tries < 200; tries += 1) {
    fields = Number((await redis.say('EVAL', script, '0')).slice(1))
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  expect(fields).toBe(gateways + 2)
}

describe.skipIf(!REDIS)('Redis away', { timeout: 120_000 }, () => {
  test.each(['killed', 'silent', 'read-only', 'emptied'] as const)(
    '%s: a share of each limit, never open, never closed, and back by itself',
    async (how) => {
      const { redis, first, second } = await world({
        script: answer(5, 5),
        limits: [{ per: 'route', requestsPerDay: 10 }],
      })
      await until('both are known', () => knowOfEachOther([first, second]))
      if (how === 'killed') await redis.kill()
      if (how === 'silent') redis.freeze()
      if (how === 'read-only') await redis.say('REPLICAOF', '127.0.0.1', '1')
      if (how === 'emptied') await redis.say('FUNCTION', 'FLUSH')
      const statuses: number[] = []
      for (let nth = 0; nth < 8; nth += 1) {
        statuses.push(await statusOf(first), await statusOf(second))
      }
      const passed = statuses.filter((status) => status === 200).length
      expect(passed).toBe(10)
      expect(statuses.every((status) => status === 200 || status === 429)).toBe(true)
      if (how !== 'emptied') {
        expect([away(first), away(second)]).toEqual([1, 1])
        expect(first.handle.limits().redis?.localDecisions).toBeGreaterThan(4)
      }
      if (how === 'killed') await redis.start()
      if (how === 'silent') redis.thaw()
      if (how === 'read-only') await redis.say('REPLICAOF', 'NO', 'ONE')
      await until('it is back', () => sharing(first) === 1 && sharing(second) === 1)
      // What passed meanwhile is known to it once both have said: not one of the ten comes again.
      await reported(redis, 2)
      expect([await statusOf(first), await statusOf(second)]).toEqual([429, 429])
    },
  )

  test('a gateway that served more than its share goes on with its share at once', async () => {
    const { redis, gateways, first } = await world({
      script: answer(1, 1),
      limits: [{ per: 'route', requestsPerSecond: 20 }],
    })
    await until('both are known', () => knowOfEachOther(gateways))
    // Twice its share for four seconds: by its own count alone it would owe two seconds' worth.
    const endAtMs = performance.now() + 4_000
    while (performance.now() < endAtMs) await statusOf(first)
    await redis.kill()
    await until('it is missed', () => away(first) === 1)
    let passed = 0
    for (let nth = 0; nth < 15; nth += 1) {
      if ((await statusOf(first)) === 200) passed += 1
      await new Promise((resolve) => setTimeout(resolve, 60))
    }
    // A second or so, at ten a second.
    expect(passed).toBeGreaterThan(2)
  })

  test('a gateway that starts without it takes half, and joins when it comes', async () => {
    const redis = closeLater(await startRedis())
    await redis.kill()
    const engine = closeLater(await startEngine(() => answer(1, 1)))
    const route = { limits: limits({ per: 'route', requestsPerDay: 10 }) }
    const more = { redis: { url: redis.url, password: PASSWORD } }
    const snapshot = snapshotOf([routeOf([targetOf(engine.url)], route)])
    const gateway = await startTestGateway(snapshot, 1, more)
    closeLater(gateway.handle)
    const statuses: number[] = []
    for (let nth = 0; nth < 7; nth += 1) statuses.push(await statusOf(gateway))
    expect(statuses.filter((status) => status === 200)).toHaveLength(5)
    await redis.start()
    await until('it has joined', () => sharing(gateway) === 1)
    expect(gateway.handle.limits().redis?.gateways).toBe(1)
  })
})

/** Waves of requests at all gateways in turn, and what passed. */
const waves = async (
  gateways: readonly TestGateway[],
  { count, each }: { readonly count: number; readonly each: number },
): Promise<readonly number[]> => {
  const passed: number[] = []
  for (let wave = 0; wave < count; wave += 1) {
    const asked = Array.from({ length: each }, (_, nth) => {
      const gateway = gateways[nth % gateways.length]
      return gateway === undefined ? 0 : statusOf(gateway)
    })
    const statuses = await Promise.all(asked)
    expect(statuses.every((status) => status === 200 || status === 429)).toBe(true)
    passed.push(statuses.filter((status) => status === 200).length)
  }
  return passed
}

const finished = (gateways: readonly TestGateway[]): number =>
  gateways.reduce((sum, one) => sum + one.finished.length, 0)

describe.skipIf(!REDIS)('tokens let through by two gateways', { timeout: 300_000 }, () => {
  test.each([
    [1, 100, 50],
    [1, 60_000, 500],
    [4, 100, 50],
    [4, 60_000, 50],
  ])('%i threads, %i TPM under %i at once', async (threads, amount, each) => {
    const [prompt, completion] = amount === 100 ? [20, 30] : [100, 400]
    const { gateways, redis } = await world({
      script: answer(prompt, completion),
      threads,
      limits: [{ per: 'route', tokensPerMinute: amount }],
    })
    const startedAtMs = performance.now()
    const count = each === 500 ? 1 : 4
    const pings = watchPings(redis)
    const passed = await waves(gateways, { count, each })
    const slowestMs = await pings.end()
    const refill = (amount * (performance.now() - startedAtMs)) / 60_000
    const tokens = passed.reduce((sum, one) => sum + one, 0) * (prompt + completion)
    const over = Math.max(0, Math.round(tokens - amount - refill))
    console.info(
      `2 gateways, ${threads} threads, ${amount} TPM, ${each} at once: ${tokens} tokens, ${passed}; overshoot ${over}`,
    )
    const decided = gateways.map(({ handle }) => handle.limits().redis?.localDecisions ?? 0)
    console.info(`${decided} decided by share; the slowest PING took ${Math.round(slowestMs)} ms`)
    // A request may overstep a bucket that is not empty by less than what it had reserved. Where
    // a bystander waited for Redis for 250 ms, too, an outage's half burst comes on top.
    const outage = slowestMs > 250 && decided.some((one) => one > 0) ? amount / 2 : 0
    expect(tokens).toBeLessThanOrEqual(amount + refill + prompt + completion + outage)
    expect(tokens).toBeGreaterThan(0)
    await until('the reports', () => finished(gateways) === count * each)
  })

  test('Redis killed under load and started again, without its memory', async () => {
    const [amount, prompt, completion] = [60_000, 100, 400]
    const { gateways, redis, first } = await world({
      script: answer(prompt, completion),
      limits: [{ per: 'route', tokensPerMinute: amount }],
    })
    await until('both are known', () => knowOfEachOther(gateways))
    const startedAtMs = performance.now()
    const before = await waves(gateways, { count: 2, each: 50 })
    const [during] = await Promise.all([waves(gateways, { count: 4, each: 50 }), redis.kill()])
    await until('it is missed', () => gateways.every((one) => away(one) === 1))
    await redis.start()
    await until('it is back', () => gateways.every((one) => sharing(one) === 1))
    const after = await waves(gateways, { count: 3, each: 50 })
    const refill = (amount * (performance.now() - startedAtMs)) / 60_000
    const passed = [...before, ...during, ...after].reduce((sum, one) => sum + one, 0)
    const tokens = passed * (prompt + completion)
    const over = Math.max(0, Math.round(tokens - amount - refill))
    console.info(`killed under load: ${before} | ${during} | ${after}; overshoot ${over}`)
    // A share that one gateway had used up more than its part of, another still has: half a burst.
    expect(tokens).toBeLessThanOrEqual(1.5 * amount + refill + 2 * (prompt + completion))
    expect(await remaining(first)).toBeLessThanOrEqual(amount)
  })
})
