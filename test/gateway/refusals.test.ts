import { request } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { completion, JSON_TYPE, type Script } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  KEY,
  post,
  QWQ_ONLY_KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  startWorld,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const answered = (): Script => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })

const Shape = z.strictObject({
  error: z.strictObject({
    message: z.string().min(1),
    type: z.string().min(1),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
})

/** The error of an answer, which must have OpenAI's shape and our headers. */
const errorOf = async (response: Response) => {
  expect(response.headers.get('content-type')).toBe('application/json')
  expect(response.headers.get('x-request-id')).toMatch(/^req-[0-9a-f-]{36}$/)
  return Shape.parse(await response.json()).error
}

/** Two models; deepseek-r1 has no ready replica. */
const twoModels = async () => {
  const gateway = await startTestGateway(
    snapshotOf([
      routeOf([targetOf('http://127.0.0.1:9')], { why: '' }),
      routeOf(
        [targetOf('http://127.0.0.1:9', { id: 'deepseek-r1-0', state: 'draining', slot: 1 })],
        {
          model: 'deepseek-ai/DeepSeek-R1',
          deployment: 'deepseek-r1',
          context: 65_536,
          why: 'rank 1 is loading weights (42 %)',
        },
      ),
    ]),
  )
  closeLater(gateway.handle)
  return gateway
}

describe('keys', () => {
  const bad: readonly (readonly [string, Record<string, string>])[] = [
    ['missing', {}],
    ['malformed', { authorization: KEY }],
    ['of another scheme', { authorization: `Basic ${KEY}` }],
    ['empty', { authorization: 'Bearer ' }],
    ['unknown', { authorization: 'Bearer sk-ps-unknown-0123456789' }],
    ['endless', { authorization: `Bearer ${'x'.repeat(8_000)}` }],
    ['unknown, as x-api-key', { 'x-api-key': 'nope' }],
  ]
  test('every bad one is refused before the body is read, and reported', async () => {
    const { url, finished, engine } = await startWorld(answered)
    for (const [, headers] of bad) {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers,
        body: chatBody(),
      })
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      const error = await errorOf(response)
      expect(error).toMatchObject({ code: 'invalid_api_key', param: null })
      expect(error.message).not.toContain('sk-ps-unknown')
    }
    await until('the reports', () => finished.length === bad.length)
    expect(finished[0]).toMatchObject({ status: 401, outcome: 'refused', consumer: null })
    expect(engine.seen).toHaveLength(0)
  })

  test('a revoked key is refused as soon as the next snapshot is there', async () => {
    const { url, handle } = await startWorld(answered)
    expect((await post(url, chatBody(), { authorization: `bearer ${KEY}` })).status).toBe(200)
    handle.publish(snapshotOf([routeOf([targetOf('http://127.0.0.1:9')])], { keys: [] }))
    let status = 200
    while (status === 200) {
      const response = await fetch(`${url}/v1/models`, { headers: { 'x-api-key': KEY } })
      status = response.status
    }
    expect(status).toBe(401)
  })
})

describe('models', () => {
  test('the list and each model, for what the key may use', async () => {
    const { url } = await twoModels()
    const get = (path: string, key: string, method = 'GET') =>
      fetch(`${url}${path}`, { method, headers: { authorization: `Bearer ${key}` } })
    expect(await (await get('/v1/models', KEY)).json()).toMatchObject({
      object: 'list',
      data: [{ id: 'qwq-32b', object: 'model' }, { id: 'deepseek-ai/DeepSeek-R1' }],
    })
    expect(await (await get('/v1/models', QWQ_ONLY_KEY)).json()).toMatchObject({
      data: [{ id: 'qwq-32b', max_model_len: 32_768 }],
    })
    for (const name of ['deepseek-ai/DeepSeek-R1', 'deepseek-ai%2FDeepSeek-R1']) {
      expect(await (await get(`/v1/models/${name}`, KEY)).json()).toMatchObject({
        id: 'deepseek-ai/DeepSeek-R1',
      })
      expect((await get(`/v1/models/${name}`, QWQ_ONLY_KEY)).status).toBe(403)
    }
    const head = await get('/v1/models', KEY, 'HEAD')
    expect([head.status, await head.text()]).toEqual([200, ''])
    const missing = await get('/v1/models/nope', KEY)
    expect(missing.status).toBe(404)
    expect(await errorOf(missing)).toMatchObject({ code: 'model_not_found', param: 'model' })
  })

  test('unknown, not allowed, not ready', async () => {
    const { url, finished } = await twoModels()
    const unknown = await post(url, chatBody({ model: 'gpt-4o' }))
    expect(unknown.status).toBe(404)
    expect((await errorOf(unknown)).message).toBe(
      "the model 'gpt-4o' does not exist; this key may use qwq-32b, deepseek-ai/DeepSeek-R1",
    )
    const asBob = { authorization: `Bearer ${QWQ_ONLY_KEY}` }
    const forbidden = await post(url, chatBody({ model: 'deepseek-ai/DeepSeek-R1' }), asBob)
    expect(forbidden.status).toBe(403)
    expect(await errorOf(forbidden)).toMatchObject({ code: 'model_not_allowed', param: 'model' })
    const unready = await post(url, chatBody({ model: 'deepseek-ai/DeepSeek-R1' }))
    expect(unready.status).toBe(503)
    expect(unready.headers.get('retry-after')).toBe('5')
    expect((await errorOf(unready)).message).toContain('rank 1 is loading weights (42 %)')
    await until('the reports', () => finished.length === 3)
    expect(
      finished.map(({ outcome, reason, modelAsked }) => [outcome, reason, modelAsked]),
    ).toEqual([
      ['refused', 'model_not_found', 'gpt-4o'],
      ['refused', 'model_not_allowed', 'deepseek-ai/DeepSeek-R1'],
      ['refused', 'model_unavailable', 'deepseek-ai/DeepSeek-R1'],
    ])
  })

  test('the engine is asked by its own name for the model', async () => {
    const { url, engine } = await startWorld(answered, { route: { servedModel: 'Qwen/QwQ-32B' } })
    const body = '\ufeff{"x":"qwq-32b","mod\\u0065l":  "qwq-32b","messages":[]}'
    const response = await post(url, body)
    expect(response.headers.get('x-penstock-model')).toBe('Qwen/QwQ-32B')
    expect(engine.seen[0]?.body.toString()).toBe(
      '{"x":"qwq-32b","mod\\u0065l":  "Qwen/QwQ-32B","messages":[]}',
    )
  })
})

describe('bodies', () => {
  const bad: readonly (readonly [string, string | null])[] = [
    ['', null],
    ['{"model":"qwq-32b"', null],
    ['{"messages":[]}', 'model'],
    ['{"model":"qwq-32b","model":"other"}', 'model'],
    ['{"model":"qwq-32b","stream":1}', 'stream'],
    ['["qwq-32b"]', null],
  ]
  test('what cannot be read is a 400 that names the parameter', async () => {
    const { url, engine } = await startWorld(answered)
    for (const [body, param] of bad) {
      const response = await post(url, body)
      expect(response.status).toBe(400)
      expect(await errorOf(response)).toMatchObject({ code: 'invalid_request', param })
    }
    const packed = await post(url, chatBody(), { 'content-encoding': 'br' })
    expect(packed.status).toBe(415)
    expect(await errorOf(packed)).toMatchObject({ code: 'unsupported_media_type' })
    expect(engine.seen).toHaveLength(0)
    for (const type of [
      'application/json; charset=utf-8',
      'text/plain',
      'application/x-www-form-urlencoded',
    ]) {
      expect((await post(url, chatBody(), { 'content-type': type })).status).toBe(200)
    }
    expect(engine.seen.at(-1)?.headers['content-type']).toBe('application/json')
  })

  const settings = { snapshot: { maxBodyBytes: 100_000 } }
  test('too large by its length: the client gets to read why, though it still sends', async () => {
    const { url, finished, handle } = await startWorld(answered, settings)
    const response = await post(url, `{"model":"qwq-32b","x":"${'x'.repeat(8_000_000)}"}`)
    expect(response.status).toBe(413)
    expect(await errorOf(response)).toMatchObject({ code: 'body_too_large' })
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ status: 413, outcome: 'refused', consumer: 'alice' })
    expect(handle.totalInFlight()).toBe(0)
  })

  test('too large without a length: counted as it comes', async () => {
    const { handle } = await startWorld(answered, settings)
    const status = await new Promise<number>((resolve, reject) => {
      const req = request({
        port: handle.port,
        path: '/v1/chat/completions',
        method: 'POST',
        headers: { authorization: `Bearer ${KEY}` },
      })
      req.on('response', (res) => {
        res.resume()
        resolve(res.statusCode ?? 0)
      })
      req.on('error', reject)
      for (let index = 0; index < 100; index += 1) req.write('x'.repeat(50_000))
      req.end()
    })
    expect(status).toBe(413)
  })

  test.each([
    [50, true, 200],
    [5_000_000, false, 413],
  ])(
    'Expect: 100-continue with %i bytes: continue %s, status %i',
    async (extra, goesOn, status) => {
      const { handle, engine } = await startWorld(answered, settings)
      const body = chatBody({ x: 'x'.repeat(extra) })
      const seen = { continued: false }
      const got = await new Promise<number>((resolve, reject) => {
        const req = request({
          port: handle.port,
          path: '/v1/chat/completions',
          method: 'POST',
          headers: {
            authorization: `Bearer ${KEY}`,
            expect: '100-continue',
            'content-length': Buffer.byteLength(body),
          },
        })
        req.on('continue', () => {
          seen.continued = true
          req.end(body)
        })
        req.on('response', (res) => {
          resolve(res.statusCode ?? 0)
          res.resume()
          if (!seen.continued) req.destroy()
        })
        req.on('error', reject)
        req.flushHeaders()
      })
      expect([got, seen.continued]).toEqual([status, goesOn])
      expect(engine.seen).toHaveLength(goesOn ? 1 : 0)
    },
  )

  test('a client that leaves while it sends is reported once', async () => {
    const { handle, finished } = await startWorld(answered)
    const socket = connect(handle.port, '127.0.0.1')
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\n` +
        'content-length: 1000\r\n\r\n{"model":',
    )
    await new Promise((resolve) => setTimeout(resolve, 100))
    socket.destroy()
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ outcome: 'client_gone', consumer: 'alice' })
    expect(handle.totalInFlight()).toBe(0)
  })
})

describe('paths and methods', () => {
  test('unknown paths, wrong methods, preflight, health', async () => {
    const { url } = await twoModels()
    const ask = (path: string, method: string, headers: Record<string, string> = {}) =>
      fetch(`${url}${path}`, { method, headers })
    expect((await ask('/v2/chat', 'GET')).status).toBe(404)
    expect((await ask('/', 'POST')).status).toBe(404)
    expect((await ask('/v1/chat/completions/../../admin', 'POST')).status).toBe(404)
    expect((await ask('/v1/models/%zz', 'GET')).status).toBe(400)
    const wrong = await ask('/v1/chat/completions', 'GET')
    expect(wrong.status).toBe(405)
    expect(wrong.headers.get('allow')).toBe('POST, OPTIONS')
    expect(await errorOf(wrong)).toMatchObject({ code: 'method_not_allowed' })
    expect((await ask('/v1/models', 'DELETE')).headers.get('allow')).toBe('GET, HEAD, OPTIONS')
    expect((await ask('/v1/models/qwq-32b', 'POST')).status).toBe(405)
    const preflight = await ask('/v1/chat/completions', 'OPTIONS', { origin: 'https://a.example' })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*')
    expect(preflight.headers.get('access-control-allow-headers')).toContain('authorization')
    expect(preflight.headers.get('access-control-allow-methods')).toContain('POST')
    const cross = await ask('/v1/models', 'GET', { origin: 'https://a.example' })
    expect(cross.status).toBe(401)
    expect(cross.headers.get('access-control-expose-headers')).toContain('x-request-id')
    expect(await (await ask('/healthz', 'GET')).json()).toMatchObject({ status: 'ok' })
    expect((await ask('/readyz', 'GET')).status).toBe(200)
  })

  test('what is not HTTP gets an answer in HTTP, and an unsafe request id is replaced', async () => {
    const { handle } = await twoModels()
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(handle.port, '127.0.0.1')
      let text = ''
      socket.on('data', (data) => {
        text += data
      })
      socket.on('close', () => resolve(text))
      socket.write('this is not http\r\n\r\n')
    })
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer).toContain('"code":"invalid_request"')
    const response = await fetch(`http://127.0.0.1:${handle.port}/healthz`, {
      headers: { 'x-request-id': 'a b<script>' },
    })
    expect(response.headers.get('x-request-id')).toMatch(/^req-/)
  })

  test('nothing in a request changes where it goes', async () => {
    const { url, engine } = await startWorld(answered)
    const response = await fetch(`${url}/v1/embeddings?x=http://evil.example`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${KEY}`,
        'x-forwarded-host': 'evil.example',
        'x-api-base': 'http://evil.example',
        'x-custom': 'a',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      },
      body: '{"model":"qwq-32b","input":"x","api_base":"http://evil.example"}',
    })
    expect(response.status).toBe(200)
    const seen = engine.seen[0]
    expect(seen?.path).toBe('/v1/embeddings')
    expect(Object.keys(seen?.headers ?? {}).sort()).toEqual([
      'accept-encoding',
      'connection',
      'content-length',
      'content-type',
      'host',
      'traceparent',
      'x-request-id',
    ])
    expect(seen?.headers.host).toBe(new URL(engine.url).host)
  })
})
