/** Bodies packed with gzip: unpacked within bounds, or refused with the reason. */
import { request } from 'node:http'
import { deflateSync, gzipSync } from 'node:zlib'
import { afterEach, expect, test } from 'vitest'
import { z } from 'zod'
import { completion, JSON_TYPE } from '../support/engine.ts'
import { chatBody, closeAll, KEY, post, startWorld, until } from '../support/gateway.ts'

afterEach(closeAll)

const answered = () => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })
const Refusal = z.object({ error: z.object({ code: z.string(), message: z.string() }) })

const refusal = async (response: Response) => {
  const { error } = Refusal.parse(await response.json())
  return { status: response.status, ...error }
}

test('the engine gets the body unpacked, and plain', async () => {
  const { url, engine } = await startWorld(answered)
  const body = chatBody({ messages: [{ role: 'user', content: '水 power '.repeat(2_000) }] })
  const [half, rest] = [body.slice(0, 500), body.slice(500)]
  // Members one after the other are one body (RFC 1952 2.2).
  const twice = Buffer.concat([gzipSync(half), gzipSync(rest)])
  for (const packed of [gzipSync(body), gzipSync(body, { level: 0 }), twice]) {
    expect((await post(url, packed, { 'content-encoding': 'gzip' })).status).toBe(200)
  }
  expect((await post(url, gzipSync(body), { 'content-encoding': 'X-GZIP' })).status).toBe(200)
  expect((await post(url, body, { 'content-encoding': 'identity' })).status).toBe(200)
  for (const seen of engine.seen) {
    expect(String(seen.body)).toBe(body)
    expect(seen.headers['content-encoding']).toBe(undefined)
    expect(seen.headers['content-length']).toBe(String(Buffer.byteLength(body)))
  }
})

test('other codings are a 415 before the body is read', async () => {
  const { url, engine } = await startWorld(answered)
  for (const coding of ['deflate', 'br', 'zstd', 'gzip, gzip', 'gzip, br']) {
    const response = await post(url, deflateSync(chatBody()), { 'content-encoding': coding })
    expect(await refusal(response)).toMatchObject({ status: 415, code: 'unsupported_media_type' })
  }
  expect(engine.seen).toHaveLength(0)
})

test('what is damaged is a 400, and the connection serves the next request', async () => {
  const { url, engine } = await startWorld(answered)
  const whole = gzipSync(chatBody())
  const wrongSum = Buffer.from(whole)
  wrongSum.writeUInt32LE(1, whole.length - 8)
  const noise = Buffer.alloc(300_000, 'x')
  for (const bad of [whole.subarray(0, -9), wrongSum, Buffer.from(chatBody()), noise]) {
    const response = await post(url, bad, { 'content-encoding': 'gzip' })
    expect(await refusal(response)).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining('the gzip body is damaged'),
    })
  }
  const empty = await post(url, gzipSync(''), { 'content-encoding': 'gzip' })
  expect(await refusal(empty)).toMatchObject({ status: 400 })
  expect(engine.seen).toHaveLength(0)
  expect((await post(url, whole, { 'content-encoding': 'gzip' })).status).toBe(200)
})

test('a bomb is refused at the limit of a body, and by its ratio below that', async () => {
  const bomb = gzipSync(Buffer.alloc(40_000_000, ' '))
  expect(bomb.length).toBeLessThan(60_000)
  const small = await startWorld(answered)
  const refused = await refusal(await post(small.url, bomb, { 'content-encoding': 'gzip' }))
  expect(refused).toMatchObject({ status: 413, message: expect.stringContaining('1000000 bytes') })
  await closeAll()
  const large = await startWorld(answered, { snapshot: { maxBodyBytes: 200_000_000 } })
  const ratio = await refusal(await post(large.url, bomb, { 'content-encoding': 'gzip' }))
  expect(ratio).toMatchObject({ status: 413, message: expect.stringContaining('200 times') })
  expect(large.handle.totalInFlight()).toBe(0)
  expect(large.engine.seen).toHaveLength(0)
})

test('a client that leaves in the middle leaves nothing behind', async () => {
  const { handle, finished } = await startWorld(answered)
  const packed = gzipSync(chatBody())
  const req = request({
    port: handle.port,
    path: '/v1/chat/completions',
    method: 'POST',
    headers: {
      authorization: `Bearer ${KEY}`,
      'content-encoding': 'gzip',
      'content-length': packed.length,
    },
  })
  req.on('error', () => {})
  req.write(packed.subarray(0, 20), () => req.destroy())
  await until('the report', () => finished.length === 1)
  expect(finished[0]).toMatchObject({ outcome: 'client_gone' })
})
