import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { type Report, reconciliationText, usageText } from '../../src/cli/usage.ts'
import { usageSheet } from '../../src/cli/usage-books.ts'
import { type CostsOptions, startCosts } from '../../src/cli/usage-costs.ts'
import { openLedger } from '../../src/cli/usage-ledger.ts'
import { DAY_MS } from '../../src/core/day.ts'
import { NodeSchema } from '../../src/core/inventory.ts'
import { noUsage, type UsageAsk } from '../../src/core/usage-report.ts'
import { PenstockError } from '../../src/errors.ts'
import { Fleet } from '../../src/fleet.ts'
import { openStore } from '../../src/store/store.ts'
import { finished } from '../store/requests.ts'
import { manualClock } from '../support/clock.ts'
import { temporaryDirectory } from '../support/home.ts'

const logged = () => {
  const lines: string[] = []
  const log = {
    info: (line: string) => lines.push(line),
    error: (line: string) => lines.push(line),
  }
  return { lines, log }
}

test('what the disk refuses is kept, written once there is room, and counted once', async () => {
  const home = temporaryDirectory()
  const clock = manualClock()
  const store = await openStore({ home, clock })
  onTestFinished(() => store.close())
  const { lines, log } = logged()
  const ledger = openLedger({ store, clock, log })
  ledger.add([finished('before')])
  // Another program holds the database: the store says so after its patience.
  let full = true
  const refusing = openLedger({
    store: {
      recordRequests: (requests) => {
        if (full) throw new PenstockError('store_failed', 'penstock.db: the disk is full')
        store.recordRequests(requests)
      },
    },
    clock,
    log,
  })
  refusing.add([finished('a'), finished('b')])
  refusing.add([finished('c'), finished('before')])
  await clock.advance(3000)
  expect(lines).toEqual([
    expect.stringMatching(/could not be written, they are kept.*disk is full/),
  ])
  expect((await store.recentRequests(9)).length).toBe(1)
  full = false
  await clock.advance(1000)
  expect((await store.recentRequests(9)).map(({ id }) => id)).toEqual(['c', 'b', 'a', 'before'])
  expect(lines[1]).toBe(
    '4 finished requests that had waited for the disk are written; none was lost',
  )
  const [row] = await store.usage({ fromDay: 0, toDay: 99_999, by: [] })
  expect(row?.requests).toBe(4)
  expect([...refusing.takeAnswered(), ...refusing.takeAnswered()]).toEqual(['qwq-32b/0'])
})

test('a disk that refuses for long costs the oldest requests, and that is said', async () => {
  const clock = manualClock()
  const { lines, log } = logged()
  const seen: string[] = []
  let full = true
  const recordRequests = (requests: readonly { id: string }[]): void => {
    if (full) throw new PenstockError('store_failed', 'full')
    seen.push(...requests.map(({ id }) => id))
  }
  const ledger = openLedger({ store: { recordRequests }, clock, log })
  for (let batch = 0; batch < 11; batch += 1) {
    ledger.add(Array.from({ length: 10_000 }, (_, at) => finished(`${batch}-${at}`)))
  }
  full = false
  ledger.close()
  expect([seen.length, seen[0], seen.at(-1)]).toEqual([100_000, '1-0', '10-9999'])
  expect(lines[1]).toContain('10000 were lost before')
})

const HOUR_MS = 3_600_000

/** A node of 2 GPUs that costs 2 CNY an hour, one of them held by qwq-32b/0. */
const world = async () => {
  const home = temporaryDirectory()
  const clock = manualClock()
  const fleet = new Fleet()
  const cost = { amount: 2, currency: 'CNY', per: 'hour' as const }
  const parsed = NodeSchema.parse({
    address: '127.0.0.1',
    gpus: { profile: 'h20-96g', count: 2 },
    cost,
  })
  const labels = {
    ...{ deployment: 'qwq-32b', replica: 0, rank: 0, size: 1, specHash: 'x', engine: 'vllm' },
    ...{ node: 'a', gpus: [1], port: 8100, rehearsal: false },
  }
  const container = { name: 'c', labels, state: 'running' as const, exitCode: null, error: null }
  const observation = { node: 'a', reachable: true as const, readAtMs: 0 }
  fleet.observed({ ...observation, containers: [{ ...container, startedAtMs: 5 }] })
  let running = 0
  const answered = new Set<string>()
  const open = async (over: Partial<CostsOptions> = {}) => {
    const store = await openStore({ home, clock })
    const costs = startCosts({
      store,
      clock,
      fleet,
      nodes: () => [{ ...parsed, name: 'a' }],
      rehearsalSpeed: () => 20,
      inFlight: () => running,
      takeAnswered: () => {
        const now = new Set(answered)
        answered.clear()
        return now
      },
      log: { error: (line) => expect.fail(line) },
      ...over,
    })
    const sums = async (): Promise<Record<string, number>> => {
      costs.write()
      const rows = await store.costs({ fromDay: 0, toDay: 99_999 })
      const found: Record<string, number> = {}
      for (const { state, amount } of rows) {
        found[state] = Math.round(((found[state] ?? 0) + amount) * 1e6) / 1e6
      }
      return found
    }
    return { store, costs, sums }
  }
  const answer = (): unknown => answered.add('qwq-32b/0')
  return { home, clock, fleet, open, answer, run: (count: number) => (running = count) }
}

const HALF_HOUR = 1800

test('busy, idle and free hours are told apart, and none is forgotten', async () => {
  const { clock, open, answer, run } = await world()
  const { costs, sums, store } = await open()
  onTestFinished(() => store.close())
  const pass = async (seconds: number, each: () => unknown = () => undefined): Promise<void> => {
    for (let at = 0; at < seconds; at += 1) {
      each()
      await clock.advance(1000)
    }
  }
  await pass(HALF_HOUR)
  expect(await sums()).toEqual({ idle: 0.5, free: 0.5 })
  run(3)
  await pass(HALF_HOUR)
  run(0)
  // Answers shorter than a second are seen, too.
  await pass(HALF_HOUR, answer)
  expect(await sums()).toEqual({ idle: 0.5, busy: 1, free: 1.5 })
  costs.close()
})

test('the time in which no Penstock looked is paid for, and nobody is charged', async () => {
  const { clock, open } = await world()
  const first = await open()
  await clock.advance(1000)
  first.costs.close()
  await first.store.close()
  await clock.advance(30 * HOUR_MS)
  const second = await open()
  onTestFinished(() => second.store.close())
  const { away = 0, idle = 0, free = 0 } = await second.sums()
  expect(away).toBeCloseTo(60, 3)
  expect(idle + free).toBeLessThan(0.01)
  const days = (await second.store.costs({ fromDay: 0, toDay: 99_999 })).map(({ day }) => day)
  expect(new Set(days).size).toBeGreaterThan(1)
  // Once, not at every look.
  expect((await second.sums()).away).toBeCloseTo(60, 3)
  second.costs.close()
})

test('a rehearsed node costs simulated seconds, and nothing while nobody plays it', async () => {
  const { clock, open } = await world()
  const node = NodeSchema.parse({
    address: '127.0.0.1',
    gpus: { profile: 'h20-96g', count: 2 },
    cost: { amount: 2, currency: 'CNY', per: 'hour' },
    rehearse: true,
  })
  const nodes = () => [{ ...node, name: 'a' }]
  const first = await open({ nodes })
  await clock.advance(HOUR_MS / 100)
  expect(await first.sums()).toEqual({ idle: 0.2, free: 0.2 })
  first.costs.close()
  await first.store.close()
  await clock.advance(DAY_MS)
  const second = await open({ nodes })
  onTestFinished(() => second.store.close())
  expect(await second.sums()).toEqual({ idle: 0.2, free: 0.2 })
  second.costs.close()
})

test('a report reads day by day, and one with too many rows is refused with advice', async () => {
  const days: number[] = []
  const store = {
    usage: async ({ fromDay, toDay }: UsageAsk) => {
      expect(toDay).toBe(fromDay)
      days.push(fromDay)
      const names = { key: null, model: null, served: null, deployment: null }
      return Array.from({ length: 20_000 }, (_, at) => {
        return { ...noUsage(), ...names, day: fromDay, consumer: `${fromDay} ${at}`, requests: 1 }
      })
    },
    costs: async () => [],
  }
  const sheet = await usageSheet(store, { fromDay: 5, toDay: 6, by: ['consumer'] })
  expect(sheet.report(false).total.requests).toBe(40_000)
  expect(days).toEqual([5, 6])
  await expect(usageSheet(store, { fromDay: 5, toDay: 90, by: ['consumer'] })).rejects.toThrow(
    'more than 50000 rows: ask for fewer days, or by fewer dimensions',
  )
  expect(days.length).toBe(5)
})

const report: Report = {
  from: '2026-11-01',
  to: '2026-11-24',
  by: ['consumer', 'model'],
  rehearsal: false,
  rows: [
    {
      ...noUsage(),
      by: { consumer: 'team-a', model: 'deepseek-r1' },
      requests: 12_345,
      outcomes: { ...noUsage().outcomes, ok: 12_000, refused: 300 },
      promptTokens: 9_876_543,
      ttftMs: 24_690_000,
      ttftKnown: 12_345,
      cost: [
        { currency: 'CNY', amount: 1234.5 },
        { currency: 'USD', amount: 0.00123 },
      ],
    },
    { ...noUsage(), by: { consumer: null, model: null }, requests: 1, cost: [] },
  ],
  total: {
    ...noUsage(),
    requests: 12_346,
    outcomes: { ...noUsage().outcomes, ok: 12_000, refused: 301 },
    cost: [{ currency: 'CNY', amount: 1234.5 }],
  },
  unused: [{ currency: 'CNY', amount: 10, idle: 7, free: 3, away: 0, unserved: 0 }],
  spent: [{ currency: 'CNY', amount: 1244.5 }],
}

test('the table ends its figures in one line, keeps currencies apart, and says what is unused', () => {
  const text = usageText(report)
  const lines = text.split('\n')
  expect(lines[0]).toContain('2026-11-01 to 2026-11-24, UTC')
  const [head, first, second, total] = lines.slice(2, 6)
  expect(head).toMatch(/^CONSUMER +MODEL +REQUESTS +FAILED +PROMPT/)
  expect(first).toMatch(/^team-a +deepseek-r1 +12,345 +345 +9,876,543 .* 2\.00 s .*1,234\.50 CNY/)
  expect(first).toContain('1,234.50 CNY + 0.00123 USD')
  expect(second).toMatch(/^– +– +1 +1 +0/)
  expect(total).toMatch(/^total +12,346 +346/)
  const ends = [head, first, second, total].map((line) => line?.trimEnd().length)
  expect(new Set(ends).size).toBe(1)
  expect(text).toContain('unused  10.00 CNY (idle 7.00 CNY, free 3.00 CNY)')
  expect(text).toContain('spent   1,244.50 CNY')
  expect(text).toContain('301 of those that failed were refused')
})

test('a reconciliation says each difference and why', () => {
  const pair = (prompt: number, completion: number) => ({ prompt, completion })
  const text = reconciliationText(
    {
      runs: [
        {
          ...{ replica: 'qwq-32b/0', openedAtMs: 0, current: true, requests: 2000 },
          ...{ engine: pair(10_000, 20_000), ours: pair(9000, 20_010), probes: pair(7, 4) },
          ...{ difference: pair(993, -14), why: ['2 requests cut off'] },
        },
      ],
    },
    60_000,
  )
  expect(text).toMatch(/^qwq-32b\/0 +60 s +2,000 +10,000 +20,000 +9,000 +20,010 +7 +4 +993 +-14$/m)
  expect(text).toContain('qwq-32b/0: 2 requests cut off')
  expect(reconciliationText({ runs: [] }, 0)).toBe('No engine was seen yet.')
})

test('a store that was not closed says so to the next Penstock, once', async () => {
  const home = temporaryDirectory()
  const first = await openStore({ home })
  expect(first.wasKilled).toBe(false)
  await first.close()
  // As kill -9 leaves it.
  const file = new DatabaseSync(join(home, 'penstock.db'))
  file.exec('PRAGMA user_version = 1')
  file.close()
  const second = await openStore({ home })
  expect(second.wasKilled).toBe(true)
  await second.close()
  const third = await openStore({ home })
  expect(third.wasKilled).toBe(false)
  await third.close()
})
