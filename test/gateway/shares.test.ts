/** Who gets a full model's places, by weight, when all ask without pause. */
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { expect, test } from 'vitest'
import type { GatewayConsumer } from '../../src/core/snapshot.ts'
import { AdmissionSlots } from '../../src/gateway/admission-slots.ts'
import { Occupancy } from '../../src/gateway/occupancy.ts'
import { QueueSlots } from '../../src/gateway/queue-slots.ts'
import { Table } from '../../src/gateway/table.ts'
import { type Place, Waiting } from '../../src/gateway/waiting.ts'
import { policyOf, routeOf, snapshotOf, targetOf } from '../support/gateway.ts'

const PLACES = 32
const ROUNDS = 3000
const ROUND_MS = 50
const ANSWER_ROUNDS = 10
const TOKENS = { prompt: 100, completion: 100 }

type Caller = { readonly name: string; readonly weight: number; readonly atOnce: number }

const consumer = ({ name, weight }: Caller): GatewayConsumer => ({
  ...{ name, group: null, weight, priority: 'normal', maxPriority: 'normal' },
  ...{ spillover: 'allow', parameters: null },
})

/** Answers of equal length in all rounds after the first; each caller has so many open always. */
const served = async (callers: readonly Caller[]): Promise<readonly number[]> => {
  let nowMs = 1_000_000
  const target = targetOf('http://127.0.0.1:1', { maxRunning: PLACES })
  const policy = policyOf({
    queue: { ceiling: 'auto', depth: 1000, wait: 10_000_000 },
    continueStreams: false,
  })
  const route = routeOf([target], { policy })
  const table = new Table(snapshotOf([route], { consumers: callers.map(consumer) }))
  const clocks = { now: () => nowMs, wall: () => nowMs }
  const occupancy = new Occupancy(new AdmissionSlots(1), 0, clocks)
  const slots = new QueueSlots(1)
  const waiting = new Waiting({ thread: 0, slots, occupancy, table: () => table })
  const counts = callers.map(() => 0)
  const running: { readonly index: number; readonly place: Place; readonly until: number }[] = []
  let round = 0
  const ask = (index: number): void => {
    const got = (place: Place | null): void => {
      if (place === null) return
      place.lease.produced(1)
      running.push({ index, place, until: round + ANSWER_ROUNDS })
    }
    const entered = waiting.enter({
      ...{ route, consumer: callers[index]?.name ?? '', priority: null, weight: TOKENS },
      ...{ streams: true, sequences: 1, tied: false, resumes: false },
      res: new ServerResponse(new IncomingMessage(new Socket())),
      pick: (full) => (full.has(target.id) ? null : target),
    })
    const drained = (error: unknown): void => {
      if (round < ROUNDS) throw error
    }
    if (entered instanceof Promise) void entered.then(got, drained)
    else got(entered)
  }
  for (const [index, { atOnce }] of callers.entries()) {
    for (let one = 0; one < atOnce; one += 1) ask(index)
  }
  for (; round < ROUNDS; round += 1) {
    nowMs += ROUND_MS
    waiting.tick()
    await new Promise((resolve) => setImmediate(resolve))
    for (const one of running.filter(({ until }) => until <= round)) {
      running.splice(running.indexOf(one), 1)
      one.place.lease.end(TOKENS)
      if (round > ROUNDS / 4) counts[one.index] = (counts[one.index] ?? 0) + 1
      ask(one.index)
    }
    await new Promise((resolve) => setImmediate(resolve))
    expect(running.length).toBeLessThanOrEqual(PLACES)
  }
  waiting.drain()
  return counts
}

const of = (name: string, weight: number, atOnce: number): Caller => ({ name, weight, atOnce })

test('places go by weight, not by how few of them somebody has', async () => {
  const [heavy = 0, light = 0] = await served([of('a', 9, 200), of('b', 1, 31)])
  expect(heavy / light).toBeGreaterThan(6)
  expect(heavy / light).toBeLessThan(14)
})

test('a thousand times the weight leaves one place of those that are kept, and no more', async () => {
  const [heavy = 0, light = 0] = await served([of('a', 1000, 200), of('b', 1, 31)])
  expect(light).toBeGreaterThan(0)
  expect(heavy / light).toBeGreaterThan(PLACES / 2 - 1)
})

test('equals share alike, whoever asks more', async () => {
  const counts = await served([of('a', 1, 300), of('b', 1, 60), of('c', 1, 40)])
  expect(Math.min(...counts) / Math.max(...counts)).toBeGreaterThan(0.8)
})

test('all places are used while anybody waits', async () => {
  const rounds = (ROUNDS * 3) / 4
  const most = (PLACES * rounds) / (ANSWER_ROUNDS + 1)
  for (const callers of [
    [of('a', 1, 100)],
    [of('a', 1, 100), of('b', 1, 3)],
    Array.from({ length: 50 }, (_, index) => of(`c${index}`, 1, 2)),
  ]) {
    const counts = await served(callers)
    // Two of 32 are kept for whoever has less than his part.
    expect(counts.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(most * 0.9)
  }
})
