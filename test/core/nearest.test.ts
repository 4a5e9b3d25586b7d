import fc from 'fast-check'
import { expect, test } from 'vitest'
import { nearest } from '../../src/core/nearest.ts'

const KEYS = ['replicas', 'engine', 'parallel', 'context', 'weights', 'to', 'on']

test.each([
  ['replcias', 'replicas'],
  ['replica', 'replicas'],
  ['Engine', 'engine'],
  ['contxt', 'context'],
  ['wieghts', 'weights'],
  ['ot', 'to'],
  ['banana', null],
  ['', null],
  ['x'.repeat(10_000), null],
])('%s is %s', (word, expected) => {
  expect(nearest(word, KEYS)).toBe(expected)
})

test('a known word is nearest to itself, and one edit away it is still found', () => {
  const word = fc.stringMatching(/^[a-z]{6,20}$/)
  fc.assert(
    fc.property(word, fc.nat(), (name, at) => {
      const cut = at % name.length
      expect(nearest(name, ['zzzzzzzzzzzz', name])).toBe(name)
      expect(nearest(name.slice(0, cut) + name.slice(cut + 1), [name])).toBe(name)
    }),
  )
})
