/** One replica dies: what it had goes to others only where there is room, and waits until then. */
import { afterEach, expect, test } from 'vitest'
import { limitsOf } from '../../src/core/limits.ts'
import type { GatewayRoute, RoutePolicy } from '../../src/core/snapshot.ts'
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
import { heard, scriptOf, toldBefore } from '../support/teller.ts'

afterEach(closeAll)

const WORDS = ['one', ' two', ' three', ' four', ' five']
const TEXT = WORDS.join('')
const STREAM = chatBody({ stream: true, stream_options: { include_usage: true } })

const inTurns = (more: Partial<RoutePolicy> = {}): RoutePolicy =>
  policyOf({
    balance: 'round-robin',
    retry: { attempts: 2, on: ['unreachable', 'error'], budget: 1 },
    queue: { ceiling: 'auto', depth: 10, wait: 20_000 },
    ...more,
  })

const gateOf = () => {
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open: () => open(), opened: () => opened }
}

/** An engine that counts what it works on. */
const countingEngine = async (scriptFor: (seen: Parameters<typeof toldBefore>[0]) => Script) => {
  const count = { open: 0, most: 0 }
  const engine = await startEngine((seen) => {
    count.open += 1
    count.most = Math.max(count.most, count.open)
    const script = scriptFor(seen)
    const over = async (): Promise<void> => {
      count.open -= 1
    }
    return { ...script, steps: [...script.steps, { until: over }] }
  })
  return { engine: closeLater(engine), count }
}

const PLACES = 3

/** Two replicas of three places each; the first dies at its gate, the second waits at its own. */
const twoReplicas = async (policy: RoutePolicy) => {
  const [death, rest] = [gateOf(), gateOf()]
  const paused = (script: Script, at: number, gate: () => Promise<void>): Script => ({
    ...script,
    steps: [...script.steps.slice(0, at), { until: gate }, ...script.steps.slice(at)],
  })
  const dying = await countingEngine((seen) => {
    const { steps, ...script } = scriptOf(seen, { words: WORDS, id: 'chatcmpl-a' })
    return { ...script, steps: [...steps.slice(0, 3), { until: death.opened }, { reset: true }] }
  })
  const living = await countingEngine((seen) =>
    paused(scriptOf(seen, { words: WORDS, id: 'chatcmpl-b' }), 3, rest.opened),
  )
  const targets = [dying, living].map(({ engine }, slot) =>
    targetOf(engine.url, { id: `qwq-32b-${slot}`, slot, maxRunning: PLACES }),
  )
  const gateway = await startTestGateway(snapshotOf([routeOf(targets, { policy })]))
  closeLater(gateway.handle)
  return { ...gateway, death, rest, dying, living, targets }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test('broken streams wait for places, before newcomers, and are whole in the end', async () => {
  const policy = inTurns()
  const { url, handle, finished, death, rest, dying, living, targets } = await twoReplicas(policy)
  const answers = Array.from({ length: 2 * PLACES }, async () =>
    heard(await (await post(url, STREAM)).text()),
  )
  await until('all run', () => dying.count.open + living.count.open === 2 * PLACES)
  death.open()
  await until('they wait', () => handle.waiting('qwq-32b') === PLACES)
  handle.publish(snapshotOf([routeOf(targets.slice(1), { policy })]))
  const newcomer = post(url, STREAM).then((response) => response.text())
  await until('so does another', () => handle.waiting('qwq-32b') === PLACES + 1)
  await pause(200)
  expect(living.engine.seen).toHaveLength(PLACES)
  rest.open()
  for (const answer of await Promise.all(answers)) {
    expect(answer).toMatchObject({ text: TEXT, errors: [], finish: 'stop', done: true })
  }
  expect(heard(await newcomer)).toMatchObject({ text: TEXT, done: true })
  expect(living.count.most).toBe(PLACES)
  const told = living.engine.seen.map((seen) => toldBefore(seen, WORDS))
  expect(told.slice(PLACES)).toEqual([...Array(PLACES).fill('one two'), ''])
  await until('the reports', () => finished.length === 2 * PLACES + 1)
  const continued = finished.filter(({ continuations }) => continuations === 1)
  expect(continued).toHaveLength(PLACES)
  for (const { outcome, queueMs = 0, completionTokens } of continued) {
    expect(outcome).toBe('ok')
    expect(queueMs).toBeGreaterThan(100)
    expect(completionTokens).toBe(WORDS.length)
  }
  expect(handle.totalInFlight()).toBe(0)
  expect(handle.admission(1).sent).toMatchObject({ held: 0, unstarted: 0, unseenTokens: 0 })
  expect(handle.admission(0).sent).toMatchObject({ held: 0, unstarted: 0, unseenTokens: 0 })
})

test('no place in time: the error event, with what happened in the decision', async () => {
  const policy = inTurns({ queue: { ceiling: 'auto', depth: 10, wait: 300 } })
  const { url, handle, finished, death, rest, dying, living } = await twoReplicas(policy)
  const answers = Array.from({ length: 2 * PLACES }, async () =>
    heard(await (await post(url, STREAM)).text()),
  )
  await until('all run', () => dying.count.open + living.count.open === 2 * PLACES)
  death.open()
  await until('the broken ones end', () => finished.length === PLACES)
  for (const one of finished) {
    expect(one).toMatchObject({ outcome: 'interrupted', replica: 'qwq-32b-0' })
    expect(one.decision).toMatch(/nobody else has room: qwq-32b is full: waited/)
  }
  expect(handle.waiting('qwq-32b')).toBe(0)
  rest.open()
  const all = await Promise.all(answers)
  expect(all.filter(({ done }) => done)).toHaveLength(PLACES)
  expect(all.filter(({ errors }) => errors[0] === 'stream_interrupted')).toHaveLength(PLACES)
  expect(living.engine.seen).toHaveLength(PLACES)
})

const ANSWER: Script = { headers: JSON_TYPE, steps: [{ send: completion('hi') }] }
const ERROR: Script = { status: 500, headers: JSON_TYPE, steps: [{ send: '{"error":"no"}' }] }

const after = (gate: { opened: () => Promise<void> }, script: Script): Script => ({
  ...script,
  steps: [{ until: gate.opened }, ...script.steps],
})

/** One place at each of two engines: the first fails at its gate, the second is busy until its own. */
const failing = async (routesFor: (urls: readonly string[]) => readonly GatewayRoute[]) => {
  const [failure, rest] = [gateOf(), gateOf()]
  const first = await countingEngine(() => after(failure, ERROR))
  const second = await countingEngine(() => after(rest, ANSWER))
  const urls = [first.engine.url, second.engine.url]
  const gateway = await startTestGateway(snapshotOf(routesFor(urls)))
  closeLater(gateway.handle)
  return { ...gateway, failure, rest, first, second }
}

test('a retry from the beginning waits for a place, too', async () => {
  const policy = inTurns()
  const world = await failing((urls) => [
    routeOf(
      urls.map((url, slot) => targetOf(url, { id: `qwq-32b-${slot}`, slot, maxRunning: 1 })),
      { policy },
    ),
  ])
  const { url, handle, finished, failure, rest, first, second } = world
  const answers = [post(url, chatBody()), post(url, chatBody())]
  await until('both run', () => first.count.open === 1 && second.count.open === 1)
  failure.open()
  await until('one waits', () => handle.waiting('qwq-32b') === 1)
  await pause(200)
  expect(second.engine.seen).toHaveLength(1)
  rest.open()
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200)
  expect(second.count.most).toBe(1)
  await until('the reports', () => finished.length === 2)
  expect(finished.map(({ retries = 0 }) => retries).sort()).toEqual([0, 1])
})

test('a fallback that is full makes wait, and one that stays full is not asked', async () => {
  for (const wait of [20_000, 300]) {
    const policy = inTurns({ queue: { ceiling: 'auto', depth: 10, wait } })
    const other = (url: string, slot: number, more: Partial<GatewayRoute> = {}): GatewayRoute =>
      routeOf([targetOf(url, { id: `other-${slot}`, slot, maxRunning: 1 })], {
        ...{ model: 'other', deployment: 'other', servedModel: 'other', policy },
        ...more,
      })
    const world = await failing(([main = '', spare = '']) => [
      other(spare, 1),
      routeOf([targetOf(main, { maxRunning: 1 })], {
        policy: inTurns({ retry: { attempts: 0, on: [], budget: 0 } }),
        fallback: { on: ['error'], routes: [other(spare, 1)] },
      }),
    ])
    const { url, handle, finished, failure, rest, second } = world
    const busy = post(url, chatBody({ model: 'other' }))
    await until('the fallback is busy', () => second.count.open === 1)
    const answer = post(url, chatBody())
    failure.open()
    if (wait === 300) {
      expect((await answer).status).toBe(500)
      await until('the report', () => finished.length === 1)
      expect(finished[0]?.decision).toMatch(/no room at other: other is full/)
    } else {
      await until('it waits', () => handle.waiting('other') === 1)
      await pause(200)
    }
    expect(second.engine.seen).toHaveLength(1)
    rest.open()
    expect((await busy).status).toBe(200)
    if (wait === 300) continue
    expect((await answer).status).toBe(200)
    expect((await answer).headers.get('x-penstock-fallback')).toBe('error')
    expect(second.count.most).toBe(1)
  }
})

test('a fallback that stays full is not charged for what it never got', async () => {
  const limits = limitsOf({ model: 'o', limits: [{ per: 'consumer', tokensPerDay: 50_000 }] })
  const policy = inTurns({ queue: { ceiling: 'auto', depth: 10, wait: 300 } })
  const { url, finished, rest, second } = await failing(([main = '', spare = '']) => {
    const other = routeOf([targetOf(spare, { id: 'other-0', slot: 1, maxRunning: 1 })], {
      ...{ model: 'other', deployment: 'other', servedModel: 'other', policy, limits },
    })
    const fallback = { on: ['timeout'] as const, routes: [other] }
    return [other, routeOf([targetOf(main)], { policy, fallback, firstTokenTimeoutMs: 300 })]
  })
  const takenBy = (response: Response): number =>
    50_000 - Number(response.headers.get('x-ratelimit-remaining-tokens'))
  const busy = post(url, chatBody({ model: 'other' }))
  await until('the fallback is busy', () => second.count.open === 1)
  expect((await post(url, chatBody())).status).toBe(504)
  rest.open()
  const expected = takenBy(await busy)
  // What is told apart below.
  expect(expected).toBeGreaterThan(300)
  await until('the reports', () => finished.length === 2)
  const next = await post(url, chatBody({ model: 'other' }))
  expect(next.status).toBe(200)
  expect(takenBy(next)).toBeLessThan(expected)
})
