import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Estimator } from '../../src/core/estimate.ts'

const QUESTION = { key: 'k', model: 'm', bodyBytes: 300, maxTokens: null, choices: 1 }

test('what was never seen is a third of the bytes, and a middling answer', () => {
  expect(new Estimator().expect(QUESTION)).toEqual({ prompt: 100, completion: 512 })
})

test('the cap counts where it is lower than what is likely, for each choice', () => {
  const estimator = new Estimator()
  expect(estimator.expect({ ...QUESTION, maxTokens: 10, choices: 3 }).completion).toBe(30)
  expect(estimator.expect({ ...QUESTION, maxTokens: 100_000 }).completion).toBe(512)
})

test('tokens per byte and the 90th percentile are learned per key and model', () => {
  const estimator = new Estimator()
  for (let nth = 1; nth <= 20; nth += 1) {
    const lesson = { key: 'k', model: 'm', bodyBytes: 1_000, choices: 1, promptTokens: 500 }
    estimator.learn({ ...lesson, completionTokens: nth * 10 })
  }
  expect(estimator.expect(QUESTION)).toEqual({ prompt: 150, completion: 180 })
  // Another key learns from the model; another model from nothing.
  expect(estimator.expect({ ...QUESTION, key: 'new' }).completion).toBe(180)
  expect(estimator.expect({ ...QUESTION, model: 'new' }).completion).toBe(512)
})

test('whatever it is taught, it expects whole tokens, one of prompt at least', () => {
  const count = fc.integer({ min: 0, max: 1_000_000 })
  const lessons = fc.array(
    fc.record({
      key: fc.constantFrom('a', 'b'),
      model: fc.constant('m'),
      bodyBytes: count,
      choices: fc.integer({ min: 1, max: 8 }),
      promptTokens: count,
      completionTokens: count,
    }),
  )
  fc.assert(
    fc.property(lessons, (all) => {
      const estimator = new Estimator()
      for (const lesson of all) estimator.learn(lesson)
      const { prompt, completion } = estimator.expect({ ...QUESTION, key: 'a', choices: 3 })
      expect(Number.isSafeInteger(prompt) && prompt >= 1).toBe(true)
      expect(Number.isSafeInteger(completion) && completion >= 0).toBe(true)
    }),
  )
})
