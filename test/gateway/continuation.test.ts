/** A stream that one replica leaves unfinished and another goes on with. */
import { afterEach, describe, expect, test } from 'vitest'
import { chunk, DONE, type Engine, type Script, SSE, startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  KEY,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'
import {
  type Death,
  eventsOf,
  heard,
  PROMPT_TOKENS,
  scriptOf,
  toldBefore,
} from '../support/teller.ts'

afterEach(closeAll)

const WORDS = [
  'Der',
  ' Fluß',
  ' \\ "steigt"',
  '\n\n',
  '水',
  '位',
  ' 🌊',
  ' und',
  ' fällt',
  ' \t',
  '.',
]
const TEXT = WORDS.join('')
const STREAM = chatBody({ stream: true, stream_options: undefined })
const WITH_USAGE = { stream: true, stream_options: { include_usage: true } }

type Plan = { readonly how: Death; readonly words: number; readonly replicas?: number }

/** Every replica dies after so many words of its first answer; its later ones are whole. */
const world = async ({ how, words, replicas = 2 }: Plan, more = {}) => {
  const engines: Engine[] = []
  let deaths = 0
  for (let index = 0; index < replicas; index += 1) {
    const id = `chatcmpl-${index}${'x'.repeat(index)}`
    engines.push(
      closeLater(
        await startEngine((seen) => {
          deaths += 1
          if (deaths > 1) return scriptOf(seen, { words: WORDS, id })
          const events = eventsOf(seen, { words: WORDS, id })
          const opening = seen.path.endsWith('/chat/completions') ? 1 : 0
          const at = Buffer.byteLength(events.slice(0, opening + words).join(''))
          return scriptOf(seen, { words: WORDS, id, cut: { at, how } })
        }),
      ),
    )
  }
  const targets = engines.map(({ url }, slot) => targetOf(url, { id: `qwq-32b-${slot}`, slot }))
  const route = routeOf(targets, { stallTimeoutMs: 300, ...more })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  return { ...gateway, engines }
}

describe.each(['reset', 'end', 'hang', 'error', 'abort'] as const)('a replica dies: %s', (how) => {
  test.each([0, 1, 4, 10, 11])('after %i words another goes on', async (words) => {
    const { url, engines, finished, handle } = await world({ how, words })
    const response = await post(url, chatBody(WITH_USAGE))
    const answer = heard(await response.text())
    expect(answer).toMatchObject({ text: TEXT, errors: [], finish: 'stop', done: true, roles: 1 })
    expect(answer.ids.size).toBe(1)
    expect(answer.continued).toEqual([words])
    expect(answer.usages).toHaveLength(1)
    expect(answer.usages[0]).toMatchObject({
      prompt_tokens: PROMPT_TOKENS,
      completion_tokens: WORDS.length,
      total_tokens: PROMPT_TOKENS + WORDS.length,
    })
    expect(engines.map(({ seen }) => seen.length)).toEqual([1, 1])
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({
      outcome: 'ok',
      reason: 'stop',
      continuations: 1,
      promptTokens: PROMPT_TOKENS,
      completionTokens: WORDS.length,
    })
    expect(handle.totalInFlight()).toBe(0)
  })
})

test('a completion goes on, too, and `max_tokens` counts what there was', async () => {
  const { url, engines } = await world({ how: 'reset', words: 4 })
  const ask = { model: 'qwq-32b', prompt: 'Say "it": ', stream: true, max_tokens: 8 }
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}` },
    body: JSON.stringify(ask),
  })
  const answer = heard(await response.text())
  const told = WORDS.slice(0, 8).join('')
  expect(answer).toMatchObject({ text: told, errors: [], finish: 'length', done: true })
  const second = engines
    .map(({ seen }) => seen[0])
    .find((one) => one !== undefined && toldBefore(one, WORDS) !== '')
  expect(JSON.parse(second?.body.toString() ?? '')).toMatchObject({
    prompt: ask.prompt + WORDS.slice(0, 4).join(''),
    max_tokens: 4,
  })
})

test('the client that asked for no usage gets none', async () => {
  const { url } = await world({ how: 'reset', words: 3 })
  const answer = heard(await (await post(url, STREAM)).text())
  expect(answer).toMatchObject({ text: TEXT, usages: [], done: true })
})

describe('it is refused, with the error event and no [DONE]', () => {
  const told = WORDS.slice(0, 4).join('')
  test.each([
    ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
    ['n', { n: 2 }],
    ['logprobs', { logprobs: true }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['guided output', { guided_json: {} }],
    ['structured outputs', { structured_outputs: { json: {} } }],
    ['min_tokens', { min_tokens: 5 }],
    ['a penalty that counts the answer', { frequency_penalty: 0.5 }],
    ['a stop string that may have begun', { stop: ['"\n\nEnd'] }],
    ['what nobody knows', { surprising: 1 }],
  ])('%s', async (_, more) => {
    const { url, finished } = await world({ how: 'reset', words: 4 })
    const answer = heard(await (await post(url, chatBody({ stream: true, ...more }))).text())
    expect(answer).toMatchObject({ text: told, errors: ['stream_interrupted'], done: false })
    expect(answer.continued).toEqual([])
    await until('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ outcome: 'interrupted' })
  })

  test('there is no other replica', async () => {
    const { url } = await world({ how: 'reset', words: 4, replicas: 1 })
    const answer = heard(await (await post(url, STREAM)).text())
    expect(answer).toMatchObject({ text: told, errors: ['stream_interrupted'], done: false })
  })

  test('the route does not want it', async () => {
    const policy = policyOf({
      retry: { attempts: 2, on: [], budget: 0.1 },
      queue: { ceiling: 'none', depth: 10, wait: 1_000 },
      continueStreams: false,
    })
    const { url } = await world({ how: 'reset', words: 4 }, { policy })
    const answer = heard(await (await post(url, STREAM)).text())
    expect(answer).toMatchObject({ text: told, errors: ['stream_interrupted'], done: false })
  })
})

test('stop strings that cannot have begun are no obstacle', async () => {
  const { url } = await world({ how: 'reset', words: 4 })
  const answer = heard(await (await post(url, chatBody({ stream: true, stop: ['###'] }))).text())
  expect(answer).toMatchObject({ text: TEXT, errors: [], done: true })
})

describe('nothing but comments was said', () => {
  const silentThen = async (script: Script, path: string, body: object) => {
    let asked = 0
    const engines: Engine[] = []
    for (const _ of [0, 1]) {
      engines.push(
        closeLater(
          await startEngine(() => {
            asked += 1
            return asked === 1
              ? { headers: SSE, headFirst: true, steps: [{ waitMs: 900 }, { reset: true }] }
              : script
          }),
        ),
      )
    }
    const targets = engines.map(({ url }, slot) => targetOf(url, { id: `r${slot}`, slot }))
    const gateway = await startTestGateway(snapshotOf([routeOf(targets)], { keepAliveMs: 200 }))
    closeLater(gateway.handle)
    const response = await fetch(`${gateway.url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ model: 'qwq-32b', stream: true, ...body }),
    })
    expect(response.status).toBe(200)
    const text = await response.text()
    expect(engines.map(({ seen }) => seen.length)).toEqual([1, 1])
    const [first, second] = engines.map(({ seen }) => seen[0]?.body.toString())
    expect(second).toBe(first)
    return text
  }
  const messages = [{ role: 'user', content: 'hi' }]

  test('a chat begins anew elsewhere, with tools and all', async () => {
    const whole = chunk('a') + chunk('b', 'stop') + DONE
    const more = { messages, tools: [{ type: 'function', function: { name: 'f' } }], n: 2 }
    const text = await silentThen(
      { headers: SSE, steps: [{ send: whole }] },
      '/v1/chat/completions',
      { ...more, stream_options: { include_usage: true, continuous_usage_stats: true } },
    )
    expect(text).toMatch(/^(: keep-alive\n\n)+: penstock-continued 0\n\ndata: /)
    expect(text.slice(-whole.length)).toBe(whole)
  })

  test('so does a message of the other API', async () => {
    const whole =
      'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{}}}\n\n' +
      'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},' +
      '"usage":{"output_tokens":1}}\n\n' +
      'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    const text = await silentThen({ headers: SSE, steps: [{ send: whole }] }, '/v1/messages', {
      messages,
      max_tokens: 5,
    })
    expect(text).toContain(': penstock-continued 0\n\n')
    expect(text.slice(-whole.length)).toBe(whole)
    expect(text).not.toContain('event: error')
  })
})

test('an answer that had ended is not begun anew', async () => {
  const opening = chunk('').replace('"content"', '"role":"assistant","content"')
  const engines: Engine[] = []
  for (const _ of [0, 1]) {
    const steps = [{ send: opening + chunk('', 'stop') }, { waitMs: 50 }, { reset: true as const }]
    engines.push(closeLater(await startEngine(() => ({ headers: SSE, steps }))))
  }
  const targets = engines.map(({ url }, slot) => targetOf(url, { id: `r${slot}`, slot }))
  const gateway = await startTestGateway(snapshotOf([routeOf(targets)]))
  closeLater(gateway.handle)
  const answer = heard(await (await post(gateway.url, STREAM)).text())
  expect(answer).toMatchObject({ errors: ['stream_interrupted'], done: false, continued: [] })
  expect(engines.reduce((sum, { seen }) => sum + seen.length, 0)).toBe(1)
})
