/** Properties of the limiter under any order of charges and settlements. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Cell,
  charge,
  peek,
  type Rate,
  refund,
  takeAll,
  waitFor,
  weigh,
} from '../../src/core/gcra.ts'

const cellOf = (start = 0n): Cell & { value: bigint } => ({
  value: start,
  load() {
    return this.value
  },
  swap(expected, next) {
    const before = this.value
    if (before === expected) this.value = next
    return before
  },
})

const MINUTE = 60_000_000_000n
const amount = fc.integer({ min: 1, max: 1_000_000 })
const rates = fc.record({
  amount,
  windowNs: fc.constantFrom(1_000_000_000n, MINUTE, 60n * MINUTE, 1440n * MINUTE),
  burst: amount,
}) satisfies fc.Arbitrary<Rate>
const asks = fc.array(
  fc.record({
    units: fc.integer({ min: 0, max: 20_000 }),
    afterNs: fc.bigInt({ min: 0n, max: 2n * MINUTE }),
  }),
  { maxLength: 60 },
)

test('in any span no more passes than the burst and what came back, and one request more', () => {
  fc.assert(
    fc.property(rates, asks, (rate, steps) => {
      const cell = cellOf()
      const passed: { units: number; atNs: bigint }[] = []
      let now = 1n
      for (const { units, afterNs } of steps) {
        now += afterNs
        if (takeAll([{ cell, rate, units }], now).ok) passed.push({ units, atNs: now })
      }
      for (const [from, first] of passed.entries()) {
        let sum = 0n
        let largest = 0n
        for (const { units, atNs } of passed.slice(from)) {
          sum += BigInt(units)
          // Only a request larger than the burst may go beyond, alone.
          if (units > rate.burst && BigInt(units) > largest) largest = BigInt(units)
          const back = ((atNs - first.atNs) * BigInt(rate.amount)) / rate.windowNs + 1n
          expect(sum <= BigInt(rate.burst) + back + largest).toBe(true)
        }
      }
    }),
  )
})

test('after exactly the wait that a refusal names, the same request passes, and not before', () => {
  fc.assert(
    fc.property(rates, fc.bigInt({ min: 1n, max: 10n * MINUTE }), amount, (rate, tat, units) => {
      const waitNs = waitFor(tat, { rate, units }, 0n)
      if (waitNs === 0n) return
      expect(waitFor(tat, { rate, units }, waitNs)).toBe(0n)
      expect(waitFor(tat, { rate, units }, waitNs - 1n)).toBe(1n)
    }),
  )
})

test('several limits: all are charged or none', () => {
  fc.assert(
    fc.property(fc.array(rates, { minLength: 1, maxLength: 5 }), asks, (all, steps) => {
      const cells = all.map(() => cellOf())
      let now = 1n
      for (const { units, afterNs } of steps) {
        now += afterNs
        const before = cells.map(({ value }) => value)
        const charges = all.map((rate, index) => ({ cell: cells[index] ?? cellOf(), rate, units }))
        const taken = takeAll(charges, now)
        const waits = charges.map(({ rate }, at) => waitFor(before[at] ?? 0n, { rate, units }, now))
        expect(taken.ok).toBe(waits.every((wait) => wait === 0n))
        if (taken.ok) continue
        expect(cells.map(({ value }) => value)).toEqual(before)
        expect(taken.waitNs).toBe(waits.toSorted((a, b) => (a < b ? 1 : -1))[0])
      }
    }),
  )
})

test('a refusal that another thread causes half way takes back what was charged', () => {
  const rate = { amount: 10, windowNs: MINUTE, burst: 10 }
  const [first, second] = [cellOf(), cellOf()]
  let reads = 0
  const contested: Cell = {
    // The other thread takes everything between our look and our charge.
    load: () => {
      reads += 1
      return reads === 1 ? 0n : MINUTE
    },
    swap: (expected, next) => second.swap(expected, next),
  }
  const charges = [first, contested].map((cell) => ({ cell, rate, units: 5 }))
  expect(takeAll(charges, 1n)).toEqual({ ok: false, at: 1, waitNs: MINUTE / 2n - 1n })
  expect(peek(first.value, rate, 1n).remaining).toBe(10)
})

test('charge, then refund in any order, ends where the used units alone end', () => {
  fc.assert(
    fc.property(rates, fc.array(fc.tuple(amount, amount), { maxLength: 20 }), (rate, pairs) => {
      const cell = cellOf()
      for (const [reserved] of pairs) charge({ cell, rate, units: reserved }, 1n)
      for (const [reserved, used] of pairs.toReversed()) {
        if (used > reserved) charge({ cell, rate, units: used - reserved }, 1n)
        else refund({ cell, rate, units: reserved - used })
      }
      const total = pairs.reduce((sum, [, used]) => sum + weigh(rate, used), 0n)
      const drift = cell.value - total - (pairs.length === 0 ? 0n : 1n)
      // A nanosecond of rounding for each step.
      const most = 2n * BigInt(pairs.length)
      expect(drift <= most && drift >= -most).toBe(true)
    }),
  )
})
