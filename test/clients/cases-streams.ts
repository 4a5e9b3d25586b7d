/** Streams: what comes before the first event, in the middle, and at the end. */
import { chunk, DONE, type Script, SSE, type Step } from '../support/engine.ts'
import {
  type Case,
  fields,
  json,
  NO_CODE,
  refusal,
  SDK_CODE,
  says,
  sight,
  stream,
} from './cases.ts'

const events = (...pieces: readonly (string | Step)[]): Script => ({
  headers: { ...SSE, 'x-request-id': 'req_openai' },
  steps: pieces.map((piece) => (typeof piece === 'string' ? { send: piece } : piece)),
})

const event = (error: unknown): string => `data: ${JSON.stringify({ error })}\n\n`
const bad = fields('bad parameter', { param: 'top_p', code: 'invalid_value' })
const sorry = fields('The server had an error processing your request. Sorry about that!', {
  type: 'server_error',
})
const overran = { message: 'CUDA error', type: 'InternalServerError', param: null, code: 500 }
const [HEL, LO, END] = [chunk('Hel'), chunk('lo'), chunk('', 'stop')]
const cut = (code: string) => sight('APIError', { type: 'server_error', code, text: 'Hel' })
const TORN = sight({ js: 'TypeError', python: 'APIConnectionError' }, { text: 'Hel' })

export const STREAMS: readonly Case[] = [
  {
    name: 'a whole stream',
    call: stream(),
    openai: {
      answer: events(HEL, LO, END, DONE),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hello' }),
    },
    engine: () => events(HEL, LO, END, DONE),
    sight: sight(null, { text: 'Hello' }),
    engineSees: 1,
  },
  {
    name: "a streamed request's mistake, as the first event of a 200",
    call: stream(),
    openai: {
      answer: says(400, bad),
      source: SDK_CODE,
      sight: refusal('BadRequestError', 400, bad),
    },
    engine: () => events(event({ ...bad, type: 'BadRequestError', code: 400 }), DONE),
    sight: refusal('BadRequestError', 400, { ...bad, code: null }),
    engineSees: 1,
    says: 'bad parameter',
    differs: 'the engine gives no code that says more',
  },
  {
    name: 'an engine that fails with its first event',
    call: stream(),
    openai: {
      answer: says(500, sorry),
      source: 'ai-genie/chatgpt-vscode#100',
      sight: refusal('InternalServerError', 500, sorry, 3),
    },
    engine: () => events(event(overran)),
    sight: refusal('InternalServerError', 500, { ...sorry, code: 'upstream_error' }, 3),
    engineSees: 3,
    says: 'CUDA error',
    differs: NO_CODE,
  },
  {
    name: 'an engine that fails in the middle',
    call: stream(),
    openai: {
      answer: events(HEL, { waitMs: 50 }, event(sorry), DONE),
      source: 'openai/openai-python#1625',
      sight: sight('APIError', { type: 'server_error', text: 'Hel' }),
    },
    engine: () => events(HEL, { waitMs: 50 }, event(overran), DONE),
    sight: cut('upstream_error'),
    engineSees: 1,
    says: 'CUDA error',
    differs: NO_CODE,
  },
  {
    name: 'an engine that dies in the middle',
    call: stream(),
    openai: {
      answer: events(HEL, { waitMs: 50 }, { reset: true }),
      source: 'openai/openai-python#2065',
      sight: TORN,
    },
    engine: () => events(HEL, { waitMs: 50 }, { reset: true }),
    sight: cut('stream_interrupted'),
    engineSees: 1,
    says: 'died while answering',
    differs: 'one class in both SDKs, with the reason',
  },
  {
    name: 'an engine that dies within an event',
    call: stream(),
    openai: {
      answer: events(HEL, 'data: {"id":"x","cho', { waitMs: 50 }, { reset: true }),
      source: 'openai/openai-python#2065',
      sight: TORN,
    },
    engine: () => events(HEL, 'data: {"id":"x","cho', { waitMs: 50 }, { reset: true }),
    sight: cut('stream_interrupted'),
    engineSees: 1,
    differs: 'half an event is never passed on',
  },
  {
    name: 'a stream that ends before the answer does',
    call: stream(),
    openai: {
      answer: events(HEL),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hel' }),
    },
    engine: () => events(HEL),
    sight: cut('stream_interrupted'),
    engineSees: 1,
    differs: 'both SDKs take the end of the connection for the end of the answer',
  },
  {
    name: 'a stream that lacks only [DONE]',
    call: stream(),
    openai: {
      answer: events(HEL, LO, END),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hello' }),
    },
    engine: () => events(HEL, LO, END),
    sight: sight(null, { text: 'Hello' }),
    engineSees: 1,
  },
  {
    name: 'an engine that falls silent in the middle',
    call: stream(),
    openai: {
      answer: events(HEL, { waitMs: 50 }, { reset: true }),
      source: SDK_CODE,
      sight: TORN,
    },
    engine: () => events(HEL, { hang: true }),
    route: { stallTimeoutMs: 300 },
    sight: cut('stream_stalled'),
    engineSees: 1,
    aborts: true,
    says: 'nothing arrived for 0.3 s',
    differs: 'the SDKs would wait until something cuts them off; this plays only the cut',
  },
  {
    name: 'JSON where a stream was asked for',
    call: stream(),
    openai: {
      answer: json(500, JSON.stringify({ error: sorry })),
      source: SDK_CODE,
      sight: refusal('InternalServerError', 500, sorry, 3),
    },
    engine: () => json(500, '{"object":"error","message":"CUDA error","code":500}'),
    sight: refusal('InternalServerError', 500, { ...sorry, code: 'upstream_error' }, 3),
    engineSees: 3,
    says: 'CUDA error',
    differs: NO_CODE,
  },
  {
    name: 'a caller who leaves in the middle',
    call: stream({ stopAfter: 1 }),
    openai: {
      answer: events(HEL, { hang: true }),
      source: SDK_CODE,
      sight: sight(null, { text: 'Hel' }),
    },
    engine: () => events(HEL, { hang: true }),
    sight: sight(null, { text: 'Hel' }),
    engineSees: 1,
    aborts: true,
  },
]
