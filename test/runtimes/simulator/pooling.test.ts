/** Pooling models in memory: what the contract with a real vLLM does not reach, and all of SGLang. */
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { readFault } from '../../../runtimes/simulator/faults/fault.ts'
import { FaultSchedule } from '../../../runtimes/simulator/faults/schedule.ts'
import { joined } from '../../../runtimes/simulator/http/pooling-inputs.ts'
import { engineServer } from '../../../runtimes/simulator/http/routes.ts'
import { planMemory } from '../../../runtimes/simulator/memory.ts'
import { buildService } from '../../../runtimes/simulator/service.ts'
import { cosine, softmax, vectorOf } from '../../../runtimes/simulator/text/vector.ts'
import { call } from '../../support/memory-http.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import { type Name, settingsOf } from './played.ts'
import { rehearsal } from './support.ts'

const HOUR_MS = 3_600_000

const served = (engine: Name, flags: string, version: string | null = null) => {
  const clock = new VirtualClock()
  const settings = settingsOf(engine, version, flags)
  const setting = rehearsal({ speed: 1 })
  const memory = planMemory(setting.architecture, setting.memoryBytes, settings)
  const faults = new FaultSchedule(0)
  const service = buildService(settings, setting, clock, { memory, faults })
  service.state = 'serving'
  const server = engineServer(service)
  const send = async (path: string, body?: unknown) => {
    const began = clock.now()
    const ended: { raw: string; ms: number }[] = []
    const method = body === undefined ? 'GET' : 'POST'
    call(server, { method, path, body }, (raw) => ended.push({ raw, ms: clock.now() - began }))
    // The parser's first turns come before any timer is set.
    await new Promise((wake) => setTimeout(wake, 5))
    await clock.runTo(clock.now() + HOUR_MS)
    const { raw = '', ms = 0 } = ended[0] ?? {}
    const [head = '', text = ''] = raw.split('\r\n\r\n')
    const json: unknown = /application\/json/.test(head) ? JSON.parse(text) : text
    return { status: Number(head.split(' ')[1]), json, text, ms }
  }
  return { send, service, faults, clock }
}

const Vectors = z.looseObject({ data: z.array(z.object({ embedding: z.array(z.number()) })) })
const HELLO = { model: 'm', input: 'Hello there' }

describe('vectors', () => {
  const of = (...ids: number[]) => vectorOf(Int32Array.from(ids), 512)
  test('near when texts share words, far when they do not', () => {
    expect(cosine(of(1, 2, 3), of(1, 2, 3))).toBeCloseTo(1, 5)
    const near = cosine(of(1, 2, 3, 4), of(1, 2, 3, 5))
    expect(near).toBeGreaterThan(0.5)
    expect(near).toBeLessThan(0.95)
    expect(Math.abs(cosine(of(1, 2, 3), of(7, 8, 9)))).toBeLessThan(0.3)
    expect(of(1, 2)).not.toEqual(of(2, 1))
  })
})

describe('vLLM', () => {
  test('a vector has the hidden size of the model; prefill is paid for by length', async () => {
    const { send, service } = served('vllm', '--runner pooling')
    const short = await send('/v1/embeddings', HELLO)
    expect(Vectors.parse(short.json).data[0]?.embedding.length).toBe(5120)
    const long = await send('/v1/embeddings', { ...HELLO, input: 'how much? '.repeat(2500) })
    expect(short.ms).toBeGreaterThan(10)
    expect(long.ms).toBeGreaterThan(10 * short.ms)
    expect(service.runner.engine.totals.generationTokens).toBe(0)
    expect(service.runner.engine.usedTokens).toBe(0)
  })

  test('classify: classes as configured; one class reranks by pairs', async () => {
    const three = '--runner pooling --convert classify --hf-overrides {"num_labels":3}'
    const { send } = served('vllm', three)
    const { json } = await send('/classify', { input: ['good', 'bad'] })
    const Entry = z.object({ label: z.string(), probs: z.array(z.number()).length(3) })
    const { data } = z.looseObject({ data: z.array(Entry).length(2) }).parse(json)
    for (const { label, probs } of data) {
      expect(probs.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 5)
      expect(label).toBe(`LABEL_${probs.indexOf(Math.max(...probs))}`)
    }
    expect((await send('/v1/embeddings', HELLO)).status).toBe(404)
    expect((await send('/rerank', { query: 'a', documents: ['b'] })).status).toBe(404)
    const one = served('vllm', '--convert classify --hf-overrides {"num_labels":1}')
    const ranked = await one.send('/rerank', { query: 'a dam', documents: ['a cat', 'a dam'] })
    expect(ranked.json).toMatchObject({
      usage: { prompt_tokens: 8 },
      results: [{ index: 1 }, { index: 0 }],
    })
  })

  const LENGTHS = '--max-model-len 512 --hf-overrides {"num_labels":1}'
  const three = (cut: unknown) => ({ input: 'a b c', truncate_prompt_tokens: cut })
  const pairs = (cut: unknown) => ({
    query: 'a b',
    documents: ['c d'],
    text_1: 'a b',
    text_2: 'c d',
    truncate_prompt_tokens: cut,
  })
  const ROUTES: readonly (readonly [path: string, flags: string, of: (cut: unknown) => object])[] =
    [
      ['/v1/embeddings', '--runner pooling', three],
      ['/pooling', '--runner pooling', three],
      ['/classify', '--convert classify', three],
      ['/score', '--convert classify', pairs],
      ['/rerank', '--convert classify', pairs],
      ['/score', '--runner pooling', pairs],
    ]
  test.each(ROUTES)('%s of %s: where a text is cut', async (path, flags, of) => {
    const { send } = served('vllm', `${flags} ${LENGTHS}`)
    const whole = z.looseObject({ usage: z.object({ prompt_tokens: z.number() }) })
    const tokens = async (cut: unknown) =>
      whole.parse((await send(path, of(cut))).json).usage.prompt_tokens
    const texts = path === '/score' && flags === '--runner pooling' ? 2 : 1
    expect(await tokens(1)).toBe(texts)
    expect(await tokens(-1)).toBe(await tokens(null))
    expect(await tokens(512)).toBe(await tokens(null))
    expect(await send(path, of(0))).toMatchObject({
      status: 400,
      json: { error: { message: 'The decoder prompt cannot be empty', param: null } },
    })
    expect(await send(path, of(513))).toMatchObject({
      status: 400,
      json: {
        error: {
          message:
            'truncate_prompt_tokens value is greater than max_model_len. Please request a ' +
            'smaller truncation size.',
          type: 'BadRequestError',
        },
      },
    })
    const below = await send(path, of(-2))
    expect(below.status).toBe(400)
    expect(below.text).toContain("'greater_than_equal', 'loc': 'body.truncate_prompt_tokens'")
    expect(below.text).toContain("equal to -1', 'input': -2, 'ctx': {'ge': -1}}")
    expect((await send(path, of('x'))).text).toContain('body.truncate_prompt_tokens')
  })

  test('a cut keeps the first words', async () => {
    const { send } = served('vllm', `--runner pooling ${LENGTHS}`)
    const cut = { input: 'dam pipe valve', truncate_prompt_tokens: 1 }
    const [first, last] = [await send('/v1/embeddings', { input: 'dam' }), 'valve']
    const vectorsOf = ({ json }: typeof first) => Vectors.parse(json).data
    expect(vectorsOf(await send('/v1/embeddings', cut))).toEqual(vectorsOf(first))
    expect(vectorsOf(first)).not.toEqual(vectorsOf(await send('/v1/embeddings', { input: last })))
  })

  test('an empty pair, and a size that is no whole number, are refused', async () => {
    const { send } = served('vllm', `--runner pooling ${LENGTHS}`)
    for (const [path, body] of [
      ['/score', { text_1: '', text_2: 'a' }],
      ['/score', { text_1: 'a', text_2: ['b', ''] }],
      ['/rerank', { query: '', documents: [''] }],
    ] as const) {
      const { status, json } = await send(path, body)
      expect(status).toBe(400)
      expect(json).toMatchObject({ error: { message: 'The decoder prompt cannot be empty' } })
    }
    for (const output_dimension of ['8', 1.5, [], true]) {
      const { status, json } = await send('/v2/embed', { texts: ['a'], output_dimension })
      expect(status).toBe(400)
      expect(json).toMatchObject({ error: { param: 'body.output_dimension' } })
    }
    const long = { texts: ['a '.repeat(2_000)] }
    expect((await send('/v2/embed', long)).text).toContain('"input_tokens":512')
    expect((await send('/v2/embed', { ...long, truncate: 'NONE' })).status).toBe(400)
  })

  test('a pair of 200,000 tokens, and as many labels', async () => {
    const long = 'a '.repeat(100_000)
    const { send } = served('vllm', '--convert classify --hf-overrides {"num_labels":1}')
    const { status, text } = await send('/score', { text_1: long, text_2: long })
    expect([status, text]).toEqual([400, expect.stringContaining('maximum context length')])
    expect(joined(new Int32Array(100_000).fill(1), new Int32Array(100_000).fill(2))).toEqual(
      Int32Array.from({ length: 200_000 }, (_, at) => (at < 100_000 ? 1 : 2)),
    )
    const logits = Array.from({ length: 200_000 }, (_, at) => at / 1e6)
    expect(softmax(logits).indexOf(Math.max(0, softmax(logits).at(-1) ?? 0))).toBe(199_999)
  })

  test('the key guards /v1 and /v2, and leaves /score open', async () => {
    const { send } = served('vllm', '--runner pooling --api-key k')
    expect((await send('/v1/embeddings', HELLO)).status).toBe(401)
    expect((await send('/v2/embed', { texts: ['a'] })).status).toBe(401)
    expect((await send('/score', { text_1: 'a', text_2: 'b' })).status).toBe(200)
  })

  test('a full queue, a failing and a dead engine', async () => {
    const { send, faults, service, clock } = served(
      'vllm',
      '--runner pooling --max-num-queued-reqs 2',
    )
    expect((await send('/v1/embeddings', { ...HELLO, input: ['a', 'b', 'c'] })).status).toBe(503)
    expect(service.runner.open).toBe(0)
    const fault = readFault({ kind: 'error-500', startMs: clock.now(), durationMs: 10 })
    if (!fault.ok) throw new Error(fault.message)
    faults.add(fault.fault)
    expect((await send('/v1/embeddings', HELLO)).status).toBe(500)
    expect((await send('/v1/embeddings', HELLO)).status).toBe(200)
    service.state = 'dead'
    expect((await send('/v1/embeddings', HELLO)).status).toBe(500)
  })

  test('/load counts only with --enable-server-load-tracking', async () => {
    for (const [flags, expected] of [
      ['', 0],
      ['--enable-server-load-tracking', 1],
    ] as const) {
      const { send, service, clock } = served('vllm', flags)
      const server = engineServer(service)
      const body = { model: 'm', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 900 }
      let seen: unknown = null
      call(server, { method: 'POST', path: '/v1/chat/completions', body }, () => {})
      clock.after(100, () =>
        call(server, { method: 'GET', path: '/load' }, (raw) => {
          seen = JSON.parse(raw.split('\r\n\r\n')[1] ?? '')
        }),
      )
      await new Promise((wake) => setTimeout(wake, 5))
      await clock.runTo(HOUR_MS)
      expect(seen).toEqual({ server_load: expected })
      expect((await send('/load')).json).toEqual({ server_load: 0 })
    }
  })
})

describe('SGLang', () => {
  test('--is-embedding: vectors under its own shape, text fails, model_info says so', async () => {
    const { send } = served('sglang', '--is-embedding')
    const { json } = await send('/v1/embeddings', HELLO)
    expect(Vectors.parse(json).data[0]?.embedding.length).toBe(5120)
    expect(json).toMatchObject({
      object: 'list',
      model: 'm',
      data: [{ index: 0, object: 'embedding' }],
      usage: { prompt_tokens: 2, total_tokens: 2, completion_tokens: 0 },
    })
    const packed = await send('/v1/embeddings', { ...HELLO, encoding_format: 'base64' })
    expect(packed.text).toMatch(/"embedding":"[A-Za-z0-9+/]{27000,}=*"/)
    const chat = { messages: [{ role: 'user', content: 'Hi' }] }
    const text = await send('/v1/chat/completions', chat)
    expect(text).toMatchObject({ status: 500, json: { type: 'InternalServerError', code: 500 } })
    expect((await send('/model_info')).json).toMatchObject({ is_generation: false })
    const native = await send('/encode', { text: 'Hello there' })
    expect(native.json).toMatchObject({ meta_info: { prompt_tokens: 2 } })
  })

  test.each([
    ['', 'Input cannot be empty'],
    ['  ', 'Input cannot be empty or whitespace only'],
    [['a', ' '], 'Input at index 1 cannot be empty or whitespace only'],
    [['a', 1], 'All items in input list must be strings'],
    [[1, -2], 'Token ID at index 1 must be non-negative'],
  ])('input %j is refused', async (input, message) => {
    const { send } = served('sglang', '--is-embedding')
    const { status, json } = await send('/v1/embeddings', { model: 'm', input })
    expect(status).toBe(400)
    expect(json).toMatchObject({ object: 'error', message, type: 'BadRequestError', code: 400 })
  })

  test.each([
    ['/v1/embeddings', { input: 'a '.repeat(1_024) }],
    ['/v1/classify', { input: 'a '.repeat(1_024) }],
    ['/encode', { text: 'a '.repeat(1_024) }],
    ['/v1/rerank', { query: 'a '.repeat(512), documents: ['b '.repeat(512)] }],
    ['/v1/score', { query: 'a '.repeat(512), items: ['b '.repeat(512)] }],
  ])('%s: what the pool can never hold is refused', async (path, body) => {
    const { send, service } = served('sglang', '--is-embedding --max-total-tokens 1024')
    const { status, text } = await send(path, body)
    expect(status).toBe(400)
    expect(text).toMatch(/Input length \(\d+ tokens\) exceeds the maximum allowed length \(1024 t/)
    expect(service.runner.open).toBe(0)
  })

  test('a query and an item of 200,000 tokens', async () => {
    const long = 'a '.repeat(100_000)
    const { send } = served('sglang', '--is-embedding')
    const { status, text } = await send('/v1/rerank', { query: long, documents: [long] })
    expect([status, text]).toEqual([400, expect.stringContaining('context length')])
  })

  test.each(['/v1/embeddings', '/encode'])('%s: dimensions are a whole number', async (path) => {
    const flags = '--is-embedding --json-model-override-args {"is_matryoshka":true}'
    const { send } = served('sglang', flags)
    for (const dimensions of ['8', 1.5, [], true, 0, -1, 1e9]) {
      const { status } = await send(path, { ...HELLO, text: 'Hello', dimensions })
      expect(status, JSON.stringify(dimensions)).toBe(400)
    }
    expect((await send(path, { ...HELLO, text: 'Hello', dimensions: 8 })).status).toBe(200)
  })

  test('dimensions, and base64 only since 0.5.20', async () => {
    const plain = await served('sglang', '--is-embedding').send('/v1/embeddings', {
      ...HELLO,
      dimensions: 64,
    })
    expect(plain.json).toMatchObject({ message: expect.stringContaining('matryoshka') })
    const flags = '--is-embedding --json-model-override-args {"is_matryoshka":true}'
    const short = await served('sglang', flags).send('/v1/embeddings', { ...HELLO, dimensions: 64 })
    expect(Vectors.parse(short.json).data[0]?.embedding.length).toBe(64)
    const old = served('sglang', '--is-embedding', '0.5.15')
    const asked = await old.send('/v1/embeddings', { ...HELLO, encoding_format: 'base64' })
    expect(Vectors.parse(asked.json).data.length).toBe(1)
  })

  test('rerank of pairs, the nearest first; a model of text scores labels and does no more', async () => {
    const { send } = served('sglang', '--is-embedding')
    const body = { query: 'a dam', documents: ['a cat', 'a dam'], top_n: 1 }
    expect((await send('/v1/rerank', body)).json).toMatchObject([{ index: 1, document: 'a dam' }])
    const text = served('sglang', '')
    for (const path of ['/v1/rerank', '/v1/embeddings', '/v1/classify']) {
      const refused = await text.send(path, { ...HELLO, ...body })
      expect(refused.status).toBe(400)
      expect(refused.text).toContain('Please add `--is-embedding` when launching the server')
    }
    const score = { query: 'Is it', items: ['a', 'b'], label_token_ids: [5, 6] }
    const scored = await text.send('/v1/score', { ...score, apply_softmax: true })
    const { scores } = z.looseObject({ scores: z.array(z.array(z.number())) }).parse(scored.json)
    for (const row of scores) expect(row.reduce((sum, one) => sum + one, 0)).toBeCloseTo(1, 5)
    const bare = await text.send('/v1/score', { query: 'Is it', items: ['a'] })
    expect(bare.text).toContain('label_token_ids is required for generation (CausalLM) models.')
  })

  test('/v1/loads: sections, exposition, and the throughput of the last report', async () => {
    const { send } = served('sglang', '')
    const chat = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 200, ignore_eos: true }
    const answered = send('/v1/chat/completions', chat)
    expect((await answered).status).toBe(200)
    const all = await send('/v1/loads?include=core')
    expect(all.json).toMatchObject({
      num_accelerators: 1,
      loads: [{ num_running_reqs: 0, num_total_tokens: 0, max_running_requests: 2048 }],
    })
    expect(all.text).not.toContain('queues')
    expect((await send('/v1/loads?include=what')).status).toBe(400)
    const text = (await send('/v1/loads?format=prometheus')).text
    expect(text).toContain('sglang_queues_waiting{dp_rank="0"} 0')
  })
})
