import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { FinishedRequest } from '../../src/core/snapshot.ts'
import { Reports } from '../../src/gateway/reports.ts'
import { type Running, RunningList } from '../../src/gateway/running.ts'
import { SharedCounts } from '../../src/gateway/shared.ts'

test('the list holds what was added and not removed, each once', () => {
  const steps = fc.array(fc.record({ add: fc.boolean(), which: fc.nat(9) }), { maxLength: 100 })
  fc.assert(
    fc.property(steps, (moves) => {
      const list = new RunningList()
      const all: Running[] = Array.from({ length: 10 }, () => ({
        place: -1,
        tick: () => {},
        interrupt: () => {},
      }))
      const inside = new Set<Running>()
      for (const { add, which } of moves) {
        const running = all[which]
        if (running === undefined || (add && inside.has(running))) continue
        if (add) {
          list.add(running)
          inside.add(running)
        } else {
          list.remove(running)
          inside.delete(running)
        }
      }
      const seen: Running[] = []
      list.each((running) => {
        seen.push(running)
        list.remove(running)
      })
      expect(seen).toHaveLength(inside.size)
      expect(new Set(seen)).toEqual(inside)
      expect(list.size).toBe(0)
    }),
  )
})

test('counts are per thread and slot; a crashed thread takes its own with it', () => {
  const counts = new SharedCounts(3)
  const other = new SharedCounts(3, counts.buffer)
  counts.began(0, 5)
  other.began(2, 5)
  other.began(2, 4095)
  expect([counts.inFlight(5), counts.totalInFlight()]).toEqual([2, 3])
  other.ended(2, 5)
  counts.clear(2)
  expect([counts.inFlight(5), counts.inFlight(4095), counts.totalInFlight()]).toEqual([1, 0, 1])
})

const finished = (id: string): FinishedRequest => ({
  id,
  acceptedAtMs: 0,
  path: '/v1/chat/completions',
  consumer: null,
  key: null,
  modelAsked: null,
  modelServed: null,
  deployment: null,
  replica: null,
  stream: false,
  status: 200,
  outcome: 'ok',
  reason: 'stop',
  promptTokens: null,
  completionTokens: null,
  cachedTokens: null,
  reasoningTokens: null,
  ttftMs: null,
  durationMs: 1,
})

test('reports go in batches of 500, and a stalled main thread bounds them', () => {
  const sent: number[] = []
  let taken = 0
  const reports = new Reports(
    (batch) => sent.push(batch.length),
    () => taken,
  )
  for (let index = 0; index < 501; index += 1) reports.add(finished(`${index}`))
  expect(sent).toEqual([500])
  reports.flush()
  expect(sent).toEqual([500, 1])
  for (let index = 0; index < 60_000; index += 1) reports.add(finished(`${index}`))
  reports.flush()
  expect(sent.reduce((sum, size) => sum + size, 0)).toBe(50_000)
  expect(reports.takeDropped()).toBe(60_000 + 501 - 50_000)
  taken = 50_000
  reports.add(finished('again'))
  reports.flush()
  expect(sent.at(-1)).toBe(1)
  expect(reports.takeDropped()).toBe(0)
})
