/** Replicas that fail are left alone for a while. */
import { afterEach, describe, expect, test } from 'vitest'
import type { RoutePolicy } from '../../src/core/snapshot.ts'
import { completion, JSON_TYPE, type Script, startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const POLICY: RoutePolicy = {
  balance: 'power-of-two',
  slowStart: 0,
  retry: { attempts: 2, on: ['error'], budget: 1 },
  queue: { ceiling: 'none', depth: 10, wait: 1_000 },
  continueStreams: true,
  firstTokenTargetMs: null,
  parameters: null,
}
const ANSWER: Script = { headers: JSON_TYPE, steps: [{ send: completion('hi') }] }
const json = (status: number): Script => ({
  status,
  headers: JSON_TYPE,
  steps: [{ send: JSON.stringify({ error: { message: 'no', code: status } }) }],
})

describe('a breaker', () => {
  test('leaves a failing replica alone, and takes it back after a probe', async () => {
    let healthy = false
    const failing = closeLater(await startEngine(() => (healthy ? ANSWER : json(500))))
    const good = closeLater(await startEngine(() => ANSWER))
    const targets = [
      targetOf(failing.url, { id: 'bad', slot: 7, requestsRunning: 0, requestsWaiting: 0 }),
      targetOf(good.url, { id: 'good', slot: 8, requestsRunning: 9, requestsWaiting: 9 }),
    ]
    const gateway = await startTestGateway(snapshotOf([routeOf(targets, { policy: POLICY })]), 2)
    closeLater(gateway.handle)
    for (let turn = 0; turn < 5; turn += 1) {
      const response = await post(gateway.url, chatBody())
      expect(response.headers.get('x-penstock-replica')).toBe('good')
      await response.text()
    }
    await until('it opens', () => gateway.handle.breaker(7) === 'open')
    expect(gateway.handle.breaker(8)).toBe('closed')
    expect(failing.seen).toHaveLength(5)
    await (await post(gateway.url, chatBody())).text()
    expect(failing.seen).toHaveLength(5)
    healthy = true
    await until(
      'it is taken back',
      () => gateway.handle.breaker(7) === 'closed' || !ask(gateway.url),
    )
    expect(gateway.handle.breaker(8)).toBe('closed')
  })

  const ask = (url: string): boolean => {
    void post(url, chatBody()).then((response) => response.text())
    return true
  }

  test('of all replicas: they are asked all the same', async () => {
    const failing = closeLater(await startEngine(() => json(500)))
    const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(failing.url)])]))
    closeLater(gateway.handle)
    for (let turn = 0; turn < 12; turn += 1) {
      expect((await post(gateway.url, chatBody())).status).toBe(500)
    }
    expect(gateway.handle.breaker(0)).toBe('open')
    expect(failing.seen).toHaveLength(12)
  })

  test.each([400, 404, 429])('is not impressed by %i', async (status) => {
    const engine = closeLater(await startEngine(() => json(status)))
    const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(engine.url)])]))
    closeLater(gateway.handle)
    for (let turn = 0; turn < 12; turn += 1) await (await post(gateway.url, chatBody())).text()
    expect(gateway.handle.breaker(0)).toBe('closed')
  })

  test('begins anew with a replica that started anew', async () => {
    const failing = closeLater(await startEngine(() => json(500)))
    const at = (readySinceMs: number) =>
      snapshotOf([routeOf([targetOf(failing.url, { readySinceMs })])])
    const gateway = await startTestGateway(at(1))
    closeLater(gateway.handle)
    for (let turn = 0; turn < 6; turn += 1) await (await post(gateway.url, chatBody())).text()
    expect(gateway.handle.breaker(0)).toBe('open')
    gateway.handle.publish(at(1))
    expect(gateway.handle.breaker(0)).toBe('open')
    gateway.handle.publish(at(2))
    expect(gateway.handle.breaker(0)).toBe('closed')
  })
})
