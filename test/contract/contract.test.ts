/**
 * What Penstock relies on in an engine, as one suite for the simulator and a real vLLM: routes,
 * shapes, streams, metrics, abort, errors. Nothing here may ask which of the two it talks to.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseExposition } from '../../src/core/prometheus.ts'
import { events, until } from '../runtimes/simulator/support.ts'
import { type Subject, subject } from './engine.ts'

let at: Subject
beforeAll(async () => {
  at = await subject()
})
afterAll(() => at.end())

type Body = Readonly<Record<string, unknown>>

const send = (path: string, body: Body | string, signal?: AbortSignal): Promise<Response> =>
  fetch(`${at.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify({ model: at.model, ...body }),
    ...(signal === undefined ? {} : { signal }),
  })

const CHAT = '/v1/chat/completions'
const hello = (over: Body = {}): Body => ({
  messages: [{ role: 'user', content: 'Hello' }],
  max_tokens: 12,
  seed: 7,
  ...over,
})

const Usage = z.looseObject({
  prompt_tokens: z.number(),
  completion_tokens: z.number(),
  total_tokens: z.number(),
})
const Whole = z.looseObject({
  id: z.string(),
  object: z.string(),
  created: z.number(),
  model: z.string(),
  usage: Usage,
  choices: z.array(
    z.looseObject({
      index: z.number(),
      finish_reason: z.string(),
      message: z.looseObject({ role: z.literal('assistant') }).optional(),
      text: z.string().optional(),
    }),
  ),
})
const Chunk = z.looseObject({
  id: z.string(),
  object: z.string(),
  model: z.string(),
  usage: Usage.nullish(),
  choices: z.array(
    z.looseObject({
      index: z.number(),
      finish_reason: z.string().nullish(),
      delta: z.looseObject({ role: z.string().optional(), content: z.string().nullish() }),
    }),
  ),
})
const ErrorBody = z.strictObject({
  error: z.strictObject({
    message: z.string().min(10),
    type: z.string(),
    param: z.string().nullable(),
    code: z.number(),
  }),
})

const chunksOf = async (body: Body): Promise<readonly z.infer<typeof Chunk>[]> => {
  const response = await send(CHAT, { ...body, stream: true })
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toContain('text/event-stream')
  const all = events(await response.text())
  expect(all.at(-1)).toBe('[DONE]')
  return all.slice(0, -1).map((event) => Chunk.parse(JSON.parse(event)))
}

const metrics = async () => {
  const text = await (await fetch(`${at.url}/metrics`)).text()
  const { samples } = parseExposition(text)
  const value = (name: string): number => {
    const found = samples.filter((sample) => sample.name === name)
    expect(found, name).not.toEqual([])
    return found.reduce((sum, sample) => sum + sample.value, 0)
  }
  return { text, value }
}

describe('whole answers', () => {
  test('chat', async () => {
    const answer = Whole.parse(await (await send(CHAT, hello({ ignore_eos: true }))).json())
    expect(answer).toMatchObject({ object: 'chat.completion', model: at.model })
    expect(answer.id).toMatch(/^chatcmpl-/)
    expect(answer.choices[0]).toMatchObject({ index: 0, finish_reason: 'length' })
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage
    expect(completion_tokens).toBe(12)
    expect(total_tokens).toBe(prompt_tokens + completion_tokens)
  })

  test('legacy completions, and several prompts', async () => {
    const body = { prompt: ['A penstock', 'A turbine'], max_tokens: 5, ignore_eos: true }
    const answer = Whole.parse(await (await send('/v1/completions', body)).json())
    expect(answer.object).toBe('text_completion')
    expect(answer.id).toMatch(/^cmpl-/)
    expect(answer.choices.map(({ index }) => index)).toEqual([0, 1])
    expect(answer.usage.completion_tokens).toBe(10)
  })

  test('n makes n choices, all of them paid for', async () => {
    const body = hello({ n: 3, max_tokens: 4, ignore_eos: true })
    const answer = Whole.parse(await (await send(CHAT, body)).json())
    expect(answer.choices.map(({ index }) => index)).toEqual([0, 1, 2])
    expect(answer.usage.completion_tokens).toBe(12)
  })

  test('max_completion_tokens bounds too', async () => {
    const { max_tokens: _, ...body } = hello({ max_completion_tokens: 3, ignore_eos: true })
    const answer = Whole.parse(await (await send(CHAT, body)).json())
    expect(answer.usage.completion_tokens).toBe(3)
  })

  test('the same seed gives the same text', async () => {
    const text = async () => {
      const body = hello({ temperature: 0, ignore_eos: true })
      return Whole.parse(await (await send(CHAT, body)).json()).choices[0]?.message
    }
    expect(await text()).toEqual(await text())
  })

  test('a long prompt asked twice comes from the cache', async () => {
    const content = 'Tell me of rivers, dams and turbines. '.repeat(60)
    const body = hello({ messages: [{ role: 'user', content }] })
    const cached = async () => {
      const { usage } = Whole.parse(await (await send(CHAT, body)).json())
      const Details = z.looseObject({ cached_tokens: z.number() })
      return Details.parse(usage.prompt_tokens_details).cached_tokens
    }
    await cached()
    expect(await cached()).toBeGreaterThan(100)
  })

  test('tokenize counts as usage does', async () => {
    const messages = [{ role: 'user', content: 'Hello' }]
    const Count = z.looseObject({ count: z.number(), max_model_len: z.number() })
    const { count, max_model_len } = Count.parse(
      await (await send('/tokenize', { messages })).json(),
    )
    const answer = Whole.parse(await (await send(CHAT, hello())).json())
    expect(answer.usage.prompt_tokens).toBe(count)
    expect(max_model_len).toBe(2048)
  })
})

describe('streams', () => {
  test('opens with the role, ends with a reason and [DONE], without usage unasked', async () => {
    const chunks = await chunksOf(hello({ ignore_eos: true }))
    expect(chunks[0]?.choices[0]?.delta).toMatchObject({ role: 'assistant', content: '' })
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('length')
    expect(chunks.slice(0, -1).every(({ choices }) => choices[0]?.finish_reason == null)).toBe(true)
    expect(chunks.every(({ usage }) => usage === undefined || usage === null)).toBe(true)
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
  })

  test('include_usage: one more chunk without choices', async () => {
    const options = { stream_options: { include_usage: true } }
    const chunks = await chunksOf(hello({ ...options, ignore_eos: true }))
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 12 } })
    expect(chunks.filter(({ usage }) => usage != null)).toHaveLength(1)
  })

  test('continuous_usage_stats: usage in every chunk, growing', async () => {
    const stream_options = { include_usage: true, continuous_usage_stats: true }
    const chunks = await chunksOf(hello({ stream_options, ignore_eos: true }))
    const counts = chunks.map(({ usage }) => usage?.completion_tokens ?? -1)
    expect(counts[0]).toBe(0)
    expect(counts).toEqual(counts.toSorted((a, b) => a - b))
    expect(counts.at(-1)).toBe(12)
  })

  test('the streamed text is the whole text', async () => {
    const body = hello({ temperature: 0, ignore_eos: true })
    const whole = Whole.parse(await (await send(CHAT, body)).json()).choices[0]?.message
    const parts = (await chunksOf(body)).map(({ choices }) => choices[0]?.delta.content ?? '')
    expect(parts.join('')).toBe(whole?.content)
  })

  test('logprobs: one entry a token, with its alternatives', async () => {
    const body = hello({ max_tokens: 4, logprobs: true, top_logprobs: 2, ignore_eos: true })
    const Entry = z.looseObject({
      token: z.string(),
      logprob: z.number(),
      bytes: z.array(z.number()),
      top_logprobs: z.array(z.looseObject({ token: z.string(), logprob: z.number() })).min(2),
    })
    const Logged = z.looseObject({
      choices: z.array(z.looseObject({ logprobs: z.looseObject({ content: z.array(Entry) }) })),
    })
    const answer = Logged.parse(await (await send(CHAT, body)).json())
    expect(answer.choices[0]?.logprobs.content).toHaveLength(4)
  })
})

describe('errors', () => {
  const refusals: readonly (readonly [string, string, Body | string, number])[] = [
    ['unknown model', CHAT, hello({ model: 'nothing' }), 404],
    ['unknown model, streamed', CHAT, hello({ model: 'nothing', stream: true }), 404],
    [
      'prompt too long',
      CHAT,
      hello({ messages: [{ role: 'user', content: 'Hello! '.repeat(3000) }] }),
      400,
    ],
    ['max_tokens beyond the context', CHAT, hello({ max_tokens: 5000 }), 400],
    ['max_tokens of zero', CHAT, hello({ max_tokens: 0 }), 400],
    ['not JSON', CHAT, '{"model": "tiny-qwen2", "messages": [', 400],
    ['wrong type', CHAT, hello({ temperature: 'hot' }), 400],
    ['value out of range', CHAT, hello({ temperature: -1 }), 400],
    ['no messages', CHAT, {}, 400],
    ['empty messages', CHAT, hello({ messages: [] }), 400],
    [
      'stream_options without stream',
      CHAT,
      hello({ stream_options: { include_usage: true } }),
      400,
    ],
    ['top_logprobs without logprobs', CHAT, hello({ top_logprobs: 2 }), 400],
    ['n of zero', CHAT, hello({ n: 0 }), 400],
    ['no prompt', '/v1/completions', { max_tokens: 3 }, 400],
  ]
  test.each(refusals)('%s', async (_name, path, body, status) => {
    const response = await send(path, body)
    expect(response.status).toBe(status)
    const { error } = ErrorBody.parse(await response.json())
    expect(error.code).toBe(status)
  })

  test.each([
    ['POST', '/v1/nothing', 404],
    ['POST', '/v1/embeddings', 404],
    ['POST', '/v1/rerank', 404],
    ['POST', '/v1/score', 404],
    ['GET', CHAT, 405],
  ])('%s %s: %i in FastAPI’s own words', async (method, path, status) => {
    const body = method === 'POST' ? JSON.stringify({ model: at.model, input: 'x' }) : null
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${at.url}${path}`, { method, headers, body })
    expect(response.status).toBe(status)
    const detail = status === 404 ? 'Not Found' : 'Method Not Allowed'
    expect(await response.json()).toEqual({ detail })
  })

  test('unknown fields and a null are no error', async () => {
    const response = await send(CHAT, hello({ no_such_field: 1, stop: null, user: null }))
    expect(response.status).toBe(200)
  })
})

describe('other routes', () => {
  test('models', async () => {
    const Models = z.looseObject({
      object: z.literal('list'),
      data: z.array(z.looseObject({ id: z.string(), max_model_len: z.number() })),
    })
    const { data } = Models.parse(await (await fetch(`${at.url}/v1/models`)).json())
    expect(data[0]).toMatchObject({ id: at.model, owned_by: 'vllm', max_model_len: 2048 })
  })

  test('health, ping, version, load', async () => {
    const health = await fetch(`${at.url}/health`)
    expect([health.status, await health.text()]).toEqual([200, ''])
    expect((await fetch(`${at.url}/ping`)).status).toBe(200)
    const version = await (await fetch(`${at.url}/version`)).json()
    expect(version).toEqual({ version: expect.stringMatching(/^0\.\d+/) })
    expect(await (await fetch(`${at.url}/load`)).json()).toEqual({ server_load: 0 })
  })

  test('responses, whole', async () => {
    const body = { input: 'Hello', max_output_tokens: 8 }
    const answer = await (await send('/v1/responses', body)).json()
    expect(answer).toMatchObject({
      object: 'response',
      model: at.model,
      output: expect.any(Array),
      usage: { input_tokens: expect.any(Number), output_tokens: 8 },
    })
  })

  test('messages, whole, and their count', async () => {
    const body = { messages: [{ role: 'user', content: 'Hello' }], max_tokens: 8 }
    const answer = await (await send('/v1/messages', body)).json()
    expect(answer).toMatchObject({
      type: 'message',
      role: 'assistant',
      model: at.model,
      content: expect.any(Array),
      usage: { input_tokens: expect.any(Number), output_tokens: 8 },
    })
    const counted = await (await send('/v1/messages/count_tokens', body)).json()
    expect(counted).toMatchObject({ input_tokens: expect.any(Number) })
  })
})

describe('metrics', () => {
  test('the names, types and labels that Penstock and its dashboards read', async () => {
    await (await send(CHAT, hello())).text()
    const { text } = await metrics()
    const types = [
      ['vllm:num_requests_running', 'gauge'],
      ['vllm:num_requests_waiting', 'gauge'],
      ['vllm:kv_cache_usage_perc', 'gauge'],
      ['vllm:num_preemptions_total', 'counter'],
      ['vllm:prompt_tokens_total', 'counter'],
      ['vllm:generation_tokens_total', 'counter'],
      ['vllm:prefix_cache_queries_total', 'counter'],
      ['vllm:prefix_cache_hits_total', 'counter'],
      ['vllm:request_success_total', 'counter'],
      ['vllm:time_to_first_token_seconds', 'histogram'],
      ['vllm:inter_token_latency_seconds', 'histogram'],
      ['vllm:e2e_request_latency_seconds', 'histogram'],
      ['vllm:request_queue_time_seconds', 'histogram'],
      ['vllm:iteration_tokens_total', 'histogram'],
      ['vllm:cache_config_info', 'gauge'],
    ]
    for (const [name, type] of types) expect(text).toContain(`# TYPE ${name} ${type}\n`)
    expect(text).toMatch(
      new RegExp(`^vllm:num_requests_running\\{engine="0",model_name="${at.model}"\\}`, 'm'),
    )
  })

  test('tokens are counted as usage says', async () => {
    const before = await metrics()
    const answer = Whole.parse(await (await send(CHAT, hello({ ignore_eos: true }))).json())
    const { prompt_tokens, completion_tokens } = answer.usage
    await until(async () => {
      const { value } = await metrics()
      const made = value('vllm:generation_tokens_total')
      return made === before.value('vllm:generation_tokens_total') + completion_tokens
    }, 'the generated tokens')
    const { value } = await metrics()
    const prompts = value('vllm:prompt_tokens_total') - before.value('vllm:prompt_tokens_total')
    expect(prompts).toBe(prompt_tokens)
  })

  test('a client that leaves frees the engine, and no token is made for it any more', async () => {
    const controller = new AbortController()
    const body = hello({ max_tokens: 1500, ignore_eos: true, stream: true })
    const response = await send(CHAT, body, controller.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    await reader?.read()
    controller.abort()
    await until(
      async () => (await metrics()).value('vllm:num_requests_running') === 0,
      'the engine to be free',
    )
    const first = (await metrics()).value('vllm:generation_tokens_total')
    await new Promise((resolve) => setTimeout(resolve, 500))
    const { value } = await metrics()
    expect(value('vllm:generation_tokens_total')).toBe(first)
    expect(value('vllm:kv_cache_usage_perc')).toBe(0)
  })
})
