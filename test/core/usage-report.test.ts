import fc from 'fast-check'
import { expect, it, test } from 'vitest'
import { addMoney, COST_STATES, type CostRow } from '../../src/core/cost.ts'
import { dayName } from '../../src/core/day.ts'
import {
  addUsage,
  noUsage,
  OUTCOMES,
  USAGE_DIMENSIONS,
  type UsageAsk,
  type UsageReport,
  type UsageRow,
  UsageSheet,
} from '../../src/core/usage-report.ts'

const FROM = 20_000
const DAYS = 4
const name = (...names: readonly string[]) => fc.option(fc.constantFrom(...names))
const day = fc.integer({ min: FROM, max: FROM + DAYS - 1 })

const row: fc.Arbitrary<UsageRow> = fc
  .record({
    day,
    consumer: name('team-a', 'team-b', '"'),
    key: name('key_1', 'key_2'),
    model: name('r1', 'qwq'),
    served: name('r1', 'qwq'),
    deployment: name('r1', 'qwq'),
    requests: fc.nat(50),
    promptTokens: fc.nat(1e6),
    cachedTokens: fc.nat(1e5),
    completionTokens: fc.nat(1e6),
    outcome: fc.constantFrom(...OUTCOMES),
  })
  .map(({ outcome, requests, ...rest }) => {
    const none = noUsage()
    return { ...none, ...rest, requests, outcomes: { ...none.outcomes, [outcome]: requests } }
  })
const rows = fc.array(row, { maxLength: 30 })

const costs: fc.Arbitrary<readonly CostRow[]> = fc.array(
  fc.record({
    day,
    node: fc.constantFrom('a', 'b'),
    deployment: fc.constantFrom('r1', 'qwq'),
    state: fc.constantFrom(...COST_STATES),
    currency: fc.constantFrom('CNY', 'USD'),
    // Powers of two: their sums are exact.
    amount: fc.nat(1000).map((count) => count / 64),
    gpuSeconds: fc.nat(100),
  }),
  { maxLength: 20 },
)
const by = fc.subarray([...USAGE_DIMENSIONS])

const reportOf = (
  ask: UsageAsk,
  [all, spent]: readonly [readonly UsageRow[], readonly CostRow[]],
): UsageReport => {
  const sheet = new UsageSheet(ask)
  for (let at = ask.fromDay; at <= ask.toDay; at += 1) {
    const today = (one: { readonly day: number }): boolean => one.day === at
    sheet.add(all.filter(today), spent.filter(today))
  }
  return sheet.report(false)
}

test('whatever it is told apart by, a report has every request and every coin, once', () => {
  fc.assert(
    fc.property(rows, costs, by, (all, spent, dimensions) => {
      const ask = { fromDay: FROM, toDay: FROM + DAYS - 1, by: dimensions }
      const report = reportOf(ask, [all, spent])
      const { cost, ...total } = report.total
      expect(total).toEqual(addUsage(all))
      expect(addUsage(report.rows)).toEqual(total)
      const paid = addMoney(spent)
      expect(report.spent.map(({ currency }) => currency)).toEqual(
        paid.map(({ currency }) => currency),
      )
      for (const [at, { amount }] of report.spent.entries()) {
        expect(amount).toBeCloseTo(paid[at]?.amount ?? Number.NaN, 6)
      }
      expect(cost.length).toBeLessThanOrEqual(paid.length)
      const keys = report.rows.map((group) => JSON.stringify(group.by))
      expect(new Set(keys).size).toBe(keys.length)
      for (const group of report.rows) expect(Object.keys(group.by)).toEqual(dimensions)
    }),
  )
})

test('a row costs the same, by whatever else rows are told apart', () => {
  fc.assert(
    fc.property(rows, costs, (all, spent) => {
      const whole = { fromDay: FROM, toDay: FROM + DAYS - 1 }
      const few = reportOf({ ...whole, by: ['consumer'] }, [all, spent])
      const many = reportOf({ ...whole, by: ['day', 'consumer', 'model', 'key'] }, [all, spent])
      for (const group of few.rows) {
        const parts = many.rows.filter((one) => one.by.consumer === group.by.consumer)
        const sum = addMoney(...parts.map(({ cost }) => cost))
        expect(sum.map(({ currency }) => currency)).toEqual(
          group.cost.map(({ currency }) => currency),
        )
        for (const [at, { amount }] of sum.entries()) {
          expect(amount).toBeCloseTo(group.cost[at]?.amount ?? Number.NaN, 6)
        }
      }
    }),
  )
})

it('names days, and sorts rows by their dimensions', () => {
  const one = (at: number, consumer: string): UsageRow => {
    const names = { consumer, key: null, model: null, served: null, deployment: null }
    return { ...noUsage(), ...names, day: at, requests: 1 }
  }
  const all = [one(FROM + 1, 'b'), one(FROM, 'b'), one(FROM + 1, 'a')]
  const report = reportOf({ fromDay: FROM, toDay: FROM + 1, by: ['day', 'consumer'] }, [all, []])
  expect(report.rows.map((group) => group.by)).toEqual([
    { day: dayName(FROM), consumer: 'b' },
    { day: dayName(FROM + 1), consumer: 'a' },
    { day: dayName(FROM + 1), consumer: 'b' },
  ])
  expect([report.from, report.to]).toEqual(['2024-10-04', '2024-10-05'])
})
