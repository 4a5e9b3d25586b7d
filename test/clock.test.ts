import { expect, test } from 'vitest'
import { systemClock } from '../src/clock.ts'
import { manualClock } from './support/clock.ts'

test('sleep rejects with the reason as soon as its signal aborts, and before it starts', async () => {
  const stop = new AbortController()
  const long = systemClock.sleep(3_600_000, stop.signal)
  stop.abort(new Error('leaving'))
  await expect(long).rejects.toThrow('leaving')
  await expect(systemClock.sleep(0, stop.signal)).rejects.toThrow('leaving')
})

test('sleep leaves no listener behind on a signal that lives on', async () => {
  const { signal } = new AbortController()
  let listeners = 0
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners += 1
    add(...args)
  }
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners -= 1
    remove(...args)
  }
  await systemClock.sleep(1, signal)
  expect(listeners).toBe(0)
})

test('every never overlaps itself, and stops', async () => {
  const ends: Array<() => void> = []
  let running = 0
  let most = 0
  const stop = systemClock.every(1, async () => {
    running += 1
    most = Math.max(most, running)
    await new Promise<void>((resolve) => ends.push(resolve))
    running -= 1
  })
  for (let round = 1; round <= 3; round += 1) {
    await expect.poll(() => ends.length, { timeout: 20_000, interval: 1 }).toBe(round)
    await systemClock.sleep(5)
    expect(ends.length).toBe(round)
    ends.at(-1)?.()
  }
  stop()
  await systemClock.sleep(5)
  expect(most).toBe(1)
  ends.at(-1)?.()
})

test('monotonic never goes back and now is epoch milliseconds', () => {
  const first = systemClock.monotonic()
  expect(systemClock.monotonic()).toBeGreaterThanOrEqual(first)
  expect(systemClock.now()).toBeGreaterThan(1_600_000_000_000)
})

test('the manual clock fires in order, skips overlapping beats and leaves nothing', async () => {
  const clock = manualClock()
  const seen: string[] = []
  const stop = clock.every(100, () => {
    seen.push(`beat ${clock.monotonic()}`)
  })
  void clock.sleep(150).then(() => seen.push(`slept ${clock.monotonic()}`))
  await clock.advance(350)
  expect(seen).toEqual(['beat 100', 'slept 150', 'beat 200', 'beat 300'])
  clock.jump(5000)
  expect([clock.now() - 1_700_000_000_000, clock.monotonic()]).toEqual([5350, 350])
  stop()
  expect(clock.pending()).toBe(0)
})
