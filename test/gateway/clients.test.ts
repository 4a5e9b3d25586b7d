/** The official clients against the gateway, over real sockets. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { ChatOpenAI } from '@langchain/openai'
import { generateText, streamText } from 'ai'
import OpenAI from 'openai'
import { afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  chunk,
  completion,
  DONE,
  JSON_TYPE,
  type Script,
  type Seen,
  SSE,
  usageChunk,
} from '../support/engine.ts'
import {
  closeAll,
  KEY,
  QWQ_ONLY_KEY,
  startWorld,
  until,
  type World,
  type WorldSettings,
} from '../support/gateway.ts'

afterEach(closeAll)

const Asked = z.object({ stream: z.boolean().optional(), tools: z.array(z.unknown()).optional() })

const toolCall = JSON.stringify({
  id: 'chatcmpl-2',
  object: 'chat.completion',
  created: 1,
  model: 'qwq-32b',
  choices: [
    {
      index: 0,
      message: {
        role: 'assistant',
        content: null,
        tool_calls: [
          {
            id: 'call-1',
            type: 'function',
            function: { name: 'weather', arguments: '{"city":"北京"}' },
          },
        ],
      },
      finish_reason: 'tool_calls',
    },
  ],
  usage: { prompt_tokens: 7, completion_tokens: 9, total_tokens: 16 },
})

const streamed = [chunk(''), chunk('Hel'), chunk('lo'), chunk('', 'stop'), usageChunk(7, 2), DONE]

const engine = ({ body }: Seen): Script => {
  const { stream, tools } = Asked.parse(JSON.parse(body.toString()))
  if (stream === true) return { headers: SSE, steps: streamed.map((send) => ({ send })) }
  const answer = tools === undefined ? completion('Hello') : toolCall
  return { headers: JSON_TYPE, steps: [{ send: answer }] }
}

const messages = [{ role: 'user' as const, content: 'hello' }]
const asked = { model: 'qwq-32b', messages }

const openai = async (settings: WorldSettings = {}, key = KEY) => {
  const world = await startWorld(engine, settings)
  const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: key, maxRetries: 0 })
  return { client, world }
}

/** What the client throws. */
const failure = async (
  promise: PromiseLike<unknown>,
): Promise<InstanceType<typeof OpenAI.APIError>> => {
  try {
    await promise
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('openai', () => {
  test('chat, models, and a stream with usage', async () => {
    const { client } = await openai()
    const answer = await client.chat.completions.create(asked)
    expect(answer.choices[0]?.message.content).toBe('Hello')
    expect(answer.usage?.total_tokens).toBe(9)
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['qwq-32b'])
    expect((await client.models.retrieve('qwq-32b')).owned_by).toBe('penstock')
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    })
    let [text, tokens] = ['', 0]
    for await (const piece of stream) {
      text += piece.choices[0]?.delta.content ?? ''
      tokens += piece.usage?.total_tokens ?? 0
    }
    expect([text, tokens]).toEqual(['Hello', 9])
  })

  test('tools pass through, both ways', async () => {
    const { client, world } = await openai()
    const parameters = { type: 'object', properties: { city: { type: 'string' } } }
    const tool = { type: 'function' as const, function: { name: 'weather', parameters } }
    const answer = await client.chat.completions.create({ ...asked, tools: [tool] })
    expect(answer.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      function: { name: 'weather', arguments: '{"city":"北京"}' },
    })
    const sent: unknown = JSON.parse(world.engine.seen[0]?.body.toString() ?? '')
    expect(sent).toEqual({ ...asked, tools: [tool] })
  })

  test('each refusal is the exception that callers expect', async () => {
    const { client, world } = await openai({ snapshot: { maxBodyBytes: 50_000 } })
    const wrongKey = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: 'wrong', maxRetries: 0 })
    const unauthenticated = await failure(wrongKey.chat.completions.create(asked))
    expect(unauthenticated).toBeInstanceOf(OpenAI.AuthenticationError)
    expect(unauthenticated).toMatchObject({ code: 'invalid_api_key' })
    expect(unauthenticated.requestID).toMatch(/^req-/)
    const unknown = await failure(client.chat.completions.create({ ...asked, model: 'gpt-4o' }))
    expect(unknown).toBeInstanceOf(OpenAI.NotFoundError)
    expect(unknown).toMatchObject({ code: 'model_not_found', param: 'model' })
    const content = 'x'.repeat(3_000_000)
    const long = { ...asked, messages: [{ role: 'user' as const, content }] }
    const large = await failure(client.chat.completions.create(long))
    expect(large).toMatchObject({ status: 413, code: 'body_too_large' })
    const bob = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: QWQ_ONLY_KEY, maxRetries: 0 })
    expect((await bob.models.list()).data).toHaveLength(1)
  })

  test('an abort in the middle reaches the engine', async () => {
    const world = await startWorld(() => ({
      headers: SSE,
      steps: [{ send: chunk('a') }, { hang: true }],
    }))
    const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: KEY, maxRetries: 0 })
    const stream = await client.chat.completions.create({ ...asked, stream: true })
    for await (const piece of stream) {
      expect(piece.choices[0]?.delta.content).toBe('a')
      stream.controller.abort()
    }
    await until('the engine was cut off', () => world.engine.aborted === 1)
    await until('the report', () => world.finished.length === 1)
    expect(world.finished[0]).toMatchObject({ outcome: 'client_gone' })
  })

  test('a stream cut inside an event raises our error, not one about JSON', async () => {
    const world = await startWorld(() => ({
      headers: SSE,
      steps: [{ send: `${chunk('a')}data: {"id":"x","cho` }, { waitMs: 50 }, { reset: true }],
    }))
    const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: KEY, maxRetries: 0 })
    const stream = await client.chat.completions.create({ ...asked, stream: true })
    let text = ''
    const read = async () => {
      for await (const piece of stream) text += piece.choices[0]?.delta.content ?? ''
    }
    expect(await failure(read())).toMatchObject({ code: 'stream_interrupted' })
    expect(text).toBe('a')
  })

  test('it retries a full queue by itself, after the time that we name', async () => {
    let times = 0
    const world: World = await startWorld((seen) => {
      times += 1
      const full = '{"object":"error","message":"The request queue is full.","code":503}'
      if (times === 1) return { status: 503, headers: JSON_TYPE, steps: [{ send: full }] }
      return engine(seen)
    })
    const client = new OpenAI({ baseURL: `${world.url}/v1`, apiKey: KEY, maxRetries: 1 })
    const answer = await client.chat.completions.create(asked)
    expect([answer.choices[0]?.message.content, times]).toEqual(['Hello', 2])
  })
})

describe('other clients', () => {
  test('@ai-sdk/openai-compatible', async () => {
    const { url } = await startWorld(engine)
    const provider = createOpenAICompatible({ name: 'penstock', baseURL: `${url}/v1`, apiKey: KEY })
    const whole = await generateText({ model: provider('qwq-32b'), prompt: 'hello' })
    expect([whole.text, whole.usage.totalTokens]).toEqual(['Hello', 9])
    const stream = streamText({ model: provider('qwq-32b'), prompt: 'hello' })
    let text = ''
    for await (const piece of stream.textStream) text += piece
    expect(text).toBe('Hello')
    expect(await stream.finishReason).toBe('stop')
    const unknown = generateText({ model: provider('nope'), prompt: 'hello', maxRetries: 0 })
    await expect(unknown).rejects.toThrow(/the model 'nope' does not exist/)
  })

  test('@langchain/openai', async () => {
    const { url } = await startWorld(engine)
    const configuration = { baseURL: `${url}/v1` }
    const settings = { apiKey: KEY, configuration, maxRetries: 0 }
    const model = new ChatOpenAI({ model: 'qwq-32b', ...settings })
    expect((await model.invoke('hello')).text).toBe('Hello')
    let text = ''
    for await (const piece of await model.stream('hello')) text += piece.text
    expect(text).toBe('Hello')
    const unknown = new ChatOpenAI({ model: 'nope', ...settings })
    await expect(unknown.invoke('hello')).rejects.toThrow(/the model 'nope' does not exist/)
  })
})
