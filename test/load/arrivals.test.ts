import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { arrivals, BURST, HOURS, PATTERNS, type Pattern } from '../../src/load/arrivals.ts'
import { Random } from '../../src/load/random.ts'

type Ask = { pattern: Pattern; rate: number; seconds: number; seed: number; day?: number }

const times = ({ pattern, rate, seconds, seed, day = seconds }: Ask): number[] => {
  const found: number[] = []
  const ask = { pattern, ratePerSecond: rate, daySeconds: day }
  for (const at of arrivals(ask, new Random(seed))) {
    if (at >= seconds) return found
    found.push(at)
  }
  return found
}

const seeds = fc.integer({ min: 0, max: 2 ** 31 })
const patterns = fc.constantFrom(...PATTERNS)

describe('arrivals', () => {
  it('come as often as asked, within five standard deviations, rising', () => {
    fc.assert(
      fc.property(patterns, seeds, fc.integer({ min: 1, max: 20 }), (pattern, seed, rate) => {
        // Whole days and whole burst cycles: over them the mean is the rate.
        const seconds = BURST.cycleSeconds * 10
        const found = times({ pattern, rate, seconds, seed })
        const expected = rate * seconds
        expect(Math.abs(found.length - expected)).toBeLessThan(5 * Math.sqrt(expected))
        expect(found.every((at, index) => at >= (found[index - 1] ?? 0))).toBe(true)
      }),
      { numRuns: 60 },
    )
  })

  it('are the same for a seed, and others for another', () => {
    fc.assert(
      fc.property(patterns, seeds, (pattern, seed) => {
        const ask = { pattern, rate: 2, seconds: 200, seed }
        expect(times(ask)).toEqual(times(ask))
        expect(times(ask)).not.toEqual(times({ ...ask, seed: seed + 1 }))
      }),
      { numRuns: 60 },
    )
  })

  it('poisson: gaps vary as much as their mean, and most are shorter than it', () => {
    const found = times({ pattern: 'poisson', rate: 10, seconds: 5000, seed: 3 })
    const gaps = found.map((at, index) => at - (found[index - 1] ?? 0))
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length
    expect(Math.sqrt(variance) / mean).toBeCloseTo(1, 1)
    const shorter = gaps.filter((gap) => gap < mean).length / gaps.length
    expect(shorter).toBeCloseTo(1 - Math.exp(-1), 1)
  })

  it('diurnal: each hour has its share of the day, whatever the day lasts', () => {
    for (const day of [86_400, 600]) {
      const found = times({ pattern: 'diurnal', rate: 100_000 / day, seconds: day, seed: 5 })
      const byHour = HOURS.map(
        (_, hour) => found.filter((at) => Math.floor((at / day) * HOURS.length) === hour).length,
      )
      const sum = HOURS.reduce((total, share) => total + share, 0)
      for (const [hour, count] of byHour.entries()) {
        const before = HOURS.at(hour - 1) ?? 0
        const [own, after] = [HOURS[hour] ?? 0, HOURS[(hour + 1) % HOURS.length] ?? 0]
        // Straight lines between the middles of hours: the mean of an hour leans on both sides.
        const share = (before + 6 * own + after) / 8 / sum
        expect(Math.abs(count - share * 100_000)).toBeLessThan(5 * Math.sqrt(share * 100_000))
      }
      expect(byHour.indexOf(Math.max(...byHour))).toBeOneOf([10, 14, 15])
    }
  })

  it('burst: one stretch of each cycle has five times the rate of the rest', () => {
    const cycles = 15
    const seconds = BURST.cycleSeconds * cycles
    const found = times({ pattern: 'burst', rate: 10, seconds, seed: 9 })
    const starts: number[] = []
    for (let cycle = 0; cycle < cycles; cycle += 1) {
      const from = cycle * BURST.cycleSeconds
      const inside = found.filter((at) => at >= from && at < from + BURST.cycleSeconds)
      const within = (start: number): number =>
        inside.filter((at) => at >= start && at < start + BURST.burstSeconds).length
      const room = BURST.cycleSeconds - BURST.burstSeconds
      const candidates = Array.from({ length: room + 1 }, (_, second) => from + second)
      const best = candidates.reduce((one, next) => (within(next) > within(one) ? next : one))
      const outside = (inside.length - within(best)) / room
      expect(within(best) / BURST.burstSeconds / outside).toBeGreaterThan(3.5)
      expect(within(best) / BURST.burstSeconds / outside).toBeLessThan(7)
      starts.push(best - from)
    }
    expect(Math.max(...starts) - Math.min(...starts)).toBeGreaterThan(100)
  })
})
