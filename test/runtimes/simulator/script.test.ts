/** Scripted answers and Anthropic's and OpenAI's newer protocols, on both engines. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { readScript } from '../../../runtimes/simulator/text/script.ts'
import {
  cleanUp,
  freePort,
  isReady,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

const folder = mkdtempSync(join(tmpdir(), 'penstock-script-'))
const file = join(folder, 'script.json')
const tool = { name: 'weather', arguments: { city: 'Paris' } }
writeFileSync(
  file,
  JSON.stringify([
    { match: 'weather', reasoning: 'They ask for rain.', content: 'I look.', tool },
    { match: 'think', reasoning: 'One two.', content: 'Three four.' },
    { match: 'cut', content: 'It ends here', finish: 'length' },
    { match: 'say', echo: true },
  ]),
)

const urls = { vllm: '', sglang: '' }
const LINES = {
  vllm: ['vllm', 'serve m --reasoning-parser deepseek_r1 --max-model-len 4096'],
  sglang: ['python3', '-m sglang.launch_server --model-path m --reasoning-parser deepseek-r1'],
} as const
const ENGINES = ['vllm', 'sglang'] as const

beforeAll(async () => {
  for (const engine of ENGINES) {
    const port = await freePort()
    const [program, line] = LINES[engine]
    const argv = `${line} --served-model-name m --host 127.0.0.1 --port ${port}`.split(' ')
    urls[engine] = `http://127.0.0.1:${port}`
    const one = new Simulated(program, argv, rehearsal({ speed: 1000, script: file }), {
      VLLM_ENABLE_RESPONSES_API_STORE: '1',
    })
    await until(isReady(urls[engine]), engine, () => one.output)
  }
})
afterAll(async () => {
  await stopAll()
  cleanUp()
  rmSync(folder, { recursive: true, force: true })
})

type Engine = (typeof ENGINES)[number]
const ask = async (engine: Engine, path: string, body: object): Promise<unknown> =>
  (await post(urls[engine], path, { model: 'm', ...body })).json()

const said = (content: string) => ({ messages: [{ role: 'user', content }], max_tokens: 500 })

/** Events of a stream in order: their names and their data. */
const stream = async (engine: Engine, path: string, body: object) => {
  const response = await post(urls[engine], path, { model: 'm', ...body, stream: true })
  expect(response.status).toBe(200)
  const frames = (await response.text()).trimEnd().split('\n\n')
  return frames.map((frame) => {
    const [, name = '', data = ''] = /^event: (\S+)\ndata: (.+)$/.exec(frame) ?? []
    return { name, data: z.record(z.string(), z.unknown()).parse(JSON.parse(data)) }
  })
}

/** Names in order, each run of the same one once. */
const names = (events: readonly { name: string }[]): readonly string[] =>
  events.map(({ name }) => name).filter((name, index, all) => name !== all[index - 1])

describe.each(ENGINES)('%s', (engine) => {
  const field = engine === 'vllm' ? 'reasoning' : 'reasoning_content'

  test('chat says what the script says', async () => {
    expect(await ask(engine, '/v1/chat/completions', said('please think'))).toMatchObject({
      choices: [
        { message: { [field]: 'One two.', content: 'Three four.' }, finish_reason: 'stop' },
      ],
    })
    expect(await ask(engine, '/v1/chat/completions', said('say 你好!'))).toMatchObject({
      choices: [{ message: { content: 'say 你好!' }, finish_reason: 'stop' }],
    })
    expect(await ask(engine, '/v1/chat/completions', said('cut it'))).toMatchObject({
      choices: [{ message: { content: 'It ends here' }, finish_reason: 'length' }],
    })
    expect(await ask(engine, '/v1/chat/completions', said('weather?'))).toMatchObject({
      choices: [
        {
          message: {
            content: 'I look.',
            tool_calls: [{ function: { name: 'weather', arguments: '{"city":"Paris"}' } }],
          },
          finish_reason: 'tool_calls',
        },
      ],
    })
  })

  test('messages: blocks of thinking, text and tool use', async () => {
    expect(await ask(engine, '/v1/messages', said('weather?'))).toMatchObject({
      type: 'message',
      content: [
        { type: 'thinking', thinking: 'They ask for rain.' },
        { type: 'text', text: 'I look.' },
        { type: 'tool_use', name: 'weather', input: { city: 'Paris' } },
      ],
      stop_reason: 'tool_use',
    })
    const events = await stream(engine, '/v1/messages', said('weather?'))
    const block = ['content_block_start', 'content_block_delta', 'content_block_stop']
    // SGLang's converter passes over the thoughts.
    const blocks = engine === 'vllm' ? [...block, ...block, ...block] : [...block, ...block]
    const end = ['message_delta', 'message_stop']
    expect(names(events)).toEqual(['message_start', ...blocks, ...end])
    const deltas = events.map(({ data }) => Object(data.delta))
    const joined = (key: string) => deltas.map((delta) => delta[key] ?? '').join('')
    expect(joined('text')).toBe('I look.')
    expect(joined('partial_json')).toBe('{"city":"Paris"}')
    expect(joined('thinking')).toBe(engine === 'vllm' ? 'They ask for rain.' : '')
    const signed = deltas.filter(({ type }) => type === 'signature_delta')
    expect(signed).toHaveLength(engine === 'vllm' ? 1 : 0)
    expect(events.at(-2)?.data).toMatchObject({ delta: { stop_reason: 'tool_use' } })
  })

  test('messages: refusals', async () => {
    const tools = await post(urls[engine], '/v1/messages', {
      model: 'm',
      messages: 1,
      max_tokens: 1,
    })
    expect(tools.status).toBe(400)
    const long = said('word '.repeat(200_000))
    const refused = await post(urls[engine], '/v1/messages', { model: 'm', ...long })
    expect(refused.status).toBe(400)
    const type = engine === 'vllm' ? 'BadRequestError' : 'invalid_request_error'
    expect(await refused.json()).toMatchObject({ type: 'error', error: { type } })
  })

  test('responses: items streamed, kept, gone on from and found again', async () => {
    const events = await stream(engine, '/v1/responses', { input: 'please think' })
    expect(events.map(({ data }) => data.sequence_number)).toEqual(events.map((_, at) => at))
    const item = (kind: string) => [
      'response.output_item.added',
      'response.content_part.added',
      `response.${kind}.delta`,
      `response.${kind}.done`,
      'response.content_part.done',
      'response.output_item.done',
    ]
    expect(names(events)).toEqual([
      'response.created',
      'response.in_progress',
      ...item('reasoning_text'),
      ...item('output_text'),
      'response.completed',
    ])
    const last = z
      .object({ id: z.string(), status: z.string() })
      .loose()
      .parse(events.at(-1)?.data.response)
    expect(last).toMatchObject({
      status: 'completed',
      output: [
        { type: 'reasoning', content: [{ text: 'One two.' }] },
        { type: 'message', content: [{ text: 'Three four.' }] },
      ],
    })
    const found = await fetch(`${urls[engine]}/v1/responses/${last.id}`)
    expect(await found.json()).toEqual(last)
    const again = { input: 'say it', previous_response_id: last.id }
    const more = z
      .object({ usage: z.object({ input_tokens: z.number() }) })
      .parse(await ask(engine, '/v1/responses', again))
    const alone = z
      .object({ usage: z.object({ input_tokens: z.number() }) })
      .parse(await ask(engine, '/v1/responses', { input: 'say it' }))
    expect(more.usage.input_tokens).toBeGreaterThan(alone.usage.input_tokens)
    const late = await post(urls[engine], `/v1/responses/${last.id}/cancel`, {})
    expect(late.status).toBe(400)
  })

  test('responses: a background one is cancelled', async () => {
    const body = { input: 'on and on', background: true, ignore_eos: true, max_output_tokens: 3500 }
    const queued = z
      .object({ id: z.string(), status: z.literal('queued') })
      .parse(await ask(engine, '/v1/responses', body))
    const cancelled = await post(urls[engine], `/v1/responses/${queued.id}/cancel`, {})
    expect(await cancelled.json()).toMatchObject({ id: queued.id, status: 'cancelled' })
    const found = await fetch(`${urls[engine]}/v1/responses/${queued.id}`)
    expect(await found.json()).toMatchObject({ status: 'cancelled' })
  })

  test('tokens go to text and back', async () => {
    const text = 'Where does 水 go?'
    const { tokens } = z
      .object({ tokens: z.array(z.number()) })
      .parse(await ask(engine, '/tokenize', { prompt: text }))
    const key = engine === 'vllm' ? 'prompt' : 'text'
    expect(await ask(engine, '/detokenize', { tokens })).toEqual({ [key]: text })
  })
})

test.each(ENGINES)(
  '%s: uvicorn writes a line for each request unless told not to',
  async (engine) => {
    const [program, line] = LINES[engine]
    const off =
      engine === 'vllm' ? '--disable-access-log-for-endpoints /health' : '--log-level-http warning'
    const said: boolean[] = []
    for (const more of ['', ` ${off}`]) {
      const port = await freePort()
      const url = `http://127.0.0.1:${port}`
      const argv = `${line}${more} --host 127.0.0.1 --port ${port}`.split(' ')
      const one = new Simulated(program, argv, rehearsal({ speed: 1000 }))
      await until(isReady(url), engine, () => one.output)
      await (await fetch(`${url}/v1/models?x=1`)).arrayBuffer()
      if (engine === 'vllm' || more === '') {
        await one.says(/INFO: {5}127\.0\.0\.1:\d+ - "GET \/v1\/models\?x=1 HTTP\/1\.1" 200 OK\n/)
      }
      said.push(one.output.includes('"GET /health HTTP/1.1" 200 OK'))
    }
    expect(said).toEqual([true, false])
  },
)

test('sglang: /generate says the text so far in each event', async () => {
  const body = { text: 'say this', sampling_params: { max_new_tokens: 2 } }
  const whole = await ask('sglang', '/generate', body)
  const meta_info = { finish_reason: { type: 'length', length: 2 }, completion_tokens: 2 }
  expect(whole).toMatchObject({ text: 'say this', meta_info })
  const streamed = await post(urls.sglang, '/generate', { ...body, stream: true })
  const frames = (await streamed.text()).trimEnd().split('\n\n')
  expect(frames.at(-1)).toBe('data: [DONE]')
  const last = frames.at(-2)?.slice('data: '.length) ?? ''
  expect(JSON.parse(last)).toMatchObject({ text: 'say this', meta_info })
  expect((await post(urls.sglang, '/generate', { text: {} })).status).toBe(400)
  expect((await post(urls.vllm, '/generate', body)).status).toBe(404)
})

test('a script with a mistake says where it is', () => {
  expect(readScript('[{"content":1}]')).toEqual({
    ok: false,
    message: 'line 0: `content` is no text',
  })
  expect(readScript('[{"answer":"x"}]')).toMatchObject({ ok: false })
  expect(readScript('{')).toMatchObject({ ok: false })
  expect(readScript('[{"finish":"tool_calls"}]')).toMatchObject({ ok: false })
})
