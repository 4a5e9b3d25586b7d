/**
 * What a client relies on in an engine that pools, as one suite for the simulator and a real vLLM
 * (CONTRACT_POOLING_URL, served with engine.ts's POOLING_FLAGS): routes, shapes, usage, errors.
 * Sizes and token counts differ between the two models; nothing else may.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseExposition } from '../../src/core/prometheus.ts'
import { poolingSubject, type Subject } from './engine.ts'

let at: Subject
beforeAll(async () => {
  at = await poolingSubject()
})
afterAll(() => at.end())

type Body = Readonly<Record<string, unknown>>

const send = (path: string, body: Body): Promise<Response> =>
  fetch(`${at.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: at.model, ...body }),
  })

const answer = async (path: string, body: Body): Promise<unknown> => {
  const response = await send(path, body)
  const text = await response.text()
  expect(response.status, text).toBe(200)
  return JSON.parse(text)
}

const Usage = z.strictObject({
  prompt_tokens: z.number().positive(),
  total_tokens: z.number().positive(),
  completion_tokens: z.literal(0),
  prompt_tokens_details: z.null(),
  completion_tokens_details: z.null(),
})
const ShortUsage = Usage.pick({ prompt_tokens: true, total_tokens: true })
const listOf = <T extends z.ZodType>(prefix: string, entry: T) =>
  z.strictObject({
    id: z.string().regex(new RegExp(`^${prefix}-[0-9a-f]{16}$`)),
    object: z.literal('list'),
    created: z.number(),
    model: z.string(),
    data: z.array(entry),
    usage: Usage,
  })
const Embedding = z.strictObject({
  index: z.number(),
  object: z.literal('embedding'),
  embedding: z.array(z.number()),
})
const Embeddings = listOf('embd', Embedding)
const Packed = listOf('embd', Embedding.extend({ embedding: z.base64() }))
const PooledList = listOf(
  'pooling',
  z.strictObject({
    index: z.number(),
    object: z.literal('pooling'),
    data: z.array(z.number()),
  }),
)
const Scores = listOf(
  'score',
  z.strictObject({ index: z.number(), object: z.literal('score'), score: z.number() }),
)
const Reranked = z.strictObject({
  id: z.string(),
  model: z.string(),
  usage: ShortUsage,
  results: z.array(
    z.strictObject({
      index: z.number(),
      document: z.strictObject({ text: z.string(), multi_modal: z.null() }),
      relevance_score: z.number(),
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

const E = '/v1/embeddings'
const vectors = async (body: Body): Promise<readonly (readonly number[])[]> =>
  Embeddings.parse(await answer(E, body)).data.map(({ embedding }) => embedding)
const length = (vector: readonly number[]): number => Math.hypot(...vector)

describe('embeddings', () => {
  test('a text, several, token ids, several lists of them', async () => {
    const one = Embeddings.parse(await answer(E, { input: 'A penstock' }))
    expect(one.data.length).toBe(1)
    expect(one.model).toBe(at.model)
    expect(one.usage.total_tokens).toBe(one.usage.prompt_tokens)
    const two = Embeddings.parse(await answer(E, { input: ['A penstock', 'A penstock'] }))
    expect(two.data.map(({ index }) => index)).toEqual([0, 1])
    expect(two.usage.prompt_tokens).toBe(2 * one.usage.prompt_tokens)
    const ids = Embeddings.parse(await answer(E, { input: [1, 2, 3] }))
    expect([ids.data.length, ids.usage.prompt_tokens]).toEqual([1, 3])
    const lists = Embeddings.parse(await answer(E, { input: [[1, 2, 3], [4]] }))
    expect([lists.data.length, lists.usage.prompt_tokens]).toEqual([2, 4])
    const messages = [{ role: 'user', content: 'Hello' }]
    expect(Embeddings.parse(await answer(E, { messages })).data.length).toBe(1)
  })

  test('of unit length, the same for the same text, another for another', async () => {
    const [a, b, c] = await vectors({ input: ['A turbine', 'A turbine', 'A spillway'] })
    expect(length(a ?? [])).toBeCloseTo(1, 3)
    expect(a?.length).toBe(b?.length)
    for (const [index, value] of (a ?? []).entries()) expect(b?.[index]).toBeCloseTo(value, 2)
    expect(a).not.toEqual(c)
    const [bare] = await vectors({ input: 'A turbine', use_activation: false })
    expect(length(bare ?? [])).toBeGreaterThan(2)
  })

  test('base64 holds the same numbers, bytes hold them bare', async () => {
    const [plain] = await vectors({ input: 'Hello' })
    const packed = Packed.parse(await answer(E, { input: 'Hello', encoding_format: 'base64' }))
    const bytes = Buffer.from(packed.data[0]?.embedding ?? '', 'base64')
    expect(bytes.length).toBe(4 * (plain?.length ?? 0))
    expect(bytes.readFloatLE(4)).toBeCloseTo(plain?.[1] ?? Number.NaN, 3)
    const raw = await send(E, { input: 'Hello', encoding_format: 'bytes' })
    expect(raw.headers.get('content-type')).toBe('application/octet-stream')
    expect(Buffer.from(await raw.arrayBuffer()).length).toBe(bytes.length)
    expect(JSON.parse(raw.headers.get('metadata') ?? '{}')).toMatchObject({
      data: [{ index: 0, embed_dtype: 'float32', start: 0, end: bytes.length }],
      usage: { total_tokens: packed.usage.total_tokens },
    })
  })

  test('dimensions that the model has, and others', async () => {
    const [short] = await vectors({ input: 'Hello', dimensions: 16 })
    expect(short?.length).toBe(16)
    expect(length(short ?? [])).toBeCloseTo(1, 3)
    const odd = await send(E, { input: 'Hello', dimensions: 20 })
    expect(odd.status).toBe(400)
    const said = 'only supports Matryoshka dimensions [16, 64], got 20.'
    expect(ErrorBody.parse(await odd.json()).error.message).toContain(said)
    const none = ErrorBody.parse(await (await send(E, { input: 'Hello', dimensions: 0 })).json())
    expect(none.error.message).toMatch(/only supports dimensions in range \[1, \d+\], got 0\.$/)
  })

  test('a long text is refused, or cut when the request says where', async () => {
    const input = 'Hello there '.repeat(3000)
    const refused = await send(E, { input })
    expect(refused.status).toBe(400)
    const { error } = ErrorBody.parse(await refused.json())
    expect(error).toMatchObject({ type: 'BadRequestError', param: 'input_tokens' })
    expect(error.message).toContain('maximum context length is 2048 tokens')
    const cut = Embeddings.parse(await answer(E, { input, truncate_prompt_tokens: 100 }))
    expect(cut.usage.prompt_tokens).toBe(100)
  })

  const INVALID: readonly (readonly [name: string, body: Body, error: Body])[] = [
    [
      'an empty text',
      { input: '' },
      { message: 'The decoder prompt cannot be empty', param: null },
    ],
    ['no text', { input: [] }, { message: 'You must pass at least one prompt', param: null }],
    ['no input', {}, { type: 'Bad Request', param: 'body.input', code: 400 }],
    ['a number', { input: 5 }, { type: 'Bad Request', param: 'body.input' }],
    [
      'an unknown format',
      { input: 'a', encoding_format: 'xml' },
      { type: 'Bad Request', param: 'body.encoding_format' },
    ],
    [
      'a size that is no number',
      { input: 'a', dimensions: 'a' },
      { type: 'Bad Request', param: 'body.dimensions' },
    ],
    [
      'an unknown model',
      { model: 'x', input: 'a' },
      { message: 'The model `x` does not exist.', type: 'NotFoundError', code: 404 },
    ],
  ]
  test.each(INVALID)('%s', async (_name, body, expected) => {
    const response = await send(E, body)
    const { error } = ErrorBody.parse(await response.json())
    expect(error).toMatchObject(expected)
    expect(response.status).toBe(error.code)
  })

  test('pydantic counts every variant of the body', async () => {
    const none = ErrorBody.parse(await (await send(E, {})).json()).error.message
    expect(none).toMatch(/^7 validation errors:\n {2}\{'type': 'missing', 'loc': 'body.input'/)
    const size = await (await send(E, { input: 'a', dimensions: 'a' })).json()
    expect(ErrorBody.parse(size).error.message).toMatch(/^11 validation errors:/)
  })
})

describe('the other routes', () => {
  test('pooling gives the same numbers under its own names', async () => {
    const pooled = PooledList.parse(await answer('/pooling', { input: 'Hello' }))
    const [vector] = await vectors({ input: 'Hello' })
    expect(pooled.data[0]?.data.length).toBe(vector?.length)
    expect(pooled.data[0]?.data[0]).toBeCloseTo(vector?.[0] ?? Number.NaN, 3)
  })

  test('pooling for another task than the model is served for', async () => {
    const same = PooledList.parse(await answer('/pooling', { input: 'Hello', task: 'embed' }))
    expect(same.data.length).toBe(1)
    const other = await send('/pooling', { input: 'Hello', task: 'token_embed' })
    expect(ErrorBody.parse(await other.json()).error).toMatchObject({
      message: expect.stringContaining('via --pooler-config.task token_embed.'),
      param: 'task',
      code: 400,
    })
  })

  test('score: one against several, pairs, and what does not match', async () => {
    const body = { text_1: 'Hello', text_2: ['Hello', 'A penstock'] }
    for (const path of ['/score', '/v1/score']) {
      const scores = Scores.parse(await answer(path, body))
      expect(scores.data[0]?.score).toBeCloseTo(1, 2)
      expect(scores.data[1]?.score).toBeLessThan(0.9)
    }
    const pairs = { text_1: ['Hello', 'A dam'], text_2: ['Hello', 'A dam'] }
    const equal = Scores.parse(await answer('/score', pairs))
    for (const { score } of equal.data) expect(score).toBeCloseTo(1, 2)
    expect(
      Scores.parse(await answer('/score', { queries: 'a', documents: ['a'] })).data.length,
    ).toBe(1)
    const odd = await send('/score', { text_1: ['a', 'b'], text_2: ['c', 'd', 'e'] })
    expect(ErrorBody.parse(await odd.json()).error).toMatchObject({
      message: 'Input lengths must be either 1:1, 1:N or N:N',
      code: 400,
    })
    const none = ErrorBody.parse(await (await send('/score', { text_1: 'a' })).json()).error
    expect(none.message).toMatch(/^7 validation errors:/)
    expect(none.param).toBe('body.queries')
  })

  test.each(['/rerank', '/v1/rerank', '/v2/rerank'])('%s: the nearest first', async (path) => {
    const documents = ['A penstock', 'Hello', 'A dam']
    const all = Reranked.parse(await answer(path, { query: 'Hello', documents }))
    expect(all.results[0]).toMatchObject({ index: 1, document: { text: 'Hello' } })
    const scores = all.results.map(({ relevance_score }) => relevance_score)
    expect(scores).toEqual(scores.toSorted((a, b) => b - a))
    const first = Reranked.parse(await answer(path, { query: 'Hello', documents, top_n: 1 }))
    expect(first.results.length).toBe(1)
    expect(first.usage).toEqual(all.usage)
    const none = await send(path, { query: 'Hello', documents: [] })
    expect(ErrorBody.parse(await none.json()).error.message).toBe(
      'At least one text_pair element must be given',
    )
    const lacks = await send(path, { query: 'Hello' })
    expect(ErrorBody.parse(await lacks.json()).error).toMatchObject({
      param: 'body.documents',
      message: expect.stringMatching(/^1 validation error:/),
    })
  })

  test("Cohere's embed", async () => {
    const body = { texts: ['Hello', 'A dam'], embedding_types: ['float', 'base64'] }
    const Shape = z.strictObject({
      id: z.string().regex(/^embd-/),
      embeddings: z.strictObject({
        float: z.array(z.array(z.number())),
        base64: z.array(z.base64()),
      }),
      texts: z.array(z.string()),
      meta: z.strictObject({
        api_version: z.strictObject({ version: z.literal('2') }),
        billed_units: z.strictObject({ input_tokens: z.number(), image_tokens: z.literal(0) }),
      }),
      response_type: z.literal('embeddings_by_type'),
    })
    expect(Shape.parse(await answer('/v2/embed', body)).embeddings.float.length).toBe(2)
    expect((await send('/v2/embed', {})).status).toBe(400)
    const typed = await send('/v2/embed', { texts: ['a'], input_type: 'search_query' })
    expect(ErrorBody.parse(await typed.json()).error.message).toContain('Unsupported input_type')
  })

  test('routes that make text are not there', async () => {
    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/classify']) {
      const response = await send(path, { messages: [{ role: 'user', content: 'Hello' }] })
      expect(response.status, path).toBe(404)
      expect(await response.json()).toEqual({ detail: 'Not Found' })
    }
    expect((await fetch(`${at.url}${E}`)).status).toBe(405)
  })
})

test('metrics: prompts are counted, and no token is generated', async () => {
  const value = async () => {
    const { samples } = parseExposition(await (await fetch(`${at.url}/metrics`)).text())
    return (name: string): number =>
      samples.filter((one) => one.name === name).reduce((sum, one) => sum + one.value, 0)
  }
  const before = await value()
  const { usage } = Embeddings.parse(await answer(E, { input: ['A dam', 'A pipe and a valve'] }))
  let after = await value()
  // Written once a step's statistics are, which may be after the answer.
  const deadline = performance.now() + 20_000
  const ended = 'vllm:request_success_total'
  while (after(ended) < before(ended) + 2 && performance.now() < deadline) {
    await new Promise((wake) => setTimeout(wake, 50))
    after = await value()
  }
  const more = (name: string) => after(name) - before(name)
  expect(more(ended)).toBe(2)
  expect(more('vllm:prompt_tokens_total')).toBe(usage.prompt_tokens)
  expect(after('vllm:generation_tokens_total')).toBe(0)
  for (const name of ['time_to_first_token', 'e2e_request_latency', 'request_prefill_time']) {
    expect(more(`vllm:${name}_seconds_count`), name).toBe(2)
  }
  expect(more('vllm:request_time_per_output_token_seconds_count')).toBe(2)
  expect(after('vllm:inter_token_latency_seconds_count')).toBe(0)
  expect(more('vllm:iteration_tokens_total_sum')).toBe(usage.prompt_tokens)
})
