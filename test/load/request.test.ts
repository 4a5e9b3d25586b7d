/** How one request is judged, against an engine that plays every ending on a real socket. */
import { Agent } from 'undici'
import { afterEach, describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../src/clock.ts'
import { type Answered, ask } from '../../src/load/request.ts'
import {
  chunk,
  DONE,
  type Engine,
  JSON_TYPE,
  type Script,
  SSE,
  startEngine,
  usageChunk,
} from '../support/engine.ts'

const role = chunk('')
const refusal = (status: number, code: string, headers = {}): Script => ({
  status,
  headers: { ...JSON_TYPE, ...headers },
  steps: [{ send: JSON.stringify({ error: { message: 'no', type: 'x', param: null, code } }) }],
})
const stream = (...steps: Script['steps']): Script => ({ headers: SSE, steps })
const STALLED = 'data: {"error":{"message":"no token for 60 s","code":"stream_stalled"}}\n\n'
const whole = { send: role + chunk('one') + chunk(' two', 'stop') + usageChunk(7, 2) + DONE }

let engine: Engine | null = null
const dispatchers: Agent[] = []

afterEach(async () => {
  await Promise.all(dispatchers.splice(0).map((one) => one.destroy()))
  await engine?.close()
  engine = null
})

const PLANNED = {
  index: 0,
  atSeconds: 0,
  consumer: 0,
  session: 0,
  turn: 1,
  model: 'deepseek-r1',
  messages: [{ role: 'user' as const, content: 'hello' }],
  promptTokens: 6,
  answerTokens: 2,
}

type More = { timeoutMs?: number; signal?: AbortSignal; clock?: Clock }

const seconds = (): Clock => {
  let nowMs = 0
  const monotonic = (): number => {
    nowMs += 1000
    return nowMs
  }
  return { ...systemClock, monotonic }
}

const asked = async (script: Script, more: More = {}): Promise<Answered> => {
  engine = await startEngine(() => script)
  return askOnce(`${engine.url}/v1`, more)
}

const askOnce = (baseUrl: string, more: More = {}): Promise<Answered> => {
  const dispatcher = new Agent()
  dispatchers.push(dispatcher)
  return ask({
    baseUrl,
    key: 'sk-x',
    planned: PLANNED,
    exact: true,
    timeoutMs: 60_000,
    dispatcher,
    clock: systemClock,
    signal: new AbortController().signal,
    ...more,
  })
}

describe('one request', () => {
  it.each<[string, Script, Partial<Answered>]>([
    ['a whole answer', stream(whole), { outcome: 'ok', detail: '', completionTokens: 2 }],
    [
      'a limit',
      refusal(429, 'rate_limit_exceeded', { 'retry-after': '7' }),
      { outcome: 'refused', detail: '429 rate_limit_exceeded', retryAfterSeconds: 7 },
    ],
    [
      'no replica',
      refusal(503, 'model_unavailable', { 'retry-after': '2' }),
      { outcome: 'refused', detail: '503 model_unavailable', retryAfterSeconds: 2 },
    ],
    ['a wrong key', refusal(404, 'model_not_found'), { detail: '404 model_not_found' }],
    ['a bad gateway', refusal(502, 'upstream_error'), { outcome: 'error' }],
    [
      'a page of HTML',
      { status: 504, headers: { 'content-type': 'text/html' }, steps: [{ send: '<h1>no</h1>' }] },
      { outcome: 'error', detail: '504 upstream_error' },
    ],
    [
      'an error event',
      stream({ send: role + chunk('one') + STALLED }),
      { outcome: 'error', detail: 'in the stream: stream_stalled' },
    ],
    [
      "a full queue in SGLang's way",
      stream({ send: 'data: {"error":{"message":"The request queue is full.","code":503}}\n\n' }),
      { outcome: 'error', detail: 'in the stream: model_unavailable', ttftMs: null },
    ],
    [
      'an end without [DONE]',
      stream({ send: role + chunk('one') }),
      { outcome: 'cut', detail: 'the stream ended without [DONE]' },
    ],
    [
      'a reset half way',
      stream({ send: role + chunk('one') }, { reset: true }),
      { outcome: 'cut' },
    ],
    ['a reset at once', stream({ reset: true }), { outcome: 'error', ttftMs: null }],
    [
      'an engine that gave up',
      stream({ send: role + chunk('one', 'abort') + DONE }),
      { outcome: 'cut', detail: 'the engine gave it up' },
    ],
    ['no token at all', stream({ send: role + chunk('', 'stop') + DONE }), { outcome: 'error' }],
    ['no usage', stream({ send: role + chunk('a', 'stop') + DONE }), { completionTokens: null }],
    [
      'a stand-in',
      {
        headers: { ...SSE, 'x-penstock-model': 'qwq-32b', 'x-penstock-spillover': 'tokens' },
        steps: [whole],
      },
      { outcome: 'ok', answeredBy: 'qwq-32b', spilled: 'tokens' },
    ],
  ])('%s', async (_, script, wanted) => {
    expect(await asked(script)).toMatchObject(wanted)
  })

  it('times the first token, not the first byte, and the pace from there to the end', async () => {
    // Each reading of this clock is a second later: sending, then each event from the first token.
    const answer = await asked(stream({ send: role }, { waitMs: 20 }, whole), { clock: seconds() })
    expect(answer).toMatchObject({ promptTokens: 7, cachedTokens: 3, completionTokens: 2 })
    expect(answer).toMatchObject({ ttftMs: 1000, tpotMs: 2000 })
  })

  it('counts reasoning as the first token', async () => {
    const thinking = chunk('').replace('"content":""', '"reasoning_content":"hm"')
    const script = stream({ send: role + thinking }, whole)
    const answer = await asked(script, { clock: seconds() })
    // Two events more than above: the thought itself, and the role chunk that follows it.
    expect(answer).toMatchObject({ outcome: 'ok', ttftMs: 1000, tpotMs: 4000 })
  })

  it('gives up after its time, before the first token and after it', async () => {
    const before = await asked(stream({ send: role }, { hang: true }), { timeoutMs: 150 })
    expect(before).toMatchObject({ outcome: 'timeout', detail: 'before the first token' })
    await engine?.close()
    const after = await asked(stream({ send: chunk('one') }, { hang: true }), { timeoutMs: 3000 })
    expect(after).toMatchObject({ outcome: 'timeout', detail: 'after the first token' })
  })

  it('is left, not failed, when the rehearsal ends', async () => {
    const signal = AbortSignal.timeout(100)
    const answer = await asked(stream({ send: chunk('one') }, { hang: true }), { signal })
    expect(answer.outcome).toBe('left')
  })

  it('says that nobody is there', async () => {
    const nobody = await startEngine(() => stream(whole))
    await nobody.close()
    const answer = await askOnce(`${nobody.url}/v1`)
    expect(answer).toMatchObject({ outcome: 'error', detail: 'no answer: ECONNREFUSED' })
  })

  it('asks for a stream with usage, of the planned length', async () => {
    await asked(stream(whole))
    const [seen] = engine?.seen ?? []
    expect(seen?.headers.authorization).toBe('Bearer sk-x')
    expect(JSON.parse(String(seen?.body))).toEqual({
      model: 'deepseek-r1',
      messages: PLANNED.messages,
      stream: true,
      stream_options: { include_usage: true },
      max_tokens: 2,
      ignore_eos: true,
    })
  })
})
