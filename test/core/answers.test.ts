import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { engineError, engineErrorEvent } from '../../src/core/engine-error.ts'
import { SseScanner } from '../../src/core/sse.ts'
import { endingOfBody, hasToken, StreamWatch, usageOf } from '../../src/core/usage.ts'
import { chunk, DONE, usageChunk } from '../support/engine.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const watch = (text: string) => {
  const [scanner, watcher] = [new SseScanner(100_000), new StreamWatch()]
  const step = scanner.push(bytes(text))
  const kinds = step?.events.map((event) => watcher.see(step.bytes, event)) ?? []
  return { kinds, ending: watcher.ending(), first: watcher.firstTokenSeen }
}

describe('StreamWatch', () => {
  test('the first token is the first text, reasoning or tool call, not the role', () => {
    const { kinds } = watch(chunk('') + chunk('a') + chunk('b', 'stop') + usageChunk(5, 2) + DONE)
    expect(kinds).toEqual(['other', 'token', 'token', 'token', 'done'])
    const delta = (value: object) => hasToken({ choices: [{ index: 0, delta: value }] })
    expect(delta({ role: 'assistant', content: '' })).toBe(false)
    expect(delta({ reasoning: 'hm' })).toBe(true)
    expect(delta({ reasoning_content: 'hm', content: null })).toBe(true)
    expect(delta({ tool_calls: [{ index: 0 }] })).toBe(true)
    expect(hasToken({ choices: [{ index: 0, text: 'legacy' }] })).toBe(true)
  })

  test('the ending has the finish reason and the usage of the last events', () => {
    const { ending } = watch(chunk('a') + chunk('b', 'length') + usageChunk(5, 2) + DONE)
    expect(ending).toEqual({
      finishReason: 'length',
      usage: { promptTokens: 5, completionTokens: 2, cachedTokens: 3, reasoningTokens: null },
    })
    expect(watch(chunk('a', 'stop') + DONE).ending).toEqual({ finishReason: 'stop', usage: null })
    expect(watch('').ending).toEqual({ finishReason: null, usage: null })
  })

  test.each([
    ['data: {"error":{"message":"x"}}\n\n', 'error'],
    ['data: {"object":"error","message":"x"}\n\n', 'error'],
    ['event: error\ndata: {"message":"x"}\n\n', 'error'],
    ['data: {"error":null,"choices":[]}\n\n', 'other'],
    ['data: [DONE]\n\n', 'done'],
    ['data:[DONE]\r\n\r\n', 'done'],
    [': comment\n\n', 'other'],
    ['data: not json\n\n', 'other'],
  ])('%j is %s, early and late', (event, kind) => {
    expect(watch(event).kinds).toEqual([kind])
    const late = watch(chunk('a') + event).kinds.at(-1)
    expect(late === 'token' ? 'other' : late).toBe(kind)
  })
})

describe('usage', () => {
  test('reasoning tokens are read in both places', () => {
    const details = { completion_tokens_details: { reasoning_tokens: 4 } }
    expect(usageOf({ prompt_tokens: 1, completion_tokens: 2, ...details })?.reasoningTokens).toBe(4)
    expect(usageOf({ prompt_tokens: 1, reasoning_tokens: 5 })?.reasoningTokens).toBe(5)
    expect(usageOf({ prompt_tokens: -1, completion_tokens: 1.5 })).toMatchObject({
      promptTokens: null,
      completionTokens: null,
    })
    expect(usageOf(null)).toBe(null)
  })

  test('a whole body: usage and finish reason, or nulls for what is not one', () => {
    const body = { choices: [{ finish_reason: 'tool_calls' }], usage: { prompt_tokens: 3 } }
    expect(endingOfBody(bytes(JSON.stringify(body)))).toMatchObject({
      finishReason: 'tool_calls',
      usage: { promptTokens: 3 },
    })
    const large = { data: 'x'.repeat(100_000), ...body }
    expect(endingOfBody(bytes(JSON.stringify(large)))).toEqual(
      endingOfBody(bytes(JSON.stringify(body))),
    )
    expect(endingOfBody(bytes('<html>'))).toEqual({ finishReason: null, usage: null })
  })
})

describe('engine errors', () => {
  const nested = { error: { message: 'm', type: 'BadRequestError', param: 'p', code: 400 } }
  const cases: readonly (readonly [number, string, number, object])[] = [
    [
      400,
      JSON.stringify(nested),
      400,
      { message: 'm', type: 'invalid_request_error', param: 'p', code: null },
    ],
    [
      400,
      '{"object":"error","message":"flat","type":"BadRequest","param":null,"code":400}',
      400,
      { message: 'flat', code: null },
    ],
    [
      404,
      '{"error":{"message":"no","type":"NotFoundError","code":404}}',
      404,
      { type: 'invalid_request_error' },
    ],
    [
      422,
      '{"detail":[{"loc":["body","top_p"],"msg":"must be a number"}]}',
      422,
      { message: 'body.top_p: must be a number' },
    ],
    [
      401,
      '{"error":"Unauthorized"}',
      502,
      { code: 'upstream_error', message: /refused the gateway \(401\): Unauthorized/ },
    ],
    [
      502,
      '<html><head><title>Bad Gateway</title></head></html>',
      502,
      { message: 'Bad Gateway', type: 'server_error' },
    ],
    [
      500,
      'Internal Server Error',
      500,
      { message: 'Internal Server Error', code: 'upstream_error' },
    ],
    [500, '', 500, { message: /without a message/ }],
    [302, '', 502, { code: 'upstream_invalid' }],
    [
      503,
      '{"object":"error","message":"The request queue is full.","code":503}',
      503,
      { code: 'model_unavailable' },
    ],
    [
      400,
      '{"error":{"message":"This model\'s maximum context length is 10 tokens","code":400,"param":"input_tokens"}}',
      400,
      { code: 'context_length_exceeded', param: 'messages' },
    ],
    [
      400,
      '{"object":"error","message":"The input (9 tokens) is longer than the model\'s context length (5 tokens).","code":400}',
      400,
      { code: 'context_length_exceeded' },
    ],
  ]
  test.each(cases)('%i %s', (status, text, expectedStatus, expected) => {
    const { status: got, body } = engineError(status, text)
    expect(got).toBe(expectedStatus)
    expect(Object.keys(body.error).sort()).toEqual(['code', 'message', 'param', 'type'])
    for (const [key, value] of Object.entries(expected)) {
      const found = Object.entries(body.error).find(([name]) => name === key)?.[1]
      if (value instanceof RegExp) expect(found).toMatch(value)
      else expect(found).toBe(value)
    }
  })

  test('an event has its status from its code; a full queue says when to come back', () => {
    expect(engineErrorEvent('{"error":{"message":"bad","code":400}}').status).toBe(400)
    expect(engineErrorEvent('{"error":{"message":"bad","type":"BadRequestError"}}').status).toBe(
      400,
    )
    expect(engineErrorEvent('{"error":{"message":"boom","code":"x"}}').status).toBe(502)
    const full = engineErrorEvent('{"error":{"message":"The request queue is full.","code":503}}')
    expect(full).toMatchObject({ status: 503, retryAfterSeconds: 2 })
  })

  test('any text gives a status that is an error and a bounded message', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 999 }),
        fc.oneof(fc.string(), fc.json()),
        (status, text) => {
          const error = engineError(status, text)
          expect(error.status).toBeGreaterThanOrEqual(400)
          expect(error.status).toBeLessThan(600)
          expect(error.body.error.message.length).toBeGreaterThan(0)
          expect(error.body.error.message.length).toBeLessThan(2_100)
          expect(engineErrorEvent(text).status).toBeGreaterThanOrEqual(400)
        },
      ),
    )
  })
})
