/** Which replica is asked: every policy, fresh replicas, and what moves when one comes or goes. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { loadOf, type PickAsk, pickTarget, weightOf } from '../../src/core/balance.ts'
import { hashText } from '../../src/core/hash.ts'
import type { Target } from '../../src/core/snapshot.ts'

const target = (slot: number, more: Partial<Target> = {}): Target => ({
  id: `r${slot}`,
  url: `http://127.0.0.1:${slot + 1}`,
  slot,
  state: 'ready',
  requestsRunning: null,
  requestsWaiting: null,
  kvCacheUsageRatio: null,
  ...more,
})
const replicas = (count: number, more: Partial<Target> = {}) =>
  Array.from({ length: count }, (_, slot) => target(slot, more))

type Balance = NonNullable<PickAsk['policy']>['balance']

const ask = (more: Partial<PickAsk> & { balance?: Balance; slowStart?: number }): PickAsk => {
  const { balance = 'power-of-two', slowStart = 0, ...rest } = more
  return {
    targets: [],
    policy: { balance, slowStart },
    inFlightOf: () => 0,
    random: 0.5,
    nowMs: 1_000_000,
    ...rest,
  }
}

const BALANCES = ['least-load', 'power-of-two', 'round-robin', 'session', 'prefix'] as const
const unit = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })

/** Seeded, so that the shares below are the same in every run (mulberry32). */
const seeded = (seed: number) => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let value = Math.imul(state ^ (state >>> 15), 1 | state)
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
    return ((value ^ (value >>> 14)) >>> 0) / 4_294_967_296
  }
}

describe('every policy', () => {
  test('asks a ready replica that is not excluded, or says that there is none', () => {
    const states = fc.array(fc.constantFrom('ready', 'draining', 'excluded'), { maxLength: 6 })
    fc.assert(
      fc.property(fc.constantFrom(...BALANCES), states, unit, fc.nat(), (...drawn) => {
        const [balance, given, random, turn] = drawn
        const targets = given.map((state, slot) =>
          target(slot, { state: state === 'draining' ? 'draining' : 'ready' }),
        )
        const exclude = new Set(
          given.flatMap((state, slot) => (state === 'excluded' ? [`r${slot}`] : [])),
        )
        const hashes = { sessionHash: turn, prefixHash: turn }
        const picked = pickTarget(ask({ balance, targets, exclude, random, turn, ...hashes }))
        if (given.includes('ready')) expect(given[picked?.slot ?? -1]).toBe('ready')
        else expect(picked).toBeNull()
      }),
    )
  })

  test('waiting requests weigh double; an unknown signal is not an idle engine', () => {
    expect(loadOf(target(0, { requestsRunning: 4, requestsWaiting: 3 }), () => 2)).toBe(10)
    expect(loadOf(target(0, { requestsRunning: 4, requestsWaiting: 0 }), () => 6)).toBe(6)
    expect(loadOf(target(0), () => 5)).toBe(5)
  })
})

describe('power of two', () => {
  test('the less loaded of the two that are drawn, never the most loaded of all', () => {
    fc.assert(
      fc.property(unit, fc.nat(4), (random, busiest) => {
        const inFlightOf = (slot: number) => (slot === busiest ? 9 : 1)
        const picked = pickTarget(ask({ targets: replicas(5), random, inFlightOf }))
        expect(picked?.slot).not.toBe(busiest)
      }),
    )
  })

  test('equal loads are shared evenly', () => {
    const counts = [0, 0, 0]
    for (let draw = 0; draw < 600; draw += 1) {
      const slot = pickTarget(ask({ targets: replicas(3), random: draw / 600 }))?.slot ?? -1
      counts[slot] = (counts[slot] ?? 0) + 1
    }
    expect(counts).toEqual([200, 200, 200])
  })
})

describe('least load', () => {
  test('is the least of all; the KV cache decides between equal counts', () => {
    const busy = { requestsRunning: 20, requestsWaiting: 0 }
    const targets = [
      target(0, { ...busy, kvCacheUsageRatio: 0.9 }),
      target(1, { ...busy, kvCacheUsageRatio: 0.2 }),
      target(2, { ...busy, kvCacheUsageRatio: null }),
    ]
    fc.assert(
      fc.property(unit, (random) => {
        const picked = pickTarget(ask({ balance: 'least-load', targets, random }))
        expect(picked?.id).toBe('r1')
      }),
    )
  })

  test('keeps the counts within one of each other while requests arrive', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 8 }), fc.array(unit, { maxLength: 60 }), (n, draws) => {
        const counts = Array.from({ length: n }, () => 0)
        const inFlightOf = (slot: number) => counts[slot] ?? 0
        for (const random of draws) {
          const picked = pickTarget(
            ask({ balance: 'least-load', targets: replicas(n), random, inFlightOf }),
          )
          counts[picked?.slot ?? 0] = inFlightOf(picked?.slot ?? 0) + 1
        }
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
      }),
    )
  })
})

describe('round robin', () => {
  test('each in turn, whatever they carry', () => {
    const inFlightOf = (slot: number) => slot * 100
    const slots = Array.from({ length: 9 }, (_, turn) => {
      const targets = replicas(3)
      return pickTarget(ask({ balance: 'round-robin', targets, turn, inFlightOf }))?.slot
    })
    expect(slots).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2])
  })
})

/** Where 4,000 sessions go. */
const homes = (targets: readonly Target[], more: Partial<Parameters<typeof ask>[0]> = {}) =>
  Array.from({ length: 4_000 }, (_, session) => {
    const hash = hashText(`conversation ${session}`)
    const hashes = { sessionHash: hash, prefixHash: hash }
    return pickTarget(ask({ balance: 'session', targets, ...hashes, ...more }))?.id ?? ''
  })

const shareOf = (ids: readonly string[], id: string): number =>
  ids.filter((one) => one === id).length / ids.length

describe('session', () => {
  test('always the same replica, all about equally sought', () => {
    const ids = homes(replicas(5))
    expect(homes(replicas(5).toReversed(), { random: 0.1, inFlightOf: (slot) => slot })).toEqual(
      ids,
    )
    // 800 give or take 5 standard deviations (25).
    for (let slot = 0; slot < 5; slot += 1) {
      expect(Math.abs(shareOf(ids, `r${slot}`) - 0.2)).toBeLessThan(0.032)
    }
  })

  test('a replica that comes takes its share, one that goes leaves its own, nobody else moves', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 9 }), fc.nat(), (count, which) => {
        const gone = `r${which % count}`
        const before = homes(replicas(count))
        const after = homes(replicas(count).filter(({ id }) => id !== gone))
        for (const [at, id] of before.entries()) if (id !== gone) expect(after[at]).toBe(id)
      }),
      { numRuns: 12 },
    )
  })

  test('a fresh replica draws sessions bit by bit; each moves once, to it', () => {
    const nowMs = 1_000_000
    const at = (readySinceMs: number) => {
      const targets = [...replicas(3), target(3, { readySinceMs })]
      return homes(targets, { nowMs, slowStart: 30_000 })
    }
    const ages = [0, 10_000, 20_000, 30_000].map((age) => at(nowMs - age))
    const shares = ages.map((ids) => shareOf(ids, 'r3'))
    // A tenth of a share, 0.1 / 3.1, to a whole one, 1 / 4.
    expect(shares[0]).toBeCloseTo(0.1 / 3.1, 1)
    expect(shares[3]).toBeCloseTo(0.25, 1)
    for (const [step, later] of ages.slice(1).entries()) {
      for (const [session, id] of (ages[step] ?? []).entries()) {
        if (later[session] !== id) expect(later[session]).toBe('r3')
      }
    }
  })

  test('without a session the less loaded of two', () => {
    const inFlightOf = (slot: number) => slot
    const targets = replicas(2)
    const given = ask({ balance: 'session', targets, inFlightOf, sessionHash: null })
    expect(pickTarget(given)?.id).toBe('r0')
  })
})

describe('prefix', () => {
  const prefixHash = hashText('You are a helpful assistant')
  const home = pickTarget(ask({ balance: 'prefix', targets: replicas(4), prefixHash }))?.slot ?? -1
  const picked = (more: Partial<PickAsk>) =>
    pickTarget(ask({ balance: 'prefix', targets: replicas(4), prefixHash, ...more }))?.slot

  test('stays although others are idle', () => {
    const inFlightOf = (slot: number) => (slot === home ? 7 : 0)
    const targets = replicas(4).map((one) =>
      one.slot === home ? { ...one, requestsRunning: 7, requestsWaiting: 0 } : one,
    )
    expect(picked({ inFlightOf, targets })).toBe(home)
  })

  test('yields to the least loaded when its replica queues', () => {
    const least = (home + 2) % 4
    const inFlightOf = (slot: number) => (slot === least ? 1 : 5)
    const targets = replicas(4).map((one) =>
      one.slot === home ? { ...one, requestsRunning: 5, requestsWaiting: 1 } : one,
    )
    expect(picked({ inFlightOf, targets })).toBe(least)
    expect(picked({ inFlightOf })).toBe(home)
  })

  test('a beginning that all share fills its replica to one and a half shares, no further', () => {
    const counts = [0, 0, 0, 0]
    const inFlightOf = (slot: number) => counts[slot] ?? 0
    for (let request = 0; request < 400; request += 1) {
      const slot = picked({ inFlightOf }) ?? 0
      counts[slot] = inFlightOf(slot) + 1
    }
    expect(Math.max(...counts)).toBeGreaterThan(145)
    expect(Math.max(...counts)).toBeLessThanOrEqual(152)
    expect(counts[home]).toBe(Math.max(...counts))
  })
})

describe('slow start', () => {
  test('the weight ramps from a tenth to one', () => {
    const one = target(0, { readySinceMs: 0 })
    expect([0, 15_000, 30_000, 90_000].map((now) => weightOf(one, 30_000, now))).toEqual([
      0.1, 0.55, 1, 1,
    ])
    expect(weightOf(target(0), 30_000, 0)).toBe(1)
    // A clock that was set back is no reason for less than a tenth.
    expect(weightOf(one, 30_000, -5)).toBe(0.1)
  })

  /** 20,000 requests, 120 at a time: the share of the fresh one of four. */
  const freshShare = (balance: Balance, age: number): number => {
    const random = seeded(7)
    const targets = [...replicas(3), target(3, { readySinceMs: 0 })]
    const counts = [0, 0, 0, 0]
    const inFlightOf = (slot: number) => counts[slot] ?? 0
    const held: number[] = []
    let fresh = 0
    for (let turn = 0; turn < 20_000; turn += 1) {
      if (held.length >= 120) {
        const [left] = held.splice(Math.floor(random() * held.length), 1)
        counts[left ?? 0] = inFlightOf(left ?? 0) - 1
      }
      const given = { targets, inFlightOf, random: random(), nowMs: age, turn, slowStart: 30_000 }
      const hashes = { sessionHash: hashText(`${turn}`), prefixHash: hashText(`${turn}`) }
      const slot = pickTarget(ask({ balance, ...given, ...hashes }))?.slot ?? 0
      counts[slot] = inFlightOf(slot) + 1
      held.push(slot)
      if (slot === 3) fresh += 1
    }
    return fresh / 20_000
  }

  test.each(BALANCES)('%s: a fresh replica gets about its weight, an old one its share', (one) => {
    // Round robin takes turns: a tenth of a quarter. The others share by weight: 0.1 of 3.1.
    const least = one === 'round-robin' ? 0.025 : 0.1 / 3.1
    expect(freshShare(one, 0)).toBeGreaterThan(least * 0.5)
    expect(freshShare(one, 0)).toBeLessThan(least * 1.5)
    expect(freshShare(one, 15_000)).toBeGreaterThan(0.1)
    expect(freshShare(one, 15_000)).toBeLessThan(0.19)
    expect(freshShare(one, 30_000)).toBeGreaterThan(0.22)
    expect(freshShare(one, 30_000)).toBeLessThan(0.28)
  })
})

test('the hash is MurmurHash3, as its reference computes it', () => {
  expect(hashText('')).toBe(0)
  expect(hashText('', 1)).toBe(0x514e28b7)
  expect(hashText('aaaa', 0x9747b28c)).toBe(0x5a97808a)
  expect(hashText('abc', 0x9747b28c)).toBe(0xc84a62dd)
  expect(hashText('Hello, world!', 0x9747b28c)).toBe(0x24884cba)
})
