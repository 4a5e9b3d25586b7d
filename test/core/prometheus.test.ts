import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EXPOSITION_LIMITS, parseExposition, type Sample } from '../../src/core/prometheus.ts'

const flat = (samples: readonly Sample[]) =>
  samples.map(({ name, labels, value }) => [name, Object.fromEntries(labels), value])

test.each<[string, unknown]>([
  ['up 1\n', ['up', {}, 1]],
  ['up\t1 \n', ['up', {}, 1]],
  ['  up 1\n', ['up', {}, 1]],
  ['up 1\r\n', ['up', {}, 1]],
  ['up{} 1\n', ['up', {}, 1]],
  ['up{a="b"}1\n', ['up', { a: 'b' }, 1]],
  ['up{a="b",} 1\n', ['up', { a: 'b' }, 1]],
  ['up { a = "b" , c = "d" } 1\n', ['up', { a: 'b', c: 'd' }, 1]],
  [
    'vllm:num_requests_running{engine="0",model_name="qwq-32b"} 3.0\n',
    ['vllm:num_requests_running', { engine: '0', model_name: 'qwq-32b' }, 3],
  ],
  ['a{b="q\\"s\\\\t\\nl"} 1\n', ['a', { b: 'q"s\\t\nl' }, 1]],
  ['a{b="} 5 # {"} 1\n', ['a', { b: '} 5 # {' }, 1]],
  ['a{b=""} 1\n', ['a', { b: '' }, 1]],
  ['a{b="模型"} 1\n', ['a', { b: '模型' }, 1]],
  ['a{__proto__="x"} 1\n', ['a', Object.fromEntries([['__proto__', 'x']]), 1]],
  ['a{le="+Inf"} 7 1395066363000\n', ['a', { le: '+Inf' }, 7]],
  ['a 1.5e-3 1520879607.789\n', ['a', {}, 0.0015]],
  ['a .5 -3982045\n', ['a', {}, 0.5]],
  ['a +Inf\n', ['a', {}, Number.POSITIVE_INFINITY]],
  ['a -Inf\n', ['a', {}, Number.NEGATIVE_INFINITY]],
  ['a NaN\n', ['a', {}, Number.NaN]],
  ['a_bucket{le="1"} 5 # {trace_id="x"} 0.67 1520879607.789\n', ['a_bucket', { le: '1' }, 5]],
  ['a_bucket{le="1"} 5 1520879607 # {} 0.67\n', ['a_bucket', { le: '1' }, 5]],
])('%j is one sample', (text, expected) => {
  const read = parseExposition(text)
  expect([flat(read.samples), read.malformed, read.truncated]).toEqual([[expected], 0, false])
})

test.each([
  'up\n',
  'up one\n',
  'up 0x10\n',
  'up 1 2 3\n',
  'up 1 then\n',
  '1up 1\n',
  'up{ 1\n',
  'up{a} 1\n',
  'up{a=b} 1\n',
  'up{a="b} 1\n',
  'up{a="b"c="d"} 1\n',
  'up{a="\\x"} 1\n',
  'up{a="b",a="c"} 1\n',
  'up{"a.b"="c"} 1\n',
  'up{a:b="c"} 1\n',
  '{a="b"} 1\n',
  'up{a="b"}\n',
  '<html>\n',
  '\0\n',
  'up 1_0\n',
  'tokens 12',
  'up 1e\n',
  'up{,} 1\n',
  `${'x'.repeat(70_000)} 1\n`,
])('%j is counted and skipped, and its neighbours are read', (bad) => {
  const read = parseExposition(`before 1\n${bad.endsWith('\n') ? `${bad}after 2\n` : bad}`)
  expect(read.malformed).toBe(1)
  expect(read.samples.map(({ name }) => name)).toEqual(
    bad.endsWith('\n') ? ['before', 'after'] : ['before'],
  )
})

test('comments, types and the end mark are no samples', () => {
  const text = [
    '# HELP a Text with \\n and # signs',
    '# TYPE a counter',
    '#TYPE no spaces',
    '# a note',
    '#',
    '',
    '# UNIT b seconds',
    '#  TYPE\tb  histogram ',
    'a_total 1',
    '# EOF',
  ].join('\n')
  const read = parseExposition(text)
  expect([...read.types]).toEqual([
    ['a', 'counter'],
    ['b', 'histogram'],
  ])
  expect([read.samples.length, read.malformed, read.truncated]).toEqual([1, 0, false])
})

test('names that nobody asked for are passed over', () => {
  const text = 'a 1\nb{broken 2\nc{x="y"} 3\n'
  const read = parseExposition(text, { wanted: new Set(['c']) })
  expect([flat(read.samples), read.malformed]).toEqual([[['c', { x: 'y' }, 3]], 0])
})

test('limits hold in each direction', () => {
  const limits = { ...EXPOSITION_LIMITS, charactersMax: 10, linesMax: 3, labelsMax: 2 }
  const cut = parseExposition('abc 1\nabc 123456\n', { limits })
  expect([flat(cut.samples), cut.malformed, cut.truncated]).toEqual([[['abc', {}, 1]], 0, true])
  const long = parseExposition('a 1\n'.repeat(9), { limits: { ...limits, charactersMax: 1000 } })
  expect([long.samples.length, long.truncated]).toEqual([3, true])
  const labels = parseExposition('a{b="",c="",d=""} 1\n', {
    limits: { ...limits, charactersMax: 99 },
  })
  expect(labels.malformed).toBe(1)
})

const name = fc.stringMatching(/^[a-zA-Z_:][a-zA-Z0-9_:]{0,30}$/)
const label = fc.stringMatching(/^[a-zA-Z_][a-zA-Z0-9_]{0,15}$/)
const value = fc.oneof(fc.double(), fc.integer())
const sample = fc.record({
  name,
  labels: fc.uniqueArray(fc.tuple(label, fc.string({ unit: 'binary' })), {
    selector: ([key]) => key,
    maxLength: 6,
  }),
  value,
})

const escaped = (text: string) =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

const written = (number: number) =>
  Number.isFinite(number) ? String(number) : String(number).replace('Infinity', 'Inf')

test('what is written by the rules is read back, whatever the values', () => {
  fc.assert(
    fc.property(fc.array(sample, { maxLength: 20 }), (samples) => {
      const lines = samples.map(({ name, labels, value }) => {
        const inner = labels.map(([key, text]) => `${key}="${escaped(text)}"`).join(',')
        return `${name}{${inner}} ${written(value)}\n`
      })
      const read = parseExposition(lines.join(''))
      expect(read.malformed).toBe(0)
      expect(read.samples.map((one) => [one.name, [...one.labels], one.value + 0])).toEqual(
        samples.map((one) => [one.name, one.labels, one.value + 0]),
      )
    }),
  )
})

test('no text makes it throw or yield more samples than lines', () => {
  const noise = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc
      .array(fc.constantFrom('a', '{', '}', '"', '=', ',', '\\', '\n', ' ', '1', '#', '\r', 'NaN'))
      .map((parts) => parts.join('')),
  )
  fc.assert(
    fc.property(noise, (text) => {
      const read = parseExposition(text)
      const lines = text.split('\n').length
      expect(read.samples.length + read.malformed).toBeLessThanOrEqual(lines)
    }),
    { numRuns: 1000 },
  )
})

test('a cut at any byte never turns a number into another', () => {
  const text = 'a{b="c"} 123456\nlonger 98765\n'
  for (let length = 0; length <= text.length; length += 1) {
    for (const { value } of parseExposition(text.slice(0, length)).samples) {
      expect([123456, 98765]).toContain(value)
    }
  }
})
