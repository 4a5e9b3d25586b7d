import { describe, expect, test } from 'vitest'
import { scanBody } from '../../src/core/body.ts'
import { applyEdits } from '../../src/core/edits.ts'
import { type Parameters, ParametersSchema } from '../../src/core/gateway-manifest.ts'
import { adjustParameters, changesText } from '../../src/core/parameters.ts'

const CHAT = '/v1/chat/completions'
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const rulesOf = (...rules: object[]): readonly Parameters[] =>
  rules.map((rule) => ParametersSchema.parse(rule))

type More = { readonly path?: string; readonly context?: number }

const adjust = (source: string, rules: readonly Parameters[], more: More = {}) => {
  const body = bytes(source)
  const scan = scanBody(body)
  if (!scan.ok) throw new Error(scan.message)
  const { path = CHAT, context = 1_000_000 } = more
  const defaults = path !== '/v1/messages/count_tokens'
  const where = { body, start: scan.start, path, context }
  const answer = adjustParameters({ ...where, rules, defaults })
  if (!answer.ok) return answer
  const text = new TextDecoder().decode(applyEdits(body, answer.edits))
  return { ok: true, text, changes: changesText(answer.changes) } as const
}

const body = (more: object = {}): string =>
  JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...more })

const refusedWith = (source: string, rules: readonly Parameters[], more: More = {}) => {
  const answer = adjust(source, rules, more)
  return answer.ok ? null : [answer.param, answer.message]
}

const textOf = (source: string, rules: readonly Parameters[], more: More = {}): string => {
  const answer = adjust(source, rules, more)
  if (!answer.ok) throw new Error(answer.message)
  return answer.text
}

const parsed = (source: string, rules: readonly Parameters[], more: More = {}): unknown =>
  JSON.parse(textOf(source, rules, more))

describe('what may be sent', () => {
  test('a parameter outside `allow` is named, with what is allowed', () => {
    const rules = rulesOf({ allow: ['temperature', 'max_tokens'], refuse: [] })
    expect(refusedWith(body({ logit_bias: {} }), rules)).toEqual([
      'logit_bias',
      "the parameter 'logit_bias' is not allowed here; allowed: temperature, max_tokens",
    ])
    expect(refusedWith(body({ stream: true, temperature: 1 }), rules)).toBeNull()
    expect(refusedWith(body({ max_completion_tokens: 5 }), rules)).toBeNull()
  })

  test('refused in any spelling of its name, and not when it says nothing', () => {
    const name = 'chat_template_kwargs_of_the_longest_kind_there_is_in_any_engine_'
    const escapes = [...name].map((one) => `\\u00${one.charCodeAt(0).toString(16)}`).join('')
    const rules = rulesOf({ refuse: [name] })
    expect(refusedWith(`{"model":"m","${escapes}":1}`, rules)?.[0]).toBe(name)
    expect(refusedWith(`{"model":"m","${name}":null}`, rules)).toBeNull()
    expect(refusedWith(body(), rules)).toBeNull()
    const length = rulesOf({ refuse: ['max_tokens'] })
    expect(refusedWith(body({ max_completion_tokens: 9 }), length)?.[0]).toBe(
      'max_completion_tokens',
    )
  })

  test("the consumer's rules hold too, and neither judges what the other has set", () => {
    const rules = rulesOf({ defaults: { top_k: 20 } }, { allow: ['temperature'] })
    expect(refusedWith(body({ top_p: 1 }), rules)?.[0]).toBe('top_p')
    expect(parsed(body(), rules)).toMatchObject({ top_k: 20 })
  })

  test('a parameter that a rule speaks of may appear once; another one as often as it likes', () => {
    const rules = rulesOf({ clamp: { top_k: { max: 5 } }, system: { prepend: 'x' } })
    expect(refusedWith('{"model":"m","top_k":1,"top\\u005fk":9}', rules)?.[0]).toBe('top_k')
    expect(refusedWith('{"model":"m","system":"","system":""}', rules)?.[0]).toBe('system')
    expect(refusedWith('{"model":"m","x":1,"x":9}', rules)).toBeNull()
  })

  test('what is clamped must be a number', () => {
    const rules = rulesOf({ clamp: { n: { min: 1, max: 4 } } })
    for (const value of ['"9"', 'true', '[9]', '{}']) {
      expect(refusedWith(`{"model":"m","n":${value}}`, rules)).toEqual([
        'n',
        'n must be a number from 1 to 4',
      ])
    }
  })

  test('a body of a million fields is refused and not listed', () => {
    const many = Array.from({ length: 1_001 }, (_, index) => `"a${index}":1`).join()
    expect(refusedWith(`{${many}}`, rulesOf({ refuse: ['n'] }))?.[1]).toMatch(/more than 1000/)
  })
})

describe('clamps and defaults', () => {
  const clamp = rulesOf({ clamp: { max_tokens: { max: 4096 }, temperature: { min: 0.1, max: 1 } } })

  test('the bytes around a clamped number stay', () => {
    const source =
      '{ "model" : "m",\n "temper\\u0061ture"  :  1.50e0 , "max_completion_tokens":1e9}'
    const answer = adjust(source, clamp)
    expect(answer).toEqual({
      ok: true,
      text: '{ "model" : "m",\n "temper\\u0061ture"  :  1 , "max_completion_tokens":4096}',
      changes: 'clamped max_completion_tokens=4096, clamped temperature=1',
    })
  })

  test('a number beyond all numbers is clamped, one inside keeps its spelling', () => {
    expect(textOf('{"max_tokens":1e999}', clamp)).toBe('{"max_tokens":4096}')
    expect(textOf('{"max_tokens":4.096e3}', clamp)).toBe('{"max_tokens":4.096e3}')
    expect(textOf('{"max_tokens":1,"temperature":-7}', clamp)).toBe(
      '{"max_tokens":1,"temperature":0.1}',
    )
  })

  const inserted: readonly (readonly [string, string | undefined])[] = [
    [CHAT, 'max_tokens'],
    ['/v1/completions', 'max_tokens'],
    ['/v1/messages', 'max_tokens'],
    ['/v1/responses', 'max_output_tokens'],
    ['/v1/embeddings', undefined],
    ['/v1/messages/count_tokens', undefined],
  ]
  test.each(inserted)('no length on %s: %s is set to what the clamp allows', (path, name) => {
    const expected = name === undefined ? { model: 'm' } : { [name]: 4096, model: 'm' }
    expect(parsed('{"model":"m"}', clamp, { path })).toEqual(expected)
  })

  test('a length under a name that this path does not know is no length', () => {
    expect(parsed('{"max_tokens":7}', clamp, { path: '/v1/responses' })).toEqual({
      max_tokens: 7,
      max_output_tokens: 4096,
    })
    expect(parsed('{"max_completion_tokens":7}', clamp)).toEqual({ max_completion_tokens: 7 })
  })

  test('null is no length, and a clamp wider than the context sets none', () => {
    expect(textOf('{"max_tokens":null}', clamp)).toBe('{"max_tokens":4096}')
    expect(textOf('{"model":"m"}', clamp, { context: 4096 })).toBe('{"model":"m"}')
  })

  test("the consumer's default counts before the route's, and both clamps after it", () => {
    const rules = rulesOf(
      { defaults: { top_p: 0.9, max_tokens: 9000 }, clamp: { max_tokens: { max: 4096 } } },
      { defaults: { top_p: 0.5, stop: ['a'] }, clamp: { max_tokens: { max: 1024 } } },
    )
    const answer = adjust('{}', rules)
    expect(answer.ok && JSON.parse(answer.text)).toEqual({
      top_p: 0.5,
      max_tokens: 1024,
      stop: ['a'],
    })
    expect(answer.ok && answer.changes).toBe('set top_p=0.5, set max_tokens=1024, set stop')
  })

  test('a count of tokens gets the system text, and no default', () => {
    const rules = rulesOf({ defaults: { temperature: 0.5 }, system: { prepend: 'p' } })
    expect(parsed('{}', rules, { path: '/v1/messages/count_tokens' })).toEqual({ system: 'p' })
  })

  test('nothing to do leaves the bytes alone', () => {
    const source = '{"max_tokens":1,"temperature":0.5}'
    expect(adjust(source, clamp)).toEqual({ ok: true, text: source, changes: '' })
  })

  test('the header stays short', () => {
    const many = Array.from({ length: 300 }, (_, index) => `set parameter_${index}=1`)
    const text = changesText(many)
    expect(text.length).toBeLessThan(1_100)
    const listed = text.split(', ').length - 1
    expect(text).toMatch(new RegExp(`, and ${300 - listed} more$`))
  })
})

describe('system text', () => {
  const both = rulesOf(
    { system: { prepend: 'R<', append: '>R' } },
    { system: { prepend: 'C<', append: '>C' } },
  )
  const user = { role: 'user', content: 'hi' }
  const withMessages = (...messages: object[]): string => JSON.stringify({ model: 'm', messages })

  test('into a string, a list of parts, a null, and where there is none', () => {
    const string = withMessages(user, { role: 'developer', content: 'be "kind"\n' })
    expect(parsed(string, both)).toMatchObject({
      messages: [user, { role: 'developer', content: 'C<\n\nR<\n\nbe "kind"\n\n\n>R\n\n>C' }],
    })
    const part = { type: 'text', text: 'x' }
    const parts = withMessages({ content: [part], role: 'system' }, user)
    expect(parsed(parts, both)).toMatchObject({
      messages: [
        { content: [{ text: 'C<\n\nR<' }, part, { type: 'text', text: '>R\n\n>C' }] },
        user,
      ],
    })
    const all = 'C<\n\nR<\n\n>R\n\n>C'
    for (const content of [null, '']) {
      const source = withMessages({ role: 'system', content })
      expect(parsed(source, both)).toMatchObject({ messages: [{ role: 'system', content: all }] })
    }
    const empty = withMessages({ role: 'system', content: [] }, user)
    expect(parsed(empty, both)).toMatchObject({
      messages: [{ content: [{ type: 'text', text: all }] }, user],
    })
    expect(parsed(withMessages({ role: 'system' }), both)).toMatchObject({
      messages: [{ role: 'system', content: all }],
    })
    expect(parsed(withMessages(user), both)).toMatchObject({
      messages: [{ role: 'system', content: all }, user],
    })
    expect(parsed(withMessages(), both)).toMatchObject({ messages: [{ content: all }] })
  })

  test('a role in another spelling is the same role', () => {
    const source = '{"messages":[{"r\\u006fle":"syst\\u0065m","content":"x"}]}'
    expect(parsed(source, rulesOf({ system: { prepend: 'p' } }))).toEqual({
      messages: [{ role: 'system', content: 'p\n\nx' }],
    })
  })

  test('a message that is two things at once is refused', () => {
    const rules = rulesOf({ system: { prepend: 'p' } })
    const twice = '{"messages":[{"role":"user","role":"system","content":"x"}]}'
    expect(refusedWith(twice, rules)?.[0]).toBe('messages')
    const number = '{"messages":[{"role":"system","content":7}]}'
    expect(refusedWith(number, rules)?.[1]).toMatch(/must be a string or a list of parts/)
  })

  test('responses and messages have a field of their own; completions have none', () => {
    const rules = rulesOf({ system: { append: 'a' } })
    expect(parsed('{"input":"x"}', rules, { path: '/v1/responses' })).toEqual({
      instructions: 'a',
      input: 'x',
    })
    expect(parsed('{"instructions":"i"}', rules, { path: '/v1/responses' })).toEqual({
      instructions: 'i\n\na',
    })
    const blocks = '{"system":[{"type":"text","text":"s"}]}'
    for (const path of ['/v1/messages', '/v1/messages/count_tokens']) {
      expect(parsed(blocks, rules, { path })).toEqual({
        system: [
          { type: 'text', text: 's' },
          { type: 'text', text: 'a' },
        ],
      })
    }
    expect(textOf('{"prompt":"x"}', rules, { path: '/v1/completions' })).toBe('{"prompt":"x"}')
  })
})
