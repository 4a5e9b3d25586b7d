/** Rules for parameters at work: the engine gets the edited body, the caller hears what changed. */
import { afterEach, expect, test } from 'vitest'
import { GatewaySchema, ParametersSchema } from '../../src/core/gateway-manifest.ts'
import type { GatewayConsumer, RoutePolicy } from '../../src/core/snapshot.ts'
import { completion, JSON_TYPE } from '../support/engine.ts'
import { chatBody, closeAll, post, startWorld } from '../support/gateway.ts'

afterEach(closeAll)

const policyOf = (rules: object): RoutePolicy => {
  const manifest = { kind: 'Gateway', routes: [{ model: 'm', to: 'm' }] }
  const [route] = GatewaySchema.parse(manifest).routes
  if (route === undefined) throw new Error('no route')
  const { balance, slowStart, retry, queue, continueStreams } = route
  const usual = {
    balance,
    slowStart,
    retry,
    queue,
    continueStreams,
    firstTokenTargetMs: null,
    perTokenTargetMs: null,
  }
  return { ...usual, parameters: ParametersSchema.parse(rules) }
}

const consumerOf = (rules: object): GatewayConsumer => ({
  name: 'alice',
  group: null,
  weight: 1,
  priority: 'normal',
  maxPriority: 'normal',
  spillover: 'allow',
  parameters: ParametersSchema.parse(rules),
})

test('the engine gets what the rules allow, and the caller is told', async () => {
  const limit = {
    ...{ id: 'q', per: 'consumer', measure: 'output tokens' as const, amount: 100 },
    ...{ windowMs: 60_000, burst: 100, text: '100 output tokens per minute per consumer' },
  }
  const { url, engine } = await startWorld(
    () => ({ headers: JSON_TYPE, steps: [{ send: completion('hello') }] }),
    {
      route: {
        policy: policyOf({ clamp: { max_tokens: { max: 40 } }, system: { prepend: 'Be brief.' } }),
        limits: [limit],
        servedModel: 'served',
      },
      snapshot: { consumers: [consumerOf({ refuse: ['logit_bias'], defaults: { top_p: 0.9 } })] },
    },
  )
  const answer = await post(url, chatBody({ max_tokens: 1_000_000 }))
  expect(answer.status).toBe(200)
  expect(answer.headers.get('x-penstock-parameters')).toBe(
    'clamped max_tokens=40, set top_p=0.9, system prepended',
  )
  // What was clamped is what counts: a million would have taken the limit whole.
  expect(answer.headers.get('x-ratelimit-remaining-tokens')).toBe('60')
  expect(JSON.parse(String(engine.seen[0]?.body))).toEqual({
    model: 'served',
    max_tokens: 40,
    top_p: 0.9,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'hello' },
    ],
  })

  const refused = await post(url, chatBody({ logit_bias: { 1: 1 } }))
  expect(refused.status).toBe(400)
  expect(await refused.json()).toMatchObject({
    error: {
      param: 'logit_bias',
      code: 'invalid_request',
      message: expect.stringContaining('logit_bias'),
    },
  })
  expect(engine.seen).toHaveLength(1)
})
