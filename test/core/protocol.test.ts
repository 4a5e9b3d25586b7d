import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readAsk } from '../../src/core/body.ts'
import { errorEvent, shownError } from '../../src/core/error-dialect.ts'
import {
  CHAT,
  dialectAt,
  enginePath,
  METHODS,
  PROTOCOLS,
  type Protocol,
} from '../../src/core/protocol.ts'
import { SseScanner } from '../../src/core/sse.ts'
import { type EventKind, endingOfBody, idOfBody, usageOf } from '../../src/core/usage.ts'
import { watchOf } from '../../src/core/watch.ts'

const recorded = (name: string): Buffer =>
  readFileSync(join(import.meta.dirname, '../fixtures/vllm-0.32.0', name))

const at = (path: string): Protocol => {
  const found = PROTOCOLS.find((protocol) => protocol.path === path)
  if (found === undefined) throw new Error(`no ${path}`)
  return found
}
const [RESPONSES, MESSAGES] = [at('/v1/responses'), at('/v1/messages')]

/** The stream as it comes in pieces cut at the given places. */
const watched = (bytes: Buffer, protocol: Protocol, cuts: readonly number[], engine = 'vllm') => {
  const [scanner, watch] = [new SseScanner(1 << 20), watchOf(protocol, engine)]
  const kinds: EventKind[] = []
  const ends = [...new Set(cuts.map((cut) => cut % bytes.length))].toSorted((a, b) => a - b)
  for (const [index, start] of [0, ...ends].entries()) {
    const step = scanner.push(bytes.subarray(start, ends[index] ?? bytes.length))
    if (step === null) throw new Error('too large')
    for (const event of step.events) kinds.push(watch.see(step.bytes, event))
  }
  return { kinds, watch }
}

const event = (type: string, rest: object = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`

describe('streams with named events', () => {
  test.each([
    [RESPONSES, 'protocols-responses-stream.sse', 'max_output_tokens', /^resp_/],
    [MESSAGES, 'protocols-messages-stream.sse', 'max_tokens', /^chatcmpl-/],
  ] as const)('$path: the same under any chunking', (protocol, name, reason, id) => {
    const bytes = recorded(name)
    const whole = watched(bytes, protocol, [])
    expect(whole.kinds.filter((kind) => kind === 'token')).toHaveLength(3)
    expect(whole.kinds.at(-1)).toBe('done')
    expect(whole.kinds.filter((kind) => kind === 'error' || kind === 'done')).toHaveLength(1)
    expect(whole.watch.ending()).toEqual({
      finishReason: reason,
      usage: expect.objectContaining({ promptTokens: 12, completionTokens: 3, cachedTokens: 0 }),
    })
    expect(whole.watch.id).toMatch(id)
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length - 1), { maxLength: 30 }), (cuts) => {
        const { kinds, watch } = watched(bytes, protocol, cuts)
        expect(kinds).toEqual(whole.kinds)
        expect(watch.ending()).toEqual(whole.watch.ending())
        expect([watch.id, watch.sequence]).toEqual([whole.watch.id, whole.watch.sequence])
      }),
    )
  })

  test('what is cut off anywhere is never done', () => {
    for (const [protocol, name] of [
      [RESPONSES, 'protocols-responses-stream.sse'],
      [MESSAGES, 'protocols-messages-stream.sse'],
    ] as const) {
      const bytes = recorded(name)
      for (let end = 1; end < bytes.length - 2; end += 7) {
        const { kinds } = watched(bytes.subarray(0, end), protocol, [])
        expect(kinds).not.toContain('done')
      }
      const half = bytes.subarray(bytes.lastIndexOf('event:'), -8)
      expect(watchOf(protocol, 'vllm').see(half, { start: 0, end: half.length })).toBe('other')
    }
  })

  const kindsOf = (protocol: Protocol, text: string) => watched(Buffer.from(text), protocol, [])

  test('an error event is one, whatever its name', () => {
    for (const [protocol, text] of [
      [MESSAGES, event('error', { error: { type: 'overloaded_error', message: 'x' } })],
      [MESSAGES, 'event: error\ndata: {cut\n\n'],
      [RESPONSES, event('response.failed', { response: { error: { message: 'x' } } })],
      [RESPONSES, event('error', { message: 'x' })],
      // vLLM, when its engine dies under a response: no name at all.
      [RESPONSES, 'data: {"error":{"message":"x","code":500}}\n\n'],
      [RESPONSES, 'data: {"type":"response.failed"}\n\n'],
    ] as const) {
      expect([text, kindsOf(protocol, text).kinds]).toEqual([text, ['error']])
    }
  })

  test('an end without a reason, or a cancelled one, is that of an answer given up', () => {
    const start = event('message_start', { message: { usage: { input_tokens: 4 } } })
    const given = (reason: string | null) =>
      event('message_delta', { delta: { stop_reason: reason }, usage: { output_tokens: 1 } })
    const reason = (text: string) => kindsOf(MESSAGES, text).watch.ending().finishReason
    expect(reason(start + given('end_turn') + event('message_stop'))).toBe('end_turn')
    expect(reason(start + given(null) + event('message_stop'))).toBe('abort')
    expect(reason(start + event('message_stop'))).toBe('abort')
    const cancelled = event('response.completed', { response: { status: 'cancelled' } })
    expect(kindsOf(RESPONSES, cancelled).watch.ending().finishReason).toBe('abort')
  })

  test('the first word on usage is kept until the last replaces it', () => {
    const start = (usage: object) => event('message_start', { message: { usage } })
    const end = (usage: object) => event('message_delta', { delta: { stop_reason: 'x' }, usage })
    const usage = (text: string, engine = 'vllm') =>
      watched(Buffer.from(text), MESSAGES, [], engine).watch.ending().usage
    const vllm = start({ input_tokens: 16, output_tokens: 0 })
    expect(usage(vllm)).toMatchObject({ promptTokens: 16, completionTokens: null })
    const cached = { cache_read_input_tokens: 10, cache_creation_input_tokens: 6 }
    expect(usage(vllm + end({ input_tokens: 0, output_tokens: 9, ...cached }))).toMatchObject({
      promptTokens: 16,
      completionTokens: 9,
      cachedTokens: 10,
    })
    const sglang = start({ input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 0 })
    expect(usage(sglang, 'sglang')).toBe(null)
    const last = { input_tokens: 16, output_tokens: 9, cache_read_input_tokens: 10 }
    expect(usage(sglang + end(last), 'sglang')).toMatchObject({ promptTokens: 16 })
  })
})

describe('whole answers', () => {
  test('usage, finish and id where each API has them', () => {
    const responses = recorded('protocols-responses.json')
    expect(endingOfBody(responses, RESPONSES)).toMatchObject({
      finishReason: 'max_output_tokens',
      usage: { promptTokens: 12, completionTokens: 3, cachedTokens: 0, reasoningTokens: 0 },
    })
    expect(idOfBody(responses)).toMatch(/^resp_/)
    expect(endingOfBody(recorded('protocols-messages.json'), MESSAGES)).toMatchObject({
      finishReason: 'max_tokens',
      usage: { promptTokens: 12, completionTokens: 3 },
    })
    const large = { output: 'x'.repeat(20_000), status: 'cancelled', usage: { input_tokens: 5 } }
    expect(endingOfBody(Buffer.from(JSON.stringify(large)), RESPONSES)).toMatchObject({
      finishReason: 'abort',
      usage: { promptTokens: 5 },
    })
    expect(usageOf({ prompt_tokens: 90, total_tokens: 90 })).toMatchObject({ promptTokens: 90 })
  })

  test('each API’s own caps count, the largest, and no other’s', () => {
    const body = Buffer.from(
      '{"model":"m","max_tokens":1,"max_completion_tokens":2,"max_output_tokens":3}',
    )
    const cap = (protocol: Protocol) => {
      const ask = readAsk(body, protocol)
      return 'message' in ask ? null : ask.maxTokens
    }
    expect([cap(CHAT), cap(RESPONSES), cap(MESSAGES), cap(at('/v1/embeddings'))]).toEqual([
      2,
      3,
      1,
      null,
    ])
  })
})

describe('errors', () => {
  const body = {
    error: { message: 'no', type: 'server_error', param: null, code: 'upstream_error' },
  }

  test('Anthropic’s documented types, by status', () => {
    const type = (status: number) => shownError('anthropic', { status, body, id: 'req-1' })
    const types = [400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504].map(type)
    expect(types.map((shown) => JSON.stringify(shown))).toEqual(
      [
        'invalid_request_error',
        'authentication_error',
        'permission_error',
        'not_found_error',
        'invalid_request_error',
        'invalid_request_error',
        'request_too_large',
        'invalid_request_error',
        'rate_limit_error',
        'api_error',
        'api_error',
        'overloaded_error',
        'timeout_error',
      ].map((name) =>
        JSON.stringify({
          type: 'error',
          error: { type: name, message: 'no' },
          request_id: 'req-1',
        }),
      ),
    )
    expect(shownError('openai', { status: 404, body, id: 'req-1' })).toBe(body)
  })

  test('each stream’s own error event', () => {
    const ended = { status: 502, body, id: 'req-1', sequence: 6 }
    expect(errorEvent(CHAT, ended)).toBe(`data: ${JSON.stringify(body)}\n\n`)
    expect(errorEvent(MESSAGES, ended)).toMatch(/^event: error\ndata: \{"type":"error","error":/)
    expect(errorEvent(RESPONSES, ended)).toBe(
      event('error', {
        code: 'upstream_error',
        message: 'no',
        param: null,
        sequence_number: 7,
        error: body.error,
      }),
    )
    expect(errorEvent(RESPONSES, { ...ended, sequence: null })).toContain('"sequence_number":0')
  })

  test('who is answered in which shape', () => {
    for (const path of ['/v1/messages', '/v1/messages/count_tokens', '/v1/messages/batches']) {
      expect(dialectAt(path, false)).toBe('anthropic')
    }
    expect(dialectAt('/v1/messagesx', true)).toBe('openai')
    expect([dialectAt('/v1/models', true), dialectAt('/v1/models', false)]).toEqual([
      'anthropic',
      'openai',
    ])
    expect(METHODS['/v1/responses/:id']).toBe('GET, HEAD, DELETE, OPTIONS')
    for (const { path, errors } of PROTOCOLS) expect(dialectAt(path, false)).toBe(errors)
  })
})

test('docs/api.md says what the table says', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/api.md'), 'utf8')
  const rows = page.split('\n').filter((line) => /^\| `(GET|POST|DELETE) /.test(line))
  const called = (protocol: Protocol, engine: string): string => {
    const own = enginePath(protocol, engine)
    if (own === null) return '–'
    return own === protocol.path ? 'same' : `\`${own}\``
  }
  const expected = PROTOCOLS.map((protocol) => {
    const takes = { json: 'JSON', form: 'form', none: 'nothing' }[protocol.body]
    const engines = ['vllm', 'sglang', 'external'].map((engine) => called(protocol, engine))
    return `| \`${protocol.method} ${protocol.path}\` | ${takes} | ${engines.join(' | ')} |`
  })
  expect(rows).toEqual(expected)
})
