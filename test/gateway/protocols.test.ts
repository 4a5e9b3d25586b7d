/** /v1/responses and /v1/messages through the gateway: the recorded bytes, and each way to fail. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import { JSON_TYPE, type Script, SSE, type Step, startEngine } from '../support/engine.ts'
import {
  closeAll,
  closeLater,
  KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  startWorld,
  targetOf,
  until,
  type World,
} from '../support/gateway.ts'

afterEach(closeAll)

const recorded = (name: string): Buffer =>
  readFileSync(join(import.meta.dirname, '../fixtures/vllm-0.32.0', name))

const RESPONSES = '/v1/responses'
const MESSAGES = '/v1/messages'
const BODIES: Readonly<Record<string, object>> = {
  [RESPONSES]: { model: 'qwq-32b', input: 'Hello', max_output_tokens: 3 },
  [MESSAGES]: {
    model: 'qwq-32b',
    max_tokens: 3,
    messages: [{ role: 'user', content: 'Hello' }],
  },
}

const ask = (
  url: string,
  path: string,
  more: object = {},
  headers: Readonly<Record<string, string>> = { authorization: `Bearer ${KEY}` },
): Promise<Response> =>
  fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ ...BODIES[path], ...more }),
  })

const always = (script: Script) => (): Script => script

const streamed = (steps: readonly Step[]): Script => ({ headers: SSE, headFirst: true, steps })

/** Cut where no event ends, and as the engine cut it. */
const pieces = (bytes: Buffer, size: number): Step[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => ({
    send: bytes.subarray(index * size, (index + 1) * size),
  }))

const limits: GatewayRoute['limits'] = [
  {
    id: 'l1',
    per: 'consumer',
    measure: 'tokens',
    amount: 1_000_000,
    burst: 1_000_000,
    windowMs: 60_000,
    text: '1000000 tokens a minute',
  },
]

const finished = async ({ finished: reports }: World) => {
  await until('the report', () => reports.length > 0)
  return reports[0]
}

describe.each([
  [RESPONSES, 'protocols-responses', 'max_output_tokens'],
  [MESSAGES, 'protocols-messages', 'max_tokens'],
])('%s', (path, name, reason) => {
  test.each([7, 97, 100_000])(
    'the recorded stream passes byte for byte, cut by %i',
    async (size) => {
      const bytes = recorded(`${name}-stream.sse`)
      const world = await startWorld(always(streamed(pieces(bytes, size))), { route: { limits } })
      const response = await ask(world.url, path, { stream: true })
      expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true)
      expect(response.headers.get('x-ratelimit-limit-tokens')).toBe('1000000')
      expect(await finished(world)).toMatchObject({
        path,
        outcome: 'ok',
        reason,
        promptTokens: 12,
        completionTokens: 3,
        cachedTokens: 0,
      })
      // Nothing that the API does not have was put into the body.
      expect(JSON.parse(String(world.engine.seen[0]?.body))).toEqual({
        ...BODIES[path],
        stream: true,
      })
    },
  )

  test('a whole answer passes byte for byte and is metered', async () => {
    const send = recorded(`${name}.json`)
    const world = await startWorld(always({ headers: JSON_TYPE, steps: [{ send }] }))
    const response = await ask(world.url, path)
    expect(Buffer.from(await response.arrayBuffer()).equals(send)).toBe(true)
    expect(await finished(world)).toMatchObject({
      reason,
      promptTokens: 12,
      completionTokens: 3,
    })
  })

  test('a stream that dies ends in the API’s error event, never in its success', async () => {
    const bytes = recorded(`${name}-stream.sse`)
    const half = bytes.subarray(0, Math.floor(bytes.length * 0.7))
    const world = await startWorld(always(streamed([{ send: half }, { reset: true }])))
    const text = await (await ask(world.url, path, { stream: true })).text()
    expect(text).not.toMatch(/message_stop|response\.completed/)
    const last = text.trimEnd().split('\n\n').at(-1) ?? ''
    expect(last).toMatch(/^event: error\ndata: \{"type":"error"/)
    expect(JSON.parse(last.slice(last.indexOf('{')))).toMatchObject({
      error: { message: expect.stringContaining('died') },
    })
    expect(await finished(world)).toMatchObject({ outcome: 'interrupted', completionTokens: null })
  })

  test('a stream without its last event is not whole', async () => {
    const text = String(recorded(`${name}-stream.sse`))
    const most = text.slice(0, text.trimEnd().lastIndexOf('\n\n') + 2)
    const world = await startWorld(always(streamed([{ send: most }])))
    const answer = await (await ask(world.url, path, { stream: true })).text()
    expect(answer.startsWith(most)).toBe(true)
    expect(answer.slice(most.length)).toMatch(/^event: error\n/)
    expect(await finished(world)).toMatchObject({ outcome: 'interrupted' })
  })

  test('an error as the first event keeps its status', async () => {
    const event =
      'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"boom"}}\n\n'
    const world = await startWorld(always(streamed([{ send: event }])))
    const response = await ask(world.url, path, { stream: true })
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({
      error: { message: expect.stringContaining('boom') },
    })
  })

  test('a client that leaves takes the engine’s request with it', async () => {
    const bytes = recorded(`${name}-stream.sse`)
    const steps = [
      { send: bytes.subarray(0, Math.floor(bytes.length * 0.7)) },
      { hang: true } as const,
    ]
    const world = await startWorld(always(streamed(steps)))
    const response = await ask(world.url, path, { stream: true })
    await response.body?.cancel()
    await until('the engine hears of it', () => world.engine.aborted === 1)
    expect(await finished(world)).toMatchObject({ outcome: 'client_gone', status: 499 })
  })

  test('silence is bridged, and the model’s own name is put in its place', async () => {
    const bytes = recorded(`${name}-stream.sse`)
    const world = await startWorld(always(streamed([{ waitMs: 1_500 }, { send: bytes }])), {
      snapshot: { keepAliveMs: 300 },
      route: { servedModel: 'inner' },
    })
    const text = await (await ask(world.url, path, { stream: true })).text()
    const kept = path === MESSAGES ? 'event: ping\ndata: {"type": "ping"}\n\n' : ': keep-alive\n\n'
    expect(text.startsWith(kept)).toBe(true)
    expect(text.replaceAll(kept, '')).toBe(String(bytes))
    expect(JSON.parse(String(world.engine.seen[0]?.body))).toEqual({
      ...BODIES[path],
      model: 'inner',
      stream: true,
    })
  })

  test('`model` may be there once, however it is written; inside it means nothing', async () => {
    const send = recorded(`${name}.json`)
    const world = await startWorld(always({ headers: JSON_TYPE, steps: [{ send }] }))
    const body = JSON.stringify({ ...BODIES[path], metadata: { model: 'a', x: [{ model: 'b' }] } })
    const twice = [
      `${body.slice(0, -1)},"model":"deepseek-r1"}`,
      `${body.slice(0, -1)},"\\u006dodel":"deepseek-r1"}`,
    ]
    const send1 = (text: string) =>
      fetch(world.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
        body: text,
      })
    for (const text of twice) {
      const response = await send1(text)
      expect(response.status).toBe(400)
      expect(await response.json()).toMatchObject({
        error: { message: '"model" appears more than once in the body' },
      })
    }
    expect((await send1(body)).status).toBe(200)
    expect(world.engine.seen).toHaveLength(1)
  })
})

describe('refusals of /v1/messages', () => {
  const shaped = async (response: Response) => {
    const id = response.headers.get('request-id')
    return { status: response.status, id, body: await response.json() }
  }
  const error = (id: string | null, type: string, message: unknown) => ({
    type: 'error',
    error: { type, message },
    request_id: id,
  })

  test('each has Anthropic’s type, and its request id', async () => {
    const world = await startWorld(
      always({
        status: 404,
        headers: JSON_TYPE,
        steps: [{ send: recorded('protocols-messages-unknown-model.json') }],
      }),
      { snapshot: { maxBodyBytes: 2_000 } },
    )
    const noKey = await shaped(await ask(world.url, MESSAGES, {}, {}))
    expect(noKey).toMatchObject({
      status: 401,
      body: error(noKey.id, 'authentication_error', expect.any(String)),
    })
    const wrong = await shaped(
      await ask(world.url, MESSAGES, {}, { 'x-api-key': 'sk-ps-wrong-000000000' }),
    )
    expect(wrong.body).toEqual(
      error(wrong.id, 'authentication_error', 'incorrect API key provided: ****0000'),
    )
    const key = { 'x-api-key': KEY, 'anthropic-version': '2023-06-01' }
    const unknown = await shaped(await ask(world.url, MESSAGES, { model: 'gpt' }, key))
    expect(unknown.body).toEqual(
      error(unknown.id, 'not_found_error', expect.stringContaining("'gpt' does not exist")),
    )
    const large = await shaped(await ask(world.url, MESSAGES, { system: 'x'.repeat(3_000) }, key))
    expect(large).toMatchObject({
      status: 413,
      body: error(large.id, 'request_too_large', expect.any(String)),
    })
    const bad = await shaped(await ask(world.url, MESSAGES, { stream: 1 }, key))
    expect(bad.body).toEqual(error(bad.id, 'invalid_request_error', 'stream must be a boolean'))
    const engine = await shaped(await ask(world.url, MESSAGES, {}, key))
    expect(engine.body).toEqual(
      error(
        engine.id,
        'not_found_error',
        'The model `nothing` does not exist. Valid aliases: tiny-qwen2.',
      ),
    )
    const method = await shaped(await fetch(world.url + MESSAGES))
    expect(method).toMatchObject({
      status: 405,
      body: error(method.id, 'invalid_request_error', expect.any(String)),
    })
  })

  test('no replica is overloaded_error', async () => {
    const world = await startWorld(always({ steps: [] }), { route: { targets: [] } })
    const { status, body, id } = await shaped(await ask(world.url, MESSAGES))
    expect([status, body]).toEqual([
      503,
      error(id, 'overloaded_error', expect.stringContaining('not available')),
    ])
  })

  test('an answer that the engine gave up is not passed off as whole', async () => {
    const text = String(recorded('protocols-messages-stream.sse')).replace('"max_tokens"', 'null')
    const world = await startWorld(always(streamed([{ send: text }])))
    const answer = await (await ask(world.url, MESSAGES, { stream: true })).text()
    expect(answer).not.toContain('message_stop')
    expect(answer).toContain('event: error\ndata: {"type":"error","error":{"type":"api_error"')
  })
})

describe('a stand-in', () => {
  const cases = [
    [RESPONSES, 'protocols-responses'],
    [MESSAGES, 'protocols-messages'],
  ] as const
  test.each(cases)('takes over %s as it does a chat, byte for byte', async (path, name) => {
    const bytes = recorded(`${name}-stream.sse`)
    const engine = closeLater(
      await startEngine(({ body }) =>
        body.includes('"stream":true')
          ? streamed([{ send: bytes }])
          : { headers: JSON_TYPE, steps: [{ send: recorded(`${name}.json`) }] },
      ),
    )
    // Another engine, whose thinking has another name in chats: here it has its own events.
    const standIn = routeOf([targetOf(engine.url)], { servedModel: 'Qwen/QwQ-32B' })
    const route = routeOf([], {
      model: 'deepseek-r1',
      deployment: 'deepseek-r1',
      engine: 'sglang',
      standIn: { on: ['unavailable'], fraction: 0, reason: '', saturated: false, route: standIn },
    })
    const gateway = await startTestGateway(snapshotOf([route]))
    closeLater(gateway.handle)
    for (const [stream, answer] of [
      [true, bytes],
      [false, recorded(`${name}.json`)],
    ] as const) {
      const response = await ask(gateway.url, path, { model: 'deepseek-r1', stream })
      expect(Buffer.from(await response.arrayBuffer()).equals(answer)).toBe(true)
      expect(response.headers.get('x-penstock-spillover')).toBe('unavailable')
      expect(response.headers.get('x-penstock-model')).toBe('Qwen/QwQ-32B')
    }
    for (const { body } of engine.seen) {
      expect(JSON.parse(String(body))).toMatchObject({ model: 'Qwen/QwQ-32B' })
    }
    const headers = { authorization: `Bearer ${KEY}`, 'x-penstock-spillover': 'deny' }
    const denied = await ask(gateway.url, path, { model: 'deepseek-r1' }, headers)
    expect(denied.status).toBe(503)
    await until('the reports', () => gateway.finished.length === 3)
    expect(gateway.finished[0]).toMatchObject({
      modelAsked: 'deepseek-r1',
      modelServed: 'Qwen/QwQ-32B',
      spillover: 'unavailable',
      promptTokens: 12,
      completionTokens: 3,
    })
  })
})
