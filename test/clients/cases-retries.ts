/** Engines that fail, callers who leave, and a gateway that goes: what the SDKs try again. */
import { connect } from 'node:net'
import { startGateway } from '../../src/gateway/threads.ts'
import { startEngine } from '../support/engine.ts'
import { closeLater, routeOf, snapshotOf, targetOf, type World } from '../support/gateway.ts'
import {
  ANSWERED,
  broken,
  type Case,
  call,
  fields,
  HANG,
  HELLO,
  HTML,
  json,
  NO_CODE,
  overloaded,
  page,
  refusal,
  SDK_CODE,
  says,
  sight,
  stream,
} from './cases.ts'
import { hold } from './cases-limits.ts'

/** Port 9 is `discard`: nothing listens there. */
const NOBODY = 'http://127.0.0.1:9'
/** Longer than what comes: its end is not the answer's. */
const JSON_LENGTH = { 'content-type': 'application/json', 'content-length': '500' }
const sorry = fields('The server had an error while processing your request. Sorry about that!', {
  type: 'server_error',
})
const BARE = sight('InternalServerError', { status: 502, attempts: 3 })

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
    differs: NO_CODE,
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

export const RETRIES: readonly Case[] = [...failures, ...leaving]
