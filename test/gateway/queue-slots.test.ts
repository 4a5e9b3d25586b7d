import { expect, test } from 'vitest'
import { QueueSlots } from '../../src/gateway/queue-slots.ts'

const THREADS = 2
const MINUTE_MS = 60_000

test('who was served of late: over threads, by deployment, while anything is held and a minute on', () => {
  const slots = new QueueSlots(THREADS)
  const other = new QueueSlots(THREADS, slots.buffer)
  const [r1, qwq] = [slots.lane('deepseek-r1'), slots.lane('qwq-32b')]
  const hold = (by: 1 | -1, consumer: string, nowMs: number) => {
    const account = slots.account('deepseek-r1', consumer, nowMs)
    other.hold(1, account, { by, lane: r1, nowMs })
  }
  const counts = (nowMs: number) => [r1, qwq].map((lane) => slots.consumers(nowMs)[lane])

  expect(counts(1000)).toEqual([0, 0])
  hold(1, 'batch', 1000)
  hold(1, 'chat', 1000)
  hold(1, 'chat', 2000)
  const account = slots.account('qwq-32b', 'chat', 2000)
  slots.hold(0, account, { by: 1, lane: qwq, nowMs: 2000 })
  expect(counts(3000)).toEqual([2, 1])

  hold(-1, 'batch', 4000)
  expect(counts(4000 + MINUTE_MS)).toEqual([2, 1])
  // What streams for longer than a minute is held all the time.
  expect(counts(4001 + MINUTE_MS)).toEqual([1, 1])

  // A thread that dies gives back what it held.
  other.clear(1)
  expect(counts(4001 + MINUTE_MS)).toEqual([0, 1])
})
