import { connect, createServer } from 'node:net'
import OpenAI from 'openai'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  answers,
  cleanUp,
  events,
  freePort,
  isReady,
  metric,
  post,
  QWQ,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterAll(async () => {
  await stopAll()
  cleanUp()
})

const VLLM =
  '--served-model-name qwq-32b --max-model-len 32768 --reasoning-parser deepseek_r1 ' +
  '--enable-auto-tool-choice --tool-call-parser hermes --enable-prompt-tokens-details'
const SGLANG =
  '--served-model-name qwq-32b --context-length 32768 --reasoning-parser deepseek-r1 ' +
  '--tool-call-parser qwen25 --enable-cache-report --enable-metrics'

const start = async (engine: 'vllm' | 'sglang', more = '', speed = 100) => {
  const port = await freePort()
  const at = `--host 127.0.0.1 --port ${port}`
  const line =
    engine === 'vllm'
      ? `serve Qwen/QwQ-32B ${VLLM} ${at} ${more}`
      : `-m sglang.launch_server --model-path Qwen/QwQ-32B ${SGLANG} ${at} ${more}`
  const argv = line.trim().split(/\s+/)
  const one = new Simulated(engine === 'vllm' ? 'vllm' : 'python3', argv, rehearsal({ speed }))
  return { one, url: `http://127.0.0.1:${port}`, port }
}

const started = async (engine: 'vllm' | 'sglang', more = '', speed = 100) => {
  const running = await start(engine, more, speed)
  await until(isReady(running.url), 'the engine', () => running.one.output)
  return running
}

const chat = (content: string, more: object = {}) => ({
  model: 'qwq-32b',
  messages: [{ role: 'user', content }],
  ...more,
})

const Chunk = z.object({
  id: z.string(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: z.number(),
      delta: z.object({
        role: z.string().nullish(),
        content: z.string().nullish(),
        reasoning: z.string().nullish(),
        reasoning_content: z.string().nullish(),
        tool_calls: z
          .array(
            z.object({
              id: z.string().nullish(),
              index: z.number(),
              function: z.object({ name: z.string().nullish(), arguments: z.string() }),
            }),
          )
          .nullish(),
      }),
      finish_reason: z.string().nullable(),
    }),
  ),
  usage: z
    .object({
      prompt_tokens: z.number(),
      completion_tokens: z.number(),
      total_tokens: z.number(),
      reasoning_tokens: z.number().nullish(),
      prompt_tokens_details: z.object({ cached_tokens: z.number() }).nullish(),
      completion_tokens_details: z.object({ reasoning_tokens: z.number() }).nullish(),
    })
    .nullish(),
})

const stream = async (url: string, body: object) => {
  const response = await post(url, '/v1/chat/completions', { ...body, stream: true })
  const all = events(await response.text())
  expect(all.at(-1)).toBe('[DONE]')
  return all.slice(0, -1).map((event) => Chunk.parse(JSON.parse(event)))
}

describe('start', () => {
  afterEach(stopAll)

  test('vLLM: refused until ready, phases in order, the pool in the log', async () => {
    const { one, url } = await start('vllm', '', 40)
    await one.says('Loading safetensors checkpoint shards:  50% Completed | 7/14')
    expect(await answers(`${url}/health`)).toBe(null)
    await until(isReady(url), 'the engine', () => one.output)
    await one.says('Application startup complete.')
    const order = [
      'non-default args',
      'Initializing a V1 LLM engine',
      'Starting to load model',
      '100% Completed | 14/14',
      'Loading weights took',
      'torch.compile takes',
      'Available KV cache memory',
      'GPU KV cache size: 98,288 tokens',
      'Maximum concurrency for 32,768 tokens per request: 3.00x',
      'Graph capturing finished',
      'Application startup complete.',
    ].map((text) => one.output.indexOf(text))
    expect(order).toEqual([...order].sort((a, b) => a - b))
    expect(order[0]).toBeGreaterThanOrEqual(0)
  })

  test('SGLang: its own words', async () => {
    const { one, url } = await started('sglang', '', 100)
    await one.says('The server is fired up and ready to roll!')
    for (const text of [
      'server_args=ServerArgs(',
      'Init torch distributed begin',
      'Load weight end',
      'KV Cache is allocated. #tokens: ',
      'Capture cuda graph begin',
      'max_total_num_tokens=',
    ]) {
      expect(one.output).toContain(text)
    }
    expect(await (await fetch(`${url}/server_info`)).json()).toMatchObject({
      context_length: 32_768,
    })
    expect(await (await fetch(`${url}/v1/loads`)).json()).toMatchObject({
      loads: [{ num_running_reqs: 0 }],
    })
  })

  test('no rehearsal, too little memory, a wrong flag, a wrong program: the right code', async () => {
    const bare = new Simulated('vllm', ['serve', 'm'], null)
    expect(await bare.ended()).toBe(1)
    expect(bare.output).toContain('PENSTOCK_REHEARSAL')
    const large = new Simulated('vllm', ['serve', 'm'], rehearsal({ speed: 5000 }))
    expect(await large.ended()).toBe(1)
    expect(large.output).toContain('is larger than the available KV cache memory (24.00 GiB)')
    const weights = { ...QWQ, weightBytes: 110e9 }
    const huge = new Simulated(
      'vllm',
      ['serve', 'm'],
      rehearsal({ architecture: weights, speed: 5000 }),
    )
    expect(await huge.ended()).toBe(1)
    expect(huge.output).toContain('CUDA out of memory')
    const flag = new Simulated('vllm', ['serve', 'm', '--wrong'], rehearsal())
    expect(await flag.ended()).toBe(2)
    expect(flag.output).toContain('vllm: error: unrecognized arguments: --wrong')
    const program = new Simulated('python3', ['-c', 'print(1)'], rehearsal())
    expect(await program.ended()).toBe(2)
    expect(program.output).toContain('only `-m sglang.launch_server')
  })

  test('a taken port is said', async () => {
    const holder = createServer()
    const port = await freePort()
    await new Promise<void>((open) => holder.listen(port, '127.0.0.1', open))
    const argv = [
      'serve',
      'm',
      '--max-model-len',
      '1024',
      '--host',
      '127.0.0.1',
      '--port',
      `${port}`,
    ]
    const one = new Simulated('vllm', argv, rehearsal({ speed: 1000 }))
    expect(await one.ended()).toBe(1)
    expect(one.output).toMatch(/\[Errno 98\].*address already in use/)
    await new Promise((closed) => holder.close(closed))
  })

  test('VLLM_ENGINE_READY_TIMEOUT_S ends a start that takes longer', async () => {
    const argv = ['serve', 'm', '--max-model-len', '1024', '--port', `${await freePort()}`]
    const patience = { VLLM_ENGINE_READY_TIMEOUT_S: '20' }
    const one = new Simulated('vllm', argv, rehearsal({ speed: 1000 }), patience)
    expect(await one.ended()).toBe(1)
    expect(one.output).toContain('Timed out waiting for engine core processes to start')
  })
})

describe.each(['vllm', 'sglang'] as const)('%s serves', (engine) => {
  let url = ''
  let one: Simulated
  beforeAll(async () => {
    const running = await started(engine)
    url = running.url
    one = running.one
  })
  afterAll(stopAll)

  test('a stream: role first, thinking in its own field, usage last, one id', async () => {
    const body = chat('What is a penstock?', { stream_options: { include_usage: true } })
    const chunks = await stream(url, body)
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
    expect(chunks[0]?.choices[0]?.delta).toMatchObject({ role: 'assistant', content: '' })
    const field = engine === 'vllm' ? 'reasoning' : 'reasoning_content'
    const other = engine === 'vllm' ? 'reasoning_content' : 'reasoning'
    const deltas = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta))
    const text = (key: 'content' | 'reasoning' | 'reasoning_content') =>
      deltas.map((delta) => delta[key] ?? '').join('')
    expect(text(field).length).toBeGreaterThan(40)
    expect(text(other)).toBe('')
    expect(text('content')).toMatch(/penstock/)
    const last = chunks.at(-1)
    expect(last?.choices).toEqual([])
    const usage = last?.usage
    expect(usage?.total_tokens).toBe((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0))
    const thought =
      engine === 'vllm'
        ? usage?.completion_tokens_details?.reasoning_tokens
        : usage?.reasoning_tokens
    expect(thought).toBeGreaterThan(10)
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('stop')

    const whole = await post(url, '/v1/chat/completions', chat('What is a penstock?'))
    const Whole = z.object({
      choices: z.array(z.object({ message: z.looseObject({ content: z.string() }) })),
    })
    const message = Whole.parse(await whole.json()).choices[0]?.message
    expect(message?.content).toBe(text('content'))
    expect(message?.[field]).toBe(text(field))
  })

  test('Chinese is answered in Chinese; the seed decides the words', async () => {
    const ask = async (seed: number) => {
      const chunks = await stream(url, chat('请解释一下什么是压力钢管', { seed }))
      return chunks
        .flatMap(({ choices }) => choices.map(({ delta }) => delta.content ?? ''))
        .join('')
    }
    const [one, same, another] = [await ask(1), await ask(1), await ask(2)]
    expect(one).toMatch(/[\u3400-\u9fff]{4}/)
    expect(same).toBe(one)
    expect(another).not.toBe(one)
  })

  test('max_tokens cuts in the thinking: content null, length', async () => {
    const response = await post(url, '/v1/chat/completions', chat('Think', { max_tokens: 5 }))
    expect(await response.json()).toMatchObject({
      choices: [{ message: { content: null }, finish_reason: 'length' }],
      usage: { completion_tokens: 5 },
    })
  })

  test('stop strings, n, min_tokens with ignore_eos', async () => {
    const off = { chat_template_kwargs: { enable_thinking: false } }
    const stopped = await post(
      url,
      '/v1/chat/completions',
      chat('x', { stop: ['comes down'], ...off }),
    )
    const json = JSON.stringify(await stopped.json())
    expect(json).toContain('"finish_reason":"stop"')
    expect(json).toContain('comes down')
    expect(json).not.toMatch(/"content":"[^"]*comes down/)
    const two = await stream(url, chat('x', { n: 2, max_tokens: 8, ...off }))
    const indices = new Set(two.flatMap(({ choices }) => choices.map(({ index }) => index)))
    expect([...indices]).toEqual([0, 1])
    const long = await post(url, '/v1/completions', {
      model: 'qwq-32b',
      prompt: 'x',
      max_tokens: 300,
      ignore_eos: true,
    })
    expect(await long.json()).toMatchObject({ usage: { completion_tokens: 300 } })
  })

  test('echo and logprobs of a legacy completion', async () => {
    const body = { model: 'qwq-32b', prompt: 'Once upon', max_tokens: 3, echo: true, logprobs: 1 }
    const json = JSON.stringify(await (await post(url, '/v1/completions', body)).json())
    expect(json).toContain('"text":"Once upon')
    expect(json).toMatch(/"token_logprobs":\[-0.125,-0.125,-0.125\]/)
  })

  test('tools: a call in deltas that add up to JSON, and none where none is asked for', async () => {
    const parameters = {
      type: 'object',
      properties: {
        city: { type: 'string' },
        unit: { enum: ['celsius'] },
        days: { type: 'integer' },
      },
    }
    const tools = [{ type: 'function', function: { name: 'weather', parameters } }]
    const chunks = await stream(url, chat('Paris?', { tools, tool_choice: 'required' }))
    const calls = chunks.flatMap(({ choices }) =>
      choices.flatMap(({ delta }) => delta.tool_calls ?? []),
    )
    expect(calls[0]?.function.name).toBe('weather')
    expect(calls[0]?.id).toMatch(/^call_/)
    const parts = calls.map((call) => call.function.arguments).join('')
    expect(JSON.parse(parts)).toMatchObject({ unit: 'celsius', days: 42 })
    expect(chunks.flatMap(({ choices }) => choices.map((c) => c.finish_reason))).toContain(
      'tool_calls',
    )
    const said = chat('Please call the tool now', { tools })
    const whole = JSON.stringify(await (await post(url, '/v1/chat/completions', said)).json())
    expect(whole).toContain('"name":"weather"')
    expect(whole).toContain('"finish_reason":"tool_calls"')
    const plain = JSON.stringify(
      await (await post(url, '/v1/chat/completions', chat('x', { tools }))).json(),
    )
    expect(plain).not.toContain('weather"')
  })

  test('errors in this engine’s shape', async () => {
    const send = async (body: unknown, path = '/v1/chat/completions') => {
      const response = await post(url, path, body)
      return { status: response.status, body: await response.json() }
    }
    const unknown = await send({ ...chat('x', { max_tokens: 2 }), model: 'nothing' })
    const long = await send(chat('long '.repeat(40_000)))
    const invalid = await send('{"model":')
    const range = await send(chat('x', { temperature: -1 }))
    if (engine === 'vllm') {
      expect(unknown).toMatchObject({
        status: 404,
        body: { error: { type: 'NotFoundError', code: 404 } },
      })
      expect(long.body).toMatchObject({ error: { code: 400, param: 'input_tokens' } })
      expect(JSON.stringify(long.body)).toContain(
        "This model's maximum context length is 32768 tokens",
      )
      expect(invalid.body).toMatchObject({ error: { type: 'Bad Request', code: 400 } })
      expect(range.body).toMatchObject({ error: { type: 'BadRequestError', param: 'temperature' } })
    } else {
      expect(unknown).toMatchObject({ status: 200, body: { model: 'nothing' } })
      expect(long.body).toMatchObject({ object: 'error', code: 400 })
      expect(JSON.stringify(long.body)).toMatch(
        /The input \(\d+ tokens\) is longer than the model's/,
      )
      expect(invalid.body).toMatchObject({ object: 'error', type: 'Bad Request', code: 400 })
      expect(range.body).toMatchObject({ object: 'error', type: 'BadRequestError' })
    }
    const embeddings = await send({ model: 'qwq-32b', input: 'x' }, '/v1/embeddings')
    expect(embeddings.status).toBe(engine === 'vllm' ? 404 : 400)
  })

  test('the official client: models, stream, usage, error, abort', async () => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
    const models = await client.models.list()
    expect(models.data.map(({ id }) => id)).toEqual(['qwq-32b'])
    const answer = await client.chat.completions.create({
      model: 'qwq-32b',
      messages: [{ role: 'user', content: 'Count to three' }],
      stream: true,
      stream_options: { include_usage: true },
    })
    let [text, total] = ['', 0]
    for await (const chunk of answer) {
      text += chunk.choices[0]?.delta.content ?? ''
      total = chunk.usage?.total_tokens ?? total
    }
    expect(text.length).toBeGreaterThan(20)
    expect(total).toBeGreaterThan(20)
    await expect(
      client.chat.completions.create({ model: 'qwq-32b', messages: [], max_tokens: 1 }),
    ).rejects.toMatchObject({ status: 400 })
  })

  test('a client that leaves: the answer is aborted, its KV free, its abort counted', async () => {
    const controller = new AbortController()
    const body = chat('endless', { stream: true, ignore_eos: true, max_tokens: 30_000 })
    const response = await post(url, '/v1/chat/completions', body, controller.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    const [running, aborted] =
      engine === 'vllm'
        ? [
            'vllm:num_requests_running',
            'vllm:request_success_total{engine="0",finished_reason="abort"',
          ]
        : ['sglang:num_running_reqs', 'sglang:num_aborted_requests_total']
    const read = async () => (await fetch(`${url}/metrics`)).text()
    await until(
      async () => metric(await read(), running) === 1,
      'one running',
      () => one.output,
    )
    controller.abort()
    const counted = async () => {
      const line = (await read()).split('\n').find((text) => text.startsWith(aborted))
      return line?.endsWith(' 1.0') ?? false
    }
    await until(counted, 'the abort in the metrics')
    if (engine === 'vllm') {
      const usage = async () => metric(await read(), 'vllm:kv_cache_usage_perc')
      await until(async () => (await usage()) === 0, 'free KV')
    } else {
      const Loads = z.object({ loads: z.array(z.object({ num_used_tokens: z.number() })) })
      const loads = Loads.parse(await (await fetch(`${url}/v1/loads`)).json())
      expect(loads.loads[0]?.num_used_tokens).toBe(0)
    }
  })

  test('a prompt seen before counts as cached', async () => {
    const body = chat(`the same words ${'again and '.repeat(200)}`, { max_tokens: 2 })
    await (await post(url, '/v1/chat/completions', body)).text()
    const second = await (await post(url, '/v1/chat/completions', body)).json()
    const Cached = z.object({
      usage: z.object({ prompt_tokens_details: z.object({ cached_tokens: z.number() }) }),
    })
    expect(Cached.parse(second).usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(300)
  })
})

describe('limits and ends', () => {
  afterEach(stopAll)

  test('vLLM: a full queue is 503 before the stream', async () => {
    const { url } = await started('vllm', '--max-num-seqs 1 --max-num-queued-reqs 1', 20)
    const endless = chat('x', { stream: true, ignore_eos: true, max_tokens: 20_000 })
    const controller = new AbortController()
    const first = await post(url, '/v1/chat/completions', endless, controller.signal)
    expect(first.status).toBe(200)
    const second = await post(url, '/v1/chat/completions', endless)
    expect(second.status).toBe(503)
    expect(await second.text()).toContain('The engine is currently busy')
    controller.abort()
  })

  test('SGLang: a full queue is 200 with an error event when streamed, else 503', async () => {
    const { url } = await started('sglang', '--max-running-requests 1 --max-queued-requests 1', 20)
    const endless = chat('x', { stream: true, ignore_eos: true, max_tokens: 20_000 })
    const controller = new AbortController()
    const { signal } = controller
    const Loads = z.object({
      loads: z.array(z.object({ num_running_reqs: z.number(), num_waiting_reqs: z.number() })),
    })
    const loads = async () =>
      Loads.parse(await (await fetch(`${url}/v1/loads`)).json()).loads[0] ?? null
    const send = () => post(url, '/v1/chat/completions', endless, signal).catch(() => null)
    // One after the other: two that come before the first step both count as queued.
    const first = send()
    await until(async () => (await loads())?.num_running_reqs === 1, 'one running')
    const second = send()
    await until(async () => (await loads())?.num_waiting_reqs === 1, 'one waiting')
    const streamed = await post(url, '/v1/chat/completions', endless)
    expect(streamed.status).toBe(200)
    const all = events(await streamed.text())
    expect(JSON.parse(all[0] ?? '')).toMatchObject({
      error: { message: 'The request queue is full.', code: 503 },
    })
    expect(all.at(-1)).toBe('[DONE]')
    const plain = await post(url, '/v1/chat/completions', { ...endless, stream: false })
    expect(plain.status).toBe(503)
    controller.abort()
    await Promise.all([first, second])
  })

  test('SGLang without --enable-metrics has no /metrics', async () => {
    const port = await freePort()
    const line = `-m sglang.launch_server --model m --context-length 1024 --port ${port}`
    const one = new Simulated('python3', line.split(' '), rehearsal({ speed: 1000 }))
    const url = `http://127.0.0.1:${port}`
    await until(isReady(url), 'the engine', () => one.output)
    expect(await answers(`${url}/metrics`)).toBe(404)
  })

  test('SIGTERM: vLLM aborts what runs and ends with 0', async () => {
    const { one, url } = await started('vllm', '', 20)
    const body = chat('x', { stream: true, ignore_eos: true, max_tokens: 20_000 })
    const response = await post(url, '/v1/chat/completions', body)
    one.kill('SIGTERM')
    const all = events(await response.text())
    expect(all.at(-2)).toContain('"finish_reason":"abort"')
    expect(await one.ended()).toBe(0)
  })

  test('SIGTERM: SGLang lets what runs end, with /health 503 meanwhile', async () => {
    const { one, url } = await started('sglang', '', 20)
    const body = chat('x', { stream: true, ignore_eos: true, max_tokens: 400 })
    const response = await post(url, '/v1/chat/completions', body)
    one.kill('SIGTERM')
    await until(async () => (await answers(`${url}/health`)) === 503, 'draining')
    expect(events(await response.text()).at(-2)).toContain('"finish_reason":"length"')
    expect(await one.ended()).toBe(0)
  })

  test('the socket of an idle client is closed after the keep-alive time', async () => {
    const { port } = await started('vllm', '', 100)
    const socket = connect({ host: '127.0.0.1', port })
    const closed = new Promise((end) => socket.once('close', end))
    socket.write('GET /ping HTTP/1.1\r\nhost: x\r\n\r\n')
    socket.resume()
    await closed
  })
})
