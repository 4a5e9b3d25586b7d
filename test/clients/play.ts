/** Plays the table of cases to an SDK: against OpenAI's answers, and against Penstock. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Script, startEngine } from '../support/engine.ts'
import {
  closeAll,
  closeLater,
  KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  startWorld,
  type TestGateway,
  targetOf,
  until,
  type World,
} from '../support/gateway.ts'
import { type Case, call, sightIn } from './cases.ts'
import type { Outcome, Sdk } from './sdk.ts'
import { CASES } from './table.ts'

const sightOf = ({ raised, status, type, code, param, attempts, text }: Outcome) => ({
  raised,
  status,
  type,
  code,
  param,
  attempts,
  text,
})

/** The SDK's own pace: half a second, then a second, less up to a quarter. */
const ownPace = (index: number) => ({ least: 375 * 2 ** index, most: 500 * 2 ** index })

/** How long an answer asks the SDK to wait: to the millisecond, or until a time of day. */
const askedPace = (answer: Outcome['answers'][number] | undefined, index: number) => {
  const { retryAfterMs = null, retryAfter = null } = answer ?? {}
  if (retryAfterMs === null && retryAfter === null) return ownPace(index)
  const ms = retryAfterMs === null ? Number(retryAfter) * 1000 : Number(retryAfterMs)
  if (!Number.isNaN(ms)) return { least: ms - 0.01, most: ms + 0.01 }
  // A date, which the cases set 30 s ahead: far from the SDK's own pace on any slow machine.
  return { least: 5_000, most: 30_000 }
}

const expectWaits = ({ answers, waitsMs, attempts }: Outcome): void => {
  expect(waitsMs).toHaveLength(attempts - 1)
  for (const [index, wait] of waitsMs.entries()) {
    const { least, most } = askedPace(answers[index], index)
    expect(wait).toBeGreaterThanOrEqual(least)
    expect(wait).toBeLessThanOrEqual(most)
  }
}

/** Aborts once the condition is met. */
const leaving = (cancels: boolean, met: () => boolean): AbortSignal | undefined => {
  if (!cancels) return undefined
  const controller = new AbortController()
  void until('the request is there', met).then(() => controller.abort())
  return controller.signal
}

const againstOpenAi = async (sdk: Sdk, { openai, call: asked, cancels }: Case): Promise<void> => {
  const { answer, sight } = openai
  let nth = 0
  const server = await startEngine(() => {
    nth += 1
    return typeof answer === 'function' ? answer(nth - 1) : answer
  })
  closeLater(server)
  const signal = leaving(cancels === true, () => server.seen.length > 0)
  const outcome = await sdk.call(`${server.url}/v1`, asked, signal)
  expect(sightOf(outcome)).toEqual(sightIn(sdk.name, sight))
  expectWaits(outcome)
  expect(server.seen).toHaveLength(sightIn(sdk.name, sight).attempts)
}

/** Any number that no earlier snapshot of this gateway had; `/v1/models` shows it. */
let context = 32_768

/** An engine of its own behind a gateway that others have used before. */
const settleIn = async (gateway: TestGateway, one: Case): Promise<World> => {
  let nth = 0
  const script = (): Script => {
    nth += 1
    return one.engine(nth - 1)
  }
  if (one.alone === true) return startWorld(script)
  const engine = closeLater(await startEngine(script))
  context += 1
  const target = targetOf(engine.url, { ...one.target, id: `qwq-32b-${context}` })
  gateway.handle.publish(snapshotOf([routeOf([target], { ...one.route, context })]))
  const shown = `"max_model_len":${context}`
  while (!(await models(gateway)).includes(shown)) await new Promise(setImmediate)
  return { ...gateway, engine }
}

const models = async ({ url }: TestGateway): Promise<string> => {
  const headers = { authorization: `Bearer ${KEY}` }
  return (await fetch(`${url}/v1/models`, { headers })).text()
}

const againstPenstock = async (sdk: Sdk, gateway: TestGateway, one: Case): Promise<void> => {
  const world = await settleIn(gateway, one)
  await one.before?.(world, sdk)
  const signal = leaving(one.cancels === true, () => world.engine.seen.length > 0)
  const outcome = await sdk.call(`${world.url}/v1`, one.call, signal)
  expect(sightOf(outcome)).toEqual(sightIn(sdk.name, one.sight))
  expectWaits(outcome)
  expectHeaders(outcome, one)
  if (one.says !== undefined) expect(outcome.message).toContain(one.says)
  // An engine's message is taken out of its JSON.
  expect(outcome.message).not.toContain('"message"')
  // Python's SDK keeps the id only of errors with a status.
  const inStream = sdk.name === 'js' && outcome.raised === 'APIError'
  if (outcome.status !== null || inStream) expect(outcome.requestId).toMatch(/^req-[0-9a-f-]{36}$/)
  if (one.engineSees !== null) expect(world.engine.seen).toHaveLength(one.engineSees)
  if (one.aborts === true) {
    const { engine } = world
    await until('the engine is left', () => engine.aborted === engine.seen.length)
  }
}

const expectHeaders = ({ answers }: Outcome, { asksMs, shouldRetry, statuses }: Case): void => {
  if (statuses !== undefined) expect(answers.map(({ status }) => status)).toEqual(statuses)
  expect(answers.at(-1)?.shouldRetry ?? null).toBe(shouldRetry ?? null)
  for (const answer of answers.filter(({ status }) => status >= 400)) {
    const { retryAfter, retryAfterMs } = answer
    if (asksMs === undefined) expect([retryAfter, retryAfterMs]).toEqual([null, null])
    else {
      expect(Number(retryAfter)).toBe(Math.ceil(Number(retryAfterMs) / 1000))
      if (asksMs !== 'some') expect(Number(retryAfterMs)).toBe(asksMs)
    }
  }
}

/** A port on which nobody listens any more. */
const closedPort = async (): Promise<AddressInfo> => {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  await new Promise((resolve) => server.close(resolve))
  return address
}

type Stage = { readonly sdk: Sdk; readonly gateway: TestGateway }

/** All cases, to one SDK. To be called inside a describe. */
export const suite = (name: Sdk['name'], start: () => Sdk): void => {
  const held: { stage: Stage | null } = { stage: null }
  const stage = (): Stage => {
    if (held.stage === null) throw new Error('the gateway did not start')
    return held.stage
  }
  beforeAll(async () => {
    held.stage = { sdk: start(), gateway: await startTestGateway(snapshotOf([])) }
  })
  afterEach(closeAll)
  afterAll(async () => {
    await held.stage?.sdk.close()
    await held.stage?.gateway.handle.close()
  })

  test.each(CASES.filter(({ cancels }) => cancels !== true || name === 'js'))(
    '$name',
    async (one) => {
      const { sdk, gateway } = stage()
      await againstOpenAi(sdk, one)
      await againstPenstock(sdk, gateway, one)
    },
  )

  test('nobody listens', async () => {
    const { port } = await closedPort()
    const outcome = await stage().sdk.call(`http://127.0.0.1:${port}/v1`, call())
    expect(outcome).toMatchObject({ raised: 'APIConnectionError', attempts: 3, answers: [] })
    expectWaits(outcome)
  })
}
