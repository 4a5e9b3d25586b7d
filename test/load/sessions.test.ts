import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LENGTH_NAMES, type Lengths, lengthsOf } from '../../src/load/lengths.ts'
import { Random } from '../../src/load/random.ts'
import {
  consumerWeights,
  type PlannedRequest,
  plan,
  type SessionsAsk,
} from '../../src/load/sessions.ts'

const named = (name: string): Lengths => {
  const lengths = lengthsOf(name)
  if (lengths === null) throw new Error(`no lengths ${name}`)
  return lengths
}

const MODELS = [
  { model: 'qwq-32b', weight: 4 },
  { model: 'deepseek-r1', weight: 1 },
]

const planned = (count: number, seed: number, more: Partial<SessionsAsk> = {}) => {
  const ask = { models: MODELS, consumers: 5, lengths: named('sharegpt'), ...more }
  const times = Array.from({ length: count }, (_, index) => index * 2)
  return [...plan(ask, times, new Random(seed))]
}

const seeds = fc.integer({ min: 0, max: 2 ** 31 })
const bySession = (requests: readonly PlannedRequest[]): PlannedRequest[][] => [
  ...Map.groupBy(requests, ({ session }) => session).values(),
]

describe('sessions', () => {
  it('repeat word for word what was said before, and add one question', () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom(...LENGTH_NAMES), (seed, name) => {
        for (const session of bySession(planned(120, seed, { lengths: named(name) }))) {
          for (const [index, request] of session.entries()) {
            const before = session[index - 1]
            expect(request.turn).toBe(index + 1)
            if (before === undefined) continue
            expect(request.messages.slice(0, before.messages.length)).toEqual(before.messages)
            const added = request.messages.slice(before.messages.length)
            expect(added.map(({ role }) => role)).toEqual(['assistant', 'user'])
            expect(request.model).toBe(before.model)
            expect(request.consumer).toBe(before.consumer)
            const answered = before.atSeconds + before.answerTokens / 20
            expect(request.atSeconds).toBeGreaterThanOrEqual(answered)
          }
        }
      }),
      { numRuns: 15 },
    )
  })

  it("begin with their consumer's system prompt, and only with that", () => {
    const requests = planned(400, 3)
    const prompts = Map.groupBy(requests, ({ consumer }) => consumer)
    const firsts = [...prompts.values()].map(
      (own) => new Set(own.map(({ messages }) => JSON.stringify(messages[0]))),
    )
    expect(firsts.map(({ size }) => size)).toEqual(firsts.map(() => 1))
    expect(new Set(firsts.flatMap((set) => [...set])).size).toBe(prompts.size)
    const questions = requests.map(({ messages }) => messages.at(-1)?.content.slice(0, 200))
    expect(new Set(questions).size).toBe(questions.length)
  })

  it('are the same for a seed, and others for another', () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        expect(planned(40, seed)).toEqual(planned(40, seed))
        expect(planned(40, seed)).not.toEqual(planned(40, seed + 1))
      }),
      { numRuns: 20 },
    )
  })

  it('give consumers and models their shares', () => {
    const requests = planned(20_000, 11, { lengths: { ...named('fixed:5/5'), turns: 3 } })
    const weights = consumerWeights(5)
    const sum = weights.reduce((total, weight) => total + weight, 0)
    for (const [consumer, weight] of weights.entries()) {
      const share = requests.filter((one) => one.consumer === consumer).length / requests.length
      expect(Math.abs(share - weight / sum)).toBeLessThan(0.02)
    }
    const qwq = requests.filter(({ model }) => model === 'qwq-32b').length / requests.length
    expect(Math.abs(qwq - 0.8)).toBeLessThan(0.03)
  })

  it('have as many turns as asked on average, once they have had the time', () => {
    const lengths = { ...named('fixed:5/5'), turns: 4 }
    const sessions = bySession(planned(20_000, 2, { lengths, consumers: 2 }))
    const turns = sessions.reduce((total, { length }) => total + length, 0) / sessions.length
    expect(Math.abs(turns - 4)).toBeLessThan(0.3)
    const single = bySession(planned(200, 2, { lengths: named('fixed:5/5') }))
    expect(single).toHaveLength(200)
  })

  it.each(LENGTH_NAMES)('%s: prompt and answer fit a context of 32,768', (name) => {
    const lengths = { ...named(name), turns: 50 }
    for (const request of planned(1500, 4, { lengths, consumers: 1 })) {
      expect(request.promptTokens + request.answerTokens).toBeLessThanOrEqual(32_000)
      expect(request.answerTokens).toBeGreaterThan(0)
    }
  })

  it('hold a bounded number of open conversations', () => {
    // 9,000 conversations begin at once; much later all of them are ready for a second turn.
    const lengths = { ...named('fixed:1/1'), turns: 1e9 }
    const ask = { models: MODELS, consumers: 3, lengths }
    const times = [...Array<number>(9000).fill(0), ...Array<number>(9000).fill(1e6)]
    const requests = [...plan(ask, times, new Random(1))]
    const second = requests.filter(({ turn }) => turn === 2).length
    expect(second).toBeGreaterThan(3000)
    expect(second).toBeLessThanOrEqual(4000)
  })
})
