import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readForm } from '../../src/core/form.ts'

type Part = { readonly head: string; readonly value: string | Uint8Array }

const field = (name: string, value: string | Uint8Array): Part => ({
  head: `Content-Disposition: form-data; name="${name}"`,
  value,
})

const form = (parts: readonly Part[], boundary = 'xyz', end = '--\r\n'): Buffer =>
  Buffer.concat([
    ...parts.flatMap(({ head, value }) => [
      Buffer.from(`--${boundary}\r\n${head}\r\n\r\n`),
      Buffer.from(value),
      Buffer.from('\r\n'),
    ]),
    Buffer.from(`--${boundary}${end}`),
  ])

const TYPE = 'multipart/form-data; boundary=xyz'
const read = (bytes: Uint8Array, type = TYPE) => readForm(bytes, type)

const modelOf = (bytes: Buffer, type = TYPE): string | null => {
  const ask = read(bytes, type)
  if ('message' in ask) return null
  const { start, end } = ask.modelRange
  expect(String(bytes.subarray(start, end))).toBe(ask.model)
  return ask.model
}

describe('readForm', () => {
  test('finds the model beside a file, as the official clients write it', async () => {
    const data = new FormData()
    data.set('file', new File([Buffer.alloc(100_000, '\r\n--x')], 'sp"eech.wav'))
    data.set('model', 'whisper-大')
    data.set('stream', 'True')
    const request = new Request('http://127.0.0.1', { method: 'POST', body: data })
    const type = request.headers.get('content-type') ?? ''
    const bytes = Buffer.from(await request.arrayBuffer())
    expect(modelOf(bytes, type)).toBe('whisper-大')
    expect(read(bytes, type)).toMatchObject({ stream: true, choices: 1, maxTokens: null })
  })

  test('reads each way to write a part’s name', () => {
    for (const head of [
      'content-disposition:form-data;name=model',
      'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
      'Content-Disposition: form-data; filename="a;\\" name=x"; name="model"',
      'Content-Disposition: Form-Data ; NAME="model"\r\nContent-Transfer-Encoding: 8bit',
    ]) {
      expect(modelOf(form([{ head, value: 'm' }]))).toBe('m')
    }
    expect(modelOf(Buffer.concat([Buffer.from('\r\n'), form([field('model', 'm')])]))).toBe('m')
    expect(modelOf(form([field('model', 'm')], 'a b'), 'Multipart/Form-Data;boundary="a b"')).toBe(
      'm',
    )
  })

  test('refuses what can be read in two ways', () => {
    const model = field('model', 'm')
    const bad: readonly (readonly [Buffer, string | null])[] = [
      [form([model, field('model', 'other')]), 'model'],
      [form([field('file', 'x')]), 'model'],
      [form([field('model', '')]), 'model'],
      [form([field('model', 'x'.repeat(1_001))]), 'model'],
      [form([model, field('stream', 'maybe')]), 'stream'],
      [form([{ head: 'Content-Disposition: form-data; name="mod\\el"', value: 'm' }]), null],
      [form([{ head: "Content-Disposition: form-data; name*=utf-8''model", value: 'm' }]), null],
      [
        form([
          model,
          { head: "Content-Disposition: form-data; name=a; name*=utf-8''model", value: 'o' },
        ]),
        null,
      ],
      [
        form([model, { head: 'Content-Disposition: form-data; name=a; name=model', value: 'o' }]),
        null,
      ],
      [
        form([model, { head: `${field('a', '').head}\r\n${field('model', '').head}`, value: 'o' }]),
        null,
      ],
      [form([model, { head: 'Content-Disposition: attachment; name=model', value: 'o' }]), null],
      [form([model, { head: 'X: y', value: 'o' }]), null],
      [
        form([model, { head: 'X: y\n Content-Disposition: form-data; name=model', value: 'o' }]),
        null,
      ],
      [form([{ head: `${model.head}\r\nContent-Transfer-Encoding: base64`, value: 'bQ==' }]), null],
      [form([model], 'xyz', ''), null],
      [form([model], 'xyz', ' --'), null],
      [form([model], 'xyzz'), null],
      [Buffer.concat([Buffer.from('preamble'), form([model])]), null],
      [form(Array.from({ length: 201 }, (_, index) => field(`f${index}`, 'x'))), null],
      [form([{ head: `${model.head}\r\nX: ${'y'.repeat(5_000)}`, value: 'm' }]), null],
      [Buffer.from('--xyz\r\n\r\nm\r\n--xyz--'), null],
      [Buffer.alloc(0), null],
    ]
    for (const [bytes, param] of bad) {
      expect([String(bytes).slice(0, 200), read(bytes)]).toEqual([
        String(bytes).slice(0, 200),
        { message: expect.any(String), param },
      ])
    }
    for (const type of ['', 'application/json', 'multipart/form-data', `${TYPE}; boundary=abc`]) {
      expect(read(form([model]), type)).toMatchObject({ param: null })
    }
  })

  test('a boundary right after the empty line is content', () => {
    const bytes = Buffer.from(
      '--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\n--xyz\r\n--xyz--\r\n',
    )
    expect(modelOf(bytes)).toBe('--xyz')
  })

  test('any fields, in any order: the model’s own bytes, whatever lies around', () => {
    const other = fc.record({
      name: fc.constantFrom('file', 'prompt', 'language', 'Model', 'model ', 'models'),
      value: fc
        .uint8Array({ maxLength: 200 })
        .filter((bytes) => !Buffer.from(bytes).includes('--xyz')),
    })
    fc.assert(
      fc.property(
        fc.array(other, { maxLength: 8 }),
        fc.nat(8),
        fc.string(),
        (others, at, model) => {
          fc.pre(model !== '' && Buffer.byteLength(model) < 900 && !model.includes('--xyz'))
          fc.pre(Buffer.from(model).toString() === model)
          const parts = others.map(({ name, value }) => field(name, value))
          parts.splice(Math.min(at, parts.length), 0, field('model', model))
          expect(modelOf(form(parts))).toBe(model)
        },
      ),
    )
  })

  test('never throws, and what it finds lies inside', () => {
    const whole = form([field('file', 'abc'), field('model', 'm'), field('stream', 'true')])
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.constantFrom(...'\r\n-":;x ')), {
          maxLength: 4,
        }),
        (changes) => {
          const bytes = Buffer.from(whole)
          for (const [at, byte] of changes) bytes.write(byte, at)
          const ask = read(bytes)
          if (!('message' in ask)) expect(ask.modelRange.end).toBeLessThanOrEqual(bytes.length)
        },
      ),
    )
  })
})
