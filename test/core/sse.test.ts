import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fieldsOf, type SseFields, SseScanner } from '../../src/core/sse.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

type Read = { readonly out: string; readonly events: readonly SseFields[]; readonly rest: string }

/** Feeds the pieces; joins what comes out and lists the events that are not empty. */
const read = (pieces: readonly Uint8Array[]): Read => {
  const scanner = new SseScanner(1_000_000)
  const out: Uint8Array[] = []
  const events: SseFields[] = []
  for (const piece of pieces) {
    const step = scanner.push(piece)
    if (step === null) throw new Error('overflow')
    out.push(step.bytes)
    for (const event of step.events) {
      const fields = fieldsOf(step.bytes, event)
      if (fields.data !== null || fields.name !== '') events.push(fields)
    }
  }
  const rest = Buffer.from(scanner.rest()).toString('latin1')
  return { out: Buffer.concat(out).toString('latin1'), events, rest }
}

const cut = (whole: Uint8Array, places: readonly number[]): Uint8Array[] => {
  const ends = places.map((place) => place % (whole.length + 1)).sort((a, b) => a - b)
  return [...ends, whole.length].map((end, index) => whole.subarray(ends[index - 1] ?? 0, end))
}

describe('SseScanner', () => {
  test.each(['\n', '\r\n', '\r'])('reads lines that end in %j', (eol) => {
    const source = `: hi${eol}${eol}event: x${eol}data: 你${eol}data:b${eol}${eol}data${eol}${eol}`
    const { out, events, rest } = read([bytes(source)])
    expect(events).toEqual([
      { name: 'x', data: '你\nb' },
      { name: '', data: '' },
    ])
    expect(out).toBe(Buffer.from(source).toString('latin1'))
    expect(rest).toBe('')
  })

  test('holds a part of an event until the rest is there', () => {
    const scanner = new SseScanner(100)
    expect(scanner.push(bytes('data: a\n\ndata: b'))).toMatchObject({
      bytes: bytes('data: a\n\n'),
      events: [{ start: 0, end: 9 }],
    })
    expect(Buffer.from(scanner.rest()).toString()).toBe('data: b')
    const step = scanner.push(bytes('c\n\n'))
    expect(step && Buffer.from(step.bytes).toString()).toBe('data: bc\n\n')
  })

  test('a whole chunk is given out as it is, not copied', () => {
    const chunk = bytes('data: a\n\ndata: b\n\n')
    expect(new SseScanner(100).push(chunk)?.bytes).toBe(chunk)
  })

  test('an event that outgrows the limit is refused, whatever the chunks', () => {
    const scanner = new SseScanner(10)
    expect(scanner.push(bytes('data: 1'))).not.toBe(null)
    expect(scanner.push(bytes('2345'))).toBe(null)
    expect(new SseScanner(10).push(bytes('a\n\ndata: 123456'))).toBe(null)
  })

  test('a byte order mark at the beginning is no part of the field name', () => {
    expect(read([bytes('\ufeffdata: a\n\n')]).events).toEqual([{ name: '', data: 'a' }])
  })

  test('any chunking gives the same events, and every byte once and in order', () => {
    const word = fc.constantFrom(
      'data',
      ':',
      ' ',
      'é',
      '你',
      '{"a":1}',
      'event',
      '\n',
      '\r',
      '\r\n',
      '\n\n',
    )
    const source = fc.array(word, { maxLength: 60 }).map((words) => bytes(words.join('')))
    fc.assert(
      fc.property(source, fc.array(fc.nat(), { maxLength: 20 }), (whole, places) => {
        const one = read([whole])
        const many = read(cut(whole, places))
        expect(many.events).toEqual(one.events)
        expect(many.out + many.rest).toBe(Buffer.from(whole).toString('latin1'))
      }),
      { numRuns: 3_000 },
    )
  })

  test('random bytes never throw', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 }), (pieces) => {
        const { out, rest } = read(pieces)
        expect(out + rest).toBe(Buffer.concat(pieces).toString('latin1'))
      }),
      { numRuns: 1_000 },
    )
  })
})
