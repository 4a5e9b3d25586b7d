import { describe, expect, it } from 'vitest'
import { readLoadAsk } from '../../src/cli/rehearse-ask.ts'
import { PenstockError } from '../../src/errors.ts'

const refusalOf = (given: Readonly<Record<string, unknown>>): string => {
  try {
    readLoadAsk(given)
  } catch (error) {
    if (error instanceof PenstockError && error.code === 'invalid_input') return error.message
    throw error
  }
  return 'accepted'
}

describe('options of rehearse load', () => {
  it.each<[Readonly<Record<string, unknown>>, RegExp]>([
    [{ rate: 'fast' }, /^--rate: expected a number, got "fast"$/],
    [{ rate: '0' }, /^--rate: expected a number from 0.000001 to 100000, got "0"$/],
    [{ rate: '-1' }, /^--rate: /],
    [{ lengths: 'alpaca' }, /^--lengths: expected sharegpt, reasoning, .*IN\/OUT, got "alpaca"$/],
    [{ pattern: 'tidal' }, /^--pattern: expected poisson, diurnal, burst, got "tidal"$/],
    [{ duration: 'soon' }, /^--duration: expected a time such as .*, got "soon"$/],
    [{ duration: '0s' }, /^--duration: /],
    [{ duration: '32d' }, /^--duration: expected .* 31 days, got "32d"$/],
    [{ baseUrl: '127.0.0.1:80' }, /^--base-url: expected a URL .*got "127.0.0.1:80"$/],
    [{ baseUrl: 'file:///etc/passwd' }, /^--base-url: expected a URL /],
    [{ model: ['qwq-32b', 'r1=0'] }, /^--model: expected a weight above 0, got "r1=0"$/],
    [{ model: ['a b'] }, /^--model: expected a model name or NAME=WEIGHT, got "a b"$/],
    [{ key: ['a\nb'] }, /^--key: expected a key/],
    [{ consumers: '2.5' }, /^--consumers: expected a whole number, got "2.5"$/],
    [{ seed: 'x', open: '0' }, /^--open: [^\n]+\n--seed: [^\n]+$/],
  ])('%j is refused in a line each', (given, line) => {
    expect(refusalOf(given)).toMatch(line)
  })

  it('has defaults for all of them', () => {
    const ask = readLoadAsk({})
    expect(ask).toMatchObject({ consumers: 10, seed: 1, model: [], endSeconds: 60 })
    expect(ask.arrivals).toEqual({ pattern: 'poisson', ratePerSecond: 1, daySeconds: 60 })
    expect(ask.requestsMax).toBe(Number.POSITIVE_INFINITY)
  })

  it('ends by count alone when only a count is given', () => {
    const ask = readLoadAsk({ requests: '500', rate: '5', pattern: 'diurnal' })
    expect(ask.endSeconds).toBe(Number.POSITIVE_INFINITY)
    expect(ask.arrivals.daySeconds).toBe(100)
  })

  it.each([
    ['90', 90],
    ['90s', 90],
    ['1.5m', 90],
    ['2h', 7200],
    ['1d', 86_400],
  ])('reads %s as a time', (duration, seconds) => {
    expect(readLoadAsk({ duration }).endSeconds).toBe(seconds)
  })

  it('reads models with weights, and a base URL without its last slash', () => {
    const { model, baseUrl } = readLoadAsk({
      model: ['qwq-32b=4', 'deepseek-r1'],
      baseUrl: 'http://gpu:8080/v1/',
    })
    expect(model).toEqual([
      { model: 'qwq-32b', weight: 4 },
      { model: 'deepseek-r1', weight: 1 },
    ])
    expect(baseUrl).toBe('http://gpu:8080/v1')
  })
})
