/**
 * The official clients of both APIs on rehearsed engines of both kinds, through the gateway: what
 * they make of whole answers, streams, thinking, tools, refusals, deaths, and their own leaving.
 */
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import {
  cleanUp,
  freePort,
  isReady,
  metric,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from '../runtimes/simulator/support.ts'
import { SSE, startEngine } from '../support/engine.ts'
import {
  closeAll,
  closeLater,
  KEY,
  until as met,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'

const ENGINES = ['vllm', 'sglang'] as const
type EngineName = (typeof ENGINES)[number]
const urls: Record<EngineName, string> = { vllm: '', sglang: '' }

const lineOf = (engine: EngineName, port: number): readonly string[] =>
  (engine === 'vllm'
    ? 'serve ./qwq-32b --served-model-name qwq-32b --max-model-len 4096 --reasoning-parser ' +
      'deepseek_r1 --enable-prompt-tokens-details --enable-auto-tool-choice ' +
      `--tool-call-parser hermes --host 127.0.0.1 --port ${port}`
    : '-m sglang.launch_server --model-path ./qwq-32b --served-model-name qwq-32b ' +
      '--context-length 4096 --reasoning-parser qwen3 --tool-call-parser qwen25 ' +
      `--enable-metrics --enable-cache-report --host 127.0.0.1 --port ${port}`
  ).split(' ')

beforeAll(async () => {
  for (const engine of ENGINES) {
    const port = await freePort()
    urls[engine] = `http://127.0.0.1:${port}`
    const program = engine === 'vllm' ? 'vllm' : 'python3'
    const one = new Simulated(program, lineOf(engine, port), rehearsal({ speed: 50 }))
    await until(isReady(urls[engine]), engine, () => one.output)
  }
})
afterAll(async () => {
  await stopAll()
  cleanUp()
})
afterEach(closeAll)

const limit = {
  id: 'tokens',
  per: 'consumer',
  measure: 'tokens',
  amount: 100_000,
  burst: 100_000,
  windowMs: 60_000,
  text: '100000 tokens per minute per consumer',
} as const

/** A gateway before one rehearsed engine, and both clients on it. */
const rehearsed = async (engine: EngineName, more: Partial<GatewayRoute> = {}) => {
  const route = routeOf([targetOf(urls[engine])], { engine, limits: [limit], ...more })
  const gateway = await startTestGateway(snapshotOf([route]))
  closeLater(gateway.handle)
  return { ...gateway, ...clientsOf(gateway.url) }
}

const clientsOf = (url: string, key = KEY) => ({
  openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }),
  anthropic: new Anthropic({ baseURL: url, apiKey: key, authToken: null, maxRetries: 0 }),
})

const prompt = 'How high is the fall of water?'
const messages = [{ role: 'user' as const, content: prompt }]
const claude = { model: 'qwq-32b', max_tokens: 3_500, messages }
const response = { model: 'qwq-32b', input: prompt, max_output_tokens: 3_500 }

const lastOf = async (
  { finished }: Pick<Awaited<ReturnType<typeof rehearsed>>, 'finished'>,
  count: number,
) => {
  await met('the report', () => finished.length === count)
  return finished[count - 1]
}

const metricsOf = async (engine: EngineName): Promise<string> =>
  (await fetch(`${urls[engine]}/metrics`)).text()

describe.each(ENGINES)('on %s', (engine) => {
  test('openai: responses.create, whole and streamed', async () => {
    const world = await rehearsed(engine)
    const whole = await world.openai.responses.create(response)
    expect(whole.output_text.length).toBeGreaterThan(10)
    const { usage } = whole
    expect(await lastOf(world, 1)).toMatchObject({
      path: '/v1/responses',
      outcome: 'ok',
      promptTokens: usage?.input_tokens,
      completionTokens: usage?.output_tokens,
    })
    const stream = await world.openai.responses.create({ ...response, stream: true })
    let [text, ended, numbered] = ['', '', -1]
    for await (const event of stream) {
      if (event.type === 'response.output_text.delta') text += event.delta
      numbered += 1
      if ('sequence_number' in event) expect(event.sequence_number).toBe(numbered)
      ended = event.type
    }
    expect([ended, text.length > 10]).toEqual(['response.completed', true])
    const report = await lastOf(world, 2)
    expect(report).toMatchObject({ stream: true, outcome: 'ok', promptTokens: usage?.input_tokens })
    expect(report?.completionTokens).toBeGreaterThan(10)
    expect(report?.ttftMs).not.toBe(null)
  })

  test('openai: the helper that collects a stream ends with the whole response', async () => {
    const world = await rehearsed(engine)
    const final = await world.openai.responses.stream(response).finalResponse()
    expect(final.status).toMatch(/completed|incomplete/)
    expect(final.output_text.length).toBeGreaterThan(10)
  })

  test('anthropic: messages.create, whole and streamed, and count_tokens', async () => {
    const world = await rehearsed(engine)
    const whole = await world.anthropic.messages.create(claude)
    expect(whole.content.length).toBeGreaterThan(0)
    expect(whole._request_id).toMatch(/^req-/)
    const { usage } = whole
    const first = await lastOf(world, 1)
    expect(first).toMatchObject({ path: '/v1/messages', completionTokens: usage.output_tokens })
    const { input_tokens } = await world.anthropic.messages.countTokens({
      model: 'qwq-32b',
      messages,
    })
    // Counted once, whatever of it was in the cache.
    expect(first?.promptTokens).toBe(input_tokens)
    expect(await lastOf(world, 2)).toMatchObject({ promptTokens: null, outcome: 'ok' })
    const stream = world.anthropic.messages.stream(claude)
    const final = await stream.finalMessage()
    expect(final.stop_reason).toMatch(/end_turn|max_tokens/)
    const report = await lastOf(world, 3)
    expect(report).toMatchObject({
      stream: true,
      promptTokens: input_tokens,
      completionTokens: final.usage.output_tokens,
      reason: final.stop_reason,
    })
    const counter = engine === 'vllm' ? 'vllm:prompt_tokens_total' : 'sglang:prompt_tokens_total'
    expect(metric(await metricsOf(engine), counter)).toBeGreaterThan(0)
  })

  test('anthropic: tools pass through', async () => {
    const { anthropic } = await rehearsed(engine)
    const tool = {
      name: 'weather',
      input_schema: { type: 'object' as const, properties: { city: { type: 'string' } } },
    }
    const answer = await anthropic.messages.create({
      ...claude,
      tools: [tool],
      tool_choice: { type: 'tool', name: 'weather' },
    })
    expect(answer.content.some(({ type }) => type === 'tool_use')).toBe(true)
  })

  test('both: leaving in the middle ends the engine’s work', async () => {
    const world = await rehearsed(engine)
    const running = engine === 'vllm' ? 'vllm:num_requests_running' : 'sglang:num_running_reqs'
    const long = { ...claude, max_tokens: 3_500, stop_sequences: ['never said'] }
    const stream = world.anthropic.messages.stream(long)
    stream.on('error', () => {})
    for await (const event of stream) if (event.type === 'content_block_delta') break
    stream.abort()
    const responses = await world.openai.responses.create({
      ...response,
      stream: true,
      max_output_tokens: 3_500,
    })
    for await (const event of responses) if (event.type.endsWith('.delta')) break
    responses.controller.abort()
    await met('both reports', () => world.finished.length === 2)
    for (const report of world.finished) {
      expect(report).toMatchObject({ outcome: 'client_gone', status: 499 })
    }
    await until(async () => metric(await metricsOf(engine), running) === 0, 'nothing runs')
  })

  test('refusals of the engine are each client’s own exceptions', async () => {
    const { openai, anthropic } = await rehearsed(engine)
    const long = 'water '.repeat(6_000)
    const tooLong = await thrown(openai.responses.create({ ...response, input: long }))
    expect(tooLong).toBeInstanceOf(OpenAI.BadRequestError)
    expect(tooLong).toMatchObject({ code: 'context_length_exceeded' })
    const messagesLong = [{ role: 'user' as const, content: long }]
    const refused = await thrown(anthropic.messages.create({ ...claude, messages: messagesLong }))
    expect(refused).toBeInstanceOf(Anthropic.BadRequestError)
    expect(refused).toMatchObject({ type: 'invalid_request_error' })
  })
})

const thrown = async (promise: PromiseLike<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

describe('refusals of the gateway', () => {
  test('are Anthropic’s classes, with its types and request id', async () => {
    const world = await rehearsed('vllm')
    const wrong = clientsOf(world.url, 'sk-ps-wrong-00000000000').anthropic
    const unauthenticated = await thrown(wrong.messages.create(claude))
    expect(unauthenticated).toBeInstanceOf(Anthropic.AuthenticationError)
    expect(unauthenticated).toMatchObject({
      type: 'authentication_error',
      requestID: expect.stringMatching(/^req-/),
    })
    const unknown = await thrown(world.anthropic.messages.create({ ...claude, model: 'claude-9' }))
    expect(unknown).toBeInstanceOf(Anthropic.NotFoundError)
    expect(unknown).toMatchObject({ type: 'not_found_error' })
    const tight = await rehearsed('vllm', { limits: [{ ...limit, amount: 50, burst: 50 }] })
    // One request may overdraw a limit that is untouched; the next pays for it.
    await tight.anthropic.messages.create({ ...claude, max_tokens: 100 })
    const limited = await thrown(tight.anthropic.messages.create(claude))
    expect(limited).toBeInstanceOf(Anthropic.RateLimitError)
    expect(limited).toMatchObject({ type: 'rate_limit_error' })
    const empty = await rehearsed('vllm', { targets: [], why: 'rank 1 is loading weights' })
    const unavailable = await thrown(empty.anthropic.messages.create(claude))
    expect(unavailable).toBeInstanceOf(Anthropic.InternalServerError)
    expect(unavailable).toMatchObject({ status: 503, type: 'overloaded_error' })
  })

  test('models are listed for both', async () => {
    const { openai, anthropic } = await rehearsed('vllm')
    expect((await openai.models.list()).data).toMatchObject([{ id: 'qwq-32b', object: 'model' }])
    const listed = await anthropic.models.list()
    expect(listed.data).toMatchObject([
      { type: 'model', id: 'qwq-32b', display_name: 'qwq-32b', max_input_tokens: 32_768 },
    ])
    expect(listed.hasNextPage()).toBe(false)
    expect((await anthropic.models.retrieve('qwq-32b')).type).toBe('model')
    const none = await thrown(anthropic.models.retrieve('claude-9'))
    expect(none).toMatchObject({ status: 404, type: 'not_found_error' })
  })
})

describe('an engine that dies in the middle', () => {
  const dying = async () => {
    const Asked = z.object({ messages: z.unknown().optional() })
    const engine = closeLater(
      await startEngine(({ body }) => {
        const spoken = Asked.parse(JSON.parse(String(body))).messages === undefined
        const events = spoken
          ? [
              ['response.created', { sequence_number: 0, response: { id: 'resp_1', output: [] } }],
              ['response.output_text.delta', { sequence_number: 1, delta: 'Hel' }],
            ]
          : [
              [
                'message_start',
                { message: { id: 'm', content: [], usage: { input_tokens: 3, output_tokens: 0 } } },
              ],
              ['content_block_start', { index: 0, content_block: { type: 'text', text: '' } }],
              ['content_block_delta', { index: 0, delta: { type: 'text_delta', text: 'Hel' } }],
            ]
        const send = events
          .map(
            ([type, rest]) =>
              `event: ${type}\ndata: ${JSON.stringify({ type, ...z.looseObject({}).parse(rest) })}\n\n`,
          )
          .join('')
        return { headers: SSE, steps: [{ send }, { waitMs: 50 }, { reset: true }] }
      }),
    )
    const gateway = await startTestGateway(snapshotOf([routeOf([targetOf(engine.url)])]))
    closeLater(gateway.handle)
    return clientsOf(gateway.url)
  }

  test('openai: the stream throws an APIError after what was said', async () => {
    const { openai } = await dying()
    const stream = await openai.responses.create({ ...response, stream: true })
    const seen: string[] = []
    const error = await thrown(
      (async () => {
        for await (const { type } of stream) seen.push(type)
      })(),
    )
    expect(seen).toEqual(['response.created', 'response.output_text.delta'])
    expect(error).toBeInstanceOf(OpenAI.APIError)
    expect(error).toMatchObject({
      code: 'stream_interrupted',
      message: expect.stringContaining('died'),
    })
  })

  test('anthropic: the stream throws an APIError of type api_error', async () => {
    const { anthropic } = await dying()
    const stream = await anthropic.messages.create({ ...claude, stream: true })
    const seen: string[] = []
    const error = await thrown(
      (async () => {
        for await (const { type } of stream) seen.push(type)
      })(),
    )
    expect(seen.at(-1)).toBe('content_block_delta')
    expect(error).toBeInstanceOf(Anthropic.APIError)
    expect(error).toMatchObject({ type: 'api_error' })
  })
})
