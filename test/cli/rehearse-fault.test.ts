/** Faults as people write them, and timelines: every problem at once, exact times when played. */
import { describe, expect, it } from 'vitest'
import { readEntry, readSpan, spanText } from '../../src/cli/rehearse-entry.ts'
import {
  playTimeline,
  readTimeline,
  strangers,
  type TimelineEntry,
} from '../../src/cli/rehearse-timeline.ts'
import { issueLine } from '../../src/control/load.ts'
import type { FaultAnswer, FaultAsk } from '../../src/core/admin.ts'
import { PenstockError } from '../../src/errors.ts'
import { manualClock } from '../support/clock.ts'

describe('one fault', () => {
  it.each([
    ['30s', 30_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['250ms', 250],
    ['2d', 172_800_000],
    [0, 0],
    ['10', null],
    [10, null],
    ['5x', null],
    ['', null],
    ['-1s', null],
    [null, null],
  ])('%j lasts %j ms', (text, ms) => expect(readSpan(text)).toBe(ms))

  it.each([
    [0, '0s'],
    [250, '250ms'],
    [90_000, '1m30s'],
    [90_061_000, '1d1h1m1s'],
    [null, 'until cleared'],
  ])('%j ms are shown as %s', (ms, text) => expect(spanText(ms)).toBe(text))

  it('gives every problem, in the words it was asked in', () => {
    const given = { kind: 'cut', share: 2, for: '3', rank: 'x', shrae: 1 }
    const answer = readEntry(new Map(Object.entries(given)))
    expect(answer).toEqual({
      ok: false,
      problems: [
        { field: 'for', message: 'expected a time such as 30s, 10m, 2h, got "3"' },
        { field: 'rank', message: 'expected a whole number, got "x"' },
        { field: 'shrae', message: '"shrae" is not known: did you mean share?' },
        { field: 'kind', message: 'cut: share: a number from 0 to 1' },
      ],
    })
  })

  it('takes text and numbers for the same figures', () => {
    const words = { kind: 'cut', 'after-tokens': '7', share: '0.2', replica: '1', at: '10s' }
    const values = { kind: 'cut', 'after-tokens': 7, share: 0.2, replica: 1, at: '10s' }
    const [text, numbers] = [words, values].map((given) =>
      readEntry(new Map(Object.entries(given))),
    )
    expect(text).toEqual(numbers)
    expect(text).toMatchObject({
      ok: true,
      entry: {
        fault: { kind: 'cut', afterTokens: 7, share: 0.2, startMs: 10_000 },
        scope: { deployment: null, replica: 1, rank: null, node: null },
      },
    })
  })
})

const YAML = `# a bad day
- at: 10m
  kind: hang
  for: 2m
  deployment: deepseek-r1
  rank: 1
- { at: 5m, kind: error-429, share: 0.2, for: 30s }
- at: 1h
  kind: truncate
  afterTokens: 3
`

const JSON_LINES = `{"at":"10m","kind":"hang","for":"2m","deployment":"deepseek-r1","rank":1}
{"at":"5m","kind":"error-429","share":0.2,"for":"30s"}

{"at":"1h","kind":"truncate","after-tokens":3}
`

const entriesOf = (text: string): readonly TimelineEntry[] => {
  const read = readTimeline({ path: 'day.yaml', text })
  if (!read.ok) throw new Error(read.issues.map(issueLine).join('\n'))
  return read.entries
}

const plain = (entries: readonly TimelineEntry[]) => entries.map(({ issue: _, ...entry }) => entry)

describe('a timeline file', () => {
  it('says the same as YAML and as JSON lines, in the order of time', () => {
    const entries = entriesOf(YAML)
    expect(entries.map(({ kind, startMs, durationMs }) => [kind, startMs, durationMs])).toEqual([
      ['error-429', 300_000, 30_000],
      ['hang', 600_000, 120_000],
      ['truncate', 3_600_000, null],
    ])
    expect(entries[1]?.scope).toMatchObject({ deployment: 'deepseek-r1', rank: 1 })
    expect(plain(entriesOf(JSON_LINES))).toEqual(plain(entries))
  })

  it('reports all issues at once, each with its line', () => {
    const text = '- at: 10m\n  kind: hnag\n- kind: cut\n  at: 10\n  afterTokens: 1.5\n- hello\n'
    const read = readTimeline({ path: 'day.yaml', text })
    expect(read.ok ? [] : read.issues.map(issueLine)).toEqual([
      'day.yaml:2:3: kind: "hnag" is not known: did you mean hang?',
      'day.yaml:4:3: at: expected a time such as 30s, 10m, 2h, got 10',
      'day.yaml:5:3: afterTokens: expected a whole number, got 1.5',
      'day.yaml:6:3: expected a fault with `at` and `kind`',
    ])
    const lines = readTimeline({ path: 'd.jsonl', text: '{"at":"1s","kind":"cut"}\n{"kind":3}\n{' })
    const said = lines.ok ? [] : lines.issues.map(issueLine)
    expect(said.map((line) => line.replace(/:\d+: .*/, ''))).toEqual([
      'd.jsonl:2',
      'd.jsonl:2',
      'd.jsonl:3',
    ])
  })

  it.each(['', '# nothing\n', '[]', 'kind: hang\nat: 1s\n'])('%j is no timeline', (text) => {
    const read = readTimeline({ path: 'x', text })
    expect(read.ok ? [] : read.issues).toHaveLength(1)
  })
})

const rank = (replica: string, index = 0): FaultAnswer => ({
  replica,
  rank: index,
  node: 'h20-1',
  problem: null,
  speed: 10,
  count: 1,
  faults: [],
})

describe('playing', () => {
  const played = async (
    answer: (ask: FaultAsk, atMs: number) => readonly FaultAnswer[],
    forMs: number,
  ) => {
    const clock = manualClock()
    const beganMs = clock.now()
    const sent: { atMs: number; kinds: string[]; sentAtMs: number | null }[] = []
    const said: string[] = []
    const ended = new AbortController()
    const send = async (ask: FaultAsk) => {
      if (ask.do !== 'add') throw new Error('only adds')
      const atMs = clock.now() - beganMs
      const answers = answer(ask, atMs)
      const kinds = ask.faults.map(({ fault }) => String(fault.kind))
      sent.push({ atMs, kinds, sentAtMs: (ask.sentAtMs ?? 0) - beganMs })
      return answers
    }
    const say = (line: string) => said.push(line)
    const play = { entries: entriesOf(YAML), send, clock, signal: ended.signal, say }
    let missed: number | null = null
    const playing = playTimeline(play, 10).then((count) => {
      missed = count
    })
    for (let step = 0; step < forMs; step += 500) await clock.advance(500)
    ended.abort()
    await playing
    expect(clock.pending()).toBe(0)
    return { sent, said, missed }
  }

  it('sends each fault seconds before its time, counted from one beginning', async () => {
    const { sent, missed } = await played(() => [rank('deepseek-r1/0')], 400_000)
    // At speed 10 five simulated minutes are 30 s; three seconds ahead.
    expect(sent).toEqual([
      { atMs: 27_000, kinds: ['error-429'], sentAtMs: 0 },
      { atMs: 57_000, kinds: ['hang'], sentAtMs: 0 },
      { atMs: 357_000, kinds: ['truncate'], sentAtMs: 0 },
    ])
    expect(missed).toBe(0)
  })

  it('waits for ranks that restart, and says what it missed', async () => {
    const gone = (ask: FaultAsk, atMs: number) => {
      const hang = ask.do === 'add' && ask.faults.some(({ fault }) => fault.kind === 'hang')
      if (hang || atMs < 28_500) throw new PenstockError('invalid_request', 'no rank runs')
      return [rank('qwq-32b/0')]
    }
    const { sent, said, missed } = await played(gone, 400_000)
    expect(sent.map(({ atMs, kinds }) => [kinds[0], atMs])).toEqual([
      ['error-429', 29_000],
      ['truncate', 357_000],
    ])
    expect(missed).toBe(1)
    expect(said.join('\n')).toMatch(/10m: hang deepseek-r1 rank 1, for 2m: missed/)
  })

  it('stops when told to, with nothing left behind', async () => {
    const { sent, missed } = await played(() => [rank('deepseek-r1/0')], 40_000)
    expect(sent).toHaveLength(1)
    expect(missed).toBe(0)
  })

  it('names entries that no rank answers to', () => {
    const issues = strangers(entriesOf(YAML), [rank('deepseek-r1/0'), rank('qwq-32b/0')])
    expect(issues.map(issueLine)).toEqual([
      'day.yaml:2:3: no such rank runs; there is deepseek-r1/0 rank 0, qwq-32b/0 rank 0',
    ])
  })
})
