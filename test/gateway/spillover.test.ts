/** A stand-in answers: when, for whom, and that the caller is told. */
import { hash } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import type { StandIn, TargetState } from '../../src/core/snapshot.ts'
import { chunk, completion, type Engine, JSON_TYPE, SSE, startEngine } from '../support/engine.ts'
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

afterEach(closeAll)

const engineOf = async (text: string): Promise<Engine> =>
  closeLater(await startEngine(() => ({ headers: JSON_TYPE, steps: [{ send: completion(text) }] })))

/** R1 with QwQ as its stand-in, and R1's own replica in a state. */
const world = async (state: TargetState | null, over: Partial<StandIn> = {}) => {
  const [large, small] = [await engineOf('from R1'), await engineOf('from QwQ')]
  const own = state === null ? [] : [targetOf(large.url, { id: 'deepseek-r1-0', slot: 1, state })]
  const standIn: StandIn = {
    on: ['saturation', 'unavailable'],
    fraction: 0,
    reason: 'saturation 1.20',
    saturated: false,
    route: routeOf([targetOf(small.url)]),
    ...over,
  }
  const names = { model: 'deepseek-r1', deployment: 'deepseek-r1', servedModel: 'deepseek-r1' }
  const route = routeOf(own, { ...names, why: 'rank 1 is loading weights', standIn })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  return { ...gateway, large, small }
}

const ASK = chatBody({ model: 'deepseek-r1' })

describe('a stand-in', () => {
  test('answers when nobody is ready; header, body and report say who and why', async () => {
    const { url, small, finished, handle } = await world(null)
    const response = await post(url, ASK)
    expect(response.status).toBe(200)
    expect(await response.text()).toContain('from QwQ')
    expect(response.headers.get('x-penstock-model')).toBe('qwq-32b')
    expect(response.headers.get('x-penstock-replica')).toBe('qwq-32b-0')
    expect(response.headers.get('x-penstock-spillover')).toBe('unavailable')
    expect(JSON.parse(small.seen[0]?.body.toString() ?? '')).toMatchObject({ model: 'qwq-32b' })
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({
      modelAsked: 'deepseek-r1',
      modelServed: 'qwq-32b',
      deployment: 'qwq-32b',
      spillover: 'unavailable',
    })
    expect(handle.totalInFlight()).toBe(0)
  })

  test('is refused with `deny`: 503 with what goes on, and the stand-in sees nothing', async () => {
    const { url, small } = await world(null)
    const response = await post(url, ASK, { 'x-penstock-spillover': 'deny' })
    expect(response.status).toBe(503)
    expect(await response.text()).toContain('rank 1 is loading weights')
    expect(response.headers.get('x-penstock-spillover')).toBeNull()
    expect(small.seen).toHaveLength(0)
  })

  test('a misspelt `deny` is a 400 that names the header, not the stand-in’s answer', async () => {
    const { url, small } = await world(null)
    const response = await post(url, ASK, { 'x-penstock-spillover': 'denied' })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      error: {
        param: 'x-penstock-spillover',
        message: 'header x-penstock-spillover: expected allow or deny, found "denied"',
      },
    })
    expect(small.seen).toHaveLength(0)
  })

  test('takes everybody at full pressure, nobody when calm, none when full itself', async () => {
    const by = async (over: Partial<StandIn>) =>
      (await post((await world('ready', over)).url, ASK)).headers.get('x-penstock-spillover')
    expect(await by({ fraction: 1 })).toBe('saturation')
    expect(await by({ fraction: 0 })).toBeNull()
    expect(await by({ fraction: 1, saturated: true })).toBeNull()
  })

  test('takes about its share', async () => {
    const { url, large, small } = await world('ready', { fraction: 0.5 })
    await Promise.all(Array.from({ length: 100 }, async () => (await post(url, ASK)).text()))
    expect(large.seen.length + small.seen.length).toBe(100)
    // 50 give or take 5 standard deviations.
    expect(Math.abs(small.seen.length - 50)).toBeLessThanOrEqual(25)
  })

  test('gets no request that is longer than its context', async () => {
    const { url, large } = await world('ready', { fraction: 1 })
    const wide = chatBody({ model: 'deepseek-r1', max_tokens: 32_768 })
    expect((await post(url, wide)).headers.get('x-penstock-model')).toBe('deepseek-r1')
    const content = 'x'.repeat(90_000)
    const long = chatBody({ model: 'deepseek-r1', messages: [{ role: 'user', content }] })
    expect((await post(url, long)).headers.get('x-penstock-model')).toBe('deepseek-r1')
    expect(large.seen).toHaveLength(2)
  })
})

test('who holds less than his share of a full model is not sent away', async () => {
  const streams = { headers: SSE, steps: [{ send: chunk('a') }, { hang: true } as const] }
  const large = closeLater(await startEngine(() => streams))
  const small = await engineOf('from QwQ')
  const other = 'sk-ps-carol-0123456789abcdef'
  const [alice] = snapshotOf([]).keys
  const carol = { hash: hash('sha256', other), id: 'key-3', consumer: 'carol', models: null }
  const keys = alice === undefined ? [carol] : [alice, carol]
  const at = (fraction: number) => {
    const route = routeOf([targetOf(small.url)])
    const standIn = { on: ['saturation'] as const, fraction, reason: '', saturated: false, route }
    const names = { model: 'deepseek-r1', deployment: 'deepseek-r1', servedModel: 'deepseek-r1' }
    return snapshotOf([routeOf([targetOf(large.url, { slot: 1 })], { ...names, standIn })], {
      keys,
    })
  }
  const { url, handle } = await startTestGateway(at(0))
  closeLater({ close: () => handle.close() })
  const clients = new AbortController()
  const spilled = async (key: string): Promise<string | null> => {
    const headers = { authorization: `Bearer ${key}` }
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers,
      body: chatBody({ model: 'deepseek-r1', stream: true }),
      signal: clients.signal,
    })
    expect(response.status).toBe(200)
    return response.headers.get('x-penstock-spillover')
  }
  for (let sent = 0; sent < 4; sent += 1) expect(await spilled(KEY)).toBeNull()
  handle.publish(at(1))
  await expect.poll(() => spilled(KEY), { timeout: 20_000 }).toBe('saturation')
  // Who was served of late is counted once a second.
  await expect.poll(() => spilled(other), { timeout: 20_000 }).toBeNull()
  expect(await spilled(KEY)).toBe('saturation')
  clients.abort()
})

test('thinking comes under the name of the engine that was asked, streamed or not', async () => {
  const thinking = (stream: boolean) =>
    stream
      ? [
          'data: {"choices":[{"index":0,"delta":{"reasoning":"because"}}]}\n\n',
          'data: {"choices":[{"index":0,"delta":{"content":"\\"reasoning\\":"},"finish_reason":"stop"}]}\n\n',
          'data: [DONE]\n\n',
        ]
      : ['{"choices":[{"message":{"reasoning":"because"},"finish_reason":"stop"}]}']
  for (const stream of [true, false]) {
    const small = closeLater(
      await startEngine(() => ({
        headers: stream ? SSE : JSON_TYPE,
        steps: thinking(stream).map((send) => ({ send })),
      })),
    )
    const standIn: StandIn = {
      on: ['unavailable'],
      fraction: 0,
      reason: '',
      saturated: false,
      route: routeOf([targetOf(small.url)]),
    }
    const route = routeOf([], { model: 'deepseek-r1', deployment: 'r1', engine: 'sglang', standIn })
    const gateway = await startTestGateway(snapshotOf([route]))
    closeLater(gateway.handle)
    const answer = await (
      await post(gateway.url, chatBody({ model: 'deepseek-r1', stream }))
    ).text()
    expect(answer).toBe(thinking(stream).join('').replace('"reasoning":"', '"reasoning_content":"'))
  }
})
