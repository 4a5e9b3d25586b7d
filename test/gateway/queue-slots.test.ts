import { expect, test } from 'vitest'
import { Lanes } from '../../src/gateway/lanes.ts'
import { QueueSlots } from '../../src/gateway/queue-slots.ts'

const THREADS = 2
const MINUTE_MS = 60_000

test('who was served of late: over threads, by deployment, while anything is held and a minute on', () => {
  const slots = new QueueSlots(THREADS)
  const other = new QueueSlots(THREADS, slots.buffer)
  const [r1, qwq] = [slots.lane('deepseek-r1'), slots.lane('qwq-32b')]
  const accountOf = (consumer: string) => slots.account('deepseek-r1', consumer, 1000)
  const hold = (by: 1 | -1, consumer: string, nowMs: number) =>
    other.hold(1, accountOf(consumer), { by, lane: r1, weight: 2.5, nowMs })
  const crowds = (nowMs: number) => {
    const all = slots.crowds(nowMs)
    return [r1, qwq].map((lane) => {
      const { consumers = 0, active = 0, weight = 0 } = all.get(lane) ?? {}
      return [consumers, active, weight]
    })
  }

  const nobody = [0, 0, 0]
  expect(crowds(1000)).toEqual([nobody, nobody])
  hold(1, 'batch', 1000)
  hold(1, 'chat', 1000)
  hold(1, 'chat', 2000)
  other.run(1, accountOf('chat'), 1)
  const account = slots.account('qwq-32b', 'chat', 2000)
  slots.hold(0, account, { by: 1, lane: qwq, weight: 1, nowMs: 2000 })
  expect(crowds(3000)).toEqual([
    [2, 2, 5],
    [1, 1, 1],
  ])
  expect([slots.held(accountOf('chat')), slots.runs(accountOf('chat'))]).toEqual([2, 1])

  hold(-1, 'batch', 4000)
  expect(crowds(4000 + MINUTE_MS)[0]).toEqual([2, 1, 5])
  // What streams for longer than a minute is held all the time.
  expect(crowds(4001 + MINUTE_MS)[0]).toEqual([1, 1, 2.5])

  // A thread that dies gives back what it held.
  other.clear(1)
  expect(crowds(4001 + MINUTE_MS)).toEqual([nobody, [1, 1, 1]])
  expect([slots.held(accountOf('chat')), slots.runs(accountOf('chat'))]).toEqual([0, 0])
})

test('a newcomer is one of several from his first request on', () => {
  let nowMs = 1000
  const lanes = new Lanes(0, new QueueSlots(THREADS), () => nowMs)
  const lane = lanes.of('deepseek-r1')
  const enter = (consumer: string) => {
    const owner = { account: lanes.account('deepseek-r1', consumer), weight: 1 }
    const payer = lanes.payer(lane, owner, () => undefined)
    return { share: lanes.shareOf(lane, owner), leave: () => payer.freed(true) }
  }
  expect(enter('batch').share.others).toBe(false)
  nowMs += 10
  const chat = enter('chat')
  expect(chat.share).toEqual({ runs: 0, part: 0.5, others: true, rivals: true })
  chat.leave()
  // He is forgotten a minute later, and then as new as before.
  nowMs += MINUTE_MS + 1
  expect(enter('batch').share.others).toBe(false)
  nowMs += 10
  expect(enter('chat').share.others).toBe(true)
})
