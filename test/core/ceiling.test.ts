import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Learned, type Lesson, nextCeiling, UNLEARNED } from '../../src/core/ceiling.ts'

const QUIET: Lesson = {
  elapsedMs: 1000,
  streaming: 0,
  outputTokens: 0,
  firstTokens: 0,
  firstTokenMsSum: 0,
  firstTokenTokensSum: 0,
  requestsRunning: 0,
  requestsWaiting: 0,
  kvCacheUsageRatio: 0.1,
  preemptions: 0,
  held: 0,
  unstarted: 0,
  foreign: 0,
  generatedTokens: null,
  due: { firstTokenMs: null, perTokenMs: null },
}

/** An engine that shows neither queue nor cache. */
const BLIND: Lesson = {
  ...QUIET,
  requestsRunning: null,
  requestsWaiting: null,
  kvCacheUsageRatio: null,
}

describe('the ceiling', () => {
  test('is raised where it is felt, and only there', () => {
    expect(nextCeiling(UNLEARNED, { ...QUIET, held: 64 }).running).toBeGreaterThan(64)
    expect(nextCeiling(UNLEARNED, { ...QUIET, held: 10 }).running).toBe(64)
  })

  test('falls with preemptions, and comes back', () => {
    let state = nextCeiling(UNLEARNED, { ...QUIET, held: 60, preemptions: 3 })
    expect(state.running).toBeLessThan(60)
    expect(state.kvRatio).toBeLessThan(0.85)
    for (let second = 0; second < 60; second += 1) {
      state = nextCeiling(state, { ...QUIET, held: state.running })
    }
    expect(state.running).toBeGreaterThan(100)
    expect(state.kvRatio).toBe(0.85)
  })

  test('follows the first-token target, and what a blind engine shows by being late', () => {
    const within = (firstTokenMs: number) => ({ firstTokenMs, perTokenMs: null })
    const late = { ...QUIET, held: 60, firstTokens: 10, firstTokenMsSum: 50_000 }
    expect(nextCeiling(UNLEARNED, { ...late, due: within(4000) }).running).toBeLessThan(60)
    const inTime = { ...late, due: within(6000) }
    expect(nextCeiling(UNLEARNED, inTime).running).toBeGreaterThan(64)
    const blind = { ...late, requestsWaiting: null }
    const known = nextCeiling(UNLEARNED, { ...blind, firstTokenMsSum: 5000 })
    expect(nextCeiling(known, { ...blind, firstTokenMsSum: 50_000 }).running).toBeLessThan(60)
  })

  test('of a blind engine finds where more requests only make each slower', () => {
    // 40 ms and half a millisecond for each: 80 % of 2000 tokens/s are made by 320 at once.
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (seed) => {
        const noise = (at: number) => 1 + 0.1 * Math.sin(seed * 7.13 + at * 12.9)
        let state = UNLEARNED
        for (let second = 0; second < 300; second += 1) {
          const streaming = Math.floor(state.running)
          const ms = (40 + 0.5 * streaming) * noise(second)
          const outputTokens = Math.round((streaming * 1000) / ms)
          state = nextCeiling(state, { ...BLIND, held: streaming, streaming, outputTokens })
        }
        expect(state.running).toBeGreaterThan(150)
        expect(state.running).toBeLessThan(640)
      }),
      { numRuns: 50 },
    )
  })

  test('waits while an engine reads prompts and makes no tokens', () => {
    const later = (from: Learned, seconds: number, each: number): Learned => {
      let state = from
      for (let second = 0; second < seconds; second += 1) {
        const held = state.running
        const streaming = Math.floor(held * 0.95)
        const outputTokens = each * streaming
        state = nextCeiling(state, { ...QUIET, held, streaming, outputTokens })
      }
      return state
    }
    const flowing = later(UNLEARNED, 10, 15)
    expect(flowing.running).toBeGreaterThan(64)
    const stalled = later(flowing, 5, 0)
    expect(later(stalled, 20, 0).running).toBe(stalled.running)
    expect(later(stalled, 20, 15).running).toBeGreaterThan(stalled.running)
  })

  test('a quiet hour of few answers says nothing of what a seen engine can do', () => {
    let state = UNLEARNED
    for (let second = 0; second < 600; second += 1) {
      const streaming = 12 + (second % 7)
      // Prompts are read in between: the pace falls much faster than with answers alone.
      const outputTokens = Math.round((streaming * 1000) / (20 + 8 * streaming))
      state = nextCeiling(state, { ...QUIET, held: streaming, streaming, outputTokens })
    }
    expect(state.running).toBeGreaterThanOrEqual(64)
  })

  test('falls where a blind engine makes no more tokens however many ask', () => {
    let state = UNLEARNED
    for (let second = 0; second < 300; second += 1) {
      const streaming = Math.floor(state.running)
      const outputTokens = 600 + (second % 7)
      state = nextCeiling(state, { ...BLIND, held: streaming, streaming, outputTokens })
    }
    expect(state.running).toBeLessThan(34)
  })

  test('stays within its bounds, whatever is read', () => {
    const Number_ = fc.oneof(fc.nat({ max: 100_000 }), fc.constant(0))
    const AnyLesson = fc.record({
      elapsedMs: fc.integer({ min: 1, max: 60_000 }),
      streaming: Number_,
      outputTokens: Number_,
      firstTokens: Number_,
      firstTokenMsSum: Number_,
      firstTokenTokensSum: Number_,
      requestsRunning: fc.option(Number_),
      requestsWaiting: fc.option(Number_),
      kvCacheUsageRatio: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
      preemptions: fc.option(Number_),
      held: Number_,
      unstarted: Number_,
      foreign: Number_,
      generatedTokens: fc.option(Number_),
      due: fc.record({ firstTokenMs: fc.option(Number_), perTokenMs: fc.option(Number_) }),
    })
    fc.assert(
      fc.property(fc.array(AnyLesson, { maxLength: 100 }), (lessons) => {
        let state = UNLEARNED
        for (const lesson of lessons) {
          state = nextCeiling(state, lesson)
          expect(Object.values(state).every(Number.isFinite)).toBe(true)
          expect(state.running).toBeGreaterThanOrEqual(4)
          expect(state.kvRatio).toBeGreaterThanOrEqual(0.5)
          expect(state.kvRatio).toBeLessThanOrEqual(0.85)
          expect(state.prefillTokens).toBeGreaterThanOrEqual(256)
        }
      }),
    )
  })
})

describe('the time per output token that a route asks for', () => {
  /** DeepSeek-R1 on two nodes of H20, as simulated: ms a step by answers at once. */
  const R1 = (answers: number): number => 50 + 11 * answers ** 0.66
  /** A dense model that is bound by bandwidth for long. */
  const QWQ = (answers: number): number => 48 + 0.4 * answers

  type Course = {
    readonly stepMs: (answers: number) => number
    readonly targetMs: number | null
    readonly seconds: number
    /** Share of answers in one piece, and others' requests. */
    readonly whole?: number
    readonly foreign?: number
    /** A few places are kept for somebody who does not come (core/admission.ts). */
    readonly kept?: boolean
    readonly from?: Learned
  }

  /** Answers of 600 tokens that come and go; a fifth of the steps also reads somebody's prompt. */
  const play = ({
    stepMs,
    targetMs,
    seconds,
    whole = 0,
    foreign = 0,
    kept = false,
    from = UNLEARNED,
  }: Course) => {
    let state = from
    let answers: number[] = []
    const counts: number[] = []
    for (let second = 0; second < seconds; second += 1) {
      const open = Math.floor(state.running)
      const places = open - foreign - (kept ? Math.min(2, Math.floor(open * 0.125)) : 0)
      // Prompts are read two at a time (WAITING_MAX).
      for (let turn = 0; turn < 2; turn += 1) {
        if (answers.length < places) answers.push(600)
      }
      const running = answers.length + foreign
      const each = 1000 / (stepMs(Math.max(1, running)) * (second % 5 === 0 ? 1.5 : 1))
      answers = answers.map((left) => left - each).filter((left) => left > 0)
      counts.push(answers.length)
      const streaming = Math.round(answers.length * (1 - whole))
      state = nextCeiling(state, {
        ...QUIET,
        held: answers.length,
        foreign,
        requestsRunning: running,
        streaming,
        outputTokens: Math.round(streaming * each),
        generatedTokens: running * each,
        due: { firstTokenMs: null, perTokenMs: targetMs },
      })
    }
    const later = counts.slice(Math.floor(seconds * 0.6))
    const mean = later.reduce((sum, count) => sum + count, 0) / later.length
    return { state, counts, mean }
  }

  /** Answers at once at which the played engine takes just that long, prompts counted in. */
  const ideal = (stepMs: (answers: number) => number, targetMs: number): number => {
    let answers = 1
    while (stepMs(answers) * 1.07 < targetMs) answers += 1
    return answers
  }

  test.each([
    ['R1, 125 ms', R1, 125],
    ['R1, 200 ms', R1, 200],
    ['QwQ, 60 ms', QWQ, 60],
    ['QwQ, 80 ms', QWQ, 80],
  ])('%s: as many as keep it, streams or in one piece', (_, stepMs, targetMs) => {
    const wanted = ideal(stepMs, targetMs)
    for (const whole of [0, 0.45, 1]) {
      const { counts, mean } = play({ stepMs, targetMs, seconds: 900, whole })
      expect(mean / wanted, `${mean} of ${wanted}`).toBeGreaterThan(0.8)
      expect(mean / wanted, `${mean} of ${wanted}`).toBeLessThan(1.15)
      // Nor far above it on the way: whoever is let in stays for minutes.
      expect(Math.max(...counts)).toBeLessThan(wanted * 1.5 + 2)
    }
  })

  test('others on the engine count, and leave us some', () => {
    const beside = (foreign: number, targetMs: number) =>
      play({ stepMs: R1, targetMs, seconds: 900, foreign }).mean
    expect(beside(20, 200) / (ideal(R1, 200) - 20)).toBeGreaterThan(0.85)
    expect(beside(20, 200) / (ideal(R1, 200) - 20)).toBeLessThan(1.15)
    expect(beside(40, 125)).toBeGreaterThan(3)
  })

  test('a quiet night forgets nothing', () => {
    const busy = play({ stepMs: R1, targetMs: 200, seconds: 600 }).state
    const night = (over: Partial<Lesson>): number => {
      let state = busy
      const due = { firstTokenMs: null, perTokenMs: 200 }
      for (let second = 0; second < 300; second += 1) {
        state = nextCeiling(state, { ...QUIET, held: 1, requestsRunning: 1, due, ...over })
      }
      return state.running
    }
    // Nobody reads; a few are slow; a prompt of minutes; others' requests.
    expect(night({ streaming: 1 })).toBe(busy.running)
    expect(night({ held: 3, streaming: 3, outputTokens: 9 })).toBe(busy.running)
    expect(night({ unstarted: 1, generatedTokens: 0 })).toBe(busy.running)
    expect(night({ held: 0, foreign: 2, generatedTokens: 1 })).toBe(busy.running)
    // A machine that slept.
    const asleep = { held: 40, streaming: 40, outputTokens: 5, elapsedMs: 3_600_000 }
    expect(night(asleep)).toBeGreaterThanOrEqual(busy.running)
  })

  test('once it was low it rises again, and is void without a target', () => {
    for (const kept of [false, true]) {
      for (const slower of [1.1, 1.2, 1.3, 1.4, 1.6, 2]) {
        const slow = (answers: number) => R1(answers) * slower
        const low = play({ stepMs: slow, targetMs: 125, seconds: 600, kept }).state
        const high = play({ stepMs: R1, targetMs: 200, seconds: 900, kept, from: low })
        expect(high.mean / ideal(R1, 200), `${slower}, ${kept}`).toBeGreaterThan(0.85)
        const free = play({ stepMs: R1, targetMs: null, seconds: 300, kept, from: low })
        expect(free.state.running).toBeGreaterThan(100)
      }
    }
  })

  test('never holds up what preemptions or late first tokens lower', () => {
    const due = { firstTokenMs: null, perTokenMs: 200 }
    const busy = { ...QUIET, held: 10, foreign: 40, requestsRunning: 50, streaming: 10, due }
    const slow = nextCeiling(UNLEARNED, { ...busy, outputTokens: 30 })
    const preempted = { ...busy, held: 2, requestsRunning: 12, outputTokens: 6, preemptions: 2 }
    expect(nextCeiling(slow, preempted).running).toBeLessThan(12)
  })

  test('one that cannot be kept leaves a few places', () => {
    const { state } = play({ stepMs: R1, targetMs: 10, seconds: 300 })
    expect(state.running).toBe(4)
  })

  test('of an engine of which nothing is seen, nothing is held back', () => {
    const due = { firstTokenMs: null, perTokenMs: 100 }
    const blind = { ...BLIND, held: 64, due }
    expect(nextCeiling(UNLEARNED, blind).running).toBeGreaterThan(64)
  })
})
