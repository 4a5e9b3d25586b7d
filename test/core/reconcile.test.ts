import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import {
  gained,
  NO_TOKENS,
  type OurTokens,
  openRun,
  plus,
  readRun,
  reconciled,
  type TokenPair,
} from '../../src/core/reconcile.ts'

const OURS: OurTokens = {
  requests: 3,
  cut: 0,
  unmetered: 0,
  tokens: { prompt: 30, completion: 60 },
  probes: 1,
  probeTokens: { prompt: 7, completion: 4 },
}
const IDLE = { current: true, inFlight: 0 }

const opened = (base: TokenPair = NO_TOKENS) => openRun('qwq-32b/0', 1, 1000, base)

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ prompt: fc.nat(1000), completion: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.constant('restart' as const) },
)

test('what an engine counts is never lost or doubled, however often its counters fall to 0', () => {
  fc.assert(
    fc.property(
      fc.record({ prompt: fc.nat(5000), completion: fc.nat(5000) }),
      fc.array(step, { maxLength: 40 }),
      (base, steps) => {
        let [run, counters, worked, unseen] = [opened(base), base, NO_TOKENS, false]
        for (const now of steps) {
          if (now === 'restart') {
            counters = NO_TOKENS
            unseen = true
            continue
          }
          worked = plus(worked, now)
          counters = plus(counters, now)
          // A restart after which more was counted than before it cannot be told from none.
          fc.pre(
            !unseen ||
              counters.prompt < run.last.prompt ||
              counters.completion < run.last.completion ||
              (run.last.prompt === 0 && run.last.completion === 0),
          )
          unseen = false
          run = readRun(run, counters, 2000)
        }
        expect(gained(run)).toEqual(worked)
      },
    ),
  )
})

describe('our books against the engine', () => {
  it('are even when every token is ours or our probe’s', () => {
    const run = readRun(opened({ prompt: 100, completion: 9 }), { prompt: 137, completion: 73 }, 5)
    expect(reconciled(run, OURS, IDLE)).toMatchObject({
      engine: { prompt: 37, completion: 64 },
      difference: { prompt: 0, completion: 0 },
      why: [],
    })
  })

  it.each([
    [{ ...OURS, cut: 2, unmetered: 2 }, IDLE, ['2 requests ended before any figure was known']],
    [
      { ...OURS, cut: 2 },
      IDLE,
      ['2 requests cut off: engines go on until they notice (vLLM a step, SGLang 2 s)'],
    ],
    [OURS, { ...IDLE, inFlight: 1 }, ['1 request still running, counted when ended']],
    [OURS, IDLE, [expect.stringContaining('something else than this Penstock uses the engine')]],
  ])('say what a difference may be', (ours, now, why) => {
    const run = readRun(opened(), { prompt: 50, completion: 70 }, 5)
    expect(reconciled(run, ours, now)).toMatchObject({
      difference: { prompt: 13, completion: 6 },
      why,
    })
  })

  it('say so when the engine counted less than it told', () => {
    const run = readRun(opened(), { prompt: 37, completion: 63 }, 5)
    const { difference, why } = reconciled(run, OURS, IDLE)
    expect(difference).toEqual({ prompt: 0, completion: -1 })
    expect(why).toEqual(['the engine counted less than it told our callers'])
  })

  it('name a reset and a kill', () => {
    const run = readRun(readRun(opened(), { prompt: 90, completion: 90 }, 5), NO_TOKENS, 6)
    expect(reconciled({ ...run, kills: 2 }, OURS, IDLE).why).toEqual([
      'Penstock was killed 2 times: what it let through or had just ended',
      'the counters fell to 0 1 times unseen, with what came after the last reading',
    ])
  })
})
