/** Room on a replica, and the future peak of the KV cache. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type Answer,
  growthOf,
  isModest,
  predictFirstTokenMs,
  roomFor,
  type Sent,
  type Signals,
} from '../../src/core/admission.ts'
import { CEILING } from '../../src/core/ceiling.ts'

const IDLE: Signals = {
  requestsWaiting: 0,
  kvCacheUsageRatio: 0.1,
  kvCapacityTokens: 100_000,
  maxRunning: 256,
}
const ALONE: Sent = {
  held: 10,
  foreign: 0,
  fresh: 1,
  unstarted: 1,
  unstartedTokens: 100,
  unseenTokens: 100,
  growthTokens: 1000,
}
const room = (signals: Partial<Signals>, sent: Partial<Sent> = {}, holds = 100, whole = false) =>
  among(1, signals, { sent, runs: holds, whole })

/** One of so many equal consumers, all of whom have something running. */
const among = (
  consumers: number,
  signals: Partial<Signals>,
  ask: { sent: Partial<Sent>; runs: number; whole?: boolean; beyond?: boolean },
) => {
  const { sent, runs, whole = false, beyond = true } = ask
  const others = consumers > 1
  const share = { runs, part: 1 / Math.max(2, consumers), others, rivals: others }
  return roomFor(
    { ...IDLE, ...signals },
    { sent: { ...ALONE, ...sent }, share, whole, beyond, ceiling: CEILING },
  )
}

describe('room', () => {
  test('an idle engine has it, a full one says what it lacks', () => {
    expect(room({})).toEqual({ go: true })
    expect(room({ requestsWaiting: 3 })).toEqual({ go: false, reason: 'waiting' })
    expect(room({ kvCacheUsageRatio: 0.86 })).toEqual({ go: false, reason: 'kv cache' })
    expect(room({ kvCacheUsageRatio: 0.8 }, { unseenTokens: 6000 }).go).toBe(false)
    expect(room({ kvCacheUsageRatio: 0.5 }, { growthTokens: 36_000 }).go).toBe(false)
    expect(room({ maxRunning: 9 })).toEqual({ go: false, reason: 'running' })
    expect(room({ maxRunning: 12 }, { foreign: 3 }).go).toBe(false)
  })

  test('prompts that nobody has begun to read: two; of whole answers, what one batch reads', () => {
    const many = { unstarted: 5, fresh: 5 }
    expect(room({}, { ...many, unstartedTokens: 2000 })).toEqual({ go: false, reason: 'prefill' })
    expect(room({}, { ...many, unstartedTokens: 2000 }, 0, true).go).toBe(true)
    expect(room({}, { ...many, unstartedTokens: 3000 }, 0, true).go).toBe(false)
    expect(room({}, { unstarted: 2, fresh: 2, unstartedTokens: 60_000 }).go).toBe(true)
    // Those before the last reading are in its `waiting`, which is 0.
    expect(room({}, { unstarted: 5, fresh: 2, unstartedTokens: 60_000 }).go).toBe(true)
    expect(room({ requestsWaiting: 2 }, { unstarted: 3, fresh: 1 }).go).toBe(false)
  })

  test('unknown is not zero: the number of requests is bounded all the same', () => {
    const unknown = { requestsWaiting: null, kvCacheUsageRatio: null, maxRunning: null }
    expect(room(unknown, { held: 50 }).go).toBe(true)
    expect(room(unknown, { held: 65 })).toEqual({ go: false, reason: 'running' })
  })

  test('some places are for those who hold few', () => {
    expect(room({}, { held: 62 }, 60).go).toBe(false)
    expect(room({}, { held: 62 }, 1).go).toBe(true)
    expect(room({}, { held: 65 }, 1).go).toBe(false)
  })

  test('beside others, who holds more than his share leaves them places, a prompt and cache', () => {
    const [large, small] = [40, 3]
    const both = (signals: Partial<Signals>, sent: Partial<Sent>) =>
      [large, small].map((runs) => among(2, signals, { sent, runs }))
    const go = { go: true }
    expect(both({}, { held: 61 })).toEqual([go, go])
    expect(both({}, { held: 62 })).toEqual([{ go: false, reason: 'running' }, go])
    const two = { held: 60, unstarted: 2, fresh: 2 }
    const page = { ...two, unstartedTokens: 1500 }
    expect(both({}, page)).toEqual([{ go: false, reason: 'prefill' }, go])
    // Short ones are read in no time.
    expect(both({}, { ...two, unstartedTokens: 200 })).toEqual([go, go])
    const nearlyFull = { kvCacheUsageRatio: 0.8 }
    expect(both(nearlyFull, { held: 60, unseenTokens: 1500 })).toEqual([
      { go: false, reason: 'kv cache' },
      go,
    ])
    // Alone of late, nothing of that would serve anybody.
    expect(room({}, page, large).go).toBe(true)
    expect(room(nearlyFull, { held: 60, unseenTokens: 1500 }, large).go).toBe(true)
  })

  test('beside others, who is within his part may go above the places, up to half as many', () => {
    const beside = (held: number, runs: number, maxRunning = 256) =>
      among(2, { maxRunning }, { sent: { held }, runs }).go
    expect([beside(65, 3), beside(96, 3), beside(97, 3)]).toEqual([true, true, false])
    // His part of 64 is 32, this one among them.
    expect([beside(65, 31), beside(65, 32)]).toEqual([true, false])
    // Never above what the engine runs at once: there he would wait in it.
    expect([beside(60, 3, 60), beside(61, 3, 60)]).toEqual([true, false])
    // Of more than places, each one's part is less than one request: nobody goes above.
    const runs = 0
    expect(among(64, {}, { sent: { held: 70 }, runs }).go).toBe(true)
    expect(among(65, {}, { sent: { held: 70 }, runs }).go).toBe(false)
    // Not while another replica has room.
    expect(among(2, {}, { sent: { held: 65 }, runs: 3, beyond: false }).go).toBe(false)
    // Who was alone of late has nobody to be kept from.
    expect(among(1, {}, { sent: { held: 65 }, runs: 3 }).go).toBe(false)
  })

  test('among equals nobody holds more than his share for long, and few places are two kept ones', () => {
    const few = { maxRunning: 24 }
    expect(among(8, few, { sent: { held: 23 }, runs: 2 }).go).toBe(true)
    expect(among(8, few, { sent: { held: 23 }, runs: 3 }).go).toBe(false)
    expect(among(8, few, { sent: { held: 22 }, runs: 3 }).go).toBe(true)
    // Of eight one is kept, of fewer none: it would be too large a part.
    const of = (maxRunning: number, held: number) =>
      among(2, { maxRunning }, { sent: { held }, runs: held }).go
    expect([of(8, 7), of(8, 8), of(7, 7)]).toEqual([true, false, true])
  })

  test('a part of what runs counts, not of places that the cache never lets be reached', () => {
    const full = { kvCacheUsageRatio: 0.84 }
    const heavy = among(2, full, { sent: { held: 60, unseenTokens: 0, growthTokens: 0 }, runs: 31 })
    expect(heavy).toEqual({ go: false, reason: 'kv cache' })
    expect(isModest({ runs: 31, part: 0.5, others: true, rivals: true }, 60)).toBe(false)
  })

  test('one request of each of more than run is nobody’s little', () => {
    const newcomer = { runs: 0, part: 1 / 300, others: true, rivals: true }
    expect(isModest(newcomer, 64, 1)).toBe(false)
    expect(isModest({ ...newcomer, part: 1 / 20 }, 64, 1)).toBe(true)
  })

  test('one that is larger than the cache goes alone, and only then', () => {
    const large = { unseenTokens: 200_000, growthTokens: 9000 }
    expect(room({}, { ...large, held: 1 }).go).toBe(true)
    expect(room({}, { ...large, held: 2 }).go).toBe(false)
    expect(room({}, { ...large, held: 1, foreign: 1 }).go).toBe(false)
  })
})

describe('the future peak of the cache', () => {
  test('answers of one age grow together; of mixed ages one makes room for another', () => {
    const together = Array.from({ length: 10 }, () => ({ tokens: 100, remaining: 100 }))
    expect(growthOf(together)).toBe(1000)
    const mixed = Array.from({ length: 10 }, (_, age) => ({
      tokens: 10 * age + 100,
      remaining: 100 - 10 * age,
    }))
    expect(growthOf(mixed)).toBeLessThan(300)
    expect(growthOf([])).toBe(0)
  })

  test('is what playing it out gives', () => {
    const Answers = fc.array(
      fc.record({ tokens: fc.nat({ max: 500 }), remaining: fc.nat({ max: 60 }) }),
      { maxLength: 12 },
    )
    fc.assert(
      fc.property(Answers, (answers) => {
        expect(growthOf(answers)).toBe(played(answers))
      }),
    )
  })

  const played = (answers: readonly Answer[]): number => {
    const now = answers.reduce((sum, { tokens }) => sum + tokens, 0)
    let peak = now
    for (let step = 1; step <= 60; step += 1) {
      const alive = answers.filter(({ remaining }) => remaining >= step)
      peak = Math.max(
        peak,
        alive.reduce((sum, { tokens }) => sum + tokens + step, 0),
      )
    }
    return peak - now
  }
})

test('a first token is expected after those before it, and after its own prompt', () => {
  const known = { firstTokenMs: 400, firstTokenTokens: 1000, prefillTokens: 500 }
  const drain = { drainTokensPerSecond: 2000 }
  expect(predictFirstTokenMs({ ...known, ...drain, queuedTokens: 0 })).toBe(400)
  expect(predictFirstTokenMs({ ...known, ...drain, queuedTokens: 6000 })).toBe(3400)
  expect(predictFirstTokenMs({ ...known, ...drain, queuedTokens: 6000, prefillTokens: 5000 })).toBe(
    5000,
  )
  expect(predictFirstTokenMs({ ...known, drainTokensPerSecond: null, queuedTokens: 1 })).toBe(null)
})
