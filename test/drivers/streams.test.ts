/**
 * Readers of bytes that others wrote: any cut gives the same lines, nothing grows without bound.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PullRatio } from '../../src/drivers/docker-pull.ts'
import { Demultiplexer, lastLines } from '../../src/drivers/docker-stream.ts'
import { LINE_CHARS_MAX, LineSplitter, lastLine, tail } from '../../src/drivers/lines.ts'
import { parseStat } from '../../src/drivers/proc.ts'

const frame = (stream: number, text: string): Buffer => {
  const payload = Buffer.from(text)
  const header = Buffer.from([stream, 0, 0, 0, 0, 0, 0, 0])
  header.writeUInt32BE(payload.length, 4)
  return Buffer.concat([header, payload])
}

/** Cuts bytes at the given places, in any order. */
const cut = (bytes: Buffer, places: readonly number[]): readonly Buffer[] => {
  const at = [...places.map((place) => place % (bytes.length + 1)), 0, bytes.length]
  const edges = [...new Set(at)].sort((a, b) => a - b)
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge))
}

async function* stream(chunks: readonly Buffer[]): AsyncGenerator<Uint8Array> {
  yield* chunks
}

describe('lines', () => {
  test('any cut of any text gives the same lines', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.array(fc.nat()), (text, places) => {
        const splitter = new LineSplitter()
        const lines = cut(Buffer.from(text), places).flatMap((chunk) => splitter.push(chunk))
        const expected = text.replaceAll('\r\n', '\n').split('\n')
        if (expected.at(-1) === '') expected.pop()
        const found = [...lines, ...splitter.end()]
        // A lone \r before the end of the text is the terminal's business, not a line's.
        expect(found.map((it) => it.replace(/\r$/, ''))).toEqual(
          expected.map((it) => it.replace(/\r$/, '')),
        )
      }),
    )
  })

  test('a line without end is cut, the next one is whole', () => {
    const splitter = new LineSplitter()
    const long = Buffer.alloc(LINE_CHARS_MAX, 'x')
    for (let i = 0; i < 5; i += 1) expect(splitter.push(long)).toEqual([])
    const [first, second] = splitter.push(Buffer.from('y\nnext\n'))
    expect(first).toHaveLength(LINE_CHARS_MAX)
    expect(second).toBe('next')
  })

  test('tail and last line', () => {
    expect(tail('a\nb\nc\n', 2)).toBe('b\nc')
    expect(tail('a\n', 0)).toBe('')
    expect(lastLine('first\nlast  \n\n  \n')).toBe('last')
    expect(lastLine('')).toBe('')
  })
})

describe("Docker's frames", () => {
  test('any cut of any frames gives each stream its bytes', () => {
    const frames = fc.array(fc.tuple(fc.constantFrom(0, 1, 2), fc.string()))
    fc.assert(
      fc.property(frames, fc.array(fc.nat()), (parts, places) => {
        const demultiplexer = new Demultiplexer()
        const bytes = Buffer.concat(parts.map(([number, text]) => frame(number, text)))
        const found = cut(bytes, places).flatMap((chunk) => demultiplexer.push(chunk))
        for (const name of ['stdout', 'stderr']) {
          const own = found.filter((it) => it.stream === name).map((it) => it.bytes)
          const expected = parts.filter(([number]) => (number === 2) === (name === 'stderr'))
          expect(Buffer.concat(own).toString()).toBe(expected.map(([, text]) => text).join(''))
        }
      }),
    )
  })

  test('never loses bytes or throws on bytes that are no frames', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const demultiplexer = new Demultiplexer()
        const chars = demultiplexer.push(bytes).reduce((sum, it) => sum + it.bytes.length, 0)
        expect(chars).toBeLessThanOrEqual(bytes.length)
      }),
    )
    const terminal = new Demultiplexer().push(Buffer.from('plain text of a terminal'))
    expect(Buffer.concat(terminal.map((it) => it.bytes)).toString()).toBe(
      'plain text of a terminal',
    )
  })

  test('the last lines, bounded', async () => {
    const lines = Array.from({ length: 100 }, (_, index) => frame(1 + (index % 2), `${index}\n`))
    expect(await lastLines(stream(lines), 3)).toBe('97\n98\n99')
    const big = Array.from({ length: 60 }, () => frame(1, `${'x'.repeat(50_000)}\n`))
    expect((await lastLines(stream(big), 1000)).length).toBeLessThanOrEqual(1024 * 1024)
  })
})

describe('the ratio of a pull', () => {
  const progress = (id: string, status: string, current?: number, total?: number) => ({
    id,
    status,
    progressDetail: { ...(current === undefined ? {} : { current }), ...(total && { total }) },
  })

  test('counts downloading and extracting, and ends at 1', () => {
    const ratio = new PullRatio()
    expect(ratio.push({ status: 'Pulling from team/engine' })).toBeNull()
    expect(ratio.push(progress('a', 'Downloading', 50, 100))).toBe(0.25)
    expect(ratio.push(progress('a', 'Download complete'))).toBe(0.5)
    expect(ratio.push(progress('a', 'Extracting', 50, 100))).toBe(0.75)
    expect(ratio.push(progress('a', 'Pull complete'))).toBe(1)
    expect(ratio.push(progress('b', 'Already exists'))).toBe(1)
  })

  test('never goes back and never leaves 0 to 1, whatever comes', () => {
    const statuses = ['Downloading', 'Extracting', 'Download complete', 'Pull complete', 'Odd']
    const event = fc.record({
      id: fc.constantFrom('a', 'b', 'c'),
      status: fc.constantFrom(...statuses),
      progressDetail: fc.record({ current: fc.nat(), total: fc.nat() }),
    })
    fc.assert(
      fc.property(fc.array(event), (events) => {
        const ratio = new PullRatio()
        const found = events.map((it) => ratio.push(it)).filter((it) => it !== null)
        expect(found).toEqual([...found].sort((a, b) => a - b))
        expect(found.every((it) => it >= 0 && it <= 1)).toBe(true)
      }),
    )
  })
})

describe('/proc', () => {
  test('a command name may hold what looks like fields', () => {
    const rest = 'S 1 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2'
    expect(parseStat(7, `7 (a) R 9 (b) ${rest}`)).toEqual({
      ...{ pid: 7, state: 'S', group: 42, session: 43, startTicks: 987_654 },
    })
    expect(parseStat(7, '')).toBeNull()
    expect(parseStat(7, '7 (a')).toBeNull()
  })
})
