/** Pages of other sites, HEAD, OPTIONS and wrong methods, on every path that there is. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { PROTOCOLS } from '../../src/core/protocol.ts'
import { completion, JSON_TYPE } from '../support/engine.ts'
import { closeAll, KEY, startWorld } from '../support/gateway.ts'

afterEach(closeAll)

const answered = () => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })
const PATHS = [...new Set(PROTOCOLS.map(({ path }) => path))].map((path) => ({
  path: path.replace(':id', 'resp_1'),
  methods: PROTOCOLS.filter((other) => other.path === path).map(({ method }) => String(method)),
}))
const browser = { origin: 'https://page.example', authorization: `Bearer ${KEY}` }

test('a preflight is answered on every path, without a key', async () => {
  const { url, engine } = await startWorld(answered)
  for (const { path, methods } of [...PATHS, { path: '/v1/models', methods: ['GET'] }]) {
    const response = await fetch(url + path, {
      method: 'OPTIONS',
      headers: {
        origin: browser.origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'x-api-key, anthropic-version, content-type',
      },
    })
    expect([path, response.status]).toEqual([path, 204])
    const { headers } = response
    const allowed = headers.get('access-control-allow-methods')?.split(', ') ?? []
    expect(allowed).toEqual(expect.arrayContaining([...methods, 'OPTIONS']))
    expect(allowed.includes('HEAD')).toBe(methods.includes('GET'))
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(headers.get('access-control-allow-headers')).toBe('*, authorization')
  }
  expect(engine.seen).toHaveLength(0)
})

test('every answer, a refusal too, may be read by the page, with its headers', async () => {
  const { url } = await startWorld(answered)
  for (const { path, methods } of PATHS) {
    for (const method of methods) {
      const response = await fetch(url + path, { method, headers: browser })
      expect([path, response.headers.get('access-control-allow-origin')]).toEqual([path, '*'])
      expect(response.headers.get('access-control-expose-headers')).toContain('x-request-id')
    }
  }
  const plain = await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${KEY}` } })
  expect(plain.headers.has('access-control-allow-origin')).toBe(false)
})

test('every header of ours is exposed', async () => {
  const { url } = await startWorld(answered)
  const response = await fetch(`${url}/v1/models`, { headers: browser })
  const exposed = new Set(response.headers.get('access-control-expose-headers')?.split(', '))
  const folder = join(import.meta.dirname, '../../src/gateway')
  const said = readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), 'utf8')
    return [...text.matchAll(/headers\['(x-[a-z-]+)'\] =/g)].map(([, name]) => name ?? '')
  })
  expect(said).toContain('x-penstock-model')
  const ours = said.filter((name) => name.startsWith('x-penstock') || name.startsWith('x-rate'))
  expect(ours.filter((name) => !exposed.has(name))).toEqual([])
})

test('HEAD is GET without a body; a wrong method names the right ones', async () => {
  const { url } = await startWorld(answered)
  for (const path of ['/v1/models', '/v1/models/qwq-32b', '/healthz', '/readyz']) {
    const [head, get] = [
      await fetch(url + path, { method: 'HEAD', headers: browser }),
      await fetch(url + path, { headers: browser }),
    ]
    expect([path, head.status, await head.text()]).toEqual([path, 200, ''])
    expect(head.headers.get('content-length')).toBe(get.headers.get('content-length'))
    await get.text()
  }
  const stored = await fetch(`${url}/v1/responses/resp_1`, { method: 'HEAD', headers: browser })
  expect(stored.status).toBe(404)
  for (const { path, methods } of PATHS) {
    const response = await fetch(url + path, { method: 'PUT', headers: browser })
    expect([path, response.status]).toEqual([path, 405])
    for (const method of methods) expect(response.headers.get('allow')).toContain(method)
    await response.text()
  }
  expect((await fetch(`${url}/v1/messages/batches`, { method: 'POST' })).status).toBe(404)
})
