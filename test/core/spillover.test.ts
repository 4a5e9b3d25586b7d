import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CALM, nextSpill, type SpillState, saturation } from '../../src/core/spillover.ts'

const play = (ratios: readonly (number | null)[], stepMs = 500): readonly SpillState[] => {
  let state = CALM
  return ratios.map((ratio, index) => {
    state = nextSpill(state, ratio, index * stepMs)
    return state
  })
}

describe('saturation', () => {
  const load = (requestsWaiting: number | null, kvCacheUsageRatio: number | null) => ({
    requestsWaiting,
    kvCacheUsageRatio,
  })

  test.each([
    [[], null],
    [[load(null, 0.5)], null],
    [[load(0, null)], null],
    [[load(0, 0)], 0],
    [[load(2, 0)], 1],
    [[load(0, 0.85)], 1],
    [[load(1, 0.85), load(0, 0.425)], 0.5],
    [[load(8, 0.9), load(null, null)], 4],
  ])('%j: %s', (replicas, expected) => {
    const ratio = saturation(replicas)
    if (expected === null) expect(ratio).toBeNull()
    else expect(ratio).toBeCloseTo(expected)
  })
})

describe('the state', () => {
  test('one full reading is none; two begin', () => {
    expect(play([1.2, 0.9, 1.2]).map(({ spilling }) => spilling)).toEqual([false, false, false])
    expect(play([1, 1]).map(({ spilling }) => spilling)).toEqual([false, true])
  })

  test('between the two ratios it stays as it is', () => {
    expect(play([1, 1, 0.8, 0.8, 0.8]).at(-1)?.spilling).toBe(true)
    expect(play([0.8, 0.9, 0.99, 0.8]).at(-1)?.spilling).toBe(false)
  })

  test('five calm seconds end it, not fewer, and a peak starts them anew', () => {
    const calm = (count: number) => Array.from({ length: count }, () => 0.5)
    expect(play([1, 1, ...calm(10)]).at(-1)?.spilling).toBe(true)
    expect(play([1, 1, ...calm(11)]).at(-1)).toEqual(CALM)
    expect(play([1, 1, ...calm(9), 0.8, ...calm(10)]).at(-1)?.spilling).toBe(true)
  })

  test('the fraction grows with pressure', () => {
    const at = (ratio: number) => play([1, 1, ratio]).at(-1)?.fraction
    expect(at(0.7)).toBeCloseTo(0)
    expect(at(1)).toBeCloseTo(0.25)
    expect(at(1.5)).toBeCloseTo(0.75)
    expect(at(3)).toBe(1)
  })

  test('properties: never by unknown signals, the clear cannot stick, the share is a share', () => {
    const ratios = fc.array(fc.option(fc.double({ min: 0, max: 5, noNaN: true })), {
      maxLength: 60,
    })
    fc.assert(
      fc.property(ratios, (before) => {
        const states = play(before)
        for (const [index, state] of states.entries()) {
          expect(state.fraction).toBeGreaterThanOrEqual(0)
          expect(state.fraction).toBeLessThanOrEqual(1)
          if (!state.spilling) expect(state.fraction).toBe(0)
          if (before[index] === null) expect(state.spilling).toBe(false)
          if (state.spilling && states[index - 1]?.spilling !== true) {
            expect(before[index]).toBeGreaterThanOrEqual(1)
            expect(before[index - 1]).toBeGreaterThanOrEqual(1)
          }
        }
        // Whatever came before, six calm seconds later nothing is left of it.
        const rest = play([...before, ...Array.from({ length: 13 }, () => 0.1)])
        expect(rest.at(-1)).toEqual(CALM)
      }),
    )
  })
})
