/** Pooling models and stored answers on rehearsed engines, through the gateway. */
import OpenAI from 'openai'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  cleanUp,
  freePort,
  isReady,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from '../runtimes/simulator/support.ts'
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

const VLLM = 'serve ./m --host 127.0.0.1 --max-model-len 4096 --served-model-name'
const SGLANG =
  '-m sglang.launch_server --model-path ./m --host 127.0.0.1 --context-length 4096 ' +
  '--served-model-name'
const LINES = {
  'embed-vllm': `${VLLM} embed-vllm --runner pooling`,
  'embed-sglang': `${SGLANG} embed-sglang --is-embedding`,
  'chat-vllm': `${VLLM} chat-vllm`,
  'chat-vllm-2': `${VLLM} chat-vllm`,
  'chat-sglang': `${SGLANG} chat-sglang`,
} as const
type Name = keyof typeof LINES
const NAMES: readonly Name[] = [
  'embed-vllm',
  'embed-sglang',
  'chat-vllm',
  'chat-vllm-2',
  'chat-sglang',
]
const urls = new Map<Name, string>()

beforeAll(async () => {
  for (const name of NAMES) {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const vllm = LINES[name].startsWith('serve')
    const argv = [...LINES[name].split(' '), '--port', String(port)]
    const store = { VLLM_ENABLE_RESPONSES_API_STORE: '1' }
    const one = new Simulated(vllm ? 'vllm' : 'python3', argv, rehearsal({ speed: 50 }), store)
    await until(isReady(url), name, () => one.output)
    urls.set(name, url)
  }
}, 60_000)
afterAll(async () => {
  await stopAll()
  cleanUp()
})
afterEach(closeAll)

const world = async () => {
  const kind = (model: string, engine: string) =>
    model.startsWith('embed') && engine === 'sglang' ? { task: 'pool' as const } : {}
  const route = (model: string, engine: string, names: readonly Name[], slot: number) =>
    routeOf(
      names.map((name, index) =>
        targetOf(urls.get(name) ?? '', { id: `${model}-${index}`, slot: slot + index }),
      ),
      { model, deployment: model, servedModel: model, engine, ...kind(model, engine) },
    )
  const routes = [
    route('embed-vllm', 'vllm', ['embed-vllm'], 0),
    route('embed-sglang', 'sglang', ['embed-sglang'], 1),
    route('chat-vllm', 'vllm', ['chat-vllm', 'chat-vllm-2'], 2),
    route('chat-sglang', 'sglang', ['chat-sglang'], 4),
  ]
  const gateway = await startTestGateway(snapshotOf(routes), 2)
  closeLater(gateway.handle)
  const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: KEY, maxRetries: 0 })
  const send = (path: string, body: object) =>
    fetch(gateway.url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify(body),
    })
  return { ...gateway, openai, send }
}

const Refusal = z.object({ error: z.object({ message: z.string() }) })
const said = async (response: Response): Promise<string> =>
  Refusal.parse(await response.json()).error.message

describe.each(['vllm', 'sglang'])('pooling on %s', (engine) => {
  const model = `embed-${engine}`

  test('embeddings are metered by their prompt', async () => {
    const { openai, finished } = await world()
    const answer = await openai.embeddings.create({ model, input: ['water', 'fall'] })
    expect(answer.data).toHaveLength(2)
    await met('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({
      path: '/v1/embeddings',
      promptTokens: answer.usage.prompt_tokens,
      completionTokens: engine === 'vllm' ? 0 : expect.anything(),
      outcome: 'ok',
    })
  })

  test('a chat with it is refused in words', async () => {
    const { send } = await world()
    const body = { model, messages: [{ role: 'user', content: 'hi' }], max_tokens: 5 }
    const refused = await send('/v1/messages', body)
    expect(refused.status).toBe(404)
    expect(await said(refused)).toContain('its kind is asked at /v1/embeddings')
  })
})

test('rerank and score by each of their names', async () => {
  const { send, finished } = await world()
  const rerank = { model: 'embed-vllm', query: 'water', documents: ['fall', 'sand'] }
  for (const path of ['/rerank', '/v1/rerank', '/v2/rerank']) {
    const answer = await (await send(path, rerank)).json()
    expect(answer).toMatchObject({ results: [{}, {}] })
  }
  const score = { model: 'embed-vllm', text_1: 'water', text_2: ['fall', 'sand'] }
  for (const path of ['/score', '/v1/score']) {
    expect(await (await send(path, score)).json()).toMatchObject({ data: [{}, {}] })
  }
  await met('the reports', () => finished.length === 5)
  for (const report of finished) expect(report.promptTokens).toBeGreaterThan(0)
})

test('a generator has no embeddings, and says what it has', async () => {
  const { send } = await world()
  for (const engine of ['vllm', 'sglang']) {
    const refused = await send('/v1/embeddings', { model: `chat-${engine}`, input: 'water' })
    expect([refused.status, await said(refused)]).toEqual(
      engine === 'vllm'
        ? [404, expect.stringContaining('its kind is asked at /v1/chat/completions')]
        : [400, expect.stringContaining('does not appear to be an embedding model')],
    )
  }
})

test.each(['chat-vllm', 'chat-sglang'])(
  '%s: tokenize and detokenize by both names',
  async (model) => {
    const { send } = await world()
    for (const root of ['', '/v1']) {
      const tokens = await (await send(`${root}/tokenize`, { model, prompt: 'The fall' })).json()
      const { tokens: ids } = z.object({ tokens: z.array(z.number()) }).parse(tokens)
      expect(ids.length).toBeGreaterThan(0)
      expect((await send(`${root}/detokenize`, { model, tokens: ids })).status).toBe(200)
    }
  },
)

test.each(['chat-vllm', 'chat-sglang'])(
  '%s keeps its answers: retrieve, go on, cancel',
  async (model) => {
    const { openai, finished } = await world()
    for (let round = 0; round < 4; round += 1) {
      const first = await openai.responses.create({ model, input: 'hi', max_output_tokens: 20 })
      const again = await openai.responses.retrieve(first.id)
      expect([again.id, again.output_text]).toEqual([first.id, first.output_text])
      const next = await openai.responses.create({
        model,
        input: 'go on',
        max_output_tokens: 20,
        previous_response_id: first.id,
      })
      expect(next.previous_response_id).toBe(first.id)
    }
    const long = { model, input: 'hi', max_output_tokens: 4_000, background: true }
    const queued = await openai.responses.create(long)
    expect(queued.status).toBe('queued')
    expect((await openai.responses.cancel(queued.id)).status).toBe('cancelled')
    const gone = await openai.responses.delete(queued.id).then(
      () => null,
      (error: unknown) => error,
    )
    expect(gone).toBeInstanceOf(OpenAI.NotFoundError)
    await met('the reports', () => finished.length === 15)
    // Two threads tell in batches of their own: reports come in no order.
    const refused = finished.filter((report) => report.outcome !== 'ok')
    expect(refused).toMatchObject([{ outcome: 'refused', status: 404 }])
  },
)
