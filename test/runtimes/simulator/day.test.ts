/**
 * A rehearsed day with every fault of a request, on a virtual clock: seconds of real time, and the
 * same bytes for the same seed. Ids are random in the real engines too; they are blanked.
 */
import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { type FaultKind, readFault } from '../../../runtimes/simulator/faults/fault.ts'
import { FaultSchedule } from '../../../runtimes/simulator/faults/schedule.ts'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import { engineServer } from '../../../runtimes/simulator/http/routes.ts'
import { planMemory } from '../../../runtimes/simulator/memory.ts'
import { buildService } from '../../../runtimes/simulator/service.ts'
import { call } from '../../support/memory-http.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import { QWQ, rehearsal } from './support.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const REQUESTS = 1200

/** Mulberry32: 32 bits of state, enough for arrivals. */
const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}

/** One of each, an hour long, every third hour; the hours between must be clean. */
const TIMELINE: readonly (readonly [FaultKind, Readonly<Record<string, number>>])[] = [
  ['slow-first-byte', { delayMs: 5000, share: 0.5 }],
  ['cut', { afterTokens: 5, share: 0.5 }],
  ['half-event', { afterTokens: 5, share: 0.5 }],
  ['truncate', { afterTokens: 5, share: 0.5 }],
  ['garble', { share: 0.5 }],
  ['error-500', { share: 0.5 }],
  ['error-429', { share: 0.5 }],
]

const startOf = (index: number): number => (1 + 3 * index) * HOUR_MS

const settingsOf = (engine: 'vllm' | 'sglang') => {
  const facts = {
    maxContext: QWQ.maxContext,
    attentionHeads: QWQ.attentionHeads,
    memoryBytes: 97_871 * 2 ** 20,
    localGpus: 1,
    environment: {},
  }
  const command =
    engine === 'vllm'
      ? readVllm(['m', '--max-model-len', '4096'], facts)
      : readSglang(['--model-path', 'm', '--context-length', '4096', '--enable-metrics'], facts)
  if (!command.ok) throw new Error(command.message)
  return command.settings
}

type Ended = { readonly atMs: number; readonly raw: string; readonly cut: boolean }

const day = async (engine: 'vllm' | 'sglang', seed: number) => {
  const clock = new VirtualClock()
  const settings = settingsOf(engine)
  const setting = rehearsal({ speed: 1 })
  const memory = planMemory(setting.architecture, setting.memoryBytes, settings)
  const faults = new FaultSchedule(0)
  for (const [index, [kind, scope]] of TIMELINE.entries()) {
    const read = readFault({ kind, startMs: startOf(index), durationMs: HOUR_MS, ...scope })
    if (!read.ok) throw new Error(read.message)
    faults.add(read.fault)
  }
  const service = buildService(settings, setting, clock, { memory, faults })
  service.state = 'serving'
  const server = engineServer(service)
  const next = random(seed)
  const all = new Map<number, Ended>()
  let atMs = 0
  for (let id = 0; id < REQUESTS; id += 1) {
    atMs += -Math.log(1 - next()) * (DAY_MS / (REQUESTS * 1.05))
    const body = {
      model: 'm',
      messages: [{ role: 'user', content: `Question ${id}: ${'how? '.repeat(next() * 80)}` }],
      max_tokens: 10 + Math.floor(next() * 60),
      seed: id,
      stream: next() < 0.7,
    }
    const call_ = { method: 'POST', path: '/v1/chat/completions', body }
    clock.after(atMs, () => {
      const began = clock.now()
      call(server, call_, (raw, cut) => all.set(began, { atMs: clock.now(), raw, cut }))
    })
  }
  await clock.runTo(DAY_MS)
  expect(service.runner.open).toBe(0)
  expect(service.runner.engine.usedTokens).toBe(0)
  return all
}

const blank = (raw: string): string =>
  raw.replace(/^date: .*\r\n/im, '').replace(/"id": ?"(chatcmpl-)?[0-9a-f]{16,32}"/g, '"id":"-"')

const digest = (all: ReadonlyMap<number, Ended>): string => {
  const hash = createHash('sha256')
  for (const [began, { atMs, raw, cut }] of all)
    hash.update(`${began} ${atMs} ${cut} ${blank(raw)}`)
  return hash.digest('hex')
}

const whole = (raw: string): boolean =>
  raw.startsWith('HTTP/1.1 200') && /"finish_reason": ?"(stop|length)"/.test(raw)

describe.each(['vllm', 'sglang'] as const)('a day of %s', (engine) => {
  test('the same bytes at the same moments for a seed, others for another', async () => {
    const [one, again, other] = [await day(engine, 1), await day(engine, 1), await day(engine, 2)]
    expect(one.size).toBe(REQUESTS)
    expect(digest(again)).toBe(digest(one))
    expect(digest(other)).not.toBe(digest(one))
  })

  test('each fault strikes in its hour, about half the requests, and not after', async () => {
    const all = [...(await day(engine, 1))]
    const between = (from: number, to: number) =>
      all.filter(([began]) => began >= from && began < to).map(([, ended]) => ended)
    for (const [index, [kind]] of TIMELINE.entries()) {
      const hour = between(startOf(index), startOf(index) + HOUR_MS)
      const hit = hour.filter((ended) => !whole(ended.raw) || ended.cut).length
      if (kind === 'slow-first-byte' || kind === 'garble') expect(hit, kind).toBe(0)
      else expect(hit / hour.length, kind).toBeGreaterThan(0.3)
      const after = between(startOf(index) + HOUR_MS, startOf(index) + 2 * HOUR_MS)
      expect(
        after.every(({ raw, cut }) => whole(raw) && !cut),
        `after ${kind}`,
      ).toBe(true)
    }
  })
})
