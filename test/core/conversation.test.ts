import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readAsk } from '../../src/core/body.ts'
import { continues, nextNewShare, spillChance } from '../../src/core/conversation.ts'
import { PROTOCOLS } from '../../src/core/protocol.ts'

const ratio = fc.double({ min: 0, max: 1, noNaN: true })

describe('who is sent away first', () => {
  test('as many as are to be, whoever they are', () => {
    fc.assert(
      fc.property(ratio, ratio, (fraction, newShare) => {
        const [first, later] = [false, true].map((one) =>
          spillChance(fraction, { later: one, newShare }),
        )
        const sent = newShare * (first ?? 0) + (1 - newShare) * (later ?? 0)
        expect(sent).toBeCloseTo(fraction, 9)
        expect(first).toBeGreaterThanOrEqual(later ?? 1)
      }),
    )
  })

  test('nobody who goes on, while those who begin are enough', () => {
    expect(spillChance(0.3, { later: true, newShare: 0.4 })).toBe(0)
    expect(spillChance(0.4, { later: false, newShare: 0.4 })).toBe(1)
    expect(spillChance(0.7, { later: true, newShare: 0.4 })).toBeCloseTo(0.5)
  })

  test('the share follows what comes', () => {
    let share = 1
    for (let index = 0; index < 2000; index += 1) share = nextNewShare(share, index % 4 !== 0)
    expect(share).toBeGreaterThan(0.2)
    expect(share).toBeLessThan(0.3)
  })
})

describe('which requests go on', () => {
  const CHAT = '/v1/chat/completions'
  const asked = (path: string, body: object): boolean => {
    const bytes = Buffer.from(JSON.stringify({ model: 'm', ...body }))
    const protocol = PROTOCOLS.find((one) => one.path === path)
    if (protocol === undefined) throw new Error(path)
    const ask = readAsk(bytes, protocol)
    if ('message' in ask) throw new Error(ask.message)
    return continues(bytes, ask)
  }
  const user = { role: 'user', content: 'Hello' }
  const answer = { role: 'assistant', content: 'Hello!' }

  test.each([
    ['a first turn', CHAT, { messages: [user] }, false],
    ['a second one', CHAT, { messages: [user, answer, user] }, true],
    ['the word alone', CHAT, { messages: [{ role: 'user', content: 'assistant' }] }, true],
    [
      'the word in a sentence',
      CHAT,
      { messages: [{ role: 'user', content: 'my assistant' }] },
      false,
    ],
    [
      'one that names the answer before',
      '/v1/responses',
      { input: 'x', previous_response_id: 'r' },
      true,
    ],
    ['a text', '/v1/completions', { prompt: 'assistant' }, false],
  ])('%s', (_name, path, body, expected) => {
    expect(asked(path, body)).toBe(expected)
  })
})
