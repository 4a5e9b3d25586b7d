import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import {
  accrue,
  addMoney,
  type CostedNode,
  type CostRow,
  charge,
  costPerMs,
  mergeCosts,
  type Served,
} from '../../src/core/cost.ts'
import { DAY_MS, dayName, dayOf, parseDay } from '../../src/core/day.ts'

const CURRENCIES = ['CNY', 'EUR', 'USD']
const DEPLOYMENTS = ['deepseek-r1', 'qwq-32b', 'small']

const holder = fc.record({
  deployment: fc.constantFrom(...DEPLOYMENTS),
  parts: fc.integer({ min: 1, max: 8 }),
  busy: fc.boolean(),
})

const cost = fc.record({
  amount: fc.double({ min: 0.01, max: 1e9, noNaN: true }),
  currency: fc.constantFrom(...CURRENCIES),
  per: fc.constantFrom('hour' as const, 'month' as const, 'year' as const),
})

const nodes: fc.Arbitrary<readonly CostedNode[]> = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('a', 'b', 'c', 'd'),
    cost,
    gpuCount: fc.integer({ min: 0, max: 16 }),
    holders: fc.array(holder, { maxLength: 4 }),
    speed: fc.constantFrom(1, 20),
  }),
  { selector: ({ name }) => name, maxLength: 4 },
)

const span = fc
  .tuple(fc.integer({ min: 0, max: 4e12 }), fc.integer({ min: 1, max: 5 * DAY_MS }))
  .map(([fromMs, ms]) => ({ fromMs, toMs: fromMs + ms }))

/** Equal but for the rounding of binary fractions, which grows with the sum. */
const near = (found: number | undefined, amount: number): void =>
  expect(Math.abs((found ?? Number.NaN) - amount)).toBeLessThanOrEqual(1e-9 * (1 + amount))

const sumBy = (rows: readonly CostRow[], keyOf: (row: CostRow) => string): Map<string, number> => {
  const sums = new Map<string, number>()
  for (const row of rows) sums.set(keyOf(row), (sums.get(keyOf(row)) ?? 0) + row.amount)
  return sums
}

describe('what the machines cost', () => {
  test('every node costs what the inventory says, whoever holds it, over any span', () => {
    fc.assert(
      fc.property(nodes, span, fc.boolean(), (fleet, at, away) => {
        const sums = sumBy(accrue(fleet, at, away), ({ node }) => node)
        for (const node of fleet) {
          const ms = at.toMs - at.fromMs
          near(sums.get(node.name), costPerMs(node.cost) * ms * node.speed)
        }
        expect(sums.size).toBe(fleet.length)
      }),
    )
  })

  test('a span in pieces costs what it costs whole, row by row', () => {
    fc.assert(
      fc.property(nodes, span, fc.double({ min: 0, max: 1, noNaN: true }), (fleet, at, where) => {
        const middle = Math.round(at.fromMs + (at.toMs - at.fromMs) * where)
        const pieces = [
          ...accrue(fleet, { ...at, toMs: middle }, false),
          ...accrue(fleet, { ...at, fromMs: middle }, false),
        ]
        const key = (row: CostRow): string =>
          [row.day, row.node, row.deployment, row.state, row.currency].join(' ')
        const [whole, parts] = [accrue(fleet, at, false), mergeCosts(pieces)].map((rows) =>
          sumBy(rows, key),
        )
        expect(parts?.size).toBe(whole?.size)
        for (const [row, amount] of whole ?? []) near(parts?.get(row), amount)
      }),
    )
  })

  it('shares a node by GPUs, and says which are idle and which are free', () => {
    const h20: CostedNode = {
      name: 'h20-8a',
      cost: { amount: 8, currency: 'CNY', per: 'hour' },
      gpuCount: 8,
      holders: [
        { deployment: 'qwq-32b', parts: 1, busy: true },
        { deployment: 'deepseek-r1', parts: 4, busy: false },
      ],
      speed: 1,
    }
    const midnight = DAY_MS * 20_000
    const rows = accrue([h20], { fromMs: midnight - 1_800_000, toMs: midnight + 1_800_000 }, false)
    expect(rows.map(({ day, state, deployment }) => [day, state, deployment])).toEqual(
      [19_999, 20_000].flatMap((day) => [
        [day, 'busy', 'qwq-32b'],
        [day, 'idle', 'deepseek-r1'],
        [day, 'free', ''],
      ]),
    )
    for (const [at, amount] of [0.5, 2, 1.5, 0.5, 2, 1.5].entries()) near(rows[at]?.amount, amount)
    expect(rows[0]?.gpuSeconds).toBe(1800)
  })

  it('charges a node without GPUs whole to who runs there, and a year is a year', () => {
    const cpu: CostedNode = {
      name: 'cpu',
      cost: { amount: 365.2425, currency: 'EUR', per: 'year' },
      gpuCount: 0,
      holders: [{ deployment: 'small', parts: 1, busy: true }],
      speed: 1,
    }
    const day = { fromMs: 0, toMs: DAY_MS }
    expect(accrue([cpu], day, false)).toMatchObject([{ state: 'busy', gpuSeconds: 86_400 }])
    expect(accrue([cpu], day, false)[0]?.amount).toBeCloseTo(1, 9)
    expect(accrue([{ ...cpu, holders: [] }], day, false)).toMatchObject([{ state: 'free' }])
  })
})

describe('who pays', () => {
  const served: fc.Arbitrary<readonly Served[]> = fc.array(
    fc.record({
      day: fc.integer({ min: 1, max: 4 }),
      deployment: fc.option(fc.constantFrom(...DEPLOYMENTS)),
      promptTokens: fc.nat(1e6),
      cachedTokens: fc.nat(2e6),
      completionTokens: fc.nat(1e6),
    }),
    { maxLength: 12 },
  )
  const costs: fc.Arbitrary<readonly CostRow[]> = fc.array(
    fc.record({
      day: fc.integer({ min: 1, max: 4 }),
      node: fc.constantFrom('a', 'b'),
      deployment: fc.constantFrom(...DEPLOYMENTS),
      state: fc.constantFrom('busy' as const, 'idle' as const, 'free' as const, 'away' as const),
      currency: fc.constantFrom(...CURRENCIES),
      amount: fc.double({ min: 0, max: 1e6, noNaN: true }),
      gpuSeconds: fc.nat(1e6),
    }),
    { maxLength: 12 },
  )

  test('what is charged and what is unused is all that the machines cost, by currency', () => {
    fc.assert(
      fc.property(costs, served, (rows, tokens) => {
        const { costOf, unused } = charge(rows, tokens)
        const all = addMoney(...tokens.map(costOf), unused)
        const spent = sumBy(rows, ({ currency }) => currency)
        for (const [currency, amount] of spent) {
          const found = all.find((money) => money.currency === currency)?.amount ?? 0
          near(found, amount)
        }
        for (const { currency } of all) expect([...spent.keys()]).toContain(currency)
        for (const { amount, idle, free, away, unserved } of unused) {
          near(idle + free + away + unserved, amount)
        }
      }),
    )
  })

  test('nobody pays for idle time, nor for a deployment or a day that is not theirs', () => {
    const row: CostRow = {
      day: 1,
      node: 'a',
      deployment: 'qwq-32b',
      state: 'busy',
      currency: 'CNY',
      amount: 90,
      gpuSeconds: 1,
    }
    const tokens = { promptTokens: 0, cachedTokens: 0, completionTokens: 100 }
    const mine: Served = { day: 1, deployment: 'qwq-32b', ...tokens }
    const other: Served = { ...mine, completionTokens: 200 }
    const later: Served = { ...mine, day: 2 }
    const { costOf, unused } = charge(
      [row, { ...row, state: 'idle', amount: 5 }, { ...row, day: 3, amount: 7 }],
      [mine, other, later],
    )
    expect(costOf(mine)).toEqual([{ currency: 'CNY', amount: 30 }])
    expect(costOf(other)).toEqual([{ currency: 'CNY', amount: 60 }])
    expect(costOf(later)).toEqual([])
    expect(unused).toEqual([
      { currency: 'CNY', amount: 12, idle: 5, free: 0, away: 0, unserved: 7 },
    ])
  })
})

describe('days', () => {
  test('are those of the calendar, there and back', () => {
    fc.assert(
      fc.property(fc.integer({ min: -50_000, max: 250_000 }), (day) => {
        const name = new Date(day * DAY_MS).toISOString().slice(0, 10)
        expect(dayName(day)).toBe(name)
        expect(parseDay(name)).toBe(day)
        expect(dayOf(day * DAY_MS)).toBe(day)
        expect(dayOf((day + 1) * DAY_MS - 1)).toBe(day)
      }),
    )
  })

  it.each(['2025-02-29', '2026-13-01', '2026-00-10', '2026-1-1', 'today', '2026-11-24T00', ''])(
    '%s is none',
    (text) => expect(parseDay(text)).toBeNull(),
  )
})
