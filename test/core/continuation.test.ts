import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { continuedBody, type TextKind } from '../../src/core/continuation.ts'
import { SseScanner } from '../../src/core/sse.ts'
import { StreamSplice } from '../../src/core/stream-splice.ts'
import { TextSoFar } from '../../src/core/text-so-far.ts'

const bytesOf = (value: unknown): Uint8Array =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))

const CHAT = { model: 'm', messages: [{ role: 'user', content: 'hi' }], stream: true }

const continued = (
  kind: TextKind,
  body: unknown,
  { text = 'Hello', tokens = 1 }: { text?: string; tokens?: number | null } = {},
) => {
  const rest = continuedBody(bytesOf(body), { kind, text, tokens })
  return rest === null ? null : { ...rest, body: JSON.parse(Buffer.from(rest.body).toString()) }
}

describe('the body that asks for the rest', () => {
  test('of a chat: the text as the beginning of the answer', () => {
    expect(continued('chat', { ...CHAT, max_tokens: 10, max_completion_tokens: 20 })).toEqual({
      white: '',
      body: {
        ...CHAT,
        messages: [...CHAT.messages, { role: 'assistant', content: 'Hello' }],
        max_tokens: 9,
        max_completion_tokens: 19,
        continue_final_message: true,
        add_generation_prompt: false,
      },
    })
  })

  test('of a completion: a longer prompt, and the API’s own limit when there was none', () => {
    const ask = { model: 'm', prompt: 'Say "', stream: true }
    expect(continued('completion', ask, { text: ' a\n"', tokens: 3 })?.body).toEqual({
      ...ask,
      prompt: 'Say " a\n"',
      max_tokens: 13,
    })
    expect(continued('completion', { ...ask, max_tokens: 3 }, { tokens: 3 })).toBeNull()
    expect(continued('completion', ask, { tokens: null })).toBeNull()
    expect(continued('completion', { ...ask, prompt: ['a'] })).toBeNull()
    expect(continued('completion', { ...ask, prompt: [1, 2] })).toBeNull()
  })

  test('white space at the end is not sent, and nothing but white space is no beginning', () => {
    const rest = continued('chat', CHAT, { text: 'Hello\n\n ' })
    expect(rest?.white).toBe('\n\n ')
    expect(rest?.body.messages.at(-1).content).toBe('Hello')
    expect(continued('chat', CHAT, { text: '\n' })).toEqual({ white: '\n', body: CHAT })
  })

  test('numbers that JavaScript cannot hold stay as they were', () => {
    const body = '{"messages":[{"role":"user","content":"x"}],"seed":12345678901234567890}'
    const rest = continuedBody(bytesOf(body), { kind: 'chat', text: 'a', tokens: 1 })
    expect(Buffer.from(rest?.body ?? []).toString()).toContain('"seed":12345678901234567890')
  })

  test.each([
    { tools: [{}] },
    { tool_choice: 'required' },
    { n: 2 },
    { best_of: 2 },
    { logprobs: true },
    { logprobs: 0 },
    { response_format: { type: 'json_schema' } },
    { guided_json: {} },
    { structured_outputs: {} },
    { min_tokens: 1 },
    { echo: true },
    { presence_penalty: 0.1 },
    { logits_processors: ['x'] },
    { continue_final_message: true },
    { add_generation_prompt: true },
    { include_stop_str_in_output: true },
    { use_beam_search: true },
    { prompt_logprobs: 1 },
    { return_token_ids: true },
    { stop: 'lo!' },
    { stop: ['x', 'o world'] },
    { max_tokens: 1 },
    { max_tokens: 'many' },
    { messages: [] },
    { messages: 'hi' },
  ])('is refused with %j', (more) => {
    expect(continued('chat', { ...CHAT, ...more })).toBeNull()
  })

  test.each([
    { tools: [] },
    { tools: null, tool_choice: 'auto' },
    { n: 1, logprobs: false, echo: false, min_tokens: 0, frequency_penalty: 0 },
    { response_format: { type: 'text' } },
    { stop: ['Hello'] },
    { stop: null, guided_json: null },
    { temperature: 0.2, top_p: 1, seed: 7, repetition_penalty: 1.1, logit_bias: { 5: 1 } },
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
  ])('is not with %j', (more) => {
    expect(continued('chat', { ...CHAT, ...more })).not.toBeNull()
  })

  test('thoughts in the text are refused: a template would drop them', () => {
    expect(continued('chat', CHAT, { text: 'so</think>\n\nYes' })).toBeNull()
    expect(continued('chat', CHAT, { text: '<think>so' })).toBeNull()
  })

  test('a limit needs a count', () => {
    expect(continued('chat', { ...CHAT, max_tokens: 9 }, { tokens: null })).toBeNull()
    expect(continued('chat', CHAT, { tokens: null })).not.toBeNull()
  })

  test('any text comes back as the beginning or as white space', () => {
    const anything = fc.string({ unit: 'binary', minLength: 1 })
    fc.assert(
      fc.property(anything, (text) => {
        if (/<\/?think>/.test(text)) return
        const rest = continued('chat', CHAT, { text })
        const said = rest?.body.messages.length === 2 ? rest.body.messages[1].content : ''
        expect(said + rest?.white).toBe(text)
      }),
    )
  })
})

const word = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 12 }),
  fc.constantFrom('', ' ', '\n\n', '"', '\\', '\\"', '🌊', '水', '"content":"x"', '}\n\ndata: '),
)
type Style = 'vllm' | 'sglang' | 'spaced' | 'escaped'
const style = fc.constantFrom<Style>('vllm', 'sglang', 'spaced', 'escaped')

const escaped = (json: string): string =>
  json.replace(/[-￿]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)

const eventOf = (
  kind: TextKind,
  text: string,
  how: Style,
  finish: string | null = null,
): string => {
  const delta =
    how === 'sglang' ? { role: null, content: text, reasoning_content: null } : { content: text }
  const choice = {
    index: 0,
    ...(kind === 'chat' ? { delta } : { text }),
    logprobs: null,
    finish_reason: finish,
  }
  const value = { id: 'a', object: 'x', created: 1, model: 'm', choices: [choice] }
  const json = JSON.stringify(value, null, how === 'spaced' ? ' ' : undefined)
  const line = json.replaceAll('\n', '')
  return `data: ${how === 'escaped' ? escaped(line) : line}\n\n`
}

const pushed = (stream: Uint8Array, sizes: readonly number[]) => {
  const scanner = new SseScanner(1_000_000)
  const steps = []
  let at = 0
  for (let turn = 0; at < stream.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1
    steps.push(scanner.push(stream.subarray(at, at + size)))
    at += size
  }
  return steps.flatMap((step) => (step === null ? [] : [step]))
}

const sizes = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 6 })
const kinds = fc.constantFrom<TextKind>('chat', 'completion')

describe('the text so far', () => {
  test('is what the events that passed have said, cut anywhere, in any pieces', () => {
    fc.assert(
      fc.property(kinds, fc.array(word), style, sizes, fc.nat(), (kind, words, how, cuts, at) => {
        const events = words.map((text) => eventOf(kind, text, how))
        const all = Buffer.from(`: hello\n\n${events.join('')}`)
        const stream = all.subarray(0, at % (all.length + 1))
        const told = new TextSoFar(kind)
        let passed = 0
        for (const { bytes, events: found } of pushed(stream, cuts)) {
          for (const event of found) {
            told.add(bytes, event)
            passed += 1
          }
        }
        const said = words.slice(0, Math.max(0, passed - 1)).join('')
        expect(told.text).toBe(said)
        expect(told.said).toBe(said !== '')
        expect(told.plain).toBe(true)
      }),
      { numRuns: 500 },
    )
  })

  const chat = (delta: object, more: object = {}): string =>
    `data: ${JSON.stringify({ id: 'a', choices: [{ index: 0, delta, finish_reason: null, ...more }] })}\n\n`
  test.each([
    ['thoughts', chat({ reasoning: 'hm' })],
    ['thoughts of SGLang', chat({ content: null, reasoning_content: 'hm' })],
    ['a tool call', chat({ content: 'x', tool_calls: [{ index: 0 }] })],
    ['a refusal', chat({ refusal: 'no' })],
    ['another choice', chat({ content: 'x' }, { index: 1 })],
    ['log probabilities', chat({ content: 'x' }, { logprobs: { content: [] } })],
    ['the end', chat({ content: 'x' }, { finish_reason: 'stop' })],
    ['no JSON', 'data: {"id":"a","choices":[{"delta":{"content":"x"\n\n'],
  ])('%s is not plain', (_, event) => {
    const told = new TextSoFar('chat')
    const stream = Buffer.from(chat({ content: 'ok' }) + event)
    for (const { bytes, events } of pushed(stream, [1_000])) {
      for (const one of events) told.add(bytes, one)
    }
    expect(told.plain).toBe(false)
  })

  test('an opening is nothing said; more than a MiB is too much, and let go', () => {
    const told = new TextSoFar('chat')
    const add = (event: string): void => {
      const bytes = Buffer.from(event)
      told.add(bytes, { start: 0, end: bytes.length })
    }
    add(chat({ role: 'assistant', content: '' }))
    expect(told).toMatchObject({ events: 1, said: false, plain: true })
    for (let turn = 0; turn < 1_100; turn += 1) {
      add(chat({ content: 'x'.repeat(1_000) }))
      expect(told.size).toBeLessThanOrEqual(1024 * 1024)
    }
    expect(told).toMatchObject({ said: true, plain: false, size: 0 })
  })
})

describe('the rest, spliced on', () => {
  const identity = { id: 'first', created: 7, model: 'm' }
  const read = (stream: string, splice: StreamSplice, cuts: readonly number[]) => {
    const out = pushed(Buffer.from(stream), cuts).map((step) => splice.rewritten(step))
    if (out.some((step) => step === null)) return null
    const text = Buffer.concat(out.map((step) => Buffer.from(step?.bytes ?? []))).toString()
    const chunks = text
      .split('\n\n')
      .filter((event) => event.startsWith('data: {'))
      .map((event) => JSON.parse(event.slice(6)))
    return { text, chunks }
  }

  test('says its words once, under the first id, whatever the pieces', () => {
    fc.assert(
      fc.property(fc.array(word, { minLength: 1 }), style, sizes, (words, how, cuts) => {
        const opening = eventOf('chat', '', how).replace(
          '"content"',
          '"role":"assistant","content"',
        )
        const events = words.map((text) => eventOf('chat', text, how))
        const stream = `${opening}${events.join('')}${eventOf('chat', '', how, 'stop')}data: [DONE]\n\n`
        const before = { identity, white: '', tokens: 3, usage: null }
        const rest = read(stream, new StreamSplice(before), cuts)
        const said = rest?.chunks.map(({ choices }) => choices[0].delta.content ?? '').join('')
        expect(said).toBe(words.join(''))
        expect(rest?.text.endsWith('data: [DONE]\n\n')).toBe(true)
        for (const { id, created, choices } of rest?.chunks ?? []) {
          expect({ id, created }).toEqual({ id: 'first', created: 7 })
          expect('role' in choices[0].delta).toBe(false)
        }
      }),
    )
  })

  test('white space that the client has is not said again, however it is cut', () => {
    const white = fc.string({ unit: fc.constantFrom(' ', '\n', '\t'), maxLength: 6 })
    fc.assert(
      fc.property(white, fc.array(white), fc.boolean(), (had, blanks, repeats) => {
        const again = repeats ? [...had] : []
        const words = [...again, 'Text', ...blanks]
        const stream = words.map((text) => eventOf('chat', text, 'vllm')).join('')
        const rest = read(
          stream,
          new StreamSplice({ identity, white: had, tokens: 3, usage: null }),
          [33],
        )
        const said = rest?.chunks.map(({ choices }) => choices[0].delta.content).join('')
        expect(said).toBe(['Text', ...blanks].join(''))
      }),
    )
  })

  test('usage is that of one answer', () => {
    const usage = (prompt: number, completion: number) => ({
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: prompt },
    })
    const stream = `data: ${JSON.stringify({ id: 'b', choices: [], usage: usage(13, 4) })}\n\n`
    const first = {
      promptTokens: 10,
      completionTokens: 3,
      cachedTokens: null,
      reasoningTokens: null,
    }
    const rest = read(
      stream,
      new StreamSplice({ identity, white: '', tokens: 3, usage: first }),
      [50],
    )
    expect(rest?.chunks[0].usage).toEqual(usage(10, 7))
    const unknown = { identity, white: '', tokens: 3, usage: null }
    expect(read(stream, new StreamSplice(unknown), [50])?.chunks[0].usage).toEqual(usage(10, 7))
  })

  test('one that thinks first does not go on; one asked anew may', () => {
    const stream = `data: ${JSON.stringify({
      id: 'b',
      choices: [{ index: 0, delta: { reasoning: 'hm' }, finish_reason: null }],
    })}\n\n`
    const before = { identity, white: '', usage: null }
    expect(read(stream, new StreamSplice({ ...before, tokens: 3 }), [50])).toBeNull()
    expect(read(stream, new StreamSplice({ ...before, tokens: 0 }), [50])?.chunks).toHaveLength(1)
  })
})
