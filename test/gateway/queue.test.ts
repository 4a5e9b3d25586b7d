/** The fair queue over real sockets and threads: who goes, who waits, who is told to come back. */
import { hash } from 'node:crypto'
import { request } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import type { GatewayConsumer, GatewayKey, RoutePolicy, Target } from '../../src/core/snapshot.ts'
import { chunk, completion, JSON_TYPE, type Script, SSE } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startWorld,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const policy = (queue: Partial<RoutePolicy['queue']> = {}, more: Partial<RoutePolicy> = {}) =>
  policyOf({
    queue: { ceiling: 'auto', depth: 1000, wait: 60_000, ...queue },
    continueStreams: false,
    ...more,
  })

const NAMES = ['alice', 'bob', 'carol'] as const
const keyOf = (name: string): string => `sk-ps-${name}-0123456789abcdef`
const KEYS: readonly GatewayKey[] = NAMES.map((name) => {
  return { hash: hash('sha256', keyOf(name)), id: `key-${name}`, consumer: name, models: null }
})
const as = (name: string, more: Readonly<Record<string, string>> = {}) => ({
  authorization: `Bearer ${keyOf(name)}`,
  ...more,
})

const consumer = (name: string, more: Partial<GatewayConsumer> = {}): GatewayConsumer => ({
  name,
  group: null,
  weight: 1,
  priority: 'normal',
  maxPriority: 'normal',
  spillover: 'allow',
  parameters: null,
  ...more,
})

type Setting = {
  readonly places: number
  readonly threads?: number
  readonly queue?: Partial<RoutePolicy['queue']>
  readonly more?: Partial<RoutePolicy>
  readonly consumers?: readonly GatewayConsumer[]
  readonly target?: Partial<Target>
}

/** One engine that takes `places` at a time, and a gateway that knows. */
const world = async (script: () => Script, { places, threads, ...setting }: Setting) => {
  const { queue, more, consumers = [], target } = setting
  const base = await startWorld(script, threads === undefined ? {} : { threads })
  const route = routeOf([targetOf(base.engine.url, { maxRunning: places, ...target })], {
    policy: policy(queue, more),
  })
  base.handle.publish(snapshotOf([route], { keys: KEYS, consumers }))
  // The new snapshot is there when a key of it opens.
  for (let tries = 0; ; tries += 1) {
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => fetch(`${base.url}/v1/models`, { headers: as('carol') })),
    )
    if (answers.every(({ status }) => status === 200)) break
    if (tries > 500) throw new Error('the snapshot never came')
  }
  return { ...base, waiting: () => base.handle.waiting('qwq-32b') }
}

const HANG: Script = { headers: SSE, steps: [{ send: chunk('a') }, { hang: true }] }
const quick = (waitMs: number): Script => ({
  headers: JSON_TYPE,
  steps: [{ waitMs }, { send: completion('done') }],
})
const STREAM = chatBody({ stream: true })

/** A request that can be left. */
const leavable = (url: string, name: string, body = STREAM) => {
  const away = new AbortController()
  const answer = fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { ...as(name), 'content-type': 'application/json' },
    body,
    signal: away.signal,
  })
  answer.catch(() => {})
  return { answer, leave: () => away.abort() }
}

test('below the ceiling nobody waits; above it one does, and is told for how long', async () => {
  const { url, engine, finished, waiting } = await world(() => quick(300), { places: 1 })
  const first = post(url, chatBody(), as('alice'))
  await until('the first at the engine', () => engine.seen.length === 1)
  const second = post(url, chatBody(), as('alice'))
  await until('the second waits', () => waiting() === 1)
  expect(engine.seen.length).toBe(1)
  expect((await first).headers.get('x-penstock-queue-ms')).toBe(null)
  const answer = await second
  expect(answer.status).toBe(200)
  expect(Number(answer.headers.get('x-penstock-queue-ms'))).toBeGreaterThan(0)
  await until('the reports', () => finished.length === 2)
  expect(finished.map(({ queueMs }) => queueMs !== undefined)).toEqual([false, true])
  expect(waiting()).toBe(0)
})

test('a full queue is 429 with when to come back, in OpenAI’s shape', async () => {
  const { url, engine, waiting, finished } = await world(() => HANG, {
    places: 1,
    queue: { depth: 1 },
  })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const queued = leavable(url, 'alice')
  await until('one waits', () => waiting() === 1)
  const refused = await post(url, STREAM, as('alice'))
  expect(refused.status).toBe(429)
  const body: unknown = await refused.json()
  expect(body).toMatchObject({
    error: { type: 'requests', code: 'model_saturated', param: 'model' },
  })
  expect(JSON.stringify(body)).toContain('1 of at most 1 requests wait already')
  const ms = Number(refused.headers.get('retry-after-ms'))
  expect(ms).toBeGreaterThanOrEqual(1000)
  expect(Number(refused.headers.get('retry-after'))).toBe(Math.ceil(ms / 1000))
  await until('its report', () => finished.length === 1)
  expect(finished[0]).toMatchObject({ status: 429, outcome: 'refused', replica: null })
  queued.leave()
  running.leave()
  await until('all is over', () => waiting() === 0)
})

test('in a full queue the newest of who had most makes room for who had less', async () => {
  const { url, engine, waiting } = await world(() => HANG, { places: 1, queue: { depth: 2 } })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const older = leavable(url, 'alice')
  await until('one waits', () => waiting() === 1)
  const newest = leavable(url, 'alice')
  await until('two wait', () => waiting() === 2)
  // Alice has been served and streams; her counter stands above that of one who comes new.
  const bob = leavable(url, 'bob')
  const refused = await newest.answer
  expect(refused.status).toBe(429)
  expect(await refused.text()).toContain('others had less of it')
  running.leave()
  await until('bob runs', () => engine.seen.length === 2)
  expect((await bob.answer).status).toBe(200)
  for (const one of [older, bob]) one.leave()
  await until('all is over', () => waiting() === 0)
})

test('a place that is kept for others does not stay empty behind the first in the queue', async () => {
  let script: Script = quick(0)
  const { url, engine, waiting } = await world(() => script, { places: 16 })
  await (await post(url, chatBody(), as('bob'))).text()
  script = HANG
  const crowd = [leavable(url, 'alice')]
  await until('one runs', () => engine.seen.length === 2)
  // Who was served of late is counted once a second.
  await new Promise((resolve) => setTimeout(resolve, 1100))
  while (crowd.length < 14) crowd.push(leavable(url, 'alice'))
  await until('fourteen run', () => engine.seen.length === 15)
  crowd.push(leavable(url, 'alice'))
  await until('the next one waits', () => waiting() === 1)
  const long = [{ role: 'user', content: 'water '.repeat(20_000) }]
  const costly = leavable(url, 'bob', chatBody({ stream: true, messages: long }))
  expect((await costly.answer).status).toBe(200)
  // He has had more than Alice by now, and stands behind her; but he has less running.
  const bob = leavable(url, 'bob')
  expect((await bob.answer).status).toBe(200)
  expect(engine.seen.length).toBe(17)
  expect(waiting()).toBe(1)
  for (const one of [...crowd, costly, bob]) one.leave()
  await until('all is over', () => waiting() === 0)
})

test('one whose patience ends hears its position; one whose first token is late hears it', async () => {
  const { url, engine } = await world(() => HANG, { places: 1, queue: { wait: 400 } })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const refused = await post(url, STREAM, as('bob'))
  expect(refused.status).toBe(429)
  expect(await refused.text()).toMatch(/waited \d+(\.\d)?m?s, still at position 1/)
  running.leave()
  await closeAll()
  const strict = await world(() => HANG, { places: 1, more: { firstTokenTargetMs: 300 } })
  const held = leavable(strict.url, 'alice')
  await until('one runs', () => strict.engine.seen.length === 1)
  const late = await post(strict.url, STREAM, as('bob'))
  expect(late.status).toBe(429)
  held.leave()
})

test('a priority goes first, as far as its consumer may ask for it', async () => {
  const { url, engine, waiting } = await world(() => HANG, {
    places: 1,
    consumers: [consumer('bob', { maxPriority: 'high' })],
  })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const ask = (name: string, mark: string, priority: string) => {
    const away = new AbortController()
    const answer = fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: as(name, { 'x-penstock-priority': priority }),
      body: chatBody({ stream: true, user: mark }),
      signal: away.signal,
    })
    answer.catch(() => {})
    return away
  }
  const order = ['carol-high', 'alice-low', 'bob-high'] as const
  const clients: AbortController[] = []
  for (const [index, mark] of order.entries()) {
    const [name = '', priority = ''] = mark.split('-')
    clients.push(ask(name, mark, priority))
    await until('it waits', () => waiting() === index + 1)
  }
  const marks = () =>
    engine.seen.slice(1).map(({ body }) => /"user":"([a-z-]+)"/.exec(body.toString())?.[1])
  running.leave()
  await until('the next runs', () => marks().length === 1)
  expect(marks()).toEqual(['bob-high'])
  clients[2]?.abort()
  await until('the next runs', () => marks().length === 2)
  // Carol may not: she stands in the middle band, still before what asked for less.
  expect(marks()[1]).toBe('carol-high')
  for (const client of clients) client.abort()
  await until('all is over', () => waiting() === 0)
})

test('who waits when the gateway stops is told so, and never reaches an engine', async () => {
  const { url, engine, waiting, handle } = await world(() => HANG, { places: 1 })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const queued = leavable(url, 'alice')
  await until('one waits', () => waiting() === 1)
  const over = handle.drain(500)
  const answer = await queued.answer
  expect(answer.status).toBe(503)
  expect(await answer.text()).toContain('server_draining')
  running.leave()
  await over
  expect(engine.seen.length).toBe(1)
})

test('when the last replica goes, who waits is told so', async () => {
  const { url, engine, waiting, handle } = await world(() => HANG, { places: 1 })
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const queued = leavable(url, 'alice')
  await until('one waits', () => waiting() === 1)
  const gone = routeOf([targetOf(engine.url, { state: 'draining' })], { policy: policy() })
  handle.publish(snapshotOf([gone], { keys: KEYS }))
  const answer = await queued.answer
  expect(answer.status).toBe(503)
  expect(await answer.text()).toContain('model_unavailable')
  running.leave()
})

test('what the queue refuses a stand-in takes, and says why', async () => {
  const small = await startWorld(() => quick(0))
  const { url, engine, handle } = await world(() => HANG, { places: 1 })
  const standIn = {
    on: ['saturation' as const],
    fraction: 0,
    reason: 'calm',
    saturated: false,
    route: routeOf([targetOf(small.engine.url, { id: 'small-0', slot: 1 })], {
      model: 'small',
      deployment: 'small',
      servedModel: 'small',
    }),
  }
  const route = routeOf([targetOf(engine.url, { maxRunning: 1 })], {
    policy: policy({ depth: 0 }),
    standIn,
  })
  handle.publish(snapshotOf([route], { keys: KEYS }))
  const running = leavable(url, 'alice')
  await until('one runs', () => engine.seen.length === 1)
  const spilled = await post(url, chatBody(), as('alice'))
  expect(spilled.status).toBe(200)
  expect(spilled.headers.get('x-penstock-spillover')).toBe('saturation')
  expect(spilled.headers.get('x-penstock-model')).toBe('small')
  const refused = await post(url, chatBody(), as('alice', { 'x-penstock-spillover': 'deny' }))
  expect(refused.status).toBe(429)
  running.leave()
})

test('with `ceiling: none` the engine queues itself', async () => {
  const { url, engine, waiting } = await world(() => HANG, {
    places: 1,
    queue: { ceiling: 'none' },
  })
  const clients = Array.from({ length: 5 }, () => leavable(url, 'alice'))
  await until('all are at the engine', () => engine.seen.length === 5)
  expect(waiting()).toBe(0)
  for (const client of clients) client.leave()
})

describe.each([1, 4])('on %i threads', (threads) => {
  test('never more at the engine than its places, and everybody is served', async () => {
    const PLACES = 6
    let [now, most] = [0, 0]
    const { url, engine, waiting, handle, finished } = await world(
      () => {
        now += 1
        most = Math.max(most, now)
        setTimeout(() => {
          now -= 1
        }, 15)
        return quick(20)
      },
      { places: PLACES, threads },
    )
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, index) => post(url, chatBody(), as(NAMES[index % 3] ?? ''))),
    )
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(engine.seen.length).toBe(200)
    expect(most).toBeLessThanOrEqual(PLACES)
    expect(most).toBeGreaterThan(PLACES / 2)
    expect(waiting()).toBe(0)
    await until('the reports', () => finished.length === 200)
    expect(handle.admission(0).sent).toMatchObject({ held: 0, unstarted: 0, unseenTokens: 0 })
  })

  test('1000 clients that leave while they wait: none reaches the engine, all places are free', async () => {
    const { url, engine, waiting, handle, finished } = await world(() => HANG, {
      places: 2,
      threads,
      queue: { depth: 10_000 },
    })
    const running = [leavable(url, 'alice'), leavable(url, 'alice')]
    await until('two run', () => engine.seen.length === 2)
    const queued = Array.from({ length: 1000 }, () => leaving(url))
    await until('1000 wait', () => waiting() === 1000)
    for (const leave of queued) leave()
    await until('nobody waits', () => waiting() === 0)
    for (const one of running) one.leave()
    await until('the reports', () => finished.length === 1002)
    expect(engine.seen.length).toBe(2)
    expect(finished.filter(({ outcome }) => outcome === 'client_gone').length).toBe(1002)
    expect(handle.admission(0).sent).toMatchObject({ held: 0, unstarted: 0, growthTokens: 0 })
    const next = leavable(url, 'alice')
    expect((await next.answer).headers.get('x-penstock-queue-ms')).toBe(null)
    next.leave()
  })

  /** Cheaper than fetch by a thousand: sends its request, and leaves without an answer. */
  const leaving = (url: string): (() => void) => {
    const client = request(`${url}/v1/chat/completions`, {
      method: 'POST',
      agent: false,
      headers: { ...as('bob'), 'content-type': 'application/json' },
    })
    client.on('error', () => {})
    client.end(STREAM)
    return () => client.destroy()
  }

  test('a crashed thread takes its waiting and its leases with it', async () => {
    const { url, engine, waiting, handle } = await world(() => HANG, { places: 3, threads })
    const clients = Array.from({ length: 12 }, () => leavable(url, 'alice'))
    await until('three run', () => engine.seen.length === 3)
    await until('nine wait', () => waiting() === 9)
    await Promise.all(Array.from({ length: threads }, (_, thread) => handle.crash(thread)))
    await until('nobody waits', () => waiting() === 0)
    expect(handle.admission(0).sent).toMatchObject({ held: 0, unstarted: 0, unseenTokens: 0 })
    for (const client of clients) client.leave()
    const again = () => post(url, STREAM, as('bob')).catch(() => null)
    let answer = await again()
    for (let tries = 0; answer?.status !== 200 && tries < 200; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      answer = await again()
    }
    expect(answer?.status).toBe(200)
    expect(answer?.headers.get('x-penstock-queue-ms')).toBe(null)
  })

  test('ten to one: the small one hardly notices', async () => {
    const { url } = await world(() => quick(40), { places: 4, threads })
    const timed = async (name: string): Promise<number> => {
      const startedAtMs = performance.now()
      expect((await post(url, chatBody(), as(name))).status).toBe(200)
      return performance.now() - startedAtMs
    }
    const small = async (): Promise<number[]> => {
      const times: number[] = []
      for (let round = 0; round < 15; round += 1) times.push(await timed('bob'))
      return times.sort((a, b) => a - b)
    }
    const alone = await small()
    let over = false
    const crowd = Array.from({ length: 40 }, async () => {
      while (!over) await timed('alice')
    })
    const beside = await small()
    over = true
    await Promise.all(crowd)
    const [before = 0, after = 0] = [alone[7], beside[7]]
    console.log(
      `${threads} threads: alone ${before.toFixed(0)} ms, beside 40 at once ${after.toFixed(0)} ms`,
    )
    // In the order of arrival it would wait for 40 others: 10 rounds of 40 ms.
    expect(after).toBeLessThan(before + 200)
  })
})
