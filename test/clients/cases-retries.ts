/** What the SDKs try again by themselves, how often, and after how long. */
import { connect } from 'node:net'
import type { GatewayLimit } from '../../src/core/limits.ts'
import { startGateway } from '../../src/gateway/threads.ts'
import { startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeLater,
  post,
  routeOf,
  snapshotOf,
  targetOf,
  until,
  type World,
} from '../support/gateway.ts'
import {
  type Case,
  call,
  fields,
  HANG,
  HELLO,
  json,
  page,
  refusal,
  SDK_CODE,
  says,
  sight,
  stream,
} from './cases.ts'

const limits = (stated: Pick<GatewayLimit, 'measure' | 'amount' | 'windowMs' | 'text'>) => ({
  limits: [{ id: stated.text, per: 'route', burst: 1, ...stated }],
})
const REQUESTS = 'requests' as const
const MINUTE = { measure: REQUESTS, amount: 12, windowMs: 60_000, text: '12 requests per minute' }
const DAY = { measure: REQUESTS, amount: 1, windowMs: 86_400_000, text: '1 requests per day' }
const PLACE = { measure: 'concurrent' as const, amount: 1, windowMs: 0, text: '1 at a time' }

/** Port 9 is `discard`: nothing listens there. */
const NOBODY = 'http://127.0.0.1:9'
/** Longer than what comes: its end is not the answer's. */
const JSON_LENGTH = { 'content-type': 'application/json', 'content-length': '500' }
const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1000).toUTCString()
const SOON = { 'retry-after': '2', 'retry-after-ms': '1200' }
const limited = fields('Rate limit reached for gpt-4o … on requests per day (RPD): …', {
  type: 'requests',
  code: 'rate_limit_exceeded',
})
const sorry = fields('The server had an error while processing your request. Sorry about that!', {
  type: 'server_error',
})
const overloaded = fields('That model is currently overloaded with other requests. …', {
  type: 'server_error',
})
const LIMITED = refusal('RateLimitError', 429, limited, 3)
const broken = (status: number, code: string | null, attempts = 3) =>
  refusal('InternalServerError', status, { ...sorry, code }, attempts)
const BARE = sight('InternalServerError', { status: 502, attempts: 3 })
const NAMED = 'OpenAI gives no code here; Penstock names the reason in it'
const HTML = 'OpenAI answers with a page of HTML'
const ANSWERED = sight(null, { attempts: 2, text: 'Hello' })

const ask = (world: World) => post(world.url, chatBody())

/** Takes a place and keeps it for as long as the world lasts. */
const hold = async (world: World): Promise<void> => {
  const abandoned = (): void => {}
  ask(world).then(abandoned, abandoned)
  await until('the place is taken', () => world.engine.seen.length === 1)
}

/** Drains the gateway, which goes on with what it has, and starts another at the same address. */
const takeOver = async (world: World): Promise<void> => {
  const { port } = world.handle
  void world.handle.drain(60_000)
  while (await listens(port)) await new Promise((resolve) => setTimeout(resolve, 10))
  const engine = closeLater(await startEngine(() => HELLO))
  const snapshot = snapshotOf([routeOf([targetOf(engine.url)])])
  const log = { info: () => {}, error: () => {} }
  const next = { host: '127.0.0.1', port, threads: 1, snapshot, log, onFinished: () => {} }
  closeLater(await startGateway(next))
}

const listens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

const limitCases: readonly Case[] = [
  {
    name: 'a limit with a short wait',
    call: call({ sleeps: true }),
    openai: {
      answer: (nth) => (nth === 0 ? says(429, limited, SOON) : HELLO),
      source: 'MSU-AI-Agents/fall-2025-course#76',
      sight: ANSWERED,
    },
    engine: () => HELLO,
    route: limits(MINUTE),
    before: async (world) => {
      await (await ask(world)).text()
    },
    sight: ANSWERED,
    engineSees: 2,
    statuses: [429, 200],
    asksMs: 'some',
  },
  {
    name: 'a limit on requests at a time, all places taken',
    call: call(),
    openai: {
      answer: says(429, limited, { 'retry-after': '1', 'retry-after-ms': '1000' }),
      source: 'feder-cr/invisible_playwright_mcp#109',
      sight: LIMITED,
    },
    engine: () => HANG,
    route: limits(PLACE),
    before: hold,
    sight: LIMITED,
    engineSees: 1,
    asksMs: 1_000,
  },
  {
    name: 'a limit with a wait of more than a minute',
    call: call(),
    openai: {
      answer: says(429, limited, { 'retry-after': '432', 'retry-after-ms': '432000' }),
      source: 'feder-cr/invisible_playwright_mcp#109',
      sight: { ...LIMITED, attempts: { js: 3, python: 1 } },
    },
    engine: () => HELLO,
    route: limits(DAY),
    before: async (world) => {
      await (await ask(world)).text()
    },
    sight: { ...LIMITED, attempts: 1 },
    engineSees: 1,
    asksMs: 'some',
    shouldRetry: 'false',
    says: 'the limit of 1 requests per day is reached',
    differs: 'Python gives up beyond 120 s by itself; JavaScript would sleep, for a day if told so',
  },
]

const pressed: readonly Case[] = [
  {
    name: 'an engine that refuses with 429',
    call: call(),
    openai: {
      answer: says(429, limited),
      source: 'feder-cr/invisible_playwright_mcp#109',
      sight: LIMITED,
    },
    engine: () => json(429, '{"error":{"message":"slow down","code":429}}'),
    sight: LIMITED,
    engineSees: 3,
    asksMs: 1_000,
    says: 'slow down',
  },
  {
    name: 'the same, with `retry-after: 7`',
    call: call(),
    openai: {
      answer: says(429, limited, { 'retry-after': '7' }),
      source: SDK_CODE,
      sight: LIMITED,
    },
    engine: () => json(429, '{"error":{"message":"slow down"}}', { 'retry-after': '7' }),
    sight: LIMITED,
    engineSees: 3,
    asksMs: 7_000,
  },
  {
    name: 'the same, with a date in `retry-after`',
    call: call(),
    openai: {
      answer: () => says(429, limited, { 'retry-after': inSeconds(30) }),
      source: SDK_CODE,
      sight: LIMITED,
    },
    engine: () => json(429, '{"error":{"message":"slow down"}}', { 'retry-after': inSeconds(30) }),
    sight: LIMITED,
    engineSees: 3,
    asksMs: 'some',
  },
  {
    name: 'the same, with `x-should-retry: false`',
    call: call(),
    openai: {
      answer: says(429, limited, { 'x-should-retry': 'false' }),
      source: SDK_CODE,
      sight: { ...LIMITED, attempts: 1 },
    },
    engine: () => json(429, '{"error":{"message":"no"}}', { 'x-should-retry': 'false' }),
    sight: { ...LIMITED, attempts: 1 },
    engineSees: 1,
    asksMs: 1_000,
    shouldRetry: 'false',
  },
  {
    name: 'a full queue, vLLM',
    call: call(),
    openai: {
      answer: says(503, overloaded),
      source: 'waylaidwanderer/node-chatgpt-api#34',
      sight: broken(503, null),
    },
    engine: () =>
      json(
        503,
        '{"error":{"message":"The engine is currently busy and cannot accept new requests.","code":503}}',
      ),
    sight: broken(503, 'model_unavailable'),
    engineSees: 3,
    asksMs: 2_000,
    differs: NAMED,
  },
  {
    name: 'a full queue, SGLang: 200 and an error as the first event',
    call: stream(),
    openai: {
      answer: says(503, overloaded),
      source: 'waylaidwanderer/node-chatgpt-api#34',
      sight: broken(503, null),
    },
    engine: () => ({
      headers: { 'content-type': 'text/event-stream' },
      steps: [
        {
          send: 'data: {"error":{"object":"error","message":"The request queue is full.","code":503}}\n\n',
        },
      ],
    }),
    sight: broken(503, 'model_unavailable'),
    engineSees: 3,
    asksMs: 2_000,
    differs: NAMED,
  },
  {
    name: 'no replica is ready',
    call: call(),
    openai: {
      answer: says(503, overloaded),
      source: 'waylaidwanderer/node-chatgpt-api#34',
      sight: broken(503, null),
    },
    engine: () => HELLO,
    route: { targets: [], why: 'rank 1 is loading weights (42 %)' },
    sight: { ...broken(503, 'model_unavailable'), param: 'model' },
    engineSees: 0,
    asksMs: 5_000,
    says: 'rank 1 is loading weights (42 %)',
    differs: NAMED,
  },
]

const failures: readonly Case[] = [
  {
    name: 'an engine that fails with 500',
    call: call(),
    openai: {
      answer: says(500, sorry),
      source: 'ai-genie/chatgpt-vscode#100',
      sight: broken(500, null),
    },
    engine: () =>
      json(500, '{"error":{"message":"CUDA error","type":"Internal Server Error","code":500}}'),
    sight: broken(500, 'upstream_error'),
    engineSees: 3,
    says: 'CUDA error',
    differs: NAMED,
  },
  {
    name: 'the same, without JSON',
    call: call(),
    openai: {
      answer: page(500, 'Internal Server Error'),
      source: SDK_CODE,
      sight: { ...BARE, status: 500 },
    },
    engine: () => page(500, 'Internal Server Error'),
    sight: broken(500, 'upstream_error'),
    engineSees: 3,
    says: 'Internal Server Error',
    differs: "the error keeps OpenAI's shape whatever the engine sends",
  },
  {
    name: 'an engine that answers 409',
    call: call(),
    openai: {
      answer: says(409, fields('The resource was updated by another request')),
      source: SDK_CODE,
      sight: refusal('ConflictError', 409, fields(''), 3),
    },
    engine: () => json(409, '{"error":{"message":"busy with a weight update","code":409}}'),
    sight: refusal('ConflictError', 409, fields(''), 3),
    engineSees: 3,
  },
  {
    name: 'an engine that answers 408',
    call: call(),
    openai: {
      answer: says(408, fields('timed out')),
      source: SDK_CODE,
      sight: refusal('APIStatusError', 408, fields(''), 3),
    },
    engine: () => json(408, '{"error":{"message":"timed out","code":408}}'),
    sight: refusal('APIStatusError', 408, fields(''), 3),
    engineSees: 3,
  },
  {
    name: 'an engine that cannot be reached',
    call: call(),
    openai: {
      answer: page(502, '<html><title>502 Bad Gateway</title></html>'),
      source: 'n3d1117/chatgpt-telegram-bot#637',
      sight: BARE,
    },
    engine: () => HELLO,
    route: { targets: [targetOf(NOBODY)] },
    sight: broken(502, 'upstream_error'),
    engineSees: 0,
    says: 'cannot be reached: ECONNREFUSED',
    differs: HTML,
  },
  {
    name: 'an engine that dies within an answer in one piece',
    call: call(),
    openai: {
      answer: {
        headers: JSON_LENGTH,
        steps: [{ send: '{"id":"x"' }, { waitMs: 50 }, { reset: true }],
      },
      source: SDK_CODE,
      sight: sight(
        { js: 'TypeError', python: 'APIConnectionError' },
        { attempts: { js: 1, python: 3 } },
      ),
    },
    engine: () => ({
      headers: JSON_LENGTH,
      steps: [{ send: '{"id":"x"' }, { waitMs: 50 }, { reset: true }],
    }),
    sight: broken(502, 'upstream_error'),
    engineSees: 3,
    says: 'did not answer',
    differs: 'nothing was sent yet, so that the SDK can try again',
  },
  {
    name: 'no first token in time',
    call: call(),
    openai: {
      answer: page(504, '<html><title>504 Gateway Time-out</title></html>'),
      source: SDK_CODE,
      sight: { ...BARE, status: 504 },
    },
    engine: () => HANG,
    route: { firstTokenTimeoutMs: 300 },
    sight: broken(504, 'upstream_timeout'),
    engineSees: 3,
    says: 'no answer began within 0.3 s',
    aborts: true,
    differs: HTML,
  },
  {
    name: 'the same, streamed',
    call: stream(),
    openai: {
      answer: page(504, '<html><title>504 Gateway Time-out</title></html>'),
      source: SDK_CODE,
      sight: { ...BARE, status: 504 },
    },
    engine: () => ({ headers: { 'content-type': 'text/event-stream' }, headFirst: true, ...HANG }),
    route: { firstTokenTimeoutMs: 300 },
    sight: broken(504, 'upstream_timeout'),
    engineSees: 3,
    aborts: true,
    differs: HTML,
  },
  {
    name: 'the time-out of the SDK itself',
    call: call({ timeoutMs: 1_000 }),
    openai: {
      answer: HANG,
      source: SDK_CODE,
      sight: sight('APITimeoutError', { attempts: 3 }),
    },
    engine: () => HANG,
    sight: sight('APITimeoutError', { attempts: 3 }),
    engineSees: null,
    aborts: true,
  },
]

const leaving: readonly Case[] = [
  {
    name: 'a caller who aborts while waiting',
    call: call(),
    openai: {
      answer: HANG,
      source: SDK_CODE,
      sight: sight('APIUserAbortError'),
    },
    engine: () => HANG,
    sight: sight('APIUserAbortError'),
    engineSees: 1,
    cancels: true,
    aborts: true,
  },
  {
    name: 'a gateway that is shut down and followed by another',
    call: call(),
    openai: {
      answer: (nth) => (nth === 0 ? says(503, overloaded) : HELLO),
      source: SDK_CODE,
      sight: ANSWERED,
    },
    engine: () => HANG,
    alone: true,
    before: async (world, sdk) => {
      await hold(world)
      await sdk.call(`${world.url}/v1`, call({ do: 'models' }))
      await takeOver(world)
    },
    sight: ANSWERED,
    engineSees: 1,
    statuses: [503, 200],
    asksMs: 1_000,
  },
]

export const RETRIES: readonly Case[] = [...limitCases, ...pressed, ...failures, ...leaving]
