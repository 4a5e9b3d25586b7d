/** The same on /v1/responses, whose events have names and which ends without [DONE]. */
import { type Script, SSE, type Step } from '../support/engine.ts'
import { type Case, call, fields, json, MODEL, refusal, SDK_CODE, says, sight } from './cases.ts'

const named = (type: string, sequence_number: number, more: object): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number, ...more })}\n\n`

const part = { id: 'msg_1', type: 'message', role: 'assistant', status: 'completed' }
const content = [{ type: 'output_text', text: 'Hello', annotations: [] }]
const response = (status: string) => ({
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  model: MODEL,
  status,
  output: status === 'completed' ? [{ ...part, content }] : [],
  usage: status === 'completed' ? { input_tokens: 7, output_tokens: 2, total_tokens: 9 } : null,
})

const delta = (text: string, at: number): string => {
  const place = { item_id: 'msg_1', output_index: 0, content_index: 0, logprobs: [] }
  return named('response.output_text.delta', at, { ...place, delta: text })
}

const START = named('response.created', 0, { response: response('in_progress') })
const END = named('response.completed', 3, { response: response('completed') })
const HEL = START + delta('Hel', 1)
const WHOLE = HEL + delta('lo', 2) + END

const events = (...pieces: readonly (string | Step)[]): Script => ({
  headers: { ...SSE, 'x-request-id': 'req_openai' },
  steps: pieces.map((piece) => (typeof piece === 'string' ? { send: piece } : piece)),
})

const noModel = fields("The requested model 'gpt-9' does not exist.", {
  param: 'model',
  code: 'model_not_found',
})
const sorry = fields('An error occurred while processing your request.', {
  type: 'server_error',
  code: 'server_error',
})
const cut = sight('APIError', { type: 'server_error', code: 'stream_interrupted', text: 'Hel' })
const streamed = call({ do: 'response stream' })

export const RESPONSES: readonly Case[] = [
  {
    name: 'responses.create',
    call: call({ do: 'respond' }),
    openai: {
      answer: json(200, JSON.stringify(response('completed'))),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hello' }),
    },
    engine: () => json(200, JSON.stringify(response('completed'))),
    sight: sight(null, { text: 'Hello' }),
    engineSees: 1,
  },
  {
    name: 'responses.create with an unknown model',
    call: call({ do: 'respond', model: 'gpt-9' }),
    openai: {
      answer: says(404, noModel),
      source: null,
      sight: refusal('NotFoundError', 404, noModel),
    },
    engine: () => json(200, '{}'),
    sight: refusal('NotFoundError', 404, noModel),
    engineSees: 0,
  },
  {
    name: 'responses.create, streamed',
    call: streamed,
    openai: {
      answer: events(WHOLE),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hello' }),
    },
    engine: () => events(WHOLE),
    sight: sight(null, { text: 'Hello' }),
    engineSees: 1,
  },
  {
    name: 'the same, and the engine fails in the middle',
    call: streamed,
    openai: {
      answer: events(HEL, { waitMs: 50 }, named('error', 2, { error: sorry })),
      source: SDK_CODE,
      sight: sight('APIError', { type: 'server_error', code: 'server_error', text: 'Hel' }),
    },
    engine: () => events(HEL, { waitMs: 50 }, named('error', 2, { error: sorry })),
    sight: sight('APIError', { type: 'server_error', code: 'server_error', text: 'Hel' }),
    engineSees: 1,
  },
  {
    name: 'the same, and the engine dies in the middle',
    call: streamed,
    openai: {
      answer: events(HEL, { waitMs: 50 }, { reset: true }),
      source: 'openai/openai-python#2065',
      sight: sight({ js: 'TypeError', python: 'APIConnectionError' }, { text: 'Hel' }),
    },
    engine: () => events(HEL, { waitMs: 50 }, { reset: true }),
    sight: cut,
    engineSees: 1,
    differs: 'one class in both SDKs, with the reason',
  },
  {
    name: 'the same, and the stream ends before the answer does',
    call: streamed,
    openai: {
      answer: events(HEL),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hel' }),
    },
    engine: () => events(HEL),
    sight: cut,
    engineSees: 1,
    differs: 'both SDKs take the end of the connection for the end of the answer',
  },
]
