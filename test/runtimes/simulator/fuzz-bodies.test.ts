/**
 * 10,000 mutated request bodies against a simulator of each engine: every one is answered as that
 * engine would, none with a 5xx, and afterwards nothing is left running.
 */
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { afterAll, expect, test } from 'vitest'
import { Random } from '../../../runtimes/simulator/text/random.ts'
import {
  cleanUp,
  freePort,
  isReady,
  metric,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterAll(async () => {
  await stopAll()
  cleanUp()
})

const BODIES = 10_000
const AT_ONCE = 24
const SEED = Number(process.env.PENSTOCK_FUZZ_SEED ?? 20_261_124)

const user = { role: 'user', content: 'Hello, what is a penstock?' }
const parameters = { type: 'object', properties: { city: { type: 'string' } } }
const tools = [{ type: 'function', function: { name: 'weather', parameters } }]

/** Valid bodies to start from; each is short to answer. */
const VALID: readonly (readonly [path: string, body: object])[] = [
  ['/v1/chat/completions', { model: 'm', messages: [user], max_tokens: 2 }],
  ['/v1/chat/completions', { model: 'm', messages: [user], max_tokens: 3, stream: true, n: 2 }],
  [
    '/v1/chat/completions',
    {
      model: 'm',
      messages: [{ role: 'system', content: 'x' }, user, { role: 'assistant', content: 'A pen' }],
      max_completion_tokens: 2,
      continue_final_message: true,
      add_generation_prompt: false,
      logprobs: true,
      top_logprobs: 3,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      stream: true,
    },
  ],
  [
    '/v1/chat/completions',
    {
      model: 'm',
      messages: [{ role: 'user', content: [{ type: 'text', text: '你好' }] }],
      tools,
      tool_choice: { type: 'function', function: { name: 'weather' } },
      max_tokens: 3,
      temperature: 0.6,
      seed: 1,
      stop: ['a', '。'],
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema: parameters } },
      chat_template_kwargs: { enable_thinking: false },
    },
  ],
  [
    '/v1/completions',
    { model: 'm', prompt: 'A penstock is', max_tokens: 2, echo: true, logprobs: 2 },
  ],
  [
    '/v1/completions',
    { model: 'm', prompt: [[1, 2], [3]], max_tokens: 2, stream: true, min_tokens: 1 },
  ],
  ['/v1/responses', { model: 'm', input: 'Hello', max_output_tokens: 2 }],
  [
    '/v1/responses',
    {
      model: 'm',
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Hi' }] },
        { type: 'function_call_output', call_id: 'c', output: '{}' },
      ],
      instructions: 'Be brief',
      max_output_tokens: 3,
      stream: true,
      previous_response_id: null,
    },
  ],
  ['/v1/messages', { model: 'm', messages: [user], max_tokens: 2 }],
  [
    '/v1/messages',
    {
      model: 'm',
      system: [{ type: 'text', text: 'Be brief' }],
      messages: [
        user,
        { role: 'assistant', content: [{ type: 'tool_use', id: 't', name: 'weather', input: {} }] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't', content: 'sun' }] },
      ],
      tools: [{ name: 'weather', input_schema: parameters }],
      tool_choice: { type: 'tool', name: 'weather' },
      thinking: { type: 'disabled' },
      stop_sequences: ['x'],
      max_tokens: 3,
      stream: true,
    },
  ],
  ['/v1/messages/count_tokens', { model: 'm', messages: [user], tools: [] }],
  ['/tokenize', { model: 'm', prompt: 'Hello', return_token_strs: true }],
  ['/detokenize', { model: 'm', tokens: [1, 2, 3] }],
  ['/generate', { text: 'A pen', sampling_params: { max_new_tokens: 2, n: 1 }, stream: true }],
]

const nest = (depth: number): unknown => {
  let value: unknown = 'deep'
  for (let at = 0; at < depth; at += 1) value = at % 2 === 0 ? [value] : { a: value }
  return value
}

const STRANGE: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  0.5,
  -0.5,
  2 ** 31,
  2 ** 53,
  -(2 ** 63),
  1e308,
  '',
  'NaN',
  'Infinity',
  '-1',
  '1e999',
  '\u0000',
  '\ud800',
  '﷽\u202e🦆'.repeat(50),
  'x'.repeat(5000),
  [],
  {},
  [[]],
  [null],
  ['a', 1, {}],
  { type: 'text' },
  { role: 'user' },
  { __proto__: null, constructor: 1, toString: 2 },
  nest(40),
  nest(700),
]

type Place = { readonly holder: object; readonly key: string }

/** Every member of every object and list in a value. */
const places = (value: unknown, found: Place[] = []): Place[] => {
  if (typeof value !== 'object' || value === null) return found
  for (const [key, inner] of Object.entries(value)) {
    found.push({ holder: value, key })
    places(inner, found)
  }
  return found
}

const mutateValue = (body: object, random: Random): void => {
  const all = places(body)
  const place = all[random.below(all.length)]
  if (place === undefined) return
  const { holder, key } = place
  const how = random.below(10)
  if (how < 2) Reflect.deleteProperty(holder, key)
  else if (how < 3) Reflect.set(holder, `${key}x`, 1)
  else if (how < 4) Reflect.set(holder, key, [Reflect.get(holder, key)])
  else Reflect.set(holder, key, structuredClone(STRANGE[random.below(STRANGE.length)]))
}

const REWORDED: readonly (readonly [RegExp, string])[] = [
  [/\d+/, 'NaN'],
  [/\d+/, '1e999'],
  [/\d+/, `${'9'.repeat(400)}`],
  [/true/, 'True'],
  [/"m"/, "'m'"],
  [/:/, '::'],
  [/,/, ',,'],
  [/"/, ''],
  [/$/, '}'],
  [/^/, '\ufeff'],
  [/\[/, '['.repeat(100_000)],
  [/\{/, `{"a":${'['.repeat(2000)}${']'.repeat(2000)},`],
]

const mutateText = (text: string, random: Random): Buffer => {
  const how = random.below(4)
  const bytes = Buffer.from(text)
  if (how === 0) return bytes.subarray(0, random.below(bytes.length))
  if (how === 1) {
    bytes[random.below(bytes.length)] = random.below(256)
    return bytes
  }
  if (how === 2) {
    const at = random.below(bytes.length)
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(bytes.length))])
  }
  const [from, to] = REWORDED[random.below(REWORDED.length)] ?? [/^/, '']
  return Buffer.from(text.replace(from, to))
}

const mutated = (engine: string, random: Random): { path: string; body: Buffer } => {
  // The last one is SGLang's own.
  const known = engine === 'sglang' ? VALID.length : VALID.length - 1
  const [path, valid] = VALID[random.below(known)] ?? ['/', {}]
  const body = structuredClone(valid)
  const times = 1 + random.below(3)
  for (let time = 0; time < times; time += 1) mutateValue(body, random)
  const text = JSON.stringify(body)
  return { path, body: random.below(4) === 0 ? mutateText(text, random) : Buffer.from(text) }
}

type Answer = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

const send = (port: number, agent: Agent, { path, body }: { path: string; body: Buffer }) =>
  new Promise<Answer>((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': body.length }
    const options = { host: '127.0.0.1', port, path, method: 'POST', agent, headers }
    const sent = request(options, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.once('error', reject)
      response.once('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text })
      })
    })
    sent.setTimeout(20_000, () => sent.destroy(new Error('no answer within 20 s')))
    sent.once('error', reject)
    sent.end(body)
  })

const fields = (value: unknown): readonly string[] =>
  typeof value === 'object' && value !== null ? Object.keys(value) : []

/** Null: the answer is one that this engine gives. */
const complaint = (engine: string, path: string, { status, headers, text }: Answer) => {
  if (status < 200 || status >= 500 || (status >= 300 && status < 400)) return `status ${status}`
  if (headers['content-type']?.startsWith('text/event-stream')) return badStream(path, text)
  const value: unknown = JSON.parse(text)
  if (status === 200) return badWhole(path, fields(value))
  const inner: unknown = Reflect.get(Object(value), 'error')
  if (path === '/generate') return fields(inner).join() === 'message' ? null : text
  const keys = inner === undefined ? fields(value) : fields(inner)
  const wanted =
    Reflect.get(Object(value), 'type') === 'error'
      ? ['type', 'message']
      : ['message', 'type', 'param', 'code']
  const nested = engine === 'vllm' || path.startsWith('/v1/responses') || wanted.length === 2
  if (nested && inner === undefined && Reflect.get(Object(value), 'object') !== 'error') {
    return 'an error without `error`'
  }
  return wanted.every((key) => keys.includes(key)) ? null : `an error of ${keys.join()}`
}

const badStream = (path: string, text: string): string | null => {
  const frames = text.slice(0, -2).split('\n\n')
  const last = frames.at(-1) ?? ''
  const bad = frames.find((frame) => !/^(event: \S+\n)?data: .+$/.test(frame))
  if (bad !== undefined || !text.endsWith('\n\n')) return `a frame: ${bad}`
  for (const frame of frames) {
    const data = frame.slice(frame.indexOf('data: ') + 6)
    if (data === '[DONE]') continue
    if (fields(JSON.parse(data)).includes('error')) return `an error event: ${data}`
  }
  if (path === '/v1/messages') return last.startsWith('event: message_stop') ? null : last
  if (path === '/v1/responses') return last.startsWith('event: response.completed') ? null : last
  return last === 'data: [DONE]' ? null : last
}

const badWhole = (path: string, keys: readonly string[]): string | null => {
  if (path === '/generate') return keys.includes('meta_info') || keys.includes('0') ? null : 'bare'
  const any = path.includes('tokenize') || path.endsWith('count_tokens')
  const wanted = any ? 1 : ['id', 'model'].filter((key) => keys.includes(key)).length - 1
  return wanted === 1 && keys.length > 0 ? null : `an answer of ${keys.join()}`
}

const LINES = {
  vllm: ['vllm', 'serve m --enable-auto-tool-choice --tool-call-parser hermes'],
  sglang: [
    'python3',
    '-m sglang.launch_server --model-path m --tool-call-parser qwen25 --enable-metrics',
  ],
} as const

const FLAGS = {
  vllm: '--max-model-len 2048 --reasoning-parser deepseek_r1',
  sglang: '--context-length 2048 --reasoning-parser deepseek-r1',
}

const GAUGES = {
  vllm: ['vllm:num_requests_running', 'vllm:num_requests_waiting'],
  sglang: ['sglang:num_running_reqs', 'sglang:num_queue_reqs'],
}

test.each(['vllm', 'sglang'] as const)(
  `%s answers ${BODIES} mutated bodies`,
  async (engine) => {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const [program, line] = LINES[engine]
    const argv = `${line} ${FLAGS[engine]} --served-model-name m --host 127.0.0.1 --port ${port}`
    const one = new Simulated(program, argv.split(' '), rehearsal({ speed: 1000 }))
    await until(isReady(url), engine, () => one.output)
    const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
    const random = new Random(SEED)
    const bad: string[] = []
    const seen = new Map<number, number>()
    let left = BODIES
    const worker = async () => {
      while (left > 0 && bad.length < 5) {
        left -= 1
        const sent = mutated(engine, random)
        const show = () => `${sent.path} ${sent.body.toString('utf8').slice(0, 400)}`
        try {
          const answer = await send(port, agent, sent)
          seen.set(answer.status, (seen.get(answer.status) ?? 0) + 1)
          const wrong = complaint(engine, sent.path, answer)
          if (wrong !== null)
            bad.push(`${wrong}\n  for ${show()}\n  in ${answer.text.slice(0, 300)}`)
        } catch (error) {
          bad.push(
            `${String(error)}\n  for ${show()}\n  log ${one.exit === null ? '' : one.output.slice(-800)}`,
          )
        }
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    agent.destroy()
    expect(bad.join('\n')).toBe('')
    expect(one.exit).toBeNull()
    // Mutations that all fail, or none, would test nothing.
    expect(seen.get(200) ?? 0).toBeGreaterThan(BODIES / 20)
    expect(seen.get(400) ?? 0).toBeGreaterThan(BODIES / 20)
    const after = await post(url, '/v1/chat/completions', {
      model: 'm',
      messages: [user],
      max_tokens: 200,
    })
    expect(after.status).toBe(200)
    await after.arrayBuffer()
    await until(async () => {
      const text = await (await fetch(`${url}/metrics`)).text()
      return GAUGES[engine].every((name) => metric(text, name) === 0)
    }, 'zero running and waiting requests')
  },
  180_000,
)
