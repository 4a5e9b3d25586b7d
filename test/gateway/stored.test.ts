/** Answers that a replica keeps: only it has them, and only their own consumer may ask. */
import { afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { AnswerSlots } from '../../src/gateway/answer-slots.ts'
import { type Engine, JSON_TYPE, type Seen, SSE, startEngine } from '../support/engine.ts'
import {
  closeAll,
  closeLater,
  KEY,
  QWQ_ONLY_KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const Answer = z.object({ id: z.string(), by: z.string().optional() })

/** Keeps what it makes, as SGLang does; says which of the engines it is. */
const keeper = async (by: string): Promise<Engine> => {
  const kept = new Map<string, string>()
  const script = ({ path, body }: Seen) => {
    const [, , , id, cancel] = (path.split('?')[0] ?? '').split('/')
    if (id !== undefined) {
      const found = kept.get(id)
      if (found === undefined) {
        const message = `Response with id '${id}' not found.`
        const error = { message, type: 'invalid_request_error', param: 'response_id', code: 404 }
        return { status: 404, headers: JSON_TYPE, steps: [{ send: JSON.stringify({ error }) }] }
      }
      const send = cancel === undefined ? found : found.replace('completed', 'cancelled')
      return { headers: JSON_TYPE, steps: [{ send }] }
    }
    const made = `resp_${by}${kept.size}`
    const usage = { input_tokens: 5, output_tokens: 2, total_tokens: 7 }
    const answer = { id: made, object: 'response', by, status: 'completed', usage }
    kept.set(made, JSON.stringify(answer))
    if (!body.includes('"stream":true')) {
      return { headers: JSON_TYPE, steps: [{ send: JSON.stringify(answer) }] }
    }
    const event = (type: string, response: object) =>
      `event: ${type}\ndata: ${JSON.stringify({ type, response })}\n\n`
    const created = event('response.created', { ...answer, status: 'in_progress', usage: null })
    return {
      headers: SSE,
      steps: [{ send: created }, { send: event('response.completed', answer) }],
    }
  }
  return closeLater(await startEngine(script))
}

const world = async (threads = 2) => {
  const engines = [await keeper('a'), await keeper('b'), await keeper('c')]
  const targets = engines.map(({ url }, slot) => targetOf(url, { id: `qwq-32b-${slot}`, slot }))
  const routes = [routeOf(targets, { engine: 'sglang', servedModel: 'qwq-32b' })]
  const gateway = await startTestGateway(snapshotOf(routes), threads)
  closeLater(gateway.handle)
  const ask = (method: string, path: string, body?: object, key = KEY) =>
    fetch(`${gateway.url}/v1/responses${path}`, {
      method,
      // Connections are not kept: requests come to any of the threads.
      headers: { authorization: `Bearer ${key}`, connection: 'close' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const make = async (more: object = {}) => {
    const response = await ask('POST', '', { model: 'qwq-32b', input: 'hi', ...more })
    expect(response.status).toBe(200)
    return Answer.parse(await response.json())
  }
  return { ...gateway, engines, targets, routes, ask, make }
}

describe('stored answers', () => {
  test('are asked of the replica that made them, from every thread', async () => {
    const { ask, make, finished } = await world()
    for (let round = 0; round < 12; round += 1) {
      const { id, by } = await make()
      const response = await ask('GET', `/${id}`)
      expect(Answer.parse(await response.json())).toEqual({ id, by })
      expect(response.headers.get('x-penstock-replica')).toBe(`qwq-32b-${'abc'.indexOf(by ?? '')}`)
      const cancelled = await (await ask('POST', `/${id}/cancel`)).text()
      expect(cancelled).toContain('cancelled')
    }
    await until('the reports', () => finished.length === 36)
    // What it cost was counted when it was made.
    const tokens = finished.map(({ promptTokens }) => promptTokens ?? 0)
    expect(tokens.reduce((sum, count) => sum + count, 0)).toBe(12 * 5)
    expect(new Set(finished.map(({ path }) => path))).toEqual(
      new Set(['/v1/responses', '/v1/responses/:id', '/v1/responses/:id/cancel']),
    )
  })

  test('a streamed one is known as soon as the client has its id', async () => {
    const { ask } = await world()
    const response = await ask('POST', '', { model: 'qwq-32b', input: 'hi', stream: true })
    const id = /"id":"(resp_[^"]+)"/.exec(await response.text())?.[1]
    expect((await ask('GET', `/${id}`)).status).toBe(200)
  })

  test('an answer goes on where the one before it is kept', async () => {
    const { make } = await world()
    for (let round = 0; round < 12; round += 1) {
      const first = await make()
      const second = await make({ previous_response_id: first.id })
      expect(second.by).toBe(first.by)
    }
  })

  test('another consumer, an unknown id and a strange one are a 404 in words', async () => {
    const { ask, make, engines } = await world()
    const { id } = await make()
    const before = engines.reduce((sum, { seen }) => sum + seen.length, 0)
    for (const [path, key] of [
      [`/${id}`, QWQ_ONLY_KEY],
      [`/${id}/cancel`, QWQ_ONLY_KEY],
      ['/resp_unknown', KEY],
      ['/..%2f..%2fmetrics', KEY],
      [`/${'x'.repeat(500)}`, KEY],
    ] as const) {
      const response = await ask(path.endsWith('cancel') ? 'POST' : 'GET', path, undefined, key)
      expect(response.status).toBe(404)
      expect(await response.json()).toMatchObject({
        error: { code: 'not_found', message: expect.stringContaining('is known here') },
      })
    }
    expect(engines.reduce((sum, { seen }) => sum + seen.length, 0)).toBe(before)
    expect((await ask('GET', `/${id}`, undefined, 'sk-ps-nobody-0000000000')).status).toBe(401)
  })

  test('of the query only what the engines know is passed on', async () => {
    const { ask, make, engines } = await world()
    const { id, by } = await make()
    const query = '?stream=false&starting_after=3&starting_after=4&x=../..&include=y'
    expect((await ask('GET', `/${id}${query}`)).status).toBe(200)
    const { seen } = engines['abc'.indexOf(by ?? '')] ?? { seen: [] }
    expect(seen.at(-1)?.path).toBe(`/v1/responses/${id}?stream=false&starting_after=3`)
  })

  test('deleting is no engine’s; a replica that is gone has taken its answers with it', async () => {
    const { ask, make, handle, targets } = await world()
    const { id, by } = await make()
    const refused = await ask('DELETE', `/${id}`)
    expect(refused.status).toBe(404)
    expect(await refused.text()).toContain('(sglang) has no DELETE /v1/responses/:id')
    const left = targets.filter(({ slot }) => slot !== 'abc'.indexOf(by ?? ''))
    handle.publish(snapshotOf([routeOf(left, { engine: 'sglang' })]))
    const deadline = performance.now() + 20_000
    while ((await ask('GET', `/${id}`)).status !== 404)
      expect(performance.now()).toBeLessThan(deadline)
    const next = { model: 'qwq-32b', input: 'hi', previous_response_id: id }
    const response = await ask('POST', '', next)
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ error: { param: 'previous_response_id' } })
  })
})

describe('AnswerSlots', () => {
  test('remembers, replaces, and never gives one consumer’s answer to another', () => {
    const slots = new AnswerSlots()
    const seen = new AnswerSlots(slots.buffer)
    slots.keep('alice', 'resp_1', 4095)
    expect([seen.slotOf('alice', 'resp_1'), seen.slotOf('bob', 'resp_1')]).toEqual([4095, null])
    seen.keep('alice', 'resp_1', 0)
    expect(slots.slotOf('alice', 'resp_1')).toBe(0)
    for (let index = 0; index < 100_000; index += 1)
      slots.keep('bob', `resp_${index}`, index % 4096)
    let known = 0
    for (let index = 0; index < 100_000; index += 1) {
      const slot = seen.slotOf('bob', `resp_${index}`)
      if (slot !== null) expect(slot).toBe(index % 4096)
      if (slot !== null) known += 1
    }
    expect(known).toBeGreaterThan(50_000)
    expect(known).toBeLessThanOrEqual(65_536)
  })
})
