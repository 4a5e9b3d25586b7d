import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import * as format from '../../src/console/web/format.ts'
import { FrameReader } from '../../src/console/web/frames.ts'
import { linesOf, valueAt, withPicture } from '../../src/console/web/series.ts'
import { baseUrl, curlLines, pythonLines, shellWord } from '../../src/console/web/snippets.ts'
import { hear, type PageState } from '../../src/console/web/state.ts'
import { deployment, fleet, replica, request } from '../support/fleet.ts'
import { hasProgram, requirePart } from '../support/parts.ts'

const hostile = fc
  .string({ unit: 'binary', maxLength: 60 })
  .map((text) => text.replaceAll('\0', ''))

describe('frames', () => {
  const frameText = fc
    .array(
      fc.record({
        event: fc.stringMatching(/^[a-z]{1,8}$/),
        data: fc.json({ maxDepth: 2 }),
      }),
      { maxLength: 8 },
    )
    .map((frames) => ({
      frames,
      text: frames
        .map(({ event, data }) => `: beat\n\nevent: ${event}\ndata: ${data}\n\n`)
        .join(''),
    }))

  test('come out whole and in order, however the text is cut', () => {
    fc.assert(
      fc.property(frameText, fc.array(fc.nat(40), { minLength: 1 }), ({ frames, text }, cuts) => {
        const reader = new FrameReader()
        const found = []
        let at = 0
        for (let turn = 0; at < text.length; turn += 1) {
          const size = 1 + (cuts[turn % cuts.length] ?? 0)
          found.push(...reader.push(text.slice(at, at + size)))
          at += size
        }
        expect(found).toEqual(frames)
      }),
    )
  })

  test('never throw on any text, and hold back what is not ended', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (parts) => {
        const reader = new FrameReader()
        for (const part of parts) reader.push(part)
      }),
    )
    expect(new FrameReader().push('event: fleet\ndata: {"half":')).toEqual([])
  })
})

describe('format', () => {
  test.each([
    [format.percent(0.914), '91 %'],
    [format.percent(0), '0 %'],
    [format.percent(null), '–'],
    [format.percent(Number.NaN), '–'],
    [format.count(undefined), '–'],
    [format.count(0), '0'],
    [format.short(9999), '9,999'],
    [format.short(518_400), '518.4K'],
    [format.gibibytes(95.6 * 1024 ** 3), '95.6'],
    [format.span(-5), '0.0 s'],
    [format.span(9500), '9.5 s'],
    [format.span(61_000), '61 s'],
    [format.span(180_000), '3 min'],
    [format.span(7_980_000), '2 h 13 min'],
    [format.span(400_000_000), '4 d'],
    [format.latency(431), '431 ms'],
    [format.latency(61_250), '61.3 s'],
    [format.ranges([3, 0, 1, 5]), '0–1, 3, 5'],
    [format.ranges([]), '–'],
    [format.total([null, undefined]), null],
    [format.total([null, 3, 4]), 7],
  ])('%j', (found, expected) => {
    expect(found).toBe(expected)
  })
})

describe('lines to copy', () => {
  test.each([
    ['http://localhost:8080', 'h20', 'http://localhost:8080/v1'],
    ['http://localhost:8080/v1/', 'h20', 'http://localhost:8080/v1'],
    ['http://0.0.0.0:8080', '10.0.0.5', 'http://10.0.0.5:8080/v1'],
    ['http://[::]:8080', 'penstock.example', 'http://penstock.example:8080/v1'],
    ['https://api.example/llm', '', 'https://api.example/llm/v1'],
    ['nonsense', '', 'nonsense'],
  ])('%s opened from %s is called at %s', (url, page, expected) => {
    expect(baseUrl(url, page)).toBe(expected)
  })

  test('a shell takes any name as one word and runs nothing', () => {
    // Lone surrogates cannot be written as UTF-8, so no terminal can paste them.
    const texts = fc.sample(hostile, { numRuns: 40, seed: 7 }).filter((text) => text.isWellFormed())
    for (const text of [...texts, "'; touch pwned; '", '$(id)', '`id`', '!!', '-n', '\\', '\n']) {
      const script = `printf %s ${shellWord(text)}`
      const ran = spawnSync('/bin/sh', ['-c', script], { encoding: 'utf8' })
      expect([ran.stdout, ran.stderr]).toEqual([text, ''])
    }
  })

  test('curl sends the model name that it was given', () => {
    const model = `it's "$HOME" \`x\` \\ 中`
    const script = curlLines('http://h/v1', model).replace(/^curl -N/, 'printf "%s\\0"')
    const ran = spawnSync('/bin/sh', ['-c', script], {
      encoding: 'utf8',
      env: { PENSTOCK_KEY: 'k' },
    })
    const words = ran.stdout.split('\0')
    expect(words.slice(0, 3)).toEqual([
      'http://h/v1/chat/completions',
      '-H',
      'Authorization: Bearer k',
    ])
    expect(JSON.parse(words[6] ?? '')).toMatchObject({ model, stream: true })
  })

  test.skipIf(!requirePart('python3', hasProgram('python3')))('Python reads the same name', () => {
    const names = ["it's", '"', '\\', '{x}', '\n', '\u2028', '😀', '"""', '#', '中']
    const check = 'import ast,sys\nfor n in ast.walk(ast.parse(sys.stdin.read())):\n'
    const print = ' if isinstance(n,ast.keyword) and n.arg=="model": print(ascii(n.value.value))'
    for (const name of names) {
      const input = pythonLines('http://h/v1', name)
      const ran = spawnSync('python3', ['-c', check + print], { input, encoding: 'utf8' })
      const expected = spawnSync('python3', ['-c', 'import sys;print(ascii(sys.argv[1]))', name], {
        encoding: 'utf8',
      })
      expect(ran.stderr).toBe('')
      expect(ran.stdout).toBe(expected.stdout)
    }
  })
})

describe('series', () => {
  const nowMs = 1_790_000_000_000
  const at = (ms: number, ratio: number, ageMs = 0) =>
    fleet(nowMs + ms, {
      deployments: [
        deployment('m', {
          replicas: [
            replica('m/0', {
              signals: { kvCacheUsageRatio: { value: ratio, ageMs } },
              generationTokensPerSecond: null,
            }),
          ],
        }),
      ],
    })

  test('grow by one point in five seconds, forget after an hour, ignore stale readings', () => {
    let series = withPicture([], at(0, 0.1))
    series = withPicture(series, at(1000, 0.2))
    series = withPicture(series, at(5000, 0.3))
    series = withPicture(series, at(10_000, 0.4, 60_000))
    expect(series).toEqual([
      {
        name: 'kvCacheUsageRatio',
        labels: { replica: 'm/0' },
        points: [
          [nowMs, 0.1],
          [nowMs + 5000, 0.3],
        ],
      },
    ])
    expect(withPicture(series, at(6000, 0.9))).toBe(series)
    const later = withPicture(series, at(3_604_000, 0.5))
    expect(later[0]?.points).toEqual([
      [nowMs + 5000, 0.3],
      [nowMs + 3_604_000, 0.5],
    ])
  })

  test('a gap is a hole in the line, and a moment in it has no value', () => {
    const points = [0, 10, 20, 200, 210].map((s): [number, number] => [nowMs + s * 1000, s])
    const [line] = linesOf([{ name: 'x', labels: { replica: 'm/0' }, points }], 'x')
    if (line === undefined) throw new Error('no line')
    expect(line.values).toEqual([0, 10, 20, null, 200, 210])
    expect(valueAt(line, null)).toBe(210)
    expect(valueAt(line, nowMs / 1000 + 11)).toBe(10)
    expect(valueAt(line, nowMs / 1000 + 110)).toBe(null)
    expect(valueAt(line, nowMs / 1000 + 900)).toBe(null)
  })
})

describe('state', () => {
  const empty: PageState = {
    fleet: null,
    pictureAtMs: 0,
    requests: [],
    series: [],
    lost: null,
    refused: null,
  }

  test('a line that stays down keeps its first time; a picture clears it', () => {
    let state = hear(empty, { kind: 'lost', reason: 'a', atMs: 1000 })
    state = hear(state, { kind: 'lost', reason: 'b', atMs: 5000 })
    expect(state.lost).toEqual({ sinceMs: 1000, reason: 'a' })
    state = hear(state, { kind: 'fleet', fleet: fleet(1), atMs: 6000 })
    expect(state.lost).toBe(null)
  })

  test('requests that come again after a reconnect are shown once, a hundred at most', () => {
    const many = Array.from({ length: 90 }, (_, index) => request(`r${index}`, index))
    let state = hear(empty, { kind: 'requests', requests: many })
    state = hear(state, { kind: 'requests', requests: [request('new', 1), ...many.slice(0, 50)] })
    expect(state.requests.length).toBe(91)
    const more = Array.from({ length: 60 }, (_, index) => request(`s${index}`, index))
    state = hear(state, { kind: 'requests', requests: more })
    expect(state.requests.length).toBe(100)
    expect(new Set(state.requests.map(({ id }) => id)).size).toBe(100)
  })
})
