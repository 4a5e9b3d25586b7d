/** Which path an engine has: its own name for it, and a readable word where it has none. */
import { afterEach, expect, test } from 'vitest'
import { z } from 'zod'
import { enginePath, PROTOCOLS } from '../../src/core/protocol.ts'
import { completion, JSON_TYPE, type Seen, SSE, startEngine } from '../support/engine.ts'
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
} from '../support/gateway.ts'

afterEach(closeAll)

const Refusal = z.object({
  error: z.object({ code: z.string(), message: z.string(), param: z.string().nullable() }),
})

const send = (url: string, path: string, body: object = {}) =>
  fetch(url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'qwq-32b', ...body }),
  })

const answered = () => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })

test('every JSON path is asked under the engine’s own name, or refused before it is', async () => {
  for (const engine of ['vllm', 'sglang', 'external']) {
    const world = await startWorld(answered, { route: { engine } })
    for (const protocol of PROTOCOLS.filter(({ body }) => body === 'json')) {
      const own = enginePath(protocol, engine)
      const response = await send(world.url, protocol.path)
      expect([protocol.path, response.status]).toEqual([protocol.path, own === null ? 404 : 200])
      if (own !== null) expect(world.engine.seen.at(-1)?.path).toBe(own)
    }
    await closeAll()
  }
})

test('tokenizing is vLLM’s /tokenize; /v2/rerank is nowhere in SGLang', async () => {
  const vllm = await startWorld(answered)
  expect((await send(vllm.url, '/v1/tokenize')).status).toBe(200)
  expect(vllm.engine.seen[0]?.path).toBe('/tokenize')
  await closeAll()
  const sglang = await startWorld(answered, { route: { engine: 'sglang' } })
  const refused = await send(sglang.url, '/v2/rerank')
  expect(refused.status).toBe(404)
  const { error } = Refusal.parse(await refused.json())
  expect(error).toMatchObject({ code: 'not_found', param: 'model' })
  expect(error.message).toContain("the model 'qwq-32b' (sglang) has no /v2/rerank")
  expect(sglang.engine.seen).toHaveLength(0)
})

test('an engine’s bare 404 says what the model can be asked instead', async () => {
  const bare = { status: 404, headers: JSON_TYPE, steps: [{ send: '{"detail":"Not Found"}' }] }
  const { url, finished } = await startWorld(() => bare)
  const pooled = Refusal.parse(await (await send(url, '/v1/embeddings')).json()).error
  expect(pooled.message).toBe(
    "the model 'qwq-32b' (vllm) has no /v1/embeddings; its kind is asked at " +
      '/v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, /v1/messages/count_tokens',
  )
  const chat = await send(url, '/v1/messages', { stream: true })
  expect(chat.status).toBe(404)
  expect(await chat.json()).toMatchObject({
    type: 'error',
    error: { type: 'not_found_error', message: expect.stringContaining('/v1/embeddings') },
  })
  await until('the reports', () => finished.length === 2)
  expect(finished[0]).toMatchObject({ outcome: 'refused', reason: 'not_found', status: 404 })
})

test('a stand-in without the path does not stand in', async () => {
  const engine = closeLater(await startEngine(answered))
  const standIn = routeOf([targetOf(engine.url)], { engine: 'sglang' })
  const route = routeOf([], {
    model: 'deepseek-r1',
    standIn: { on: ['unavailable'], fraction: 0, reason: '', saturated: false, route: standIn },
  })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  const asked = { model: 'deepseek-r1' }
  const score = await send(gateway.url, '/v1/score', asked)
  expect([score.status, score.headers.get('x-penstock-spillover')]).toEqual([200, 'unavailable'])
  expect((await send(gateway.url, '/v2/rerank', asked)).status).toBe(503)
})

test('limits: a prompt’s tokens count where there is no answer, and nothing where no GPU works', async () => {
  const limit = (measure: 'tokens' | 'output tokens') => ({
    id: measure,
    per: 'consumer',
    measure,
    amount: 100,
    burst: 100,
    windowMs: 60_000,
    text: `100 ${measure}`,
  })
  const pooled = '{"data":[],"usage":{"prompt_tokens":90,"total_tokens":90}}'
  const script = ({ path }: Seen) => {
    const answer = path === '/tokenize' ? '{"count":1000,"tokens":[]}' : pooled
    return { headers: JSON_TYPE, steps: [{ send: answer }] }
  }
  const world = await startWorld(script, {
    route: { limits: [limit('tokens'), limit('output tokens')] },
  })
  const left = async (path: string, body: object = {}) =>
    (await send(world.url, path, body)).headers.get('x-ratelimit-remaining-tokens')
  const long = { input: 'x'.repeat(200) }
  expect(await left('/tokenize', { prompt: 'x'.repeat(5_000) })).toBe('100')
  expect(Number(await left('/v1/embeddings', long))).toBeLessThan(50)
  await until('the report', () => world.finished.length === 2)
  expect(world.finished[1]).toMatchObject({ promptTokens: 90, completionTokens: null })
  expect((await send(world.url, '/v1/embeddings', long)).status).toBe(429)
})

const heard = (model: string, more: Readonly<Record<string, string>> = {}): FormData => {
  const form = new FormData()
  form.set('file', new File([Buffer.alloc(50_000, 'RIFF\r\n--')], 'a.wav', { type: 'audio/wav' }))
  form.set('model', model)
  for (const [name, value] of Object.entries(more)) form.set(name, value)
  return form
}

const sendForm = (url: string, body: FormData, path = '/v1/audio/transcriptions') =>
  fetch(url + path, { method: 'POST', headers: { authorization: `Bearer ${KEY}` }, body })

test('audio: the model is read from the form, and the engine’s own name put in its place', async () => {
  const answer = '{"text":"hello","usage":{"type":"duration","seconds":3}}'
  const script = () => ({ headers: JSON_TYPE, steps: [{ send: answer }] })
  const route = { servedModel: 'openai/whisper-large-v3' }
  const { url, engine, finished } = await startWorld(script, { route })
  const response = await sendForm(url, heard('qwq-32b', { language: 'de' }))
  expect(await response.text()).toBe(answer)
  expect(response.headers.get('x-penstock-model')).toBe('openai/whisper-large-v3')
  const { body, headers } = engine.seen[0] ?? { body: Buffer.alloc(0), headers: {} }
  const type = headers['content-type'] ?? ''
  expect(type).toMatch(/^multipart\/form-data; boundary=/)
  const form = await new Response(body, { headers: { 'content-type': type } }).formData()
  const file = form.get('file')
  if (!(file instanceof File)) throw new Error('no file arrived')
  expect([form.get('model'), form.get('language'), file.size]).toEqual([
    'openai/whisper-large-v3',
    'de',
    50_000,
  ])
  await until('the report', () => finished.length === 1)
  expect(finished[0]).toMatchObject({ modelAsked: 'qwq-32b', outcome: 'ok', promptTokens: null })
})

test('audio: refusals', async () => {
  const { url, engine } = await startWorld(answered)
  const unknown = Refusal.parse(await (await sendForm(url, heard('whisper-9'))).json()).error
  expect(unknown).toMatchObject({ code: 'model_not_found', param: 'model' })
  const twice = heard('qwq-32b')
  twice.append('model', 'deepseek-r1')
  const refused = await sendForm(url, twice, '/v1/audio/translations')
  expect(refused.status).toBe(400)
  expect(Refusal.parse(await refused.json()).error.message).toContain('more than once')
  expect((await send(url, '/v1/audio/transcriptions')).status).toBe(400)
  expect(engine.seen).toHaveLength(0)
  await closeAll()
  const sglang = await startWorld(answered, { route: { engine: 'sglang' } })
  const none = Refusal.parse(await (await sendForm(sglang.url, heard('qwq-32b'))).json()).error
  expect(none.message).toContain('(sglang) has no /v1/audio/transcriptions')
})

test('counting tokens waits for no place on a GPU', async () => {
  const engine = closeLater(
    await startEngine(({ path }) =>
      path === '/v1/messages'
        ? { headers: SSE, steps: [{ hang: true }] }
        : { headers: JSON_TYPE, steps: [{ send: '{"input_tokens":3}' }] },
    ),
  )
  const routes = [routeOf([targetOf(engine.url, { maxRunning: 1 })])]
  const gateway = await startTestGateway(snapshotOf(routes))
  closeLater(gateway.handle)
  const away = new AbortController()
  const asked = () =>
    fetch(`${gateway.url}/v1/messages`, {
      method: 'POST',
      headers: { 'x-api-key': KEY },
      body: JSON.stringify({ model: 'qwq-32b', stream: true }),
      signal: away.signal,
    }).catch(() => null)
  const both = [asked(), asked()]
  await until('one works', () => engine.seen.length === 1)
  await until('one waits', () => gateway.handle.waiting('qwq-32b') === 1)
  expect((await send(gateway.url, '/v1/messages/count_tokens')).status).toBe(200)
  expect((await send(gateway.url, '/tokenize')).status).toBe(200)
  expect(gateway.handle.waiting('qwq-32b')).toBe(1)
  away.abort()
  await Promise.all(both)
})
