import { readdirSync, readFileSync } from 'node:fs'
import { Validator } from '@seriousme/openapi-schema-validator'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import * as answers from '../../src/console/answers.ts'
import { FleetSchema } from '../../src/console/fleet.ts'
import { hostAllowed, hostName } from '../../src/console/guard.ts'
import { ADMIN_KEY, CONSUMER_KEY } from '../support/admin.ts'
import { asAdmin, ask, type TestConsole, testConsole } from '../support/console.ts'
import { history, requests } from '../support/fleet.ts'

let at: TestConsole

beforeEach(async () => {
  at = await testConsole()
})

afterEach(async () => {
  await at.console.close()
  expect(at.errors).toEqual([])
})

const jsonHeaders = { ...asAdmin, 'content-type': 'application/json' }

const post = (path: string, body: unknown, headers: Record<string, string> = jsonHeaders) =>
  ask(at.base, path, { method: 'POST', headers, body: JSON.stringify(body) })

const failure = (body: string) => answers.ErrorSchema.parse(JSON.parse(body)).error

const OpenApi = z.looseObject({
  openapi: z.string(),
  paths: z.record(z.string(), z.record(z.string(), z.looseObject({ operationId: z.string() }))),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()) }),
})

const document = async () =>
  OpenApi.parse(JSON.parse((await ask(at.base, '/admin/v1/openapi.json')).body))

describe('who may ask', () => {
  test('every admin route refuses no key, a wrong key and a consumer key', async () => {
    const operations = Object.entries((await document()).paths).flatMap(([path, methods]) =>
      Object.entries(methods)
        .filter(([, operation]) => 'security' in operation)
        .map(([method]) => ({ path: path.replace('{id}', 'key_1'), method: method.toUpperCase() })),
    )
    expect(operations.length).toBeGreaterThanOrEqual(11)
    const expected = [
      [{}, 401, 'invalid_api_key'],
      [{ authorization: 'Bearer sk-ps-nobody' }, 401, 'invalid_api_key'],
      [{ authorization: `Basic ${ADMIN_KEY}` }, 401, 'invalid_api_key'],
      [{ authorization: `Bearer ${CONSUMER_KEY}` }, 403, 'admin_required'],
    ] as const
    for (const { path, method } of operations) {
      for (const [headers, status, code] of expected) {
        const answer = await ask(at.base, path, { method, headers })
        expect(answer.status, `${method} ${path}`).toBe(status)
        expect(failure(answer.body).code).toBe(code)
        if (status === 401) expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/)
      }
    }
    expect(at.admin.asked).toEqual([])
  })

  test('an unknown admin path says nothing about keys, and HEAD is not a way around', async () => {
    expect((await ask(at.base, '/admin/v1/nope')).status).toBe(404)
    expect((await ask(at.base, '/admin/v1/fleet', { method: 'HEAD' })).status).toBe(401)
  })

  test.each([
    'evil.example',
    'evil.example:8001',
    '10.0.0.5',
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    '169.254.169.254',
    'user@localhost',
  ])('the Host %j is refused everywhere, keys or not', async (host) => {
    for (const path of ['/', '/metrics', '/healthz', '/admin/v1/fleet', '/assets/x.js', '/nope']) {
      const answer = await ask(at.base, path, { headers: { ...asAdmin, host } })
      expect(answer.status, path).toBe(403)
      expect(failure(answer.body).code).toBe('host_not_allowed')
    }
  })

  test.each([
    'localhost',
    'localhost:9001',
    '127.0.0.1:1',
    '127.4.5.6',
    '[::1]:8001',
    'LOCALHOST.',
  ])('the Host %j is this machine, at whatever port a tunnel has', async (host) => {
    const answer = await ask(at.base, '/admin/v1/fleet', { headers: { ...asAdmin, host } })
    expect(answer.status).toBe(200)
  })

  test('configured names and, on a wildcard address, IP literals are allowed', () => {
    const wide = { host: '0.0.0.0', names: ['Penstock.example'] }
    expect(hostAllowed('penstock.example', wide)).toBe(true)
    expect(hostAllowed('10.0.0.5', wide)).toBe(true)
    expect(hostAllowed('fd00::5', wide)).toBe(true)
    expect(hostAllowed('evil.example', wide)).toBe(false)
    const bound = { host: '10.0.0.5', names: [] }
    expect(hostAllowed('10.0.0.5', bound)).toBe(true)
    expect(hostAllowed('10.0.0.6', bound)).toBe(false)
    expect(hostName('[fd00::5]:8001')).toBe('fd00::5')
    expect(hostName('a/b')).toBe(null)
    expect(hostName('a:b:c')).toBe(null)
  })

  test('a page of another origin is refused, our own is not', async () => {
    const host = `localhost:${at.console.port}`
    const from = (origin: string) =>
      post('/admin/v1/restart', { target: 'qwq-32b' }, { ...jsonHeaders, host, origin })
    for (const origin of ['https://evil.example', 'http://localhost:3000', 'null', 'localhost']) {
      const answer = await from(origin)
      expect(answer.status, origin).toBe(403)
      expect(answer.headers.get('access-control-allow-origin')).toBe(null)
    }
    expect(at.admin.asked).toEqual([])
    expect((await from(`http://${host}`)).status).toBe(200)
    expect((await from(`https://${host}`)).status).toBe(200)
  })

  test('every answer carries the headers that keep a page in its box', async () => {
    for (const path of ['/', '/nope', '/admin/v1/fleet', '/healthz']) {
      const { headers } = await ask(at.base, path)
      expect(headers.get('content-security-policy')).toContain("default-src 'none'")
      expect(headers.get('content-security-policy')).not.toContain('unsafe')
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('x-frame-options')).toBe('DENY')
    }
    const fleet = await ask(at.base, '/admin/v1/fleet', { headers: asAdmin })
    expect(fleet.headers.get('cache-control')).toBe('no-store')
  })
})

describe('routes', () => {
  const get = async (path: string) => {
    const answer = await ask(at.base, path, { headers: asAdmin })
    expect(answer.status, `${path}: ${answer.body}`).toBe(200)
    return JSON.parse(answer.body)
  }

  test('health, readiness and metrics need no key on this machine', async () => {
    expect((await ask(at.base, '/healthz')).body).toBe('{"status":"ok"}')
    expect((await ask(at.base, '/readyz')).status).toBe(200)
    at.admin.isReady = false
    const waiting = await ask(at.base, '/readyz')
    expect([waiting.status, waiting.body]).toEqual([503, '{"status":"starting"}'])
    const metrics = await ask(at.base, '/metrics')
    expect(metrics.headers.get('content-type')).toContain('version=0.0.4')
    expect(metrics.body).toContain('penstock_nodes 3')
  })

  test('fleet, requests and history answer what control says, in the documented shape', async () => {
    const nowMs = at.admin.view.nowMs
    at.admin.recent = requests(nowMs)
    at.admin.series = history(nowMs)
    expect(FleetSchema.parse(await get('/admin/v1/fleet'))).toEqual(at.admin.view)
    const two = answers.RequestsSchema.parse(await get('/admin/v1/requests?limit=2'))
    expect(two.requests).toEqual(at.admin.recent.slice(0, 2))
    const since = nowMs - 60_000
    const late = answers.HistorySchema.parse(await get(`/admin/v1/history?since=${since}`))
    expect(late.series).toEqual(at.admin.history(since))
    expect(answers.HistorySchema.parse(await get('/admin/v1/history')).series).toEqual(
      at.admin.series,
    )
  })

  test('plan hands the files on as they are and answers issues as a value', async () => {
    const issue = {
      file: 'm/a.yaml',
      line: 3,
      column: 5,
      path: 'replicas',
      message: 'not a number',
    }
    at.admin.planAnswer = { ok: false, issues: [issue] }
    const files = { inventory: null, manifests: [{ path: 'm/a.yaml', text: 'kind: Ünïcode\n' }] }
    const answer = await post('/admin/v1/plan', files)
    expect(answer.status).toBe(200)
    expect(answers.PlanAnswerSchema.parse(JSON.parse(answer.body))).toEqual(at.admin.planAnswer)
    expect(at.admin.asked).toEqual([files])
  })

  test('restart and destroy name the replicas; an unknown one is 404', async () => {
    expect((await post('/admin/v1/restart', { target: 'deepseek-r1' })).body).toBe(
      '{"replicas":["deepseek-r1/0"]}',
    )
    expect((await post('/admin/v1/destroy', { target: null })).status).toBe(200)
    expect(at.admin.asked).toEqual([{ restart: 'deepseek-r1' }, { destroy: null }])
    const missing = await post('/admin/v1/restart', { target: 'nope/0' })
    expect(missing.status).toBe(404)
    expect(failure(missing.body)).toMatchObject({ code: 'not_found', message: 'no nope/0 here' })
    // Forgetting the target must not destroy everything.
    expect((await post('/admin/v1/destroy', {})).status).toBe(400)
  })

  test('keys: made, shown once, listed without the secret, revoked', async () => {
    const made = await post('/admin/v1/keys', { consumer: 'search-team', models: ['qwq-32b'] })
    expect(made.status).toBe(201)
    const created = answers.CreatedKeySchema.parse(JSON.parse(made.body))
    expect(created.view).toMatchObject({ role: 'consumer', models: ['qwq-32b'] })
    const listed = await ask(at.base, '/admin/v1/keys', { headers: asAdmin })
    expect(listed.body).not.toContain(created.key)
    expect(answers.KeysSchema.parse(JSON.parse(listed.body)).keys).toEqual([created.view])
    const path = `/admin/v1/keys/${created.view.id}`
    const revoked = await ask(at.base, path, { method: 'DELETE', headers: asAdmin })
    expect(answers.KeyViewSchema.parse(JSON.parse(revoked.body)).revokedAtMs).toBe(2)
    const unknown = await ask(at.base, '/admin/v1/keys/key_9', {
      method: 'DELETE',
      headers: asAdmin,
    })
    expect(unknown.status).toBe(404)
  })
})

describe('refusals', () => {
  test.each([
    [{ manifests: [], inventroy: null }, 'body: unknown key "inventroy"', 'inventroy'],
    [{ manifests: [{ path: 'a', txt: '' }] }, 'manifests[0]: unknown key "txt"', null],
    [{ manifests: [{ path: 'a', text: 1 }] }, 'body: manifests[0].text: ', 'manifests[0].text'],
    [{}, 'body: manifests: ', 'manifests'],
    [[], 'body: ', 'body'],
    [null, 'body: ', 'body'],
    ['text', 'body: ', 'body'],
  ])('the body %j is 400 and says what is wrong', async (body, message, param) => {
    for (const path of ['/admin/v1/plan', '/admin/v1/apply']) {
      const answer = await post(path, body)
      expect(answer.status).toBe(400)
      expect(failure(answer.body).message).toContain(message)
      if (param !== null) expect(failure(answer.body).param).toBe(param)
    }
    expect(at.admin.asked).toEqual([])
  })

  test.each([
    ['/admin/v1/requests?limit=0', 'limit'],
    ['/admin/v1/requests?limit=1001', 'limit'],
    ['/admin/v1/requests?limit=many', 'limit'],
    ['/admin/v1/requests?limit=1&limit=2', 'limit'],
    ['/admin/v1/history?since=-1', 'since'],
    ['/admin/v1/history?until=5', 'until'],
    ['/admin/v1/logs', 'target'],
    ['/admin/v1/logs?target=../etc', 'target'],
    ['/admin/v1/logs?target=qwq-32b/0&follow=yes', 'follow'],
    ['/admin/v1/logs?target=qwq-32b/0&lines=10001', 'lines'],
  ])('the query of %s is 400 and names %s', async (path, param) => {
    const answer = await ask(at.base, path, { headers: asAdmin })
    expect(answer.status).toBe(400)
    expect(failure(answer.body).param).toBe(param)
  })

  test('not JSON, wrong type, prototype, too large, wrong method, unknown path', async () => {
    const send = (body: string, type = 'application/json') =>
      ask(at.base, '/admin/v1/plan', {
        method: 'POST',
        headers: { ...asAdmin, 'content-type': type },
        body,
      })
    const status = async (answer: Promise<{ status: number; body: string }>) => {
      const { status, body } = await answer
      return [status, failure(body).code]
    }
    expect(await status(send('{"manifests":'))).toEqual([400, 'invalid_request'])
    expect(await status(send('{"__proto__":{}}'))).toEqual([400, 'invalid_request'])
    expect(await status(send('{}', 'text/plain'))).toEqual([415, 'unsupported_media_type'])
    const big = JSON.stringify({ manifests: [{ path: 'a', text: 'x'.repeat(4 << 20) }] })
    expect(await status(send(big))).toEqual([413, 'body_too_large'])
    expect(await status(ask(at.base, '/admin/v1/nope'))).toEqual([404, 'not_found'])
    const wrong = await ask(at.base, '/admin/v1/keys/key_1', { headers: asAdmin })
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'DELETE'])
  })

  test('a bug is a 500 with a request id; its text is logged, not sent', async () => {
    at.admin.keys = () => {
      throw new TypeError('secret detail')
    }
    const answer = await ask(at.base, '/admin/v1/keys', { headers: asAdmin })
    expect(answer.status).toBe(500)
    expect(answer.body).not.toContain('secret')
    expect(failure(answer.body).message).toContain(answer.headers.get('x-request-id'))
    expect(at.errors.splice(0)).toEqual(['console request failed'])
  })

  test('a taken port is one line that says what to do', async () => {
    const taken = testConsole({ port: at.console.port })
    await expect(taken).rejects.toMatchObject({
      code: 'port_taken',
      message: `console address 127.0.0.1:${at.console.port} is taken: stop what listens there, or set PENSTOCK_CONSOLE_PORT`,
    })
    await expect(testConsole({ host: '192.0.2.1' })).rejects.toMatchObject({
      code: 'invalid_input',
    })
  })
})

describe('the OpenAPI document', () => {
  test('is valid OpenAPI 3 and every reference in it leads somewhere', async () => {
    const found = await document()
    expect(found.openapi).toBe('3.1.0')
    const verdict = await new Validator().validate(found)
    expect(verdict.errors ?? []).toEqual([])
    expect(verdict.valid).toBe(true)
    const text = JSON.stringify(found)
    const names = [...text.matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([, n]) => n)
    expect(names.length).toBeGreaterThan(20)
    for (const name of names) expect(Object.keys(found.components.schemas)).toContain(name)
  })

  test('has every route that the sources declare', async () => {
    const { paths } = await document()
    const folder = new URL('../../src/console/', import.meta.url)
    const source = readdirSync(folder)
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(new URL(name, folder), 'utf8'))
      .join('\n')
    const declared = [...source.matchAll(/app\.(get|post|delete)\('([^']+)'/g)]
      .map(([, method, path]) => ({ method: `${method}`, path: `${path}`.replace(':id', '{id}') }))
      .filter(({ path }) => path !== '/')
    expect(declared.length).toBeGreaterThanOrEqual(15)
    for (const { method, path } of declared) {
      expect(Object.keys(paths[path] ?? {}), path).toContain(method)
    }
    const ids = Object.values(paths).flatMap((methods) =>
      Object.values(methods).map((operation) => operation.operationId),
    )
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids.length).toBe(declared.length)
  })
})
