import { expect, test } from 'vitest'
import { taskOf } from '../../src/core/task.ts'

test('the command line says what kind of model it is, or nothing', () => {
  expect(taskOf('sglang', ['--is-embedding'])).toBe('pool')
  expect(taskOf('sglang', ['--runner', 'pooling'])).toBe(undefined)
  for (const words of [
    ['--runner', 'pooling'],
    ['--runner=pooling'],
    ['--task', 'embed'],
    ['--max-num-seqs', '8', '--task=score'],
  ]) {
    expect(taskOf('vllm', words)).toBe('pool')
  }
  for (const words of [
    [],
    ['--runner'],
    ['--runner', 'generate'],
    ['pooling'],
    ['--is-embedding'],
  ]) {
    expect(taskOf('vllm', words)).toBe(undefined)
  }
})
