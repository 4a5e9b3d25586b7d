import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  abandoned,
  admission,
  type Breaker,
  CLOSED,
  claimed,
  failed,
  packed,
  succeeded,
  unpacked,
} from '../../src/core/breaker.ts'

const times = (count: number, step: (at: number) => void): void => {
  for (let at = 0; at < count; at += 1) step(at)
}

/** Opened by five failures at `nowMs`, with no jitter. */
const open = (nowMs: number, from: Breaker = CLOSED): Breaker => {
  let breaker = from
  times(5, () => {
    breaker = failed(breaker, nowMs, 0.5)
  })
  return breaker
}

describe('a breaker', () => {
  test('opens after five failures in a row, not after four and a success', () => {
    let breaker = CLOSED
    times(4, () => {
      breaker = failed(breaker, 100, 0.5)
    })
    expect(admission(breaker, 100)).toBe('free')
    breaker = succeeded(breaker, 100)
    times(4, () => {
      breaker = failed(breaker, 100, 0.5)
    })
    expect(breaker.phase).toBe('closed')
    expect(failed(breaker, 100, 0.5).phase).toBe('open')
  })

  test('opens when half of ten results in a window fail, though never five in a row', () => {
    let breaker = CLOSED
    times(4, () => {
      breaker = failed(breaker, 100, 0.5)
      breaker = succeeded(breaker, 100)
    })
    expect(breaker.phase).toBe('closed')
    breaker = failed(breaker, 100, 0.5)
    breaker = succeeded(breaker, 100)
    expect(failed(breaker, 100, 0.5).phase).toBe('open')
  })

  test('forgets what is older than its window', () => {
    let breaker = CLOSED
    times(40, (at) => {
      breaker = failed(breaker, at * 3_000, 0.5)
      breaker = succeeded(breaker, at * 3_000)
      breaker = succeeded(breaker, at * 3_000)
    })
    expect(breaker.phase).toBe('closed')
  })

  test('is open for 1 s, doubled each time up to 30 s, and forgiven after a quiet window', () => {
    let breaker = open(1_000)
    let nowMs = 1_000
    for (const openMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      expect(admission(breaker, nowMs + openMs - 20)).toBe('closed off')
      nowMs += openMs
      expect(admission(breaker, nowMs)).toBe('probe')
      breaker = failed(claimed(breaker, nowMs) ?? CLOSED, nowMs, 0.5)
      expect(breaker.phase).toBe('open')
    }
    nowMs += 30_000
    breaker = succeeded(claimed(breaker, nowMs) ?? CLOSED, nowMs)
    expect(breaker).toMatchObject({ phase: 'closed', trips: 8 })
    breaker = succeeded(breaker, nowMs + 10_000)
    expect(breaker).toEqual(CLOSED)
  })

  test('lets one probe in at a time; one that tells nothing gives its place away', () => {
    const due = open(1_000)
    const probing = claimed(due, 2_000)
    if (probing === null) throw new Error('no probe')
    expect(claimed(probing, 2_000)).toBeNull()
    expect(claimed(probing, 61_000)).toBeNull()
    expect(claimed(probing, 62_000)).not.toBeNull()
    expect(claimed(abandoned(probing, 2_500), 2_500)).not.toBeNull()
    expect(admission(succeeded(probing, 2_500), 2_500)).toBe('free')
  })

  test('late results of requests that began before it opened change nothing', () => {
    const breaker = open(1_000)
    expect(succeeded(breaker, 1_500)).toBe(breaker)
    expect(failed(breaker, 1_500, 0.5)).toBe(breaker)
    expect(abandoned(breaker, 1_500)).toBe(breaker)
  })

  test('jitter moves its return by a fifth at most', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 0.999_999, noNaN: true }), (draw) => {
        let breaker = CLOSED
        times(5, () => {
          breaker = failed(breaker, 1_000, draw)
        })
        expect(admission(breaker, 1_790)).toBe('closed off')
        expect(admission(breaker, 2_210)).toBe('probe')
      }),
    )
  })
})

type Event = 'success' | 'failure' | 'claim' | 'abandon'
const event = fc.record({
  kind: fc.constantFrom<Event>('success', 'failure', 'failure', 'claim', 'abandon'),
  afterMs: fc.oneof(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 40_000 })),
  draw: fc.double({ min: 0, max: 0.999_999, noNaN: true }),
})

const stepped = (breaker: Breaker, kind: Event, nowMs: number, draw: number): Breaker => {
  if (kind === 'success') return succeeded(breaker, nowMs)
  if (kind === 'failure') return failed(breaker, nowMs, draw)
  return kind === 'claim' ? (claimed(breaker, nowMs) ?? breaker) : abandoned(breaker, nowMs)
}

test('in any order of events: it fits its cell, opens only by a failure, and never for good', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 400 }), (events) => {
      let breaker = CLOSED
      let nowMs = 0
      for (const { kind, afterMs, draw } of events) {
        nowMs += afterMs
        const before = breaker
        breaker = stepped(breaker, kind, nowMs, draw)
        expect(unpacked(packed(breaker))).toEqual(breaker)
        if (breaker.phase === 'open' && before.phase !== 'open') expect(kind).toBe('failure')
        if (breaker.phase === 'half-open' && before.phase === 'closed') throw new Error('no trip')
        if (before.phase === 'open' && breaker.phase === 'closed') throw new Error('no probe')
        expect(admission(breaker, nowMs + 60_010)).not.toBe('closed off')
        expect(breaker.failures).toBeLessThanOrEqual(breaker.results)
      }
    }),
    { numRuns: 2_000 },
  )
})

test('a replica that answers is never left alone', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 300 }), (gaps) => {
      let breaker = CLOSED
      let nowMs = 0
      for (const gap of gaps) {
        nowMs += gap
        breaker = succeeded(breaker, nowMs)
        expect(breaker).toBe(CLOSED)
      }
    }),
  )
})
