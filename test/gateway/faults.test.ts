import { createServer } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import type { FinishedRequest } from '../../src/core/snapshot.ts'
import {
  chunk,
  completion,
  DONE,
  JSON_TYPE,
  type Script,
  SSE,
  type Step,
  startEngine,
  usageChunk,
} from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  startWorld,
  type TestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const STREAM = chatBody({ stream: true })
const sse = (...pieces: (string | Step)[]): Script => ({
  headers: SSE,
  steps: pieces.map((piece) => (typeof piece === 'string' ? { send: piece } : piece)),
})

/** The error of the last event; everything before it must be `before`, byte for byte. */
const lastError = (text: string, before: string): { message: string; code: string } => {
  expect(text.startsWith(before)).toBe(true)
  const tail = text.slice(before.length)
  expect(tail).toMatch(/^data: \{"error":\{.*\}\}\n\n$/)
  const { error } = JSON.parse(tail.slice('data: '.length))
  expect(Object.keys(error).sort()).toEqual(['code', 'message', 'param', 'type'])
  return error
}

const report = async ({ finished, handle }: TestGateway): Promise<FinishedRequest> => {
  await until('the report', () => finished.length > 0)
  expect(handle.totalInFlight()).toBe(0)
  expect(finished).toHaveLength(1)
  const [only] = finished
  if (only === undefined) throw new Error('no report')
  return only
}

describe('a stream that dies', () => {
  const half = '{"id":"x","choices":[{"delta":{"content":"ha'
  const deaths: readonly (readonly [string, readonly (string | Step)[]])[] = [
    ['ends without [DONE]', []],
    ['ends inside an event', [`data: ${half}`]],
    ['is reset', [{ waitMs: 50 }, { reset: true }]],
    ['is reset inside an event', [`data: ${half}`, { waitMs: 50 }, { reset: true }]],
  ]
  test.each(deaths)('%s: one error event after the last whole one, no [DONE]', async (_, last) => {
    const whole = chunk('') + chunk('你好')
    const world = await startWorld(() => sse(whole, ...last))
    const response = await post(world.url, STREAM)
    expect(response.status).toBe(200)
    expect(lastError(await response.text(), whole).code).toBe('stream_interrupted')
    expect(await report(world)).toMatchObject({
      outcome: 'interrupted',
      status: 200,
      reason: 'stream_interrupted',
      replica: 'qwq-32b-0',
    })
  })

  test('the answer was whole and only [DONE] is missing: no error, and none is invented', async () => {
    const whole = chunk('a') + chunk('b', 'stop')
    const world = await startWorld(() => sse(whole))
    expect(await (await post(world.url, STREAM)).text()).toBe(whole)
    expect(await report(world)).toMatchObject({ outcome: 'ok', reason: 'stop' })
  })

  test('the engine gave up (SIGTERM): what looks finished is an error, with or without [DONE]', async () => {
    const whole = chunk('a') + chunk('', 'abort')
    for (const last of [DONE, '']) {
      const world = await startWorld(() => sse(whole, last))
      const error = lastError(await (await post(world.url, STREAM)).text(), whole)
      expect(error).toMatchObject({ code: 'stream_interrupted', message: /gave up/ })
      expect(await report(world)).toMatchObject({ outcome: 'interrupted' })
    }
  })

  test('an answer in one piece that the engine gave up is a 502', async () => {
    const body = completion('half').replace('"finish_reason":"stop"', '"finish_reason":"abort"')
    const world = await startWorld(() => ({ headers: JSON_TYPE, steps: [{ send: body }] }))
    const response = await post(world.url, chatBody({}))
    expect(response.status).toBe(502)
    expect(await report(world)).toMatchObject({ outcome: 'upstream_error' })
  })

  test('one of two choices had finished: that is not a whole answer', async () => {
    const whole = chunk('a') + chunk('b', 'stop')
    const world = await startWorld(() => sse(whole))
    const text = await (await post(world.url, chatBody({ stream: true, n: 2 }))).text()
    expect(lastError(text, whole).code).toBe('stream_interrupted')
  })

  test('[DONE] without its empty line is [DONE]; a reset after it harms nobody', async () => {
    const bare = `${chunk('a', 'stop')}data: [DONE]`
    const world = await startWorld(() => sse(bare))
    expect(await (await post(world.url, STREAM)).text()).toBe(bare)
    const done = chunk('a', 'stop') + DONE
    const other = await startWorld(() => sse(done, { waitMs: 50 }, { reset: true }))
    expect(await (await post(other.url, STREAM)).text()).toBe(done)
    expect(await report(other)).toMatchObject({ outcome: 'ok' })
  })

  test('silence between events: the stall time-out says so', async () => {
    const whole = chunk('a')
    const world = await startWorld(() => sse(whole, { hang: true }), {
      route: { stallTimeoutMs: 300 },
    })
    const error = lastError(await (await post(world.url, STREAM)).text(), whole)
    expect(error).toMatchObject({ code: 'stream_stalled', message: /nothing arrived for 0.3 s/ })
    await until('the engine was cut off', () => world.engine.aborted === 1)
    expect(await report(world)).toMatchObject({ outcome: 'timeout', reason: 'stream_stalled' })
  })

  test('an event beyond all measure is refused, and nothing of it passed on', async () => {
    const huge = `data: ${'x'.repeat(9 * 1024 * 1024)}\n\n`
    const world = await startWorld(() => sse(chunk('a'), { waitMs: 50 }, huge))
    const text = await (await post(world.url, STREAM)).text()
    expect(lastError(text, chunk('a')).code).toBe('upstream_invalid')
  })

  test('a large event passes untouched', async () => {
    const large = `data: {"id":"x","padding":"${'x'.repeat(3 * 1024 * 1024)}"}\n\n`
    const world = await startWorld(() => sse(chunk('a'), large, DONE))
    expect(await (await post(world.url, STREAM)).text()).toBe(chunk('a') + large + DONE)
  })
})

describe('a stream that never began', () => {
  test.each([
    ['ends', []],
    ['is reset', [{ waitMs: 100 }, { reset: true }]],
  ] satisfies [string, Step[]][])('it %s after its head: a real 502', async (_, steps) => {
    const world = await startWorld(() => ({ headers: SSE, headFirst: true, steps }))
    const response = await post(world.url, STREAM)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ error: { type: 'server_error' } })
    expect(await report(world)).toMatchObject({ status: 502, outcome: 'upstream_error' })
  })

  test('the engine answers with JSON instead of events: passed on as it is', async () => {
    const body = completion('hi')
    const world = await startWorld(() => ({ headers: JSON_TYPE, steps: [{ send: body }] }))
    expect(await (await post(world.url, STREAM)).text()).toBe(body)
  })
})

describe("the engine's own errors", () => {
  test('inside a stream: OpenAI shape, and its [DONE] is not passed on', async () => {
    const flat = 'data: {"object":"error","message":"CUDA error","type":"Internal","code":500}\n\n'
    const world = await startWorld(() => sse(chunk('a') + flat + DONE))
    const error = lastError(await (await post(world.url, STREAM)).text(), chunk('a'))
    expect(error).toMatchObject({ message: 'CUDA error', code: 'upstream_error' })
    expect(await report(world)).toMatchObject({ outcome: 'interrupted' })
  })

  const first: readonly (readonly [string, number, string | null, string | null])[] = [
    [
      '{"error":{"object":"error","message":"The request queue is full.","code":503}}',
      503,
      'model_unavailable',
      '2',
    ],
    [
      '{"error":{"message":"bad top_p","type":"BadRequestError","param":"top_p","code":400}}',
      400,
      null,
      null,
    ],
    ['{"error":{"message":"boom"}}', 502, 'upstream_error', null],
  ]
  test.each(first)('first in a stream: %s is status %i', async (data, status, code, retryAfter) => {
    const world = await startWorld(() => sse(`data: ${data}\n\n`, DONE))
    const response = await post(world.url, STREAM)
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(response.headers.get('retry-after')).toBe(retryAfter)
    expect(response.headers.get('x-penstock-replica')).toBe('qwq-32b-0')
    expect(await response.json()).toMatchObject({ error: { code } })
    expect(await report(world)).toMatchObject({ status })
  })

  test.each([true, false])('a status other than 200 is kept (stream: %s)', async (stream) => {
    const world = await startWorld(() => ({
      status: 400,
      headers: JSON_TYPE,
      steps: [{ send: '{"object":"error","message":"top_p is wrong","param":"top_p","code":400}' }],
    }))
    const response = await post(world.url, chatBody({ stream }))
    expect(response.status).toBe(400)
    expect(await response.json()).toEqual({
      error: {
        message: 'top_p is wrong',
        type: 'invalid_request_error',
        param: 'top_p',
        code: null,
      },
    })
    expect(await report(world)).toMatchObject({ status: 400, outcome: 'refused' })
  })

  test('a late one, after the answer was committed, is an error event', async () => {
    const world = await startWorld(
      () => ({ status: 500, headers: JSON_TYPE, steps: [{ send: 'oops' }], headFirst: false }),
      { snapshot: { keepAliveMs: 200 } },
    )
    const slow = await startWorld(
      () => ({
        status: 500,
        headFirst: false,
        headers: JSON_TYPE,
        steps: [{ waitMs: 700 }, { send: 'oops' }],
      }),
      { snapshot: { keepAliveMs: 200 } },
    )
    expect((await post(world.url, STREAM)).status).toBe(500)
    const response = await post(slow.url, STREAM)
    expect(response.status).toBe(200)
    const text = await response.text()
    const comments = /^(: keep-alive\n\n)+/.exec(text)?.[0] ?? ''
    expect(comments.length).toBeGreaterThan(0)
    expect(lastError(text, comments).message).toBe('oops')
  })
})

describe('silence', () => {
  test('comments come between events, never inside one, and the first commits the answer', async () => {
    const [one, two] = [chunk('a'), chunk('b', 'stop')]
    const cut = 40
    const world = await startWorld(
      () =>
        sse(
          { waitMs: 500 },
          one + two.slice(0, cut),
          { waitMs: 700 },
          two.slice(cut),
          { waitMs: 500 },
          DONE,
        ),
      { snapshot: { keepAliveMs: 150 } },
    )
    const response = await post(world.url, STREAM)
    const text = await response.text()
    expect(text.replaceAll(': keep-alive\n\n', '')).toBe(one + two + DONE)
    const shape = text
      .replace(one, '1')
      .replace(two, '2')
      .replace(DONE, 'D')
      .replaceAll(/(: keep-alive\n\n)+/g, '.')
    expect(shape).toBe('.1.2.D')
    expect(await report(world)).toMatchObject({ outcome: 'ok' })
  })

  test.each([true, false])('no answer in time is a 504 (stream: %s)', async (stream) => {
    const world = await startWorld(
      () => ({ steps: [{ hang: true }], headers: SSE, headFirst: stream }),
      {
        route: { firstTokenTimeoutMs: 300 },
      },
    )
    const response = await post(world.url, chatBody({ stream }))
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ error: { code: 'upstream_timeout' } })
    await until('the engine was cut off', () => world.engine.aborted === 1)
    expect(await report(world)).toMatchObject({ status: 504, outcome: 'timeout' })
  })
})

describe('the client leaves', () => {
  test.each([
    ['before the first byte', [{ hang: true }] satisfies Step[]],
    ['after some bytes', [{ send: chunk('a') }, { hang: true }] satisfies Step[]],
  ])('%s: the engine is cut off at once', async (_, steps) => {
    const world = await startWorld(() => ({ headers: SSE, steps }))
    const leave = new AbortController()
    const asked = fetch(`${world.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sk-ps-test-0123456789abcdef' },
      body: STREAM,
      signal: leave.signal,
    }).then((response) => response.text())
    await until('the engine is asked', () => world.engine.seen.length === 1)
    expect(world.handle.inFlight(0)).toBe(1)
    leave.abort()
    await expect(asked).rejects.toThrow()
    await until('the engine was cut off', () => world.engine.aborted === 1)
    expect(await report(world)).toMatchObject({ outcome: 'client_gone', status: 499 })
  })

  test('while the connection to the engine is being made: nothing is wedged, nothing is sent', async () => {
    // TLS to a server that never says a word: the connection is never made.
    let received = 0
    const silent = createServer((socket) => {
      socket.on('data', (data) => {
        received += data.length
      })
      socket.on('error', () => {})
      sockets.push(socket)
    })
    const sockets: { destroy(): void }[] = []
    await new Promise<void>((resolve) => {
      silent.listen(0, '127.0.0.1', resolve)
    })
    closeLater({
      close: async () => {
        for (const socket of sockets) socket.destroy()
        silent.close()
      },
    })
    const address = silent.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const snapshot = snapshotOf([routeOf([targetOf(`https://127.0.0.1:${port}`)])])
    const gateway = await startTestGateway(snapshot)
    closeLater(gateway.handle)
    const leave = new AbortController()
    const asked = post(gateway.url, STREAM)
    const cut = fetch(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sk-ps-test-0123456789abcdef' },
      body: STREAM,
      signal: leave.signal,
    })
    await until('the connections are being made', () => sockets.length === 2 && received > 0)
    leave.abort()
    await expect(cut).rejects.toThrow()
    await until('the report', () => gateway.finished.length === 1)
    expect(gateway.finished[0]).toMatchObject({ outcome: 'client_gone' })
    expect(gateway.handle.inFlight(0)).toBe(1)
    for (const socket of sockets) socket.destroy()
    expect((await asked).status).toBe(502)
    await until('nothing in flight', () => gateway.handle.totalInFlight() === 0)
  })
})

describe('a replica that cannot be reached', () => {
  const closedPort = async (): Promise<string> => {
    const gone = await startEngine(() => ({ steps: [] }))
    await gone.close()
    return gone.url
  }

  test('another one answers', async () => {
    const engine = closeLater(
      await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })),
    )
    const targets = [
      // Its load makes the dead one the choice; the draining one may not be chosen.
      targetOf(await closedPort(), { id: 'dead', slot: 1, requestsRunning: 0, requestsWaiting: 0 }),
      targetOf(engine.url, { id: 'alive', slot: 2, requestsRunning: 9, requestsWaiting: 9 }),
      targetOf(await closedPort(), { id: 'draining', slot: 3, state: 'draining' }),
    ]
    const gateway = await startTestGateway(snapshotOf([routeOf(targets)]))
    closeLater(gateway.handle)
    const response = await post(gateway.url, chatBody())
    expect(response.status).toBe(200)
    expect(response.headers.get('x-penstock-replica')).toBe('alive')
    expect(await report(gateway)).toMatchObject({ replica: 'alive', outcome: 'ok' })
    expect([1, 2, 3].map((slot) => gateway.handle.inFlight(slot))).toEqual([0, 0, 0])
  })

  test('there is no other: 502 that names it', async () => {
    const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(await closedPort())])]))
    closeLater(gateway.handle)
    const response = await post(gateway.url, STREAM)
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({
      error: {
        code: 'upstream_error',
        message: /replica qwq-32b-0: cannot be reached.*ECONNREFUSED/,
      },
    })
    expect(await report(gateway)).toMatchObject({ outcome: 'upstream_error' })
  })

  test('an idle connection that the engine had closed costs one more try, unseen', async () => {
    let asked = 0
    const world = await startWorld(() => {
      asked += 1
      const fail = asked === 2
      return { headers: JSON_TYPE, steps: fail ? [{ reset: true }] : [{ send: completion('hi') }] }
    })
    expect((await post(world.url, chatBody())).status).toBe(200)
    expect((await post(world.url, chatBody())).status).toBe(200)
    expect(asked).toBe(3)
    expect(world.engine.connections).toBe(2)
    await until('both reports', () => world.finished.length === 2)
  })

  test('a fresh connection that dies is not tried again: the engine may have died of it', async () => {
    const world = await startWorld(() => ({ steps: [{ reset: true }] }))
    expect((await post(world.url, chatBody())).status).toBe(502)
    expect(world.engine.seen).toHaveLength(1)
    expect(await report(world)).toMatchObject({ outcome: 'upstream_error', status: 502 })
  })

  test('it dies in the middle of a JSON answer: 502, not half a document', async () => {
    const world = await startWorld(() => ({
      headers: { ...JSON_TYPE, 'content-length': '500' },
      steps: [{ send: completion('hi').slice(0, 40) }, { waitMs: 50 }, { reset: true }],
    }))
    const response = await post(world.url, chatBody())
    expect(response.status).toBe(502)
    expect(await response.json()).toMatchObject({ error: { code: 'upstream_error' } })
  })
})

describe('bytes', () => {
  const events = [chunk(''), chunk('你好 ünïcode'), chunk('b', 'stop'), usageChunk(5, 2), DONE]
  const whole = Buffer.from(events.join(''))
  test.each([1, 3, 7, 64, 1000])('pieces of %i bytes arrive as one stream', async (size) => {
    const steps: Step[] = []
    for (let at = 0; at < whole.length; at += size) {
      steps.push({ send: whole.subarray(at, at + size) })
    }
    const world = await startWorld(() => ({ headers: SSE, steps }))
    const got = Buffer.from(await (await post(world.url, STREAM)).arrayBuffer())
    expect(got.equals(whole)).toBe(true)
    expect(await report(world)).toMatchObject({ outcome: 'ok', promptTokens: 5 })
  })

  test.each(['\r\n', '\r'])('lines that end in %j pass untouched', async (eol) => {
    const text = events.join('').replaceAll('\n', eol)
    const world = await startWorld(() => sse(text))
    expect(await (await post(world.url, STREAM)).text()).toBe(text)
    expect(await report(world)).toMatchObject({ outcome: 'ok', completionTokens: 2 })
  })

  test('a client that does not read holds the engine back, and then gets every byte', async () => {
    const piece = chunk('x'.repeat(60_000))
    const count = 500
    let sent = 0
    const world = await startWorld(() => {
      const steps = Array.from({ length: count }, () => ({
        get send() {
          sent += 1
          return piece
        },
      }))
      return { headers: SSE, steps: [...steps, { send: DONE }] }
    })
    const response = await post(world.url, STREAM)
    const reader = response.body?.getReader()
    await reader?.read()
    let before = -1
    await until('the engine is held back', () => {
      const still = sent === before && sent > 0
      before = sent
      return still
    })
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(sent).toBeLessThan(count)
    let bytes = 0
    let last = ''
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined }
      if (done || value === undefined) break
      bytes += value.length
      last = Buffer.from(value).toString().slice(-DONE.length)
    }
    expect(last).toBe(DONE)
    expect(bytes).toBeGreaterThan(piece.length * (count - 2))
  })
})
