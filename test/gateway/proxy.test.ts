import { afterEach, expect, test } from 'vitest'
import { chunk, completion, DONE, JSON_TYPE, SSE, usageChunk } from '../support/engine.ts'
import { chatBody, closeAll, KEY, post, startWorld, until } from '../support/gateway.ts'

afterEach(closeAll)

test("a JSON answer passes byte for byte, with a length and without the engine's headers", async () => {
  const body = completion('你好')
  const { url, engine, finished, handle } = await startWorld(() => ({
    headers: JSON_TYPE,
    steps: [{ send: body }],
  }))
  const asked = chatBody({ unknown_field: [1, { deep: true }] })
  const response = await post(url, asked, { 'x-request-id': 'abc-1', cookie: 'secret=1' })
  expect(response.status).toBe(200)
  expect(await response.text()).toBe(body)
  expect(response.headers.get('content-length')).toBe(String(Buffer.byteLength(body)))
  expect(response.headers.get('server')).toBe(null)
  expect(response.headers.get('x-request-id')).toBe('abc-1')
  expect(response.headers.get('x-penstock-model')).toBe('qwq-32b')
  expect(response.headers.get('x-penstock-replica')).toBe('qwq-32b-0')
  const seen = engine.seen[0]
  expect(seen?.body.toString()).toBe(asked)
  expect(seen?.path).toBe('/v1/chat/completions')
  expect(seen?.headers).toMatchObject({ 'x-request-id': 'abc-1', 'accept-encoding': 'identity' })
  expect(seen?.headers.authorization).toBe(undefined)
  expect(seen?.headers.cookie).toBe(undefined)
  await until('the report', () => finished.length === 1)
  expect(finished[0]).toMatchObject({
    id: 'abc-1',
    consumer: 'alice',
    key: 'key-1',
    modelAsked: 'qwq-32b',
    modelServed: 'qwq-32b',
    replica: 'qwq-32b-0',
    stream: false,
    status: 200,
    outcome: 'ok',
    reason: 'stop',
    promptTokens: 7,
    completionTokens: 2,
    reasoningTokens: 1,
    ttftMs: null,
  })
  expect(handle.totalInFlight()).toBe(0)
})

/** With the usage so far, as vLLM puts it when it is asked for it in every chunk. */
const counted = (bare: string, completionTokens: number): string => {
  const usage = { prompt_tokens: 5, total_tokens: 5 + completionTokens }
  const counts = JSON.stringify({ ...usage, completion_tokens: completionTokens })
  return bare.replace(/}\n\n$/, `,"usage":${counts}}\n\n`)
}

const BARE = [chunk(''), chunk('a "usage":{'), chunk('b', 'stop')]
const COUNTED = BARE.map(counted)
const EACH = { include_usage: true, continuous_usage_stats: true }
const ORDINARY = { stream_options: undefined }

test.each([
  ['a client that asks for all usage', {}, [...COUNTED, usageChunk(5, 2), DONE]],
  ['an ordinary client, which asks for none', ORDINARY, [...BARE, DONE]],
])('%s: a stream passes byte for byte, and is reported', async (_, more, expected) => {
  const pieces = [...COUNTED, usageChunk(5, 2), DONE]
  const { url, engine, finished } = await startWorld(() => ({
    headers: SSE,
    steps: pieces.map((send) => ({ send })),
  }))
  const asked = chatBody({ stream: true, ...more })
  expect(asked.includes('stream_options')).toBe(more !== ORDINARY)
  const response = await post(url, asked)
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(response.headers.get('x-accel-buffering')).toBe('no')
  expect(await response.text()).toBe(expected.join(''))
  const seen: unknown = JSON.parse(engine.seen[0]?.body.toString() ?? '')
  expect(seen).toEqual({ ...JSON.parse(asked), stream_options: EACH })
  await until('the report', () => finished.length === 1)
  expect(finished[0]).toMatchObject({
    stream: true,
    status: 200,
    outcome: 'ok',
    reason: 'stop',
    promptTokens: 5,
    completionTokens: 2,
    cachedTokens: 3,
  })
  expect(finished[0]?.ttftMs).toBeGreaterThan(0)
})

test('a key is needed', async () => {
  const { url } = await startWorld(() => ({ steps: [] }))
  const response = await fetch(`${url}/v1/models`, { headers: { authorization: 'Bearer nope' } })
  expect(response.status).toBe(401)
  const list = await fetch(`${url}/v1/models`, { headers: { 'x-api-key': KEY } })
  expect(await list.json()).toMatchObject({ object: 'list', data: [{ id: 'qwq-32b' }] })
})
