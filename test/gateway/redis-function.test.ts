/** The limiter in Redis against the one in core/gcra.ts: the same decisions, the same remainders. */
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Cell, charge, peek, refund, type Taken, takeAll } from '../../src/core/gcra.ts'
import { functionName, librarySource, type RedisStep } from '../../src/gateway/redis-function.ts'
import { PASSWORD, REDIS, startRedis, type TestRedis } from '../support/redis.ts'

/** So long that nothing drains while a test runs: a unit comes back in minutes. */
const WINDOW_MS = 86_400_000

class Memory implements Cell {
  time = 0n
  load(): bigint {
    return this.time
  }
  swap(expected: bigint, next: bigint): bigint {
    const before = this.time
    if (before === expected) this.time = next
    return before
  }
}

const limit = fc.record({
  // They divide the window: nothing is rounded, by which two clocks could part.
  amount: fc.constantFrom(50, 100, 120, 240, 300, 500, 600, 800, 1000),
  burst: fc.integer({ min: 1, max: 1000 }),
})
const action = fc.record({
  /** Takes, or settles the oldest reservation with so many units. */
  take: fc.boolean(),
  units: fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 3, maxLength: 3 }),
  /** Of a settlement: said once more. */
  twice: fc.boolean(),
})

describe.skipIf(!REDIS)('the function in Redis', { timeout: 120_000 }, () => {
  let server: TestRedis
  let redis: Redis
  beforeAll(async () => {
    server = await startRedis()
    redis = new Redis(server.url, { password: PASSWORD })
    await redis.call('FUNCTION', 'LOAD', librarySource)
  }, 60_000)
  afterAll(async () => {
    redis.disconnect()
    await server.close()
  })

  let ids = 0
  const step = async (name: RedisStep, keys: string[], values: (string | number)[]) => {
    const words = [...keys, ...values]
    const reply: unknown = await redis.fcall(functionName(name), keys.length, ...words)
    return (Array.isArray(reply) ? reply : [reply]).map(Number)
  }

  test('decides like core/gcra.ts over several limits, and settles each request once', async () => {
    const limits = fc.array(limit, { minLength: 1, maxLength: 3 })
    const actions = fc.array(action, { minLength: 1, maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(limits, actions, async (stated, todo) => {
        ids += 1
        const run = ids
        const buckets = stated.map((_, at) => `{t}:b:${run}:${at}`)
        const cells = stated.map(() => new Memory())
        const rates = stated.map(({ amount, burst }) => ({
          ...{ amount, burst },
          windowNs: BigInt(WINDOW_MS) * 1_000_000n,
        }))
        const words = (units: readonly number[]): number[] =>
          stated.flatMap(({ amount, burst }, at) => [
            ...[amount, WINDOW_MS * 1000, burst],
            units[at] ?? 0,
          ])
        const chargesOf = (units: readonly number[]) =>
          rates.flatMap((rate, at) => {
            const cell = cells[at]
            return cell === undefined ? [] : [{ cell, rate, units: units[at] ?? 0 }]
          })
        const open: { record: string; units: readonly number[] }[] = []
        const count = stated.length
        for (const [nth, { take, units, twice }] of todo.entries()) {
          const now = 1n
          const oldest = open[0]
          if (take || oldest === undefined) {
            const record = `{t}:r:${run}:${nth}`
            const reply = await step(
              'take',
              [record, ...buckets],
              [count, 9e4, 'm', ...words(units)],
            )
            const taken: Taken = takeAll(chargesOf(units), now)
            expect(reply[0]).toBe(taken.ok ? 1 : 0)
            if (taken.ok) open.push({ record, units })
            else expect(reply[1]).toBe(taken.at + 1)
            for (const [at, rate] of rates.entries()) {
              const { remaining } = peek(cells[at]?.time ?? 0n, rate, now)
              // Rounded down twice, and a moment apart.
              expect(Math.abs((reply[3 + at * 2] ?? 0) - remaining)).toBeLessThanOrEqual(1)
            }
            continue
          }
          open.shift()
          const values = [count, 1, 'm', ...words(units)]
          expect(await step('bring', [oldest.record, ...buckets], values)).toEqual([1])
          if (twice) expect(await step('bring', [oldest.record, ...buckets], values)).toEqual([0])
          for (const [at, one] of chargesOf(units).entries()) {
            const more = one.units - (oldest.units[at] ?? 0)
            if (more > 0) charge({ ...one, units: more }, now)
            if (more < 0) refund({ ...one, units: -more })
          }
        }
      }),
      { numRuns: 60 },
    )
  })

  test('what gateways say after an outage adds up, and what Redis kept counts once', async () => {
    const keys = ['{t}:b:owed', '{t}:o:owed']
    const owed = async (): Promise<number> => {
      const [tat] = String(await redis.get('{t}:b:owed')).split(' ')
      return Math.round((Number(tat) / 1000 - Date.now()) / 1000)
    }
    await step('take', ['{t}:r:owed', '{t}:b:owed'], [1, 9e4, 'm', 1, 1e6, 5000, 100])
    expect(await owed()).toBe(100)
    await step('owe', keys, ['a', 60e6])
    expect(await owed()).toBe(100)
    await step('owe', keys, ['b', 90e6])
    expect(await owed()).toBe(150)
    // Every thread of a gateway says the same.
    await step('owe', keys, ['b', 90e6])
    await step('owe', keys, ['a', 60e6])
    expect(await owed()).toBe(150)
  })

  test('a request of before the outage that is settled after it takes nothing off the rest', async () => {
    const [keys, rate] = [
      ['{t}:b:both', '{t}:o:both'],
      [1, 1e6, 5000],
    ]
    const owed = async (): Promise<number> => {
      const [tat] = String(await redis.get('{t}:b:both')).split(' ')
      return Math.round((Number(tat) / 1000 - Date.now()) / 1000)
    }
    await step('take', ['{t}:r:given-up', '{t}:b:both'], [1, 9e4, 'm', ...rate, 100])
    await step('owe', keys, ['a', 150e6])
    expect(await owed()).toBe(150)
    await step('bring', ['{t}:r:given-up', '{t}:b:both'], [1, 1, 'm', ...rate, 0])
    expect(await owed()).toBe(150)
    await step('owe', keys, ['b', 50e6])
    expect(await owed()).toBe(200)
    // One of after it is given back as ever.
    await step('take', ['{t}:r:new', '{t}:b:both'], [1, 9e4, 'm', ...rate, 100])
    await step('bring', ['{t}:r:new', '{t}:b:both'], [1, 1, 'm', ...rate, 40])
    expect(await owed()).toBe(240)
  })

  test('a refund does not reach what was charged after the bucket had been clear', async () => {
    const bucket = '{t}:b:clear'
    const rate = [1000, 1e6, 1000]
    // A hundred milliseconds' worth, which has drained when the next one comes.
    await step('take', ['{t}:r:first', bucket], [1, 9e4, 'm', ...rate, 100])
    await new Promise((resolve) => setTimeout(resolve, 250))
    const [, , , before] = await step('take', ['{t}:r:second', bucket], [1, 9e4, 'm', ...rate, 900])
    await step('bring', ['{t}:r:first', bucket], [1, 1, 'm', ...rate, 0])
    const probe = [1, 9e4, 'm', ...rate, 1000]
    const [taken, , , left] = await step('take', ['{t}:r:third', bucket], probe)
    expect([taken, before]).toEqual([0, 100])
    // Had it been given back, 100 more would be left than time alone has brought.
    expect(left).toBeLessThan(200 + 100)
  })

  test('a request that was given up before it came is not let in', async () => {
    const keys = ['{t}:r:late', '{t}:b:late']
    expect(await step('bring', keys, [1, 1, 'm', 10, 1e9, 10, 0])).toEqual([-1])
    expect((await step('take', keys, [1, 9e4, 'm', 10, 1e9, 10, 5]))[0]).toBe(0)
    expect(await redis.get('{t}:b:late')).toBe(null)
  })

  test('a request that Redis has forgotten charges nothing and is said to be unknown', async () => {
    const keys = ['{t}:r:nobody', '{t}:b:nobody', '{t}:p:nobody']
    expect(await step('bring', keys, [1, 0, 'm', 10, 1e9, 10, 5])).toEqual([-1])
    expect(await step('bring', keys, [1, 1, 'm', 10, 1e9, 10, 5])).toEqual([-1])
    expect(await redis.get('{t}:b:nobody')).toBe(null)
  })
})
