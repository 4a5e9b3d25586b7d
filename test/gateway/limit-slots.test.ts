/** The shared table and the reservations on it, with a clock of our own and several "threads". */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { GatewaySchema } from '../../src/core/gateway-manifest.ts'
import { type GatewayLimit, limitsOf } from '../../src/core/limits.ts'
import { LimitSlots } from '../../src/gateway/limit-slots.ts'
import { Limits, type Reservation } from '../../src/gateway/limits.ts'
import { goDuration, RateLimited } from '../../src/gateway/rate-limited.ts'

const SECOND = 1_000_000_000n

const limitsFrom = (...stated: readonly Readonly<Record<string, unknown>>[]) => {
  const routes = [{ model: 'm', to: 'm', limits: stated }]
  return GatewaySchema.parse({ kind: 'Gateway', routes }).routes.flatMap(limitsOf)
}

const worldOf = (threads: number) => {
  const clock = { now: 1_000n * SECOND }
  const slots = new LimitSlots(threads)
  const all = Array.from(
    { length: threads },
    (_, thread) =>
      new Limits({
        slots: new LimitSlots(threads, slots.buffer),
        thread,
        now: () => clock.now,
      }),
  )
  return { clock, slots, all }
}

const attempt = (
  limits: Limits | undefined,
  stated: readonly GatewayLimit[],
  amounts = { prompt: 10, completion: 0 },
): Reservation | RateLimited => {
  if (limits === undefined) throw new Error('no such thread')
  try {
    return limits.reserve(stated, () => 'alice', amounts)
  } catch (error) {
    if (error instanceof RateLimited) return error
    throw error
  }
}

test('places at a time are one count over all threads, and a dead thread gives its back', () => {
  const { all, slots } = worldOf(3)
  const stated = limitsFrom({ per: 'consumer', concurrent: 4 })
  const held = [0, 0, 1, 2].map((thread) => attempt(all[thread], stated))
  expect(held.every((one) => !(one instanceof RateLimited))).toBe(true)
  for (const limits of all) expect(attempt(limits, stated)).toBeInstanceOf(RateLimited)
  slots.clear(0)
  expect(attempt(all[1], stated)).not.toBeInstanceOf(RateLimited)
  expect(attempt(all[2], stated)).not.toBeInstanceOf(RateLimited)
  expect(attempt(all[1], stated)).toBeInstanceOf(RateLimited)
})

test('a place taken is given back when another limit refuses', () => {
  const { all } = worldOf(1)
  const stated = limitsFrom({ per: 'consumer', concurrent: 2, requestsPerDay: 1 })
  attempt(all[0], stated)
  for (let nth = 0; nth < 5; nth += 1) {
    const refused = attempt(all[0], stated)
    expect(refused instanceof RateLimited && refused.limit.measure).toBe('requests')
  }
})

test('a refund of what has drained long ago gives nothing away', () => {
  const { all, clock } = worldOf(1)
  const stated = limitsFrom({ per: 'consumer', tokensPerMinute: 60, burst: 60 })
  const early = attempt(all[0], stated, { prompt: 60, completion: 0 })
  clock.now += 100n * SECOND
  const late = attempt(all[0], stated, { prompt: 60, completion: 0 })
  expect(late).not.toBeInstanceOf(RateLimited)
  if (early instanceof RateLimited) throw early
  early.settle({ prompt: 0, completion: 0 })
  expect(attempt(all[0], stated, { prompt: 1, completion: 0 })).toBeInstanceOf(RateLimited)
})

test('under any order of begin, growth, end and time, the used tokens stay within the limit', () => {
  const steps = fc.array(
    fc.record({
      thread: fc.integer({ min: 0, max: 3 }),
      what: fc.constantFrom('begin', 'begin', 'grow', 'end', 'end again', 'wait'),
      tokens: fc.integer({ min: 0, max: 400 }),
    }),
    { maxLength: 120 },
  )
  fc.assert(
    fc.property(steps, (all) => {
      const world = worldOf(4)
      const stated = limitsFrom({ per: 'route', tokensPerMinute: 600, burst: 300 })
      const start = world.clock.now
      const open: { reservation: Reservation; made: number }[] = []
      const closed: Reservation[] = []
      let [used, error] = [0, 0]
      for (const { thread, what, tokens } of all) {
        if (what === 'begin') {
          const got = attempt(world.all[thread], stated, { prompt: tokens, completion: 20 })
          if (!(got instanceof RateLimited)) open.push({ reservation: got, made: 0 })
        } else if (what === 'wait') world.clock.now += BigInt(tokens) * (SECOND / 10n)
        else if (what === 'end again') closed[0]?.settle({ prompt: 0, completion: 0 })
        else {
          const one = what === 'grow' ? open[0] : open.shift()
          if (one === undefined) continue
          one.made += tokens
          one.reservation.produced(one.made)
          if (what === 'grow') continue
          const { prompt } = one.reservation.expected
          one.reservation.settle({ prompt, completion: one.made })
          closed.push(one.reservation)
          used += prompt + one.made
          error += Math.max(0, one.made - 20) + Math.max(0, prompt + 20 - 300)
        }
      }
      const back = Number((world.clock.now - start) / (SECOND / 10n))
      expect(used).toBeLessThanOrEqual(300 + back + error + 1)
    }),
    { numRuns: 60 },
  )
}, 60_000)

describe('a full table', () => {
  test('makes newcomers share, never passes more, and gives idle places away', () => {
    const { all, slots, clock } = worldOf(1)
    const [limits, stated] = [all[0], limitsFrom({ per: 'key', requestsPerHour: 1 })]
    if (limits === undefined) throw new Error('no thread')
    const none = { prompt: 0, completion: 0 }
    let passed = 0
    const flood = (round: string): void => {
      for (let nth = 0; nth < 25_000; nth += 1) {
        try {
          limits.reserve(stated, () => `${round} ${nth}`, none)
          passed += 1
        } catch (error) {
          if (!(error instanceof RateLimited)) throw error
        }
      }
    }
    flood('first')
    expect(slots.overflows).toBeGreaterThan(0)
    // 16,384 places of their own and 256 that are shared.
    expect(passed).toBeLessThanOrEqual(16_384 + 256)
    expect(passed).toBeGreaterThan(16_000)
    const before = passed
    clock.now += 3_700n * SECOND
    flood('second')
    expect(passed - before).toBeGreaterThan(16_000)
  })
})

test.each([
  [0, '0s'],
  [12, '12ms'],
  [1_000, '1s'],
  [252_172, '4m12.172s'],
  [360_000, '6m0s'],
  [3_600_000, '1h0m0s'],
])('%i ms as Go writes it: %s', (ms, text) => {
  expect(goDuration(ms)).toBe(text)
})

test('what was forgiven while a request ran is not given back when it ends', () => {
  const { all, clock } = worldOf(2)
  const [limits, other] = all
  const stated = limitsFrom({ per: 'consumer', tokensPerMinute: 50 })
  // Reserved for more than a burst, which an idle bucket allows; it is to use 50.
  const running = attempt(limits, stated, { prompt: 20, completion: 280 })
  if (running instanceof RateLimited) throw running
  clock.now += SECOND / 1000n
  other?.forgive(stated, () => 'alice')
  running.settle({ prompt: 20, completion: 30 })
  clock.now += SECOND
  expect(attempt(limits, stated, { prompt: 20, completion: 30 })).toBeInstanceOf(RateLimited)
  // It drains with time: never closed.
  clock.now += 59n * SECOND
  const later = attempt(limits, stated, { prompt: 20, completion: 30 })
  expect(later).not.toBeInstanceOf(RateLimited)
})
