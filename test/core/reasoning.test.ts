import fc from 'fast-check'
import { expect, test } from 'vitest'
import { reasoningRename, renamed } from '../../src/core/reasoning.ts'

const rename = reasoningRename('sglang', 'vllm')
if (rename === null) throw new Error('the engines differ')
const run = (text: string): string => Buffer.from(renamed(Buffer.from(text), rename)).toString()

test('only between engines that differ', () => {
  expect(reasoningRename('vllm', 'vllm')).toBeNull()
  expect(reasoningRename('vllm', 'llamacpp')).toBeNull()
  expect(reasoningRename('vllm', 'sglang')).not.toBeNull()
})

test.each([
  ['{"delta":{"reasoning":"a"}}', '{"delta":{"reasoning_content":"a"}}'],
  [
    'data: {"reasoning":"a"}\n\ndata: {"reasoning":null}\n\n',
    'data: {"reasoning_content":"a"}\n\ndata: {"reasoning_content":null}\n\n',
  ],
  ['{"reasoning_tokens":3,"content":"reasoning"}', '{"reasoning_tokens":3,"content":"reasoning"}'],
  ['{"reasoning":"a","reasoning_content":"a"}', '{"reasoning":"a","reasoning_content":"a"}'],
])('%s', (given, expected) => {
  expect(run(given)).toBe(expected)
})

test('property: no text of an answer is changed, and its thinking is found under the other name', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('"reasoning":', '\\"reasoning":', 'x"reasoning":"y"'),
  )
  fc.assert(
    fc.property(text, text, (content, reasoning) => {
      const body = JSON.stringify({ delta: { content, reasoning } })
      expect(JSON.parse(run(body))).toEqual({ delta: { content, reasoning_content: reasoning } })
    }),
  )
})
