/** What ties a request to a replica: its conversation, and how its prompt begins. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Affinity, affinityOf } from '../../src/core/affinity.ts'
import { readAsk } from '../../src/core/body.ts'

type Given = {
  readonly body?: Readonly<Record<string, unknown>>
  readonly headers?: Readonly<Record<string, string>>
  readonly keyId?: string
}

const tied = ({ body = {}, headers = {}, keyId = 'key-1' }: Given): Affinity => {
  const bytes = Buffer.from(JSON.stringify({ model: 'm', ...body }))
  const ask = readAsk(bytes)
  if ('message' in ask) throw new Error(ask.message)
  return affinityOf({ body: bytes, ask, headers, keyId, wantsPrefix: true })
}

describe('the conversation', () => {
  const of = (given: Given) => tied(given).conversation

  test('is named by the header, else by the body, in OpenAI’s order', () => {
    const user = { user: 'u', prompt_cache_key: 'c', safety_identifier: 's' }
    const headers = { 'x-session-id': 'h' }
    expect(of({ headers, body: user })).toBe(of({ headers }))
    expect(of({ body: user })).toBe(of({ body: { user: 'u' } }))
    expect(of({ body: { prompt_cache_key: 'c', safety_identifier: 's' } })).toBe(
      of({ body: { prompt_cache_key: 'c' } }),
    )
    expect(of({ body: { safety_identifier: 's' } })).not.toBeNull()
  })

  test('is none where nothing names it: then the key is the session', () => {
    for (const body of [{}, { user: '' }, { user: 7 }, { user: null }]) {
      expect(tied({ body })).toMatchObject({ conversation: null, session: tied({}).session })
    }
    expect(tied({ keyId: 'key-2' }).session).not.toBe(tied({}).session)
  })

  test('of one name is another for another key', () => {
    expect(of({ body: { user: '1' } })).not.toBe(of({ body: { user: '1' }, keyId: 'key-2' }))
  })
})

describe('the beginning of the prompt', () => {
  const of = (body: Readonly<Record<string, unknown>>) => tied({ body }).prefix
  const role = fc.constantFrom('user', 'assistant', 'system', 'tool')
  const message = fc.record({ role, content: fc.string({ maxLength: 200 }) })

  test('is the same in every turn of a conversation, whatever else the body says', () => {
    const first = fc.tuple(fc.array(message.filter((one) => one.role !== 'user')), fc.string())
    const options = fc.dictionary(fc.constantFrom('temperature', 'top_p', 'n'), fc.nat(5))
    fc.assert(
      fc.property(first, fc.array(message), options, ([before, question], after, more) => {
        const messages = [...before, { role: 'user', content: question }]
        expect(of({ messages: [...messages, ...after], ...more })).toBe(of({ messages }))
      }),
    )
  })

  test('differs where the first question or what stands before it does', () => {
    const talk = (system: string, question: string) => [
      { role: 'system', content: system },
      { role: 'user', content: question },
    ]
    const hashes = [talk('a', 'q'), talk('b', 'q'), talk('a', 'r')].map((messages) =>
      of({ messages }),
    )
    expect(new Set(hashes).size).toBe(3)
  })

  test('is 8 KiB at most: long system prompts alone decide, one text by its first KiB', () => {
    const system = { role: 'system', content: 'x'.repeat(9_000) }
    const asking = (content: string) => of({ messages: [system, { role: 'user', content }] })
    expect(asking('a')).toBe(asking('b'))
    const text = 'y'.repeat(2_000)
    expect(of({ prompt: `${text}a` })).toBe(of({ prompt: `${text}b` }))
    expect(of({ prompt: 'a' })).not.toBe(of({ prompt: 'b' }))
    expect(of({ input: [{ role: 'user', content: 'a' }] })).not.toBeNull()
  })

  test('is none without a prompt; odd ones do no harm', () => {
    expect(of({})).toBeNull()
    fc.assert(
      fc.property(fc.jsonValue(), (messages) => {
        expect(typeof of({ messages })).toBe('number')
        expect(of({ messages })).toBe(of({ messages }))
      }),
    )
  })
})
