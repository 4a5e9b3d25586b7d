import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { pieces } from '../../runtimes/simulator/text/tokens.ts'
import { drawn, LENGTH_NAMES, lengthsOf, type Spread } from '../../src/load/lengths.ts'
import { Random } from '../../src/load/random.ts'
import { words } from '../../src/load/text.ts'

const seeds = fc.integer({ min: 0, max: 2 ** 31 })

const many = (spread: Spread, seed: number, count = 20_000): number[] => {
  const random = new Random(seed)
  return Array.from({ length: count }, () => drawn(spread, random))
}
const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

describe('lengths', () => {
  it.each(LENGTH_NAMES)('%s: whole tokens in their range, about the published mean', (name) => {
    const lengths = lengthsOf(name)
    for (const spread of [lengths?.first, lengths?.later, lengths?.answer]) {
      if (spread === undefined) throw new Error(`${name} is no distribution`)
      const values = many(spread, 7)
      expect(values.every(Number.isInteger)).toBe(true)
      expect(Math.min(...values)).toBeGreaterThanOrEqual(spread.min)
      expect(Math.max(...values)).toBeLessThanOrEqual(spread.max)
      // The cut tails take something away: at most a tenth.
      expect(mean(values) / spread.mean).toBeGreaterThan(0.9)
      expect(mean(values) / spread.mean).toBeLessThan(1.05)
    }
  })

  it('reasoning: the median answer is 2,000 tokens, one in twenty is longer than 12,200', () => {
    const answer = lengthsOf('reasoning')?.answer
    if (answer === undefined) throw new Error('no reasoning lengths')
    const values = many(answer, 1)
    expect(median(values) / 2000).toBeCloseTo(1, 1)
    expect(values.filter((value) => value > 12_200).length / values.length).toBeCloseTo(0.05, 2)
  })

  it('fixed:IN/OUT has no spread, no prefix, one turn', () => {
    const lengths = lengthsOf('fixed:1000/50')
    expect(lengths).toMatchObject({ turns: 1, prefixTokens: 0 })
    if (lengths === null) throw new Error('not read')
    expect(new Set(many(lengths.first, 1, 100))).toEqual(new Set([1000]))
    expect(new Set(many(lengths.answer, 1, 100))).toEqual(new Set([50]))
  })

  it.each([
    '',
    'alpaca',
    'fixed',
    'fixed:1',
    'fixed:0/5',
    'fixed:5/0',
    'fixed:1/2/3',
    'fixed:-1/2',
    'fixed:9999999/1',
    'ShareGPT',
  ])('%j is refused', (text) => {
    expect(lengthsOf(text)).toBeNull()
  })
})

describe('filler text', () => {
  it('has as many tokens as asked, equal for a seed', () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: 3000 }), (seed, count) => {
        const text = words(seed, count)
        expect(pieces(text)).toHaveLength(count)
        expect(words(seed, count)).toBe(text)
        expect(words(seed, count + 50).startsWith(text)).toBe(true)
      }),
      { numRuns: 50 },
    )
  })

  it('of two seeds differs within one block of a prefix cache', () => {
    const beginnings = new Set(Array.from({ length: 5000 }, (_, seed) => words(seed, 16)))
    expect(beginnings.size).toBe(5000)
  })
})
