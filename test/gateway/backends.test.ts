/** Services that Penstock does not run, as targets: their paths, keys, names and refusals. */
import { mkdtempSync, readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterAll, describe, expect, test } from 'vitest'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import { Pools } from '../../src/gateway/pools.ts'
import { Authority } from '../support/certificates.ts'
import {
  chunk,
  completion,
  DONE,
  type Engine,
  JSON_TYPE,
  type Script,
  type Seen,
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
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterAll(closeAll)

const SECRET = 'sk-the-operators-own-secret'

const answers = (seen: Seen): Script =>
  JSON.parse(seen.body.toString()).stream === true
    ? {
        headers: SSE,
        steps: [chunk('hi'), chunk('', 'stop'), usageChunk(7, 1), DONE].map((send) => ({ send })),
      }
    : { headers: JSON_TYPE, steps: [{ send: completion('from outside') }] }

const serviceOf = async (script: (seen: Seen) => Script = answers): Promise<Engine> =>
  closeLater(await startEngine(script))

/** A route to a service whose API is under /api/v1. */
const backendRoute = (url: string, more: Partial<GatewayRoute> = {}): GatewayRoute => {
  const backend = { name: 'openai', basePath: '/api/v1', authorization: `Bearer ${SECRET}` }
  return routeOf([targetOf(url, { id: 'backend/openai', slot: 9, backend })], {
    model: 'gpt-4o',
    deployment: 'openai',
    engine: 'external',
    servedModel: 'gpt-4o',
    models: {},
    ...more,
  })
}

const worldOf = async (...routes: readonly GatewayRoute[]) => {
  const gateway = await startTestGateway(snapshotOf(routes))
  closeLater(gateway.handle)
  return gateway
}

const ASK = chatBody({ model: 'gpt-4o' })

describe('a backend', () => {
  test('is asked under its own path and name, with our key and not the client’s', async () => {
    const service = await serviceOf()
    const { url, finished } = await worldOf(
      backendRoute(service.url, { models: { 'gpt-4o': 'gpt-4o-2024' } }),
    )
    const response = await post(url, ASK, {
      'x-api-key': KEY,
      cookie: 'a=b',
      'openai-organization': 'x',
    })
    expect(await response.text()).toContain('from outside')
    expect(response.headers.get('x-penstock-replica')).toBe('backend/openai')
    expect(response.headers.get('x-penstock-model')).toBe('gpt-4o-2024')
    const [seen] = service.seen
    expect(seen?.path).toBe('/api/v1/chat/completions')
    expect(seen?.headers.authorization).toBe(`Bearer ${SECRET}`)
    expect(seen?.rawHeaders.filter((name) => name.toLowerCase() === 'authorization')).toHaveLength(
      1,
    )
    expect(JSON.stringify(seen?.rawHeaders)).not.toContain(KEY)
    expect(seen?.headers).not.toHaveProperty('x-api-key')
    expect(seen?.headers).not.toHaveProperty('cookie')
    expect(JSON.parse(seen?.body.toString() ?? '')).toMatchObject({ model: 'gpt-4o-2024' })
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({
      deployment: 'openai',
      replica: 'backend/openai',
      modelAsked: 'gpt-4o',
      modelServed: 'gpt-4o-2024',
      promptTokens: 7,
    })
  })

  test('with limits is asked for the usage of a stream, by OpenAI’s own option alone', async () => {
    const service = await serviceOf()
    const limit = {
      id: 'one',
      per: 'key',
      measure: 'tokens',
      amount: 1_000_000,
      windowMs: 60_000,
      burst: 1_000_000,
      text: 'one',
    } as const
    const { url, finished } = await worldOf(backendRoute(service.url, { limits: [limit] }))
    const text = await (
      await post(url, chatBody({ model: 'gpt-4o', stream: true, stream_options: undefined }))
    ).text()
    const sent = JSON.parse(service.seen[0]?.body.toString() ?? '')
    expect(sent.stream_options).toEqual({ include_usage: true })
    expect(text).toBe(chunk('hi') + chunk('', 'stop') + DONE)
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ promptTokens: 7, completionTokens: 1 })
    const asked = { stream: true, stream_options: { include_usage: true } }
    const own = await (await post(url, chatBody({ model: 'gpt-4o', ...asked }))).text()
    expect(own).toContain('"prompt_tokens":7')
    // vLLM's own option, from a client that is used to vLLM.
    const each = { include_usage: true, continuous_usage_stats: true, other: 1 }
    const vllm = chatBody({ model: 'gpt-4o', stream: true, stream_options: each })
    expect(await (await post(url, vllm)).text()).toContain('"prompt_tokens":7')
    expect(JSON.parse(service.seen[2]?.body.toString() ?? '').stream_options).toEqual({
      include_usage: true,
      other: 1,
    })
    expect(JSON.parse(service.seen[1]?.body.toString() ?? '').stream_options).toEqual(
      asked.stream_options,
    )
  })

  test.each([401, 403])('that refuses our key with %i is our fault: 502', async (status) => {
    const refusal = JSON.stringify({
      error: {
        message: `Incorrect API key provided: ${SECRET.slice(0, 12)}***`,
        type: 'invalid_request_error',
        param: null,
        code: 'invalid_api_key',
      },
    })
    const service = await serviceOf(() => ({
      status,
      headers: JSON_TYPE,
      steps: [{ send: refusal }],
    }))
    const { url, finished } = await worldOf(backendRoute(service.url))
    for (const stream of [false, true]) {
      const response = await post(url, chatBody({ model: 'gpt-4o', stream }))
      expect(response.status).toBe(502)
      expect(response.headers.get('x-should-retry')).toBe('false')
      const body = await response.text()
      expect(JSON.parse(body)).toMatchObject({
        error: {
          code: 'upstream_error',
          message: expect.stringContaining(
            `backend openai refused the gateway's own key (${status}): the operator must look at`,
          ),
        },
      })
      expect(body).not.toContain(SECRET.slice(0, 12))
    }
    await until('the reports', () => finished.length === 2)
    expect(JSON.stringify(finished)).not.toContain(SECRET.slice(0, 12))
  })

  test('answers in place of a deployment: as a stand-in and as a fallback', async () => {
    const [dead, service] = [await serviceOf(), await serviceOf()]
    await dead.close()
    const other = backendRoute(service.url, { models: { 'deepseek-r1': 'deepseek-reasoner' } })
    const names = { deployment: 'r1', servedModel: 'r1' }
    const { url } = await worldOf(
      routeOf([], {
        ...names,
        model: 'deepseek-r1',
        standIn: { on: ['unavailable'], fraction: 0, reason: '', saturated: false, route: other },
      }),
      routeOf([targetOf(dead.url, { id: 'r2-0' })], {
        ...names,
        deployment: 'r2',
        model: 'deepseek-r2',
        fallback: { on: ['unreachable'], routes: [other] },
      }),
    )
    const first = await post(url, chatBody({ model: 'deepseek-r1' }))
    expect(await first.text()).toContain('from outside')
    expect(first.headers.get('x-penstock-spillover')).toBe('unavailable')
    const second = await post(url, chatBody({ model: 'deepseek-r2' }))
    expect(await second.text()).toContain('from outside')
    expect(second.headers.get('x-penstock-replica')).toBe('backend/openai')
    const sent = service.seen.map(({ body }) => JSON.parse(body.toString()).model)
    expect(sent).toEqual(['deepseek-reasoner', 'deepseek-r2'])
  })

  test('without a key is not available, and says why', async () => {
    const why = 'backend openai has no key: the environment variable KEY is not set'
    const { url } = await worldOf(backendRoute('http://127.0.0.1:1', { targets: [], why }))
    const response = await post(url, ASK)
    expect(response.status).toBe(503)
    expect(await response.text()).toContain(why)
  })
})

test('one Penstock behind another: answers, streams, refusals', async () => {
  const engine = await serviceOf()
  const inner = await worldOf(routeOf([targetOf(engine.url)], { model: 'qwq-32b' }))
  const backend = { name: 'inner', basePath: '/v1', authorization: `Bearer ${KEY}` }
  const outer = await worldOf(
    routeOf([targetOf(inner.url, { id: 'backend/inner', slot: 3, backend })], {
      model: '*',
      deployment: 'inner',
      engine: 'external',
      models: { big: 'qwq-32b' },
      match: { kind: 'prefix', pattern: '', aliases: [], when: null },
    }),
  )
  const whole = await post(outer.url, chatBody({ model: 'big' }), {
    'x-request-id': 'from-outside',
  })
  expect(await whole.text()).toContain('from outside')
  expect(whole.headers.get('x-penstock-replica')).toBe('backend/inner')
  const streamed = await (await post(outer.url, chatBody({ model: 'big', stream: true }))).text()
  expect(streamed).toContain(DONE)
  await until('both reports', () => inner.finished.length === 2 && outer.finished.length === 2)
  expect(inner.finished[0]).toMatchObject({
    id: 'from-outside',
    replica: 'qwq-32b-0',
    outcome: 'ok',
  })
  expect(outer.finished[0]).toMatchObject({ id: 'from-outside', route: '*' })
  expect(outer.finished[0]).toMatchObject({ modelAsked: 'big', modelServed: 'qwq-32b' })
  const unknown = await post(outer.url, chatBody({ model: 'nobody' }))
  expect(unknown.status).toBe(404)
  expect(await unknown.json()).toMatchObject({ error: { code: 'model_not_found' } })
})

describe('https', () => {
  const served = async () => {
    const authority = new Authority(mkdtempSync(join(tmpdir(), 'penstock-tls-')))
    const { cert, key } = authority.sign('backend', ['DNS:localhost'])
    const options = { cert: readFileSync(cert), key: readFileSync(key) }
    const server = createServer(options, (_req, res) => res.end('hello'))
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    closeLater({
      close: () =>
        new Promise((resolve) => {
          server.close(() => resolve())
          server.closeAllConnections()
        }),
    })
    return { ca: readFileSync(authority.ca, 'utf8'), port: address.port }
  }

  /** `hello`, or the code of why there was no answer. */
  const asked = async (url: string): Promise<string> => {
    const pools = new Pools()
    closeLater({ close: () => pools.destroy() })
    pools.keep(new Set([url]))
    try {
      return await (await pools.of(url).request({ path: '/', method: 'GET' })).body.text()
    } catch (error) {
      return error instanceof Error && 'code' in error ? String(error.code) : String(error)
    }
  }

  test('a certificate of nobody’s, or for another name, is refused; a known one is taken', async () => {
    const { ca, port } = await served()
    expect(await asked(`https://localhost:${port}`)).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE')
    const before = tls.getCACertificates('default')
    tls.setDefaultCACertificates([...before, ca])
    try {
      expect(await asked(`https://localhost:${port}`)).toBe('hello')
      expect(await asked(`https://127.0.0.1:${port}`)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
    } finally {
      tls.setDefaultCACertificates(before)
    }
  })

  test('through a gateway: 502 with the code, and nothing was sent', async () => {
    const { port } = await served()
    const { url } = await worldOf(backendRoute(`https://localhost:${port}`))
    const response = await post(url, ASK)
    expect(response.status).toBe(502)
    expect(await response.text()).toContain('backend/openai: cannot be reached: UNABLE_TO_VERIFY')
  })
})
