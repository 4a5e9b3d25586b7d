import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readAsk } from '../../src/core/body.ts'
import { splice } from '../../src/core/edits.ts'
import { SseScanner } from '../../src/core/sse.ts'
import { UsageStrip, usageEdit } from '../../src/core/usage-strip.ts'

const recorded = (kind: string, usage: string): Buffer => {
  const url = new URL(`../fixtures/vllm-0.32.0/plain-${kind}-stream-${usage}.sse`, import.meta.url)
  return readFileSync(url)
}

/** Each recording has its own id and second; those are made the same. */
const same = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('latin1')
    .replaceAll(/(chatcmpl|cmpl)-[0-9a-f]+/g, 'id')
    .replaceAll(/"created":\d+/g, '"created":1')

const stripped = (source: Buffer, sizes: readonly number[], keepLast: boolean): Buffer => {
  const scanner = new SseScanner(1_000_000)
  const strip = new UsageStrip('vllm', keepLast)
  const out: Buffer[] = []
  let at = 0
  for (let index = 0; at < source.length; index += 1) {
    const size = sizes[index % sizes.length] ?? source.length
    const step = scanner.push(source.subarray(at, at + size))
    at += size
    for (const event of step?.events ?? []) strip.add(step?.bytes ?? source, event)
    out.push(strip.take(false))
  }
  return Buffer.concat([...out, strip.take(true)])
}

test.each(['chat', 'completions'])(
  'what vLLM recorded with usage reads as without (%s)',
  (kind) => {
    const [bare, last, each] = ['bare', 'usage', 'continuous'].map((usage) => recorded(kind, usage))
    if (bare === undefined || last === undefined || each === undefined) throw new Error('missing')
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1 }), (sizes) => {
        expect(same(stripped(each, sizes, false))).toBe(same(bare))
        expect(same(stripped(each, sizes, true))).toBe(same(last))
        expect(same(stripped(last, sizes, false))).toBe(same(bare))
      }),
      { numRuns: 30 },
    )
  },
)

test('SGLang writes null where there is no usage', () => {
  const chunk = (usage: string) => `data: {"choices":[{"delta":{}}],"usage":${usage}}\n\n`
  const strip = new UsageStrip('sglang', false)
  for (const text of [
    chunk('{"prompt_tokens":3,"completion_tokens":12,"prompt_tokens_details":null}'),
    'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":12}}\n\n',
  ]) {
    strip.add(Buffer.from(text), { start: 0, end: text.length })
  }
  expect(strip.completion).toBe(12)
  expect(strip.take(true).toString()).toBe(chunk('null'))
})

test('usage that a model writes, or that stands deeper, is left alone', () => {
  for (const text of [
    `data: {"choices":[{"delta":{"content":${JSON.stringify(',"usage":{"a":1}}')}}]}\n\n`,
    'data: {"choices":[{"delta":{"x":1,"usage":{"a":1}}}]}\n\n',
    'data: {"choices":[{"delta":{"x":1,"usage":{"a":1\n\n',
  ]) {
    const strip = new UsageStrip('vllm', false)
    strip.add(Buffer.from(text), { start: 0, end: text.length })
    expect(strip.take(true).toString()).toBe(text)
  }
})

test.each([
  ['', { include_usage: true, continuous_usage_stats: true }],
  [',"stream_options":null', { include_usage: true, continuous_usage_stats: true }],
  [
    ',"stream_options":{"include_usage":false,"x":1}',
    { include_usage: true, x: 1, continuous_usage_stats: true },
  ],
])('the wish for usage is spliced in: %s', (options, wanted) => {
  const body = Buffer.from(` {"model":"m", "stream":true${options},"odd" : 1e2}`)
  const ask = readAsk(body)
  if ('message' in ask) throw new Error(ask.message)
  const edit = usageEdit(body, ask.usage, { start: ask.start, continuous: true })
  if (edit === null) throw new Error('no edit')
  const text = Buffer.from(splice(body, edit.range, edit.insert)).toString()
  expect(JSON.parse(text)).toEqual({ model: 'm', stream: true, odd: 100, stream_options: wanted })
  expect(text).toContain('"odd" : 1e2')
})
