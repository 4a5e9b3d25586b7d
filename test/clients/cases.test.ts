/** The table of cases.ts, played to both official SDKs: against OpenAI's answers, and ours. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startEngine } from '../support/engine.ts'
import { closeAll, closeLater, startWorld, until } from '../support/gateway.ts'
import { requirePart } from '../support/parts.ts'
import { pythonWithOpenai } from '../support/python.ts'
import { type Case, call, classIn, type Sight } from './cases.ts'
import { REFUSALS } from './cases-refusals.ts'
import { RETRIES } from './cases-retries.ts'
import { STREAMS } from './cases-streams.ts'
import type { Outcome, Sdk } from './sdk.ts'
import { startJs } from './sdk-js.ts'
import { startPython } from './sdk-python.ts'

const CASES: readonly Case[] = [...REFUSALS, ...RETRIES, ...STREAMS]
const python = pythonWithOpenai()

afterEach(closeAll)

const seen = (sdk: Sdk, { raised, ...rest }: Sight) => ({
  ...rest,
  raised: classIn(sdk.name, raised),
})

const sightOf = ({ raised, status, type, code, param, attempts, text }: Outcome) => ({
  raised,
  status,
  type,
  code,
  param,
  attempts,
  text,
})

/** What an answer asks of the SDK: to wait for so long; null: as long as it thinks right. */
const askedMs = ({ retryAfterMs, retryAfter }: Outcome['answers'][number]): number | null => {
  const wait = retryAfterMs ?? (retryAfter === null ? null : `${Number(retryAfter) * 1000}`)
  return wait === null || Number.isNaN(Number(wait)) ? null : Number(wait)
}

/** The SDK sleeps for as long as it was told, else half a second, then a second, less a quarter. */
const expectWaits = ({ answers, waitsMs, attempts }: Outcome): void => {
  expect(waitsMs).toHaveLength(attempts - 1)
  for (const [index, wait] of waitsMs.entries()) {
    const answer = answers[index]
    const asked = answer === undefined ? null : askedMs(answer)
    if (asked !== null) expect(wait).toBeCloseTo(asked, 3)
    else {
      expect(wait).toBeGreaterThanOrEqual(375 * 2 ** index)
      expect(wait).toBeLessThanOrEqual(500 * 2 ** index)
    }
  }
}

const againstOpenAi = async (sdk: Sdk, { openai, call: asked }: Case): Promise<void> => {
  const { answer, sight } = openai
  let nth = 0
  const server = await startEngine(() => {
    nth += 1
    return typeof answer === 'function' ? answer(nth - 1) : answer
  })
  closeLater(server)
  const outcome = await sdk.call(`${server.url}/v1`, asked)
  expect(sightOf(outcome)).toEqual(seen(sdk, sight))
  expect(server.seen).toHaveLength(sight.attempts)
}

const againstPenstock = async (sdk: Sdk, one: Case): Promise<void> => {
  let nth = 0
  const world = await startWorld(() => {
    nth += 1
    return one.engine(nth - 1)
  }, one.settings)
  await one.before?.(world)
  const outcome = await sdk.call(`${world.url}/v1`, one.call)
  expect(sightOf(outcome)).toEqual(seen(sdk, one.sight))
  expectWaits(outcome)
  expectHeaders(outcome, one)
  if (one.says !== undefined) expect(outcome.message).toContain(one.says)
  if (outcome.status !== null) expect(outcome.requestId).toMatch(/^req-[0-9a-f-]{36}$/)
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

const suite = (start: () => Sdk) => () => {
  const held: { sdk: Sdk | null } = { sdk: null }
  const sdk = (): Sdk => {
    if (held.sdk === null) throw new Error('the SDK was not started')
    return held.sdk
  }
  beforeAll(() => {
    held.sdk = start()
  })
  afterAll(() => held.sdk?.close())

  test.each(CASES)('$name', async (one) => {
    await againstOpenAi(sdk(), one)
    await againstPenstock(sdk(), one)
  })

  test('nobody listens', async () => {
    const { port } = await closedPort()
    const outcome = await sdk().call(`http://127.0.0.1:${port}/v1`, call())
    expect(outcome).toMatchObject({ raised: 'APIConnectionError', attempts: 3, answers: [] })
    expectWaits(outcome)
  })
}

describe('openai for JavaScript', suite(startJs))

describe.skipIf(!requirePart('the Python openai client', python !== null))(
  'openai for Python',
  suite(() => startPython(python ?? '')),
)
