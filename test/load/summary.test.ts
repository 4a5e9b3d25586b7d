import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { summaryText } from '../../src/cli/rehearse-summary.ts'
import { Histogram } from '../../src/load/histogram.ts'
import type { Finished } from '../../src/load/run.ts'
import { Summary } from '../../src/load/summary.ts'

const finished = (more: Partial<Finished> = {}): Finished => ({
  outcome: 'ok',
  detail: '',
  answeredBy: null,
  spilled: null,
  retryAfterSeconds: null,
  ttftMs: 100,
  tpotMs: 10,
  promptTokens: 30,
  cachedTokens: 10,
  completionTokens: 20,
  model: 'qwq-32b',
  consumer: 0,
  lateMs: 0,
  ...more,
})
const refused = { outcome: 'refused', ttftMs: null, tpotMs: null, promptTokens: null } as const

describe('percentiles', () => {
  it('are within 0.5 % of the nearest rank', () => {
    const readings = fc.array(fc.double({ min: 0.01, max: 1e6, noNaN: true }), { minLength: 1 })
    fc.assert(
      fc.property(readings, fc.constantFrom(0.5, 0.9, 0.99), (values, share) => {
        const histogram = new Histogram()
        for (const value of values) histogram.add(value)
        const rank = Math.max(1, Math.ceil(share * values.length))
        const exact = values.toSorted((a, b) => a - b)[rank - 1] ?? 0
        expect(Math.abs((histogram.percentile(share) ?? 0) / exact - 1)).toBeLessThan(0.0051)
      }),
    )
  })

  it('of nothing are unknown', () => {
    expect(new Histogram().percentile(0.5)).toBeNull()
  })
})

describe('a summary', () => {
  const summary = new Summary((consumer) => `c${consumer + 1}`)
  for (let index = 0; index < 8; index += 1) summary.add(finished({ consumer: index % 2 }))
  const spilled = { spilled: 'tokens', answeredBy: 'qwq-32b' }
  summary.add(finished({ model: 'deepseek-r1', consumer: 1, ttftMs: 900, ...spilled }))
  const limit = { ...refused, model: 'deepseek-r1', detail: '429 rate_limit_exceeded' }
  summary.add(finished({ ...limit, completionTokens: null, retryAfterSeconds: 4 }))
  summary.add(finished({ ...limit, completionTokens: null, retryAfterSeconds: 9 }))
  summary.add(finished({ outcome: 'cut', detail: 'lost', completionTokens: null }))
  const view = summary.view(2000, 20)

  it('counts every request once, by model, by consumer and over all', () => {
    const { outcomes } = view.total
    expect(view.total.requests).toBe(12)
    expect(Object.values(outcomes).reduce((sum, one) => sum + one, 0)).toBe(12)
    for (const rows of [view.models, view.consumers]) {
      expect(rows.reduce((sum, { requests }) => sum + requests, 0)).toBe(12)
    }
    expect(outcomes).toMatchObject({ ok: 9, refused: 2, cut: 1, error: 0 })
    expect(view.consumers.map(({ name }) => name)).toEqual(['c1', 'c2'])
    expect(view.refusals).toEqual({ '429 rate_limit_exceeded': 2 })
    expect(view.failures).toEqual({ 'cut, lost': 1 })
    expect(view.spills).toEqual({ 'deepseek-r1 -> qwq-32b: tokens': 1 })
    expect(view.retryAfterSeconds).toEqual({ least: 4, most: 9 })
  })

  it('speaks in simulated seconds', () => {
    expect(view).toMatchObject({ durationSeconds: 40, realSeconds: 2, speed: 20 })
    expect((view.models[1]?.ttftSeconds.p50 ?? 0) / 2).toBeCloseTo(1, 2)
    expect((view.total.tpotSeconds.p99 ?? 0) / 0.2).toBeCloseTo(1, 2)
    expect(view.total.completionTokensPerSecond).toBe((9 * 20) / 40)
    expect(view.total.promptTokensPerSecond).toBe((10 * 30) / 40)
  })

  it('reads as a table with its causes below', () => {
    const text = summaryText(view, 'Load: poisson')
    expect(text).toMatch(/^deepseek-r1 +3 +1 +1 +2 +0 +18\.0 /m)
    expect(text).toMatch(/^all +12 +9 +1 +2 +1 /m)
    expect(text).toContain('refused  2 x 429 rate_limit_exceeded')
    expect(text).toContain('spilled  1 x deepseek-r1 -> qwq-32b: tokens')
    expect(text).toContain('retry-after said 4 to 9 s')
    expect(text).toContain('20 to a real one')
  })

  it('says when sending lagged, in simulated time', () => {
    const lagging = new Summary(String)
    lagging.add(finished({ lateMs: 20 }))
    expect(summaryText(lagging.view(1000, 1), 'x')).not.toContain('late')
    expect(summaryText(lagging.view(1000, 20), 'x')).toContain('was sent 0.40 s late or more')
  })

  it('counts at most a hundred texts one by one', () => {
    const many = new Summary(String)
    for (let index = 0; index < 500; index += 1) {
      many.add(finished({ ...refused, detail: `text ${index}` }))
    }
    const { refusals } = many.view(1000, 1)
    expect(Object.keys(refusals)).toHaveLength(101)
    expect(refusals.other).toBe(400)
  })
})
