import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readAsk, scanBody, scanObject, TRACKED, valueAt } from '../../src/core/body.ts'
import { splice } from '../../src/core/edits.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (value: Uint8Array): string => new TextDecoder().decode(value)

describe('scanBody', () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['', /empty/],
    ['  \n', /empty/],
    ['[]', /must be a JSON object/],
    ['"model"', /must be a JSON object/],
    ['{', /not valid JSON \(at byte 1\)/],
    ['{"a":1', /at byte 6/],
    ['{"a":1,}', /at byte 7/],
    ['{"a" 1}', /not valid/],
    ['{a:1}', /not valid/],
    ["{'a':1}", /not valid/],
    ['{"a":01}', /at byte 6/],
    ['{"a":1.}', /not valid/],
    ['{"a":1e}', /not valid/],
    ['{"a":-}', /not valid/],
    ['{"a":+1}', /not valid/],
    ['{"a":.5}', /not valid/],
    ['{"a":NaN}', /not valid/],
    ['{"a":tru}', /not valid/],
    ['{"a":"x}', /not valid/],
    ['{"a":"\n"}', /not valid/],
    ['{"a":"\\x"}', /not valid/],
    ['{"a":"\\u12g4"}', /not valid/],
    ['{"a":[1 2]}', /not valid/],
    ['{"a":[1,]}', /not valid/],
    ['{"a":1}x', /at byte 7/],
    ['{"a":1}{"model":"b"}', /not valid/],
    [`{"a":${'['.repeat(100_000)}`, /deeper than 200/],
    [`{"a":${'{"a":'.repeat(100_000)}`, /deeper than 200/],
    ['{"model":"a","model":"b"}', /"model" appears more than once/],
    ['{"model":"a","mod\\u0065l":"b"}', /"model" appears more than once/],
    ['{"stream":true,"x":1,"stream":false}', /"stream" appears more than once/],
  ]
  test.each(refused)('refuses %j', (source, message) => {
    const scan = scanBody(bytes(source))
    expect(scan.ok ? '' : scan.message).toMatch(message)
  })

  test('finds values by decoded key, at the top level only', () => {
    const source = bytes(
      '\ufeff {"messages":[{"model":"inner","stream":true}],"mod\\u0065l" : "你好" ,' +
        '"\\u0073tream":true,"n":2,"model ":1,"Model":1}',
    )
    const scan = scanBody(source)
    if (!scan.ok) throw new Error(scan.message)
    expect(Object.keys(scan.fields).sort()).toEqual(['messages', 'model', 'n', 'stream'])
    expect(scan.fields.model && valueAt(source, scan.fields.model)).toBe('你好')
    expect(readAsk(source)).toMatchObject({ model: '你好', stream: true, choices: 2, start: 4 })
  })

  test('accepts exactly what JSON.parse accepts, and finds the same values', () => {
    const key = fc.oneof(fc.constantFrom(...TRACKED), fc.string())
    const body = fc.dictionary(key, fc.jsonValue(), { maxKeys: 12 })
    const spaces = fc.constantFrom(undefined, 1, '\t')
    fc.assert(
      fc.property(body, spaces, (value, space) => {
        const source = bytes(JSON.stringify(value, null, space))
        const scan = scanBody(source)
        if (!scan.ok) throw new Error(scan.message)
        for (const name of TRACKED) {
          const range = scan.fields[name]
          const expected = Object.hasOwn(value, name) ? value[name] : undefined
          const found = range === undefined ? undefined : valueAt(source, range)
          expect(found).toEqual(
            expected === undefined ? undefined : JSON.parse(JSON.stringify(expected)),
          )
        }
      }),
      { numRuns: 500 },
    )
  })

  test('a damaged body is refused exactly when JSON.parse refuses it', () => {
    const damage = fc.record({
      value: fc.dictionary(fc.string({ maxLength: 3 }), fc.jsonValue({ maxDepth: 3 })),
      at: fc.nat(),
      remove: fc.nat(2),
      insert: fc.constantFrom(
        '',
        '"',
        '\\',
        '{',
        '}',
        '[',
        ']',
        ',',
        ':',
        '0',
        '-',
        'e',
        '.',
        ' ',
        '\n',
        'null',
      ),
    })
    fc.assert(
      fc.property(damage, ({ value, at, remove, insert }) => {
        const whole = JSON.stringify(value)
        const place = at % (whole.length + 1)
        const source = whole.slice(0, place) + insert + whole.slice(place + remove)
        const scan = scanObject(bytes(source), ['never'])
        expect(scan.ok).toBe(isJsonObject(text(bytes(source))))
      }),
      { numRuns: 3_000 },
    )
  })

  test('random bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (source) => {
        scanBody(source)
        readAsk(source)
      }),
      { numRuns: 2_000 },
    )
  })
})

const isJsonObject = (source: string): boolean => {
  try {
    const value: unknown = JSON.parse(source)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
  } catch {
    return false
  }
}

test('splice replaces a range and leaves every other byte', () => {
  const piece = fc.uint8Array({ maxLength: 40 })
  fc.assert(
    fc.property(piece, piece, piece, piece, (before, middle, after, insert) => {
      const source = Buffer.concat([before, middle, after])
      const range = { start: before.length, end: before.length + middle.length }
      const result = splice(source, range, insert)
      expect(Buffer.from(result)).toEqual(Buffer.concat([before, insert, after]))
    }),
  )
})

describe('readAsk', () => {
  const refused: readonly (readonly [string, string | null])[] = [
    ['{}', 'model'],
    ['{"model":""}', 'model'],
    ['{"model":7}', 'model'],
    ['{"model":null}', 'model'],
    ['{"model":"a","stream":"yes"}', 'stream'],
    ['nonsense', null],
  ]
  test.each(refused)('refuses %j', (source, param) => {
    expect(readAsk(bytes(source))).toMatchObject({ param })
  })

  test('null means absent', () => {
    const ask = readAsk(bytes('{"model":"a","stream":null,"n":null}'))
    expect(ask).toMatchObject({ model: 'a', stream: false, choices: 1 })
  })
})
