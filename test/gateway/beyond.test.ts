/** Who goes beyond a replica's ceiling, and that he does so only where no replica has room. */
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { expect, test } from 'vitest'
import { CEILING } from '../../src/core/ceiling.ts'
import { AdmissionSlots } from '../../src/gateway/admission-slots.ts'
import { Occupancy } from '../../src/gateway/occupancy.ts'
import { QueueSlots } from '../../src/gateway/queue-slots.ts'
import { Table } from '../../src/gateway/table.ts'
import { type Place, Waiting } from '../../src/gateway/waiting.ts'
import { policyOf, routeOf, snapshotOf, targetOf } from '../support/gateway.ts'

const PLACES = CEILING.running
const TOKENS = { prompt: 100, completion: 100 }

/** Two replicas, of which everybody prefers the first, as with one session or one prefix. */
const twoReplicas = () => {
  const replicas = [0, 1].map((slot) =>
    targetOf(`http://127.0.0.1:${slot + 1}`, { id: `r1/${slot}`, slot, maxRunning: 256 }),
  )
  const policy = policyOf({ queue: { ceiling: 'auto', depth: 10_000, wait: 60_000 } })
  const route = routeOf(replicas, { policy })
  const table = new Table(snapshotOf([route]))
  const now = () => 1_000_000
  const occupancy = new Occupancy(new AdmissionSlots(1), 0, { now, wall: now })
  const slots = new QueueSlots(1)
  const waiting = new Waiting({ thread: 0, slots, occupancy, table: () => table })
  /** Where those of so many requests went that need not wait. */
  return async (consumer: string, count: number): Promise<string[]> => {
    const got: string[] = []
    const note = (place: Place | null): void => {
      place?.lease.produced(1)
      if (place !== null) got.push(place.target.id)
    }
    for (let index = 0; index < count; index += 1) {
      const entered = waiting.enter({
        ...{ route, consumer, priority: null, weight: TOKENS },
        ...{ streams: true, sequences: 1, tied: false, resumes: false },
        res: new ServerResponse(new IncomingMessage(new Socket())),
        pick: (full) => replicas.find(({ id }) => !full.has(id)) ?? null,
      })
      // Who goes past others that wait has his place at once, too, but by a promise.
      if (entered instanceof Promise) void entered.then(note)
      else note(entered)
      await Promise.resolve()
    }
    return got
  }
}

test('a replica that has room goes before the excess of the one that is preferred', async () => {
  const enter = twoReplicas()
  await enter('small', 1)
  // A few of the first one's places are kept for others.
  await enter('large', PLACES - 4)
  const small = await enter('small', 12)
  expect(small.filter((id) => id === 'r1/0')).toHaveLength(3)
  expect(small.filter((id) => id === 'r1/1')).toHaveLength(9)
})

test('where all are full, who has his part yet to get goes beyond, and who has it waits', async () => {
  const enter = twoReplicas()
  await enter('small', 1)
  const large = await enter('large', 3 * PLACES)
  expect(large.length).toBeGreaterThan(2 * PLACES - 10)
  expect(large.length).toBeLessThan(2 * PLACES)
  const small = 1 + (await enter('small', 2 * PLACES)).length
  // His half of both replicas, as if the large one had only his; one more would be beyond it on
  // whichever replica it went to.
  expect(small).toBe(PLACES - 1)
  expect(await enter('large', 1)).toEqual([])
})
