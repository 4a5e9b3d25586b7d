import { createServer } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { PenstockError } from '../../src/errors.ts'
import { startGateway } from '../../src/gateway/threads.ts'
import {
  chunk,
  completion,
  DONE,
  JSON_TYPE,
  SSE,
  type Step,
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
  startWorld,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const STREAM = chatBody({ stream: true })
const quiet = { info: () => {}, error: () => {} }

test('a taken port is one readable line, also when a Penstock has it', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => {
    other.listen(0, '127.0.0.1', resolve)
  })
  closeLater({ close: async () => void other.close() })
  const address = other.address()
  const taken = typeof address === 'object' && address !== null ? address.port : 0
  const gateway = await startTestGateway(snapshotOf([]))
  closeLater(gateway.handle)
  for (const port of [taken, gateway.handle.port]) {
    const start = { host: '127.0.0.1', port, snapshot: snapshotOf([]), log: quiet }
    const failure = await startGateway({ ...start, onFinished: () => {} }).catch((error) => error)
    expect(failure).toBeInstanceOf(PenstockError)
    expect(failure.code).toBe('port_taken')
    expect(failure.message).toBe(
      `port ${port} on 127.0.0.1 is taken: stop what listens there or choose another port`,
    )
  }
})

test('a crashed thread is replaced; the others serve, and its counts are gone', async () => {
  const world = await startWorld(() => ({ headers: SSE, steps: [{ hang: true }] }), { threads: 2 })
  const { handle, url, lines } = world
  const open = Array.from({ length: 20 }, () => post(url, STREAM).catch(() => null))
  await until('all are in flight', () => handle.inFlight(0) === 20)
  await Promise.all([handle.crash(0), handle.crash(1)])
  await Promise.all(open)
  expect(handle.totalInFlight()).toBe(0)
  await until('both are back', () => lines.filter((line) => /serves again/.test(line)).length === 2)
  expect(lines.filter((line) => /crashed, restarting in 100 ms/.test(line))).toHaveLength(2)
  // The new threads know the newest snapshot.
  const engine = closeLater(
    await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion('hi') }] })),
  )
  handle.publish(snapshotOf([routeOf([targetOf(engine.url)])]))
  await handle.crash(1)
  await until('it is back', () => lines.filter((line) => /serves again/.test(line)).length === 3)
  const answers = await Promise.all(Array.from({ length: 40 }, () => post(url, chatBody())))
  expect(answers.map(({ status }) => status)).toEqual(Array(40).fill(200))
  for (const answer of answers) await answer.text()
  await until('nothing in flight', () => handle.totalInFlight() === 0)
})

test('a replica that leaves the snapshot finishes what it answers', async () => {
  const first = await startWorld(() => ({
    headers: SSE,
    steps: [{ send: chunk('a') }, { waitMs: 600 }, { send: chunk('b', 'stop') + DONE }],
  }))
  const response = await post(first.url, STREAM)
  const second = closeLater(
    await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion('new') }] })),
  )
  first.handle.publish(snapshotOf([routeOf([targetOf(second.url, { id: 'new', slot: 7 })])]))
  await until('the new one answers', () => first.handle.inFlight(0) === 1)
  let replica: string | null = null
  while (replica !== 'new') {
    replica = (await post(first.url, chatBody())).headers.get('x-penstock-replica')
  }
  expect(await response.text()).toBe(chunk('a') + chunk('b', 'stop') + DONE)
  await until('all ended', () => first.handle.totalInFlight() === 0)
})

describe('drain', () => {
  const slow: Step[] = [
    { send: chunk('a') },
    { waitMs: 1_000 },
    { send: chunk('b', 'stop') + DONE },
  ]

  test('running streams end, new requests are refused, then it is over', async () => {
    const world = await startWorld(() => ({ headers: SSE, steps: slow }), { threads: 2 })
    const responses = await Promise.all(Array.from({ length: 8 }, () => post(world.url, STREAM)))
    const drained = world.handle.drain(30_000)
    const texts = await Promise.all(responses.map((response) => response.text()))
    expect(new Set(texts)).toEqual(new Set([chunk('a') + chunk('b', 'stop') + DONE]))
    await drained
    expect(world.finished.map(({ outcome }) => outcome)).toEqual(Array(8).fill('ok'))
    expect(world.handle.totalInFlight()).toBe(0)
    await expect(post(world.url, STREAM)).rejects.toThrow()
  })

  test('a new request on an open connection is told so', async () => {
    const world = await startWorld(() => ({ headers: SSE, steps: slow }))
    const { Agent, request } = await import('node:http')
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const ask = () =>
      new Promise<{ status: number; connection: string; text: string }>((resolve, reject) => {
        const headers = { authorization: `Bearer ${KEY}` }
        const path = '/v1/chat/completions'
        const req = request({ agent, port: world.handle.port, method: 'POST', path, headers })
        req.on('error', reject)
        req.on('response', async (res) => {
          let text = ''
          for await (const piece of res) text += piece
          const { connection = '' } = res.headers
          resolve({ status: res.statusCode ?? 0, connection, text })
        })
        req.end(STREAM)
      })
    const held = post(world.url, STREAM)
    await held
    expect((await ask()).status).toBe(200)
    const stillRuns = await post(world.url, STREAM)
    const drained = world.handle.drain(30_000)
    const refused = await ask()
    expect(refused).toMatchObject({ status: 503, connection: 'close' })
    expect(refused.text).toContain('server_draining')
    expect(await stillRuns.text()).toContain('[DONE]')
    await drained
    agent.destroy()
  })

  test('what runs past the deadline gets the error event', async () => {
    const world = await startWorld(() => ({
      headers: SSE,
      steps: [{ send: chunk('a') }, { hang: true }],
    }))
    const response = await post(world.url, STREAM)
    const unary = post(world.url, chatBody())
    await until('both run', () => world.handle.totalInFlight() === 2)
    await world.handle.drain(200)
    const text = await response.text()
    expect(text.startsWith(chunk('a'))).toBe(true)
    expect(text).toContain('"code":"server_draining"')
    expect(text).not.toContain('[DONE]')
    const cut = await unary
    expect(cut.status).toBe(503)
    expect(world.finished.map(({ reason }) => reason)).toEqual([
      'server_draining',
      'server_draining',
    ])
    expect(world.engine.aborted).toBe(2)
  })
})

test('240 streams at once are, byte for byte, what the engine sends', async () => {
  const eventsFor = (seed: number): Buffer[] => {
    const events = Array.from({ length: 30 }, (_, index) => chunk(`${seed}:${index} ünï 你好`))
    return [...events, usageChunk(seed, 30), DONE].map((event) => Buffer.from(event))
  }
  const world = await startWorld(
    ({ body }) => {
      const seed = Number(/"seed":(\d+)/.exec(body.toString())?.[1])
      const steps: Step[] = []
      for (const [index, event] of eventsFor(seed).entries()) {
        const cut = (seed * 7 + index * 13) % event.length
        steps.push({ send: event.subarray(0, cut) }, { waitMs: (seed + index) % 5 })
        steps.push({ send: event.subarray(cut) })
      }
      return {
        headers: SSE,
        steps: steps.filter((step) => !('send' in step) || step.send.length > 0),
      }
    },
    { threads: 2 },
  )
  const bodies = Array.from({ length: 240 }, (_, seed) => chatBody({ stream: true, seed }))
  const bytes = async (response: Response) => Buffer.from(await response.arrayBuffer())
  const through = await Promise.all(bodies.map(async (body) => bytes(await post(world.url, body))))
  for (const [seed, got] of through.entries()) {
    expect(got.equals(Buffer.concat(eventsFor(seed)))).toBe(true)
  }
  const direct = await bytes(await post(world.engine.url, bodies[17] ?? ''))
  expect(through[17]?.equals(direct)).toBe(true)
  await until('every report', () => world.finished.length === 240)
  expect(new Set(world.finished.map(({ id }) => id)).size).toBe(240)
  expect(
    world.finished.every(
      ({ outcome, completionTokens }) => outcome === 'ok' && completionTokens === 30,
    ),
  ).toBe(true)
  expect(world.handle.totalInFlight()).toBe(0)
})
