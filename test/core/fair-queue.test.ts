/** Virtual token counting: who is next, who makes room, and how far two consumers can drift apart. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BANDS, bandOf, FairQueue, serviceOf, type Waiter } from '../../src/core/fair-queue.ts'

const NORMAL = { priority: 'normal', maxPriority: 'normal' } as const

describe('a request asks for its band', () => {
  test.each([
    [null, NORMAL, 1],
    ['high', NORMAL, 1],
    ['low', NORMAL, 2],
    ['high', { priority: 'normal', maxPriority: 'high' }, 0],
    [null, { priority: 'high', maxPriority: 'normal' }, 0],
    ['normal', { priority: 'low', maxPriority: 'low' }, 2],
  ] as const)('%s of %o is band %i', (asked, settings, band) => {
    expect(bandOf(asked, settings)).toBe(band)
  })
})

test('an answer is worth two of a prompt, and a weight divides', () => {
  const prompt = serviceOf({ prompt: 100, completion: 0 }, 1)
  expect(serviceOf({ prompt: 0, completion: 100 }, 1)).toBe(2 * prompt)
  expect(serviceOf({ prompt: 100, completion: 0 }, 4)).toBe(prompt / 4)
})

const queueOf = (counters: Map<string, number>) =>
  new FairQueue<number>((consumer) => counters.get(consumer) ?? 0)

test('who makes room: the newest of the heaviest, the last band first, never one who had less', () => {
  const counters = new Map([
    ['light', 10],
    ['heavy', 500],
  ])
  const queue = queueOf(counters)
  const first = queue.add(1, { consumer: 'heavy', band: 1 })
  const newest = queue.add(2, { consumer: 'heavy', band: 1 })
  expect(queue.victim({ consumer: 'light', band: 1 })).toBe(newest)
  expect(queue.victim({ consumer: 'heavy', band: 1 })).toBe(null)
  expect(queue.victim({ consumer: 'light', band: 2 })).toBe(null)
  expect(queue.victim({ consumer: 'heavy', band: 0 })).toBe(newest)
  const low = queue.add(3, { consumer: 'light', band: 2 })
  expect(queue.victim({ consumer: 'heavy', band: 1 })).toBe(low)
  queue.remove(low)
  counters.set('light', 500)
  expect(queue.victim({ consumer: 'light', band: 1 })).toBe(newest)
  const level = queue.add(4, { consumer: 'light', band: 1 })
  expect(queue.victim({ consumer: 'light', band: 1 })).toBe(null)
  expect(queue.position(first)).toBe(0)
  expect(queue.position(newest)).toBe(2)
  expect(queue.position(level)).toBe(1)
})

const Consumer = fc.constantFrom('a', 'b', 'c', 'd')
const Step = fc.oneof(
  fc.record({ add: Consumer, band: fc.nat({ max: BANDS - 1 }) }),
  fc.record({ leave: fc.nat() }),
  fc.record({ serve: fc.nat({ max: 5000 }) }),
)

describe('whatever comes, waits, leaves and is served', () => {
  test('nobody is lost or doubled, places are freed, the order is the rule', () => {
    fc.assert(
      fc.property(fc.array(Step, { maxLength: 200 }), (steps) => {
        const counters = new Map<string, number>()
        const queue = queueOf(counters)
        const inside: Waiter<number>[] = []
        for (const [index, step] of steps.entries()) {
          if ('add' in step) inside.push(queue.add(index, { consumer: step.add, band: step.band }))
          else if ('leave' in step) {
            const at = step.leave % Math.max(1, inside.length)
            const [waiter] = inside.splice(at, 1)
            if (waiter === undefined) continue
            expect(queue.remove(waiter)).toBe(true)
            expect(queue.remove(waiter)).toBe(false)
          } else serve(queue, { counters, inside, tokens: step.serve })
          expect(queue.size).toBe(inside.length)
          expect(new Set(queue.all().map(({ item }) => item))).toEqual(
            new Set(inside.map(({ item }) => item)),
          )
        }
      }),
    )
  })

  const serve = (
    queue: FairQueue<number>,
    {
      counters,
      inside,
      tokens,
    }: { counters: Map<string, number>; inside: Waiter<number>[]; tokens: number },
  ) => {
    const head = queue.head()
    if (head === null) {
      expect(inside).toEqual([])
      return
    }
    const of = ({ consumer }: Waiter<number>) => counters.get(consumer) ?? 0
    const best = inside.toSorted(
      (a, b) => a.band - b.band || of(a) - of(b) || a.sequence - b.sequence,
    )[0]
    expect(head).toBe(best)
    expect(queue.position(head)).toBe(0)
    queue.remove(head)
    inside.splice(inside.indexOf(head), 1)
    counters.set(head.consumer, of(head) + tokens)
  }
})

/** Serves `rounds` requests, one at a time, of consumers who always have something waiting. */
const backlogged = (
  weights: readonly number[],
  sizes: (consumer: number) => number,
  rounds: number,
) => {
  const counters = new Map<string, number>()
  const queue = queueOf(counters)
  const served = weights.map(() => 0)
  for (const consumer of weights.keys()) queue.add(consumer, { consumer: `${consumer}`, band: 1 })
  let longestGap = 0
  const lastServed = weights.map(() => 0)
  for (let round = 1; round <= rounds; round += 1) {
    const head = queue.head()
    if (head === null) throw new Error('an empty queue')
    const { item: consumer } = head
    queue.remove(head)
    const tokens = sizes(consumer)
    served[consumer] = (served[consumer] ?? 0) + tokens
    const before = counters.get(`${consumer}`) ?? 0
    const service = serviceOf({ prompt: tokens, completion: 0 }, weights[consumer] ?? 1)
    counters.set(`${consumer}`, before + service)
    longestGap = Math.max(longestGap, round - (lastServed[consumer] ?? 0))
    lastServed[consumer] = round
    queue.add(consumer, { consumer: `${consumer}`, band: 1 })
  }
  return { served, longestGap }
}

test('two who always wait get shares by weight, within twice the largest request (VTC 4.1)', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(0.5, 1, 2, 4), { minLength: 2, maxLength: 6 }),
      fc.array(fc.integer({ min: 1, max: 4000 }), { minLength: 10, maxLength: 300 }),
      (weights, sizes) => {
        let next = 0
        const size = () => sizes[next++ % sizes.length] ?? 1
        const { served } = backlogged(weights, size, sizes.length)
        const least = Math.min(...weights)
        for (const [one, weight] of weights.entries()) {
          for (const [two, other] of weights.entries()) {
            const drift = (served[one] ?? 0) / weight - (served[two] ?? 0) / other
            expect(Math.abs(drift)).toBeLessThanOrEqual((2 * 4000) / least)
          }
        }
      },
    ),
  )
})

test('nobody starves: of n consumers with requests of one size, each is served every n-th time', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 20 }), (consumers) => {
      const weights = Array.from({ length: consumers }, () => 1)
      const { longestGap } = backlogged(weights, () => 100, consumers * 20)
      expect(longestGap).toBeLessThanOrEqual(consumers)
    }),
  )
})
