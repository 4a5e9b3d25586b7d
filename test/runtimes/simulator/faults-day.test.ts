/**
 * A simulated day with every kind of fault, on two ranks, in seconds: each shows the symptom that
 * the real engine shows, and log, answers, metrics and nvidia-smi are the same bytes for a seed.
 */
import { createHash } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { FAULTS, type FaultKind } from '../../../runtimes/simulator/faults/fault.ts'
import { day, type Entry, type Name, SLOT_MS, startOf, TIMELINE } from './rank-day.ts'

const MINUTE_MS = 60_000
/** The acceptance of a day with all faults is five minutes; it takes some seconds. */
const DEADLINE_MS = 300_000

const digest = (entries: readonly Entry[]): string => {
  const hash = createHash('sha256')
  for (const { atMs, who, text } of entries) hash.update(`${atMs} ${who} ${text}\n`)
  return hash.digest('hex')
}

test('every kind of fault is in the day', () => {
  expect(TIMELINE.map(([kind]) => kind).toSorted()).toEqual(Object.keys(FAULTS).toSorted())
})

describe.each<Name>(['vllm', 'sglang'])('a day of %s on two ranks', (engine) => {
  let all: readonly Entry[] = []
  beforeAll(async () => {
    all = await day(engine, 1)
  }, DEADLINE_MS)

  /** What somebody said in the slot of a fault, from its start on. */
  const during = (kind: FaultKind, who: string | null = null): readonly Entry[] => {
    const slot = TIMELINE.findIndex(([one]) => one === kind)
    const [from, to] = [startOf(slot), (slot + 1) * SLOT_MS]
    return all.filter(
      (one) => one.atMs >= from && one.atMs < to && (who === null || one.who === who),
    )
  }
  const said = (kind: FaultKind, who: string, text: string): Entry => {
    const found = during(kind, who).find((one) => one.text.includes(text))
    if (found === undefined) throw new Error(`${kind}: ${who} never said ${text}`)
    return found
  }
  const afterMs = (kind: FaultKind, { atMs }: Entry): number =>
    atMs - startOf(TIMELINE.findIndex(([one]) => one === kind))
  const health = (kind: FaultKind, withinMs: number): readonly number[] =>
    during(kind, 'GET /health')
      .filter((one) => afterMs(kind, one) < withinMs)
      .map(({ text }) => Number(/HTTP\/1.1 (\d+)/.exec(text)?.[1] ?? 0))

  test('the same bytes for a seed, others for another', { timeout: DEADLINE_MS }, async () => {
    expect(digest(await day(engine, 1))).toBe(digest(all))
    const early = all.filter(({ atMs }) => atMs < 2 * SLOT_MS)
    expect(digest(await day(engine, 2, 2 * SLOT_MS))).not.toBe(digest(early))
    expect(all.filter(({ who }) => who === 'client').length).toBeGreaterThan(600)
  })

  test.each(['hang', 'exit', 'xid'] as const)('%s of rank 1: the head waits, then ends', (kind) => {
    const end = said(kind, 'supervisor', 'rank 0 ended')
    // The watchdog counts from the first request or probe that waits.
    expect(afterMs(kind, end)).toBeGreaterThan(5 * MINUTE_MS)
    expect(end.text).toContain(`rank 0 ended with ${engine === 'vllm' ? 0 : 137}`)
    if (kind === 'exit') expect(end.text).toContain('rank 1 is at 3')
    if (engine === 'vllm') {
      // Health is a flag: nothing is seen there until the engine is dead.
      expect(new Set(health(kind, 4 * MINUTE_MS))).toEqual(new Set([200]))
      said(kind, 'rank 0', 'No available shared memory broadcast block found in 60 seconds')
      said(kind, 'rank 0', 'EngineDeadError')
    } else {
      expect(health(kind, 4 * MINUTE_MS)).toContain(503)
      said(kind, 'rank 0', 'Watchdog timeout')
    }
    const up = said(kind, 'rank 0', 'Application startup complete')
    const answers = during(kind, 'client').filter(({ atMs }) => atMs > up.atMs + MINUTE_MS)
    expect(answers.length).toBeGreaterThan(5)
    for (const { text } of answers) expect(text).toContain('HTTP/1.1 200')
  })

  test('xid: the GPU is lost until the reboot, and a start on it fails or waits', () => {
    const rank = engine === 'vllm' ? 'Worker' : 'TP1'
    expect(said('xid', 'rank 1', 'CUDA error: unspecified launch failure').text).toContain(rank)
    const lost = during('xid', 'smi 1').filter(({ text }) => text.includes('GPU is lost'))
    expect(lost.length).toBeGreaterThanOrEqual(4)
    for (const { text } of lost) expect(text).toMatch(/^15 Unable to determine the device handle/)
    expect(during('xid', 'smi 0').every(({ text }) => text.startsWith('0 '))).toBe(true)
    expect(during('xid', 'smi 1').at(-1)?.text).toMatch(/^0 /)
  })

  test('partition: requests wait until it heals, nobody ends', () => {
    expect(during('partition', 'supervisor')).toEqual([])
    const waited = during('partition', 'client').filter(({ atMs, text }) => {
      const asked = Number(/asked at (\S+)/.exec(text)?.[1])
      return atMs - asked > MINUTE_MS
    })
    expect(waited.length).toBeGreaterThan(0)
    for (const one of waited) {
      expect(one.text).toContain('HTTP/1.1 200')
      expect(afterMs('partition', one)).toBeGreaterThan(4 * MINUTE_MS)
    }
  })

  test('freeze-counters: /metrics repeats itself while requests are answered', () => {
    const frozen = during('freeze-counters', 'GET /metrics')
      .filter((one) => afterMs('freeze-counters', one) < 40 * MINUTE_MS)
      .map(({ text }) => text.replace(/^date: [^\n]*\n/im, ''))
    expect(frozen.length).toBeGreaterThan(6)
    expect(new Set(frozen).size).toBe(1)
    expect(during('freeze-counters', 'client').length).toBeGreaterThan(5)
    const counted = (text: string | undefined) =>
      /generation_tokens_total\S* (\d+)/.exec(text ?? '')
    const later = during('freeze-counters', 'GET /metrics').at(-1)?.text
    expect(counted(later)?.[1]).not.toBe(counted(frozen[0])?.[1])
  })

  test('slow-shards: the restart loads ten times as long', () => {
    const line = said('slow-shards', 'rank 0', engine === 'vllm' ? 'weights took' : 'elapsed=').text
    // 65.5 GB at 6.15 GB/s on two nodes are 5.3 s.
    expect(Number(/(?:took |elapsed=)([\d.]+)/.exec(line)?.[1])).toBeCloseTo(53.3, 0)
  })

  test('keep-memory: the next starts fail, then the memory is free', () => {
    const refusal = engine === 'vllm' ? 'Free memory on device cuda:0' : 'Not enough memory'
    said('keep-memory', 'rank 0', refusal)
    expect(during('keep-memory', 'supervisor').length).toBeGreaterThan(3)
    said('keep-memory', 'rank 0', 'Application startup complete')
  })

  test('nvml-lost: nvidia-smi of that node fails, the engine serves', () => {
    const codes = during('nvml-lost', 'smi 1').map(({ text }) => text.split(' ')[0])
    expect(codes.filter((code) => code === '255').length).toBeGreaterThanOrEqual(4)
    expect(codes.at(-1)).toBe('0')
    for (const { text } of during('nvml-lost', 'client')) expect(text).toContain('HTTP/1.1 200')
  })

  const whole = (text: string): boolean => /"finish_reason": ?"(stop|length)"/.test(text)
  test.each([
    ['cut', (text: string) => !whole(text)],
    ['half-event', (text: string) => !whole(text)],
    ['error-500', (text: string) => text.includes('HTTP/1.1 500')],
    ['error-429', (text: string) => text.includes('HTTP/1.1 429')],
  ] as const)('%s strikes about half of the requests', (kind, symptom) => {
    const answers = during(kind, 'client').filter((one) => afterMs(kind, one) < 40 * MINUTE_MS)
    const struck = answers.filter(({ text }) => symptom(text)).length
    expect(struck / answers.length).toBeGreaterThan(0.25)
    expect(struck / answers.length).toBeLessThan(0.75)
  })

  test('slow-first-byte, truncate, garble: late, without an end, rubbish', () => {
    const answers = during('slow-first-byte', 'client').filter(
      (one) => afterMs('slow-first-byte', one) < 40 * MINUTE_MS,
    )
    const late = answers.filter(({ atMs, text }) => {
      const asked = Number(/asked at (\S+)/.exec(text)?.[1])
      return atMs - asked >= 5000
    })
    expect(late.length / answers.length).toBeGreaterThan(0.25)
    expect(late.length / answers.length).toBeLessThan(0.75)
    const open = during('truncate', 'client').filter(
      ({ text }) => text.includes('event-stream') && !text.includes('[DONE]'),
    )
    expect(open.length).toBeGreaterThan(2)
    const rubbish = during('garble', 'client').filter(({ text }) => text.includes(' NaN'))
    expect(rubbish.length).toBeGreaterThan(2)
  })
})
