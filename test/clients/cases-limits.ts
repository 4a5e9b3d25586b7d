/** Too much at once: limits, full queues, nobody ready. What the SDKs try again, and when. */
import type { GatewayLimit } from '../../src/core/limits.ts'
import { chatBody, policyOf, post, until, type World } from '../support/gateway.ts'
import {
  ANSWERED,
  broken,
  type Case,
  call,
  fields,
  HANG,
  HELLO,
  json,
  NO_CODE,
  overloaded,
  refusal,
  SDK_CODE,
  says,
  stream,
} from './cases.ts'

const limits = (stated: Pick<GatewayLimit, 'measure' | 'amount' | 'windowMs' | 'text'>) => ({
  limits: [{ id: stated.text, per: 'route', burst: 1, ...stated }],
})
const REQUESTS = 'requests' as const
const MINUTE = { measure: REQUESTS, amount: 12, windowMs: 60_000, text: '12 requests per minute' }
const DAY = { measure: REQUESTS, amount: 1, windowMs: 86_400_000, text: '1 requests per day' }
const PLACE = { measure: 'concurrent' as const, amount: 1, windowMs: 0, text: '1 at a time' }

const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1000).toUTCString()
const SOON = { 'retry-after': '2', 'retry-after-ms': '1200' }
const limited = fields('Rate limit reached for gpt-4o … on requests per day (RPD): …', {
  type: 'requests',
  code: 'rate_limit_exceeded',
})
const LIMITED = refusal('RateLimitError', 429, limited, 3)

const ask = (world: World) => post(world.url, chatBody())

/** A model that takes one request at a time has no room for the next, and nobody may wait. */
const NO_QUEUE = policyOf({
  retry: { attempts: 2, on: ['unreachable', 'error'], budget: 0.1 },
  queue: { ceiling: 'auto', depth: 0, wait: 60_000 },
})

/** Takes a place and keeps it for as long as the world lasts. */
export const hold = async (world: World): Promise<void> => {
  const abandoned = (): void => {}
  ask(world).then(abandoned, abandoned)
  await until('the place is taken', () => world.engine.seen.length === 1)
}

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
    name: 'the same, with `retry-after: 300`',
    call: call(),
    openai: {
      answer: says(429, limited, { 'retry-after': '300' }),
      source: SDK_CODE,
      sight: { ...LIMITED, attempts: { js: 3, python: 1 } },
    },
    engine: () => json(429, '{"error":{"message":"slow down"}}', { 'retry-after': '300' }),
    sight: { ...LIMITED, attempts: 1 },
    engineSees: 1,
    asksMs: 300_000,
    shouldRetry: 'false',
    differs: 'the JavaScript SDK would sleep for ten minutes',
  },
  {
    name: 'an engine that refuses with 400 and `x-should-retry: true`',
    call: call(),
    openai: {
      answer: says(400, fields('not now'), { 'x-should-retry': 'true' }),
      source: SDK_CODE,
      sight: refusal('BadRequestError', 400, fields(''), 3),
    },
    engine: () => json(400, '{"error":{"message":"not now"}}', { 'x-should-retry': 'true' }),
    sight: refusal('BadRequestError', 400, fields(''), 3),
    engineSees: 3,
    shouldRetry: 'true',
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
    differs: NO_CODE,
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
    differs: NO_CODE,
  },
  {
    name: 'a full model, and as many wait for it as may',
    call: call(),
    openai: {
      answer: says(503, overloaded),
      source: 'waylaidwanderer/node-chatgpt-api#34',
      sight: broken(503, null),
    },
    engine: () => HANG,
    target: { maxRunning: 1 },
    route: { policy: NO_QUEUE },
    before: hold,
    sight: { ...LIMITED, param: 'model', code: 'model_saturated' },
    engineSees: 1,
    asksMs: 'some',
    differs: 'says when to come back, and RateLimitError is what callers wait on',
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
    differs: NO_CODE,
  },
]

export const LIMITS: readonly Case[] = [...limitCases, ...pressed]
