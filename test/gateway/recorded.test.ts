/**
 * Every recorded exchange of a real vLLM, played again behind the gateway: an answer reaches the
 * client byte for byte, a refusal with its status and its words in the shape of the path's API.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { dialectAt, PROTOCOLS } from '../../src/core/protocol.ts'
import { type Script, type Seen, startEngine } from '../support/engine.ts'
import {
  closeAll,
  closeLater,
  KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'

const FOLDER = join(import.meta.dirname, '../fixtures/vllm-0.32.0')
const Exchanges = z.array(
  z.object({
    name: z.string(),
    request: z.object({ method: z.string(), path: z.string(), body: z.string().nullish() }),
    status: z.number(),
    headers: z.record(z.string(), z.string()),
    chunks: z.array(z.number()),
    body: z.string(),
  }),
)
type Exchange = z.infer<typeof Exchanges>[number]

const paths = new Set(PROTOCOLS.map(({ path }) => path))
const Model = z.object({ model: z.string() })
const bytesOf = ({ body }: Exchange): Buffer => readFileSync(join(FOLDER, body))

const modelOf = ({ request }: Exchange): string | null => {
  try {
    return Model.parse(JSON.parse(request.body ?? '')).model
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) return null
    throw error
  }
}

const recorded = ['plain', 'parsers', 'tools', 'protocols'].flatMap((kind) =>
  Exchanges.parse(JSON.parse(readFileSync(join(FOLDER, `exchanges-${kind}.json`), 'utf8'))).filter(
    (exchange) =>
      exchange.request.method === 'POST' &&
      paths.has(exchange.request.path) &&
      modelOf(exchange) !== null,
  ),
)
const cases = recorded.map((exchange, index) => ({ ...exchange, index }))

/** As the engine cut it into HTTP chunks. */
const played = ({ headers }: Seen): Script => {
  const exchange = recorded[Number(/^ex-(\d+)$/.exec(String(headers['x-request-id']))?.[1])]
  if (exchange === undefined) return { status: 500, steps: [] }
  const bytes = bytesOf(exchange)
  let at = 0
  const pieces = exchange.chunks.map((size) => {
    at += size
    return { send: bytes.subarray(at - size, at) }
  })
  const steps = at === bytes.length ? pieces : [{ send: bytes }]
  const type = exchange.headers['content-type'] ?? ''
  return { status: exchange.status, headers: { 'content-type': type }, steps }
}

let url = ''
beforeAll(async () => {
  const engine = closeLater(await startEngine(played))
  const models = [...new Set(recorded.map((exchange) => modelOf(exchange) ?? ''))]
  const routes = models.map((model) =>
    routeOf([targetOf(engine.url)], { model, deployment: model, servedModel: model }),
  )
  const gateway = await startTestGateway(snapshotOf(routes))
  closeLater(gateway.handle)
  url = gateway.url
})
afterAll(closeAll)

const Refusal = z.object({ error: z.object({ message: z.string() }) })

describe('a recorded vLLM behind the gateway', () => {
  test('there is much to play', () => {
    expect(cases.length).toBeGreaterThan(40)
  })

  test.each(cases)('$request.path $name', async ({ index, ...exchange }) => {
    const { path, body = '' } = exchange.request
    const response = await fetch(url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}`, 'x-request-id': `ex-${index}` },
      body: body ?? '',
    })
    const answer = Buffer.from(await response.arrayBuffer())
    const whole = bytesOf(exchange)
    expect([response.status, String(answer).slice(0, 300)]).toEqual([
      exchange.status,
      expect.any(String),
    ])
    if (exchange.status === 200) {
      expect(String(answer)).toBe(String(whole))
      expect(answer.equals(whole)).toBe(true)
      return
    }
    const said = Refusal.safeParse(JSON.parse(String(whole))).data?.error.message
    const shown: unknown = JSON.parse(String(answer))
    expect(Refusal.parse(shown).error.message).toContain(said ?? 'has no /v1/embeddings')
    if (dialectAt(path, false) === 'openai') {
      const keys = Object.keys(z.object({ error: z.looseObject({}) }).parse(shown).error)
      expect(keys.toSorted()).toEqual(['code', 'message', 'param', 'type'])
    } else {
      expect(shown).toEqual({
        type: 'error',
        error: { type: expect.stringMatching(/_error$/), message: expect.any(String) },
        request_id: `ex-${index}`,
      })
    }
  })
})
