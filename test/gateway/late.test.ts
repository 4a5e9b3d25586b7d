/** What arrives late or otherwise than asked: none of it may end a gateway thread or look whole. */
import { afterEach, describe, expect, test } from 'vitest'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import {
  chunk,
  completion,
  DONE,
  JSON_TYPE,
  type Script,
  SSE,
  startEngine,
} from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  KEY,
  policyOf,
  post,
  QWQ_ONLY_KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const world = async (script: Script, more: Partial<GatewayRoute> = {}) => {
  const engine = closeLater(await startEngine(() => script))
  const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(engine.url)], more)]))
  closeLater(gateway.handle)
  return { ...gateway, engine }
}

/** The thread has lived through it. */
const lives = async ({ url, lines }: { url: string; lines: readonly string[] }): Promise<void> => {
  expect((await fetch(`${url}/healthz`)).status).toBe(200)
  expect(lines.filter((line) => line.includes('crashed'))).toEqual([])
}

test('a fallback that is gone by the time it is needed is not asked, and ends nothing', async () => {
  let fail: () => void = () => undefined
  const failing = new Promise<void>((resolve) => {
    fail = resolve
  })
  const dying: Script = { steps: [{ until: () => failing }, { reset: true }] }
  const [main, other] = [
    closeLater(await startEngine(() => dying)),
    closeLater(
      await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion('x') }] })),
    ),
  ]
  const own = routeOf([targetOf(main.url)])
  const away = routeOf([targetOf(other.url, { id: 'other/0', slot: 1 })], {
    model: 'other',
    deployment: 'other',
    servedModel: 'other',
  })
  const withFallback = (route: GatewayRoute): GatewayRoute => ({
    ...own,
    fallback: { on: ['error'], routes: [route] },
  })
  const gateway = await startTestGateway(snapshotOf([withFallback(away)]))
  closeLater(gateway.handle)
  const answer = post(gateway.url, chatBody())
  await until('the first attempt', () => main.seen.length === 1)
  gateway.handle.publish(snapshotOf([withFallback({ ...away, targets: [] })]))
  // The new snapshot is in use once its pools are: another request has come through.
  await new Promise((resolve) => setTimeout(resolve, 300))
  fail()
  const response = await answer
  expect(response.status).toBe(502)
  expect(await response.json()).toMatchObject({ error: { code: 'upstream_error' } })
  expect(other.seen).toHaveLength(0)
  await lives(gateway)
})

describe('a streamed request that is answered in one piece', () => {
  const BIG = 17 * 1024 * 1024
  const large = (end: Script['steps']): Script => ({
    headers: JSON_TYPE,
    steps: [{ send: `{"x":"${'y'.repeat(BIG)}` }, ...end],
  })

  test('too large to be held flows through, pauses and all', async () => {
    const script = large([{ waitMs: 6_500 }, { send: '"}' }])
    const gateway = await world(script)
    const response = await post(gateway.url, chatBody({ stream: true }))
    expect(response.status).toBe(200)
    expect((await response.text()).length).toBe(BIG + 8)
    await lives(gateway)
  }, 60_000)

  test('and cut half way is a cut connection, not an end', async () => {
    const gateway = await world(large([{ waitMs: 200 }, { reset: true }]))
    const response = await post(gateway.url, chatBody({ stream: true }))
    await expect(response.text()).rejects.toThrow()
    await until('the report', () => gateway.finished.length === 1)
    expect(gateway.finished[0]).toMatchObject({ outcome: 'interrupted' })
    await lives(gateway)
  }, 60_000)

  test('late, keeps its own head', async () => {
    const body = completion('late')
    const script: Script = {
      headers: JSON_TYPE,
      headFirst: true,
      steps: [{ waitMs: 6_000 }, { send: body }],
    }
    const gateway = await world(script)
    const response = await post(gateway.url, chatBody({ stream: true }))
    expect(response.headers.get('content-type')).toContain('application/json')
    expect(await response.text()).toBe(body)
    await until('the report', () => gateway.finished.length === 1)
    expect(gateway.finished[0]).toMatchObject({ outcome: 'ok' })
  }, 60_000)
})

describe('a stream whose last words mislead', () => {
  test('given up, then [DONE] without its empty line, is no whole answer', async () => {
    const text = chunk('a') + chunk('b', 'abort') + DONE.trimEnd()
    const gateway = await world({ headers: SSE, steps: [{ send: `${text}\n` }] })
    const said = await (await post(gateway.url, chatBody({ stream: true }))).text()
    expect(said).not.toContain('[DONE]')
    expect(said).toContain('stream_interrupted')
    await until('the report', () => gateway.finished.length === 1)
    expect(gateway.finished[0]?.outcome).toBe('interrupted')
  })

  test.each([
    ['two texts, one answered', ['a', 'b'], false],
    ['one text in a list', ['a'], true],
    ['tokens', [1, 2, 3], true],
    ['two lists of tokens, one answered', [[1], [2]], false],
  ])('%s, without [DONE]: whole is %s', async (_name, prompt, whole) => {
    const gateway = await world({ headers: SSE, steps: [{ send: chunk('a', 'stop') }] })
    const response = await fetch(`${gateway.url}/v1/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ model: 'qwq-32b', stream: true, prompt }),
    })
    expect((await response.text()).includes('stream_interrupted')).toBe(!whole)
  })
})

test('an answer of somebody else is not gone on with, whoever knows its id', async () => {
  const gateway = await world({ headers: JSON_TYPE, steps: [{ send: '{"id":"resp_1"}' }] })
  const response = await fetch(`${gateway.url}/v1/responses`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}` },
    body: JSON.stringify({ model: 'qwq-32b', input: 'x', previous_response_id: 'resp_theirs' }),
  })
  expect(response.status).toBe(404)
  expect(await response.json()).toMatchObject({
    error: { code: 'not_found', param: 'previous_response_id' },
  })
  expect(gateway.engine.seen).toHaveLength(0)
})

test('of a form’s type the engine is told the boundary and nothing else', async () => {
  const gateway = await world({ headers: JSON_TYPE, steps: [{ send: '{"text":"x"}' }] })
  const part = (name: string, value: string) =>
    `--b\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`
  const response = await fetch(`${gateway.url}/v1/audio/transcriptions`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${KEY}`,
      'content-type': 'multipart/form-data; boundary=b; charset=utf-7',
    },
    body: `${part('model', 'qwq-32b')}--b--\r\n`,
  })
  expect(response.status).toBe(200)
  expect(gateway.engine.seen[0]?.headers['content-type']).toBe('multipart/form-data; boundary="b"')
})

test('what only one full replica can answer waits for none: in, or told when to come back', async () => {
  const policy = policyOf({ queue: { ceiling: 'auto', depth: 10, wait: 20_000 } })
  const hang: Script = { headers: SSE, headFirst: true, steps: [{ hang: true }] }
  const kept = (id: string): Script => ({
    headers: JSON_TYPE,
    steps: [{ send: `{"id":"${id}","object":"response"}` }],
  })
  const scripts: Script[] = [kept('resp_alice'), kept('resp_bob')]
  const engine = closeLater(await startEngine(() => scripts.shift() ?? hang))
  const busy = { maxRunning: 2, requestsRunning: 0, requestsWaiting: 0, kvCacheUsageRatio: 0 }
  const target = targetOf(engine.url, { ...busy, kvCapacityTokens: 100_000, readAtMs: Date.now() })
  const route = routeOf([target], { policy, engine: 'vllm' })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  const leaving = new AbortController()
  const ask = (key: string, path: string, body: object) =>
    fetch(`${gateway.url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: 'qwq-32b', ...body }),
      signal: leaving.signal,
    })
  const left = (answer: Promise<Response>) => answer.catch(() => null)
  for (const [key, id] of [
    [KEY, 'resp_alice'],
    [QWQ_ONLY_KEY, 'resp_bob'],
  ] as const) {
    expect(await (await ask(key, '/v1/responses', { input: 'x' })).json()).toMatchObject({ id })
  }
  const open = [1, 2].map(() =>
    left(ask(KEY, '/v1/chat/completions', { messages: [], stream: true })),
  )
  await until('the replica is full', () => engine.seen.length === 4)
  const next = (id: string) => ({ input: 'y', stream: true, previous_response_id: id })
  // Alice has all of it, and Bob nothing: he is let in beside her.
  const refused = await ask(KEY, '/v1/responses', next('resp_alice'))
  expect(refused.status).toBe(429)
  expect(refused.headers.get('retry-after')).not.toBeNull()
  expect(await refused.text()).toContain('the replica that keeps this answer is full')
  open.push(left(ask(QWQ_ONLY_KEY, '/v1/responses', next('resp_bob'))))
  await until('bob is let in', () => engine.seen.length === 5)
  expect(gateway.handle.waiting('qwq-32b')).toBe(0)
  leaving.abort()
  await Promise.all(open)
})
