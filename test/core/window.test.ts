import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Window } from '../../src/core/window.ts'

const filled = (points: readonly (readonly [number, number])[], capacity = 100) => {
  const window = new Window(capacity)
  for (const [atMs, value] of points) window.push(atMs, value)
  return window
}

test('empty is unknown, not zero', () => {
  const window = new Window(2)
  expect([window.latest(5), window.ratePerSecond(5, 1000), window.size]).toEqual([null, null, 0])
})

test('the latest value and its age', () => {
  const window = filled([
    [1000, 5],
    [1500, 7],
  ])
  expect(window.latest(1750)).toEqual({ value: 7, ageMs: 250 })
  expect(window.latest(1400)).toEqual({ value: 7, ageMs: 0 })
})

test('the rate of a counter over the span asked for', () => {
  const window = filled([
    [0, 0],
    [1000, 100],
    [2000, 100],
    [3000, 400],
  ])
  expect(window.ratePerSecond(3000, 10_000)).toBeCloseTo(400 / 3)
  expect(window.ratePerSecond(3000, 1000)).toBe(300)
  expect(window.ratePerSecond(3000, 999)).toBeNull()
  expect(window.ratePerSecond(20_000, 10_000)).toBeNull()
})

test('a quiet engine has a rate of zero', () => {
  expect(
    filled([
      [0, 9],
      [500, 9],
    ]).ratePerSecond(500, 10_000),
  ).toBe(0)
})

test('an engine that restarted counts from zero again', () => {
  const window = filled([
    [0, 1000],
    [1000, 1100],
    [2000, 30],
    [3000, 130],
  ])
  expect(window.ratePerSecond(3000, 10_000)).toBeCloseTo((100 + 30 + 100) / 3)
})

test('readings that are no numbers, or from the past, are left out', () => {
  const window = filled([
    [1000, 5],
    [1100, Number.NaN],
    [900, 3],
    [Number.NaN, 1],
    [1200, 6],
  ])
  expect([window.size, window.latest(1200)?.value]).toEqual([2, 6])
  window.clear()
  expect([window.size, window.latest(1200)]).toEqual([0, null])
})

test('two readings at one moment have no rate', () => {
  expect(
    filled([
      [1000, 5],
      [1000, 9],
    ]).ratePerSecond(1000, 5000),
  ).toBeNull()
})

test('a window of fewer than two is a bug', () => {
  expect(() => new Window(1)).toThrow()
  expect(() => new Window(2.5)).toThrow()
})

test('whatever is pushed: bounded, the newest kept, the rate as a plain sum gives it', () => {
  const step = fc.tuple(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 0, max: 1_000_000 }))
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 60 }),
      fc.integer({ min: 2, max: 20 }),
      (steps, capacity) => {
        let atMs = 0
        const points = steps.map(([gapMs, value]): readonly [number, number] => {
          atMs += gapMs
          return [atMs, value]
        })
        const window = filled(points, capacity)
        const kept = points.slice(-capacity)
        expect(window.size).toBe(kept.length)
        expect(window.latest(atMs)?.value ?? null).toBe(kept.at(-1)?.[1] ?? null)
        let gained = 0
        for (const [index, [, value]] of kept.entries()) {
          const before = kept[index - 1]?.[1]
          if (before !== undefined) gained += value >= before ? value - before : value
        }
        const lengthMs = (kept.at(-1)?.[0] ?? 0) - (kept[0]?.[0] ?? 0)
        const expected = kept.length < 2 ? null : (gained * 1000) / lengthMs
        const rate = window.ratePerSecond(atMs, 1e9)
        if (expected === null) expect(rate).toBeNull()
        else expect(rate).toBeCloseTo(expected, 6)
      },
    ),
  )
})
