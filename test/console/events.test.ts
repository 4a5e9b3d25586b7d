import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { RequestsSchema } from '../../src/console/answers.ts'
import { MAX_READERS } from '../../src/console/events.ts'
import { FleetSchema } from '../../src/console/fleet.ts'
import { ADMIN_KEY } from '../support/admin.ts'
import { manualClock } from '../support/clock.ts'
import { asAdmin, ask, type ReadEvent, readEvents, testConsole } from '../support/console.ts'
import { request, requests } from '../support/fleet.ts'
import { heldOutsideHeap } from '../support/memory.ts'

const EVENTS = '/admin/v1/events'
const clock = manualClock()
let at: Awaited<ReturnType<typeof testConsole>>

beforeEach(async () => {
  at = await testConsole({ clock })
})

afterEach(async () => {
  await at.console.close()
  expect(at.errors).toEqual([])
  expect(at.admin.listeners).toBe(0)
})

const generation = (event: ReadEvent): number =>
  event.event === 'fleet' ? FleetSchema.parse(event.data).generation : -1

const ids = (event: ReadEvent): readonly string[] =>
  RequestsSchema.parse(event.data).requests.map(({ id }) => id)

const change = (to: number): void => at.admin.change({ ...at.admin.view, generation: to })

/** Waits for what real sockets still have to do, while the clock of the console stands. */
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 20_000 })

describe('events', () => {
  test('begin with the fleet and the recent requests, framed as the standard says', async () => {
    at.admin.recent = requests(at.admin.view.nowMs, 3)
    const reader = await readEvents(at.base, EVENTS)
    const first = await reader.until(({ event }) => event === 'requests')
    expect(ids(first)).toEqual(['req-0', 'req-1', 'req-2'])
    expect(FleetSchema.parse(reader.events[0]?.data)).toEqual(at.admin.view)
    expect(reader.raw()).toMatch(/^: penstock\n\nevent: fleet\ndata: \{.*\}\n\nevent: requests\n/)
    reader.leave()
    await eventually(() => expect(at.admin.listeners).toBe(0))
  })

  test('a change is drawn at the next tick, many changes once', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await reader.until((event) => generation(event) === 7)
    for (let to = 100; to <= 200; to += 1) change(to)
    await clock.advance(250)
    await reader.until((event) => generation(event) === 200)
    expect(reader.events.map(generation)).toEqual([7, 200])
    for (let to = 201; to <= 240; to += 1) {
      change(to)
      await clock.advance(25)
    }
    await reader.until((event) => generation(event) === 240)
    // 40 changes in one second are at most four pictures and the ones already seen.
    expect(reader.events.length).toBeLessThanOrEqual(2 + 4)
    reader.leave()
  })

  test('without any change the ages still move every two seconds', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await reader.until((event) => generation(event) === 7)
    at.admin.view = { ...at.admin.view, generation: 8 }
    await clock.advance(1750)
    expect(at.admin.fleetReads).toBeLessThanOrEqual(2)
    await clock.advance(500)
    await reader.until((event) => generation(event) === 8)
    reader.leave()
  })

  test('each finished request comes once to each reader', async () => {
    at.admin.recent = requests(at.admin.view.nowMs, 2)
    const early = await readEvents(at.base, EVENTS)
    await early.until(({ event }) => event === 'requests')
    at.admin.finish(request('fresh-1', at.admin.view.nowMs))
    at.admin.finish(request('fresh-2', at.admin.view.nowMs))
    await clock.advance(250)
    await early.until((event) => event.event === 'requests' && ids(event).includes('fresh-1'))
    const late = await readEvents(at.base, EVENTS)
    await late.until(({ event }) => event === 'requests')
    await clock.advance(4000)
    const seen = (reader: typeof early) =>
      reader.events.filter(({ event }) => event === 'requests').map(ids)
    expect(seen(early)).toEqual([
      ['req-0', 'req-1'],
      ['fresh-2', 'fresh-1'],
    ])
    expect(seen(late)).toEqual([['fresh-2', 'fresh-1', 'req-0', 'req-1']])
    early.leave()
    late.leave()
  })

  test('a slow reader misses pictures, nothing queues, and it catches up with the newest', async () => {
    const text = 'x'.repeat(1_000_000)
    at.admin.view = { ...at.admin.view, version: text }
    const slow = await readEvents(at.base, EVENTS)
    const fast = await readEvents(at.base, EVENTS)
    slow.pause()
    await fast.until((event) => generation(event) === 7)
    const before = heldOutsideHeap()
    // Fifteen seconds: a reader that is stuck for a minute would be cut off.
    for (let to = 1000; to < 1060; to += 1) {
      change(to)
      await clock.advance(250)
      await fast.until((event) => generation(event) === to)
    }
    expect(heldOutsideHeap() - before).toBeLessThan(30_000_000)
    slow.resume()
    await slow.until((event) => generation(event) === 1059)
    const got = slow.events.map(generation).filter((value) => value >= 0)
    // What the kernel's socket buffers hold on loopback is a few megabytes at most.
    expect(got.length).toBeLessThan(20)
    expect(got.toSorted((a, b) => a - b)).toEqual(got)
    slow.leave()
    fast.leave()
  })

  test('a reader that takes nothing for a minute is cut off', async () => {
    at.admin.view = { ...at.admin.view, version: 'x'.repeat(8_000_000) }
    const stuck = await readEvents(at.base, EVENTS)
    stuck.pause()
    for (let to = 0; to < 8; to += 1) {
      change(to)
      await clock.advance(2000)
    }
    expect(at.admin.listeners).toBe(1)
    await clock.advance(90_000)
    await eventually(() => expect(at.admin.listeners).toBe(0))
    stuck.leave()
  })

  test('a quiet stream of comments is kept alive', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await clock.advance(15_000)
    await eventually(() => expect(reader.raw()).toContain(': beat\n\n'))
    reader.leave()
  })

  test(`at most ${MAX_READERS} readers; one that leaves makes room`, async () => {
    const readers = await Promise.all(
      Array.from({ length: MAX_READERS }, () => readEvents(at.base, EVENTS)),
    )
    const refused = await ask(at.base, EVENTS, { headers: asAdmin })
    expect(refused.status).toBe(429)
    expect(refused.headers.get('retry-after')).toBe('2')
    expect(refused.body).toContain('"code":"rate_limit_exceeded"')
    readers.pop()?.leave()
    await expect
      .poll(async () => {
        const reader = await readEvents(at.base, EVENTS)
        reader.leave()
        return reader.status
      })
      .toBe(200)
    for (const reader of readers) reader.leave()
  })

  test('revoking the key ends its streams at the next picture', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await reader.until((event) => generation(event) === 7)
    at.admin.roles.delete(ADMIN_KEY)
    change(9)
    await clock.advance(250)
    await reader.ended
    expect(reader.events.map(generation)).toEqual([7])
  })

  test('a fleet that cannot be drawn is logged and ends the streams, not the process', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await reader.until((event) => generation(event) === 7)
    at.admin.fleet = () => {
      throw new TypeError('a bug')
    }
    await clock.advance(2250)
    await reader.ended
    expect(at.errors.splice(0)).toEqual(['the fleet could not be drawn; event streams were closed'])
  })

  test('closing the console ends open streams', async () => {
    const reader = await readEvents(at.base, EVENTS)
    await at.console.close()
    await reader.ended
    expect(clock.pending()).toBe(0)
  })
})
