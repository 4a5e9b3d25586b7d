/** Regular expressions for model names: the same answers as JavaScript's, in linear time. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { regexOf } from '../../src/core/regex.ts'

const found = (source: string, text: string): boolean => {
  const answer = regexOf(source)
  if (!answer.ok) throw new Error(answer.message)
  return answer.regex.test(text)
}

/** Expressions over a small alphabet, so that names match often. */
const expression = fc.letrec<{ all: string; one: string }>((tie) => ({
  one: fc.oneof(
    // Deeper ones have more states than we take, or take JavaScript minutes.
    { depthSize: 'small', maxDepth: 3, withCrossShrink: true },
    fc.constantFrom('a', 'b', '-', '.', '\\d', '\\w', '\\S', '[ab]', '[^a]', '[a-c1-]', '\\.'),
    tie('all').map((inner) => `(${inner})`),
    tie('all').map((inner) => `(?:${inner})`),
  ),
  all: fc
    .array(
      fc.oneof(
        fc
          .tuple(
            tie('one'),
            fc.constantFrom('', '', '', '*', '+', '?', '*?', '{2}', '{1,}', '{0,2}'),
          )
          .map(([one, times]) => one + times),
        fc.constantFrom('^', '$', '|'),
      ),
      { maxLength: 5 },
    )
    .map((parts) => parts.join('')),
})).all

const name = fc.oneof(
  fc.string({ unit: fc.constantFrom('a', 'b', 'c', '1', '-', '.'), maxLength: 12 }),
  fc.string({ unit: 'grapheme', maxLength: 8 }),
)

test('finds what JavaScript finds', () => {
  fc.assert(
    fc.property(expression, fc.array(name, { minLength: 1, maxLength: 8 }), (source, names) => {
      const answer = regexOf(source)
      // One of more than a thousand states is refused: that is its own test below.
      fc.pre(answer.ok || !answer.message.startsWith('too large'))
      for (const one of names) {
        expect(found(source, one), `${source} in ${one}`).toBe(new RegExp(source, 'u').test(one))
      }
    }),
    { numRuns: 2_000 },
  )
})

test('model names as people write them', () => {
  expect(found('^qwen(-\\d+b)?$', 'qwen-32b')).toBe(true)
  expect(found('^qwen(-\\d+b)?$', 'qwen-32b-instruct')).toBe(false)
  expect(found('^(gpt|o[1-9])-.+\\/mini$', 'o3-x/mini')).toBe(true)
  expect(found('coder', 'Qwen/Qwen2.5-Coder-32B')).toBe(false)
  expect(found('[Cc]oder', 'Qwen/Qwen2.5-Coder-32B')).toBe(true)
})

test.each(['(a+)+$', '^(a|a)*$', '(a|aa)+$', '(.*a){12}$', 'a*a*a*a*a*a*a*a*b', '(\\w+\\s?)+$'])(
  '%s, the ruin of a backtracking engine, takes no longer than its states say',
  (source) => {
    // JavaScript's own engine would not end: the test would.
    expect(found(source, `${'a'.repeat(199)}!`)).toBe(false)
  },
)

describe('refused at load, with what and where', () => {
  test.each([
    ['(a)\\1', 'back-references are not supported', 4],
    ['a(?=b)', 'look-around and named groups are not supported', 1],
    ['(?<x>a)', 'look-around and named groups are not supported', 0],
    ['a\\b', '\\b is not supported', 2],
    ['(a', 'a ( without its )', 0],
    ['a)', 'a ) without its (', 1],
    ['[a', 'a [ without its ]', 0],
    ['[z-a]', 'a range whose ends are out of order or no single characters', 4],
    ['*a', 'nothing for * to repeat', 0],
    ['a**', 'repeated twice', 2],
    ['a{3,1}', 'more at least than at most', 1],
    ['a{x}', 'expected {n}, {n,} or {n,m}; \\{ for a brace', 1],
    ['^*', 'an anchor repeated', 2],
    ['a\\', 'a \\ at the end', 2],
    ['((a{30}){30}){30}', 'too large: fewer repetitions', 0],
    [`${'('.repeat(60)}a${')'.repeat(60)}`, 'deeper than 50 groups', 50],
  ])('%s', (source, message, at) => {
    expect(regexOf(source)).toEqual({ ok: false, message, at })
  })
})
