/** Replicas that fail are left alone for a while. */
import { afterEach, describe, expect, test } from 'vitest'
import { Breakers } from '../../src/gateway/breakers.ts'
import { completion, JSON_TYPE, type Script, startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

const POLICY = policyOf({
  retry: { attempts: 2, on: ['error'], budget: 1 },
  queue: { ceiling: 'none', depth: 10, wait: 1_000 },
})
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
    const asked: Promise<string>[] = []
    await until('it is taken back', () => {
      if (gateway.handle.breaker(7) === 'closed') return true
      asked.push(post(gateway.url, chatBody()).then((response) => response.text()))
      return false
    })
    for (const answer of await Promise.all(asked)) expect(answer).toBe(completion('hi'))
    expect(gateway.handle.breaker(8)).toBe('closed')
  })

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

describe('the shared cells', () => {
  const targets = [0, 1, 2].map((slot) => targetOf('http://x', { id: `r${slot}`, slot }))
  const clock = { nowMs: 5_000 }
  const threads = () => {
    const first = new Breakers(() => clock.nowMs)
    return [first, new Breakers(() => clock.nowMs, first.buffer)] as const
  }
  const trip = (breakers: Breakers, slot: number): void => {
    for (let turn = 0; turn < 5; turn += 1) breakers.failed(slot)
  }
  const idsOf = (breakers: Breakers): readonly string[] =>
    breakers.usable(targets).map(({ id }) => id)

  test('what one thread learns, all know; one of them probes', () => {
    const [one, other] = threads()
    trip(one, 1)
    expect(other.phase(1)).toBe('open')
    expect(idsOf(other)).toEqual(['r0', 'r2'])
    expect(other.enter(1)).toBe(false)
    clock.nowMs += 1_300
    expect(idsOf(other)).toEqual(['r0', 'r1', 'r2'])
    expect([other.enter(1), one.enter(1)]).toEqual(['probe', false])
    expect(idsOf(one)).toEqual(['r0', 'r2'])
    other.abandoned(1)
    expect([one.enter(1), other.enter(1)]).toEqual(['probe', false])
    one.succeeded(1)
    expect([one.enter(1), other.enter(1)]).toEqual(['free', 'free'])
  })

  test('all open: the one that is due first is asked', () => {
    const [one, other] = threads()
    // Far enough apart for their jitter, and before the first is due.
    trip(one, 2)
    clock.nowMs += 450
    trip(one, 0)
    trip(one, 1)
    expect(idsOf(other)).toEqual(['r2'])
  })

  test('a probe that fails stays alone for twice as long', () => {
    const [one] = threads()
    trip(one, 0)
    clock.nowMs += 1_300
    expect(one.enter(0)).toBe('probe')
    one.failed(0)
    clock.nowMs += 1_500
    expect(one.enter(0)).toBe(false)
    clock.nowMs += 1_000
    expect(one.enter(0)).toBe('probe')
  })
})
