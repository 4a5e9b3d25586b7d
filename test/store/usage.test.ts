import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { DAY_MS } from '../../src/core/day.ts'
import { openRun, readRun } from '../../src/core/reconcile.ts'
import type { FinishedRequest } from '../../src/core/snapshot.ts'
import {
  addUsage,
  noUsage,
  OUTCOMES,
  USAGE_DIMENSIONS,
  type UsageDimension,
  type UsageSums,
} from '../../src/core/usage-report.ts'
import { openStore, type StoreOptions } from '../../src/store/store.ts'
import { DAY_ROWS_MAX, DAYS_MAX } from '../../src/store/usage.ts'
import { manualClock } from '../support/clock.ts'
import { temporaryDirectory } from '../support/home.ts'
import { finished } from './requests.ts'

const opened = async (options: Partial<StoreOptions> = {}) => {
  const home = options.home ?? temporaryDirectory()
  const store = await openStore({ clock: manualClock(), ...options, home })
  onTestFinished(() => store.close())
  return { home, store }
}

const ALL = { fromDay: 0, toDay: 100_000 }

/** What a list of requests is by definition, counted the slow way. */
const sums = (requests: readonly FinishedRequest[]): UsageSums => {
  const total = (value: (request: FinishedRequest) => number | null | undefined): number =>
    requests.reduce((sum, request) => sum + (value(request) ?? 0), 0)
  const outcomes = { ...noUsage().outcomes }
  for (const { outcome } of requests) outcomes[outcome] += 1
  return {
    requests: requests.length,
    outcomes,
    spilled: total(({ spillover }) => (spillover === undefined ? 0 : 1)),
    unmetered: total(({ replica, promptTokens }) =>
      replica !== null && promptTokens === null ? 1 : 0,
    ),
    promptTokens: total(({ promptTokens }) => promptTokens),
    cachedTokens: total(({ cachedTokens }) => cachedTokens),
    completionTokens: total(({ completionTokens }) => completionTokens),
    reasoningTokens: total(({ reasoningTokens }) => reasoningTokens),
    queueMs: total(({ queueMs }) => queueMs),
    queued: total(({ queueMs }) => (queueMs === undefined ? 0 : 1)),
    ttftMs: total(({ ttftMs }) => ttftMs),
    ttftKnown: total(({ ttftMs }) => (ttftMs === null ? 0 : 1)),
    durationMs: total(({ durationMs }) => durationMs),
  }
}

let serial = 0
const nextId = (): string => {
  serial += 1
  return `r${serial}`
}
const tokens = fc.option(fc.nat(1e6))
const request: fc.Arbitrary<FinishedRequest> = fc
  .record({
    day: fc.integer({ min: 19_000, max: 19_003 }),
    consumer: fc.option(fc.constantFrom('team-a', 'team-b', 'ü')),
    key: fc.option(fc.constantFrom('key_1', 'key_2')),
    modelAsked: fc.option(fc.constantFrom('deepseek-r1', 'qwq-32b')),
    deployment: fc.option(fc.constantFrom('deepseek-r1', 'qwq-32b')),
    replica: fc.option(fc.constantFrom('qwq-32b/0', 'deepseek-r1/0')),
    outcome: fc.constantFrom(...OUTCOMES),
    promptTokens: tokens,
    completionTokens: tokens,
    cachedTokens: tokens,
    reasoningTokens: tokens,
    // Quarters: their sums are exact in any order.
    ttftMs: fc.option(fc.nat(4e6).map((quarters) => quarters / 4)),
    durationMs: fc.nat(4e6).map((quarters) => quarters / 4),
  })
  .map(({ day, ...over }) =>
    finished(nextId(), { ...over, acceptedAtMs: day * DAY_MS + (serial % 1000) }),
  )
const extras = fc.record(
  { queueMs: fc.nat(1000), spillover: fc.constantFrom('tokens' as const, 'latency' as const) },
  { requiredKeys: [] },
)
const batches = fc.array(
  fc.array(
    fc.tuple(request, extras).map(([made, extra]) => ({ ...made, ...extra })),
    { maxLength: 12 },
  ),
  { maxLength: 6 },
)
const dimensions: fc.Arbitrary<UsageDimension[]> = fc.uniqueArray(
  fc.constantFrom(...USAGE_DIMENSIONS),
)

test('sums are those of the requests, by whatever is asked, however often a batch is sent', async () => {
  await fc.assert(
    fc.asyncProperty(batches, dimensions, fc.nat(5), async (sent, by, again) => {
      // Two rows are kept: nearly all of what is sent again is known by its fingerprint alone.
      const { store } = await opened({ requestsMax: 2 })
      for (const batch of sent) store.recordRequests(batch)
      for (const batch of sent.slice(0, again)) store.recordRequests(batch)
      const rows = await store.usage({ ...ALL, by })
      const all = sent.flat()
      expect(addUsage(rows)).toEqual(sums(all))
      for (const row of rows) {
        const same = all.filter(
          (one) =>
            Math.floor(one.acceptedAtMs / DAY_MS) === row.day &&
            one.deployment === row.deployment &&
            (!by.includes('consumer') || one.consumer === row.consumer) &&
            (!by.includes('key') || one.key === row.key) &&
            (!by.includes('served') || one.modelServed === row.served) &&
            (!by.includes('model') ||
              (one.deployment === null ? null : one.modelAsked) === row.model),
        )
        expect(row).toMatchObject({ ...sums(same) })
      }
      await store.close()
    }),
    { numRuns: 60 },
  )
}, 60_000)

test('ids that a caller chose hide no request: the same id in the same millisecond counts', async () => {
  const { store } = await opened()
  store.recordRequests([
    finished('chosen', { durationMs: 10.25 }),
    finished('chosen', { durationMs: 10.5 }),
  ])
  const [row] = await store.usage({ ...ALL, by: [] })
  expect(row?.requests).toBe(2)
})

test('days are of UTC, and only those asked for count', async () => {
  const { store } = await opened()
  const midnight = 19_700 * DAY_MS
  for (const at of [midnight - 1, midnight, midnight + DAY_MS - 1, midnight + DAY_MS]) {
    store.recordRequests([finished(`at ${at}`, { acceptedAtMs: at })])
  }
  const rows = await store.usage({ fromDay: 19_700, toDay: 19_701, by: ['day'] })
  expect(rows.map(({ day, requests }) => [day, requests])).toEqual([
    [19_700, 2],
    [19_701, 1],
  ])
})

test('names beyond the bound of a day share a row, and none of their tokens is lost', async () => {
  const { store } = await opened({ requestsMax: 10 })
  // Names of models that lead nowhere are not kept at all.
  const nowhere = { deployment: null, replica: null, acceptedAtMs: 0 }
  for (const modelAsked of ['made up', 'made up too']) {
    store.recordRequests([finished(modelAsked, { ...nowhere, modelAsked })])
  }
  expect(await store.usage({ fromDay: 0, toDay: 0, by: ['model'] })).toMatchObject([
    { model: null, deployment: null, requests: 2 },
  ])
  const over = 50
  for (let start = 0; start < DAY_ROWS_MAX + over; start += 5000) {
    const count = Math.min(5000, DAY_ROWS_MAX + over - start)
    store.recordRequests(
      Array.from({ length: count }, (_, at) =>
        finished(`n${start + at}`, { modelAsked: `prefix-${start + at}` }),
      ),
    )
  }
  const rows = await store.usage({ ...ALL, fromDay: 1, by: ['model'] })
  expect(rows.length).toBe(DAY_ROWS_MAX + 1)
  const other = rows.find(({ model }) => model === 'other')
  expect(other).toMatchObject({ requests: over, completionTokens: over * 34 })
}, 60_000)

test('days go when they are old', async () => {
  const { store } = await opened()
  const cost = { node: 'a', deployment: '', state: 'free' as const, currency: 'CNY' }
  const onDays = (days: readonly number[]): void => {
    store.recordRequests(days.map((day) => finished(`${day}`, { acceptedAtMs: day * DAY_MS })))
    store.recordCosts(
      days.map((day) => ({ ...cost, day, amount: 1, gpuSeconds: 1 })),
      1,
    )
  }
  onDays([...Array(DAYS_MAX + 3).keys()].map((day) => 18_000 + day))
  // A clock that is years ahead for a moment costs one day, not all of them.
  onDays([90_000])
  const kept = [...Array(DAYS_MAX - 1).keys()].map((day) => 18_004 + day)
  const rows = await store.usage({ ...ALL, by: ['day'] })
  expect(rows.map(({ day }) => day)).toEqual([...kept, 90_000])
  expect((await store.costs(ALL)).map(({ day }) => day)).toEqual([...kept, 90_000])
})

test('usage of a database from before is counted from the rows that it has', async () => {
  const home = temporaryDirectory()
  const { store } = await opened({ home })
  store.recordRequests([
    finished('a'),
    finished('b', { outcome: 'refused', deployment: null, replica: null, promptTokens: null }),
    finished('c', { spillover: 'tokens', outcome: 'client_gone', promptTokens: null }),
  ])
  const now = await store.usage({ ...ALL, by: ['model', 'consumer'] })
  const requests = await store.recentRequests(10)
  await store.close()
  // Back to what schema 2 had.
  const file = new DatabaseSync(join(home, 'penstock.db'))
  file.exec(`DELETE FROM migrations WHERE version > 2; DROP TABLE usage_days; DROP TABLE counted;
    DROP TABLE cost_days; DROP TABLE cost_meter; DROP TABLE engine_runs;
    CREATE TABLE before AS SELECT seq, id, accepted_at_ms, path, consumer, key_id, model_asked,
      model_served, deployment, replica, stream, status, outcome, reason, prompt_tokens,
      completion_tokens, cached_tokens, reasoning_tokens, ttft_ms, duration_ms, spillover
      FROM requests;
    DROP TABLE requests; ALTER TABLE before RENAME TO requests;
    CREATE INDEX requests_by_time ON requests (accepted_at_ms)`)
  file.close()
  const again = (await opened({ home })).store
  expect(await again.usage({ ...ALL, by: ['model', 'consumer'] })).toEqual(now)
  expect(await again.recentRequests(10)).toEqual(requests)
  again.recordRequests([finished('a'), finished('d')])
  expect((await again.recentRequests(10)).length).toBe(4)
})

test('what the machines cost adds up over reopening, and knows until when it is', async () => {
  const { home, store } = await opened()
  expect(store.costsUntilMs()).toBeNull()
  const row = {
    day: 5,
    node: 'h20-1',
    deployment: 'qwq-32b',
    state: 'busy' as const,
    currency: 'CNY',
    amount: 1.5,
    gpuSeconds: 2,
  }
  store.recordCosts([row, { ...row, currency: 'EUR' }], 1234)
  await store.close()
  const again = (await opened({ home })).store
  again.recordCosts([row, { ...row, day: 6 }], 2345)
  expect(again.costsUntilMs()).toBe(2345)
  expect(await again.costs({ fromDay: 5, toDay: 5 })).toEqual([
    { ...row, amount: 3, gpuSeconds: 4 },
    { ...row, currency: 'EUR' },
  ])
})

test('a request is counted in the engine run that it was let through to', async () => {
  const { store } = await opened()
  const nothing = { prompt: 0, completion: 0 }
  const first = openRun('qwq-32b/0', 111, 1000, { prompt: 8, completion: 1 })
  store.saveRuns([first])
  store.countProbe(first, { prompt: 6, completion: 4 })
  const at = (acceptedAtMs: number, over: Partial<FinishedRequest> = {}): FinishedRequest =>
    finished(nextId(), { acceptedAtMs, ...over })
  store.recordRequests([
    at(500),
    at(1500),
    at(1600, { outcome: 'client_gone', promptTokens: null, completionTokens: null }),
    at(1700, { replica: 'other/0' }),
  ])
  store.saveRuns([readRun(first, { prompt: 30, completion: 50 }, 1900)])
  store.saveRuns([openRun('qwq-32b/0', 222, 2000, nothing)])
  // Accepted before the restart and let through after it: the new engine answers.
  store.recordRequests([at(1900, { queueMs: 200 }), at(1950, { outcome: 'interrupted' })])
  const [newer, older, ...none] = await store.runs()
  expect(none).toEqual([])
  expect(newer).toMatchObject({ run: { run: 222 }, ours: { requests: 1, cut: 0, unmetered: 0 } })
  expect(older).toMatchObject({
    run: { run: 111, last: { prompt: 30, completion: 50 }, base: { prompt: 8, completion: 1 } },
    ours: {
      requests: 3,
      cut: 2,
      unmetered: 1,
      tokens: { prompt: 24, completion: 68 },
      probes: 1,
      probeTokens: { prompt: 6, completion: 4 },
    },
  })
  for (let run = 1; run < 30; run += 1) {
    store.saveRuns([openRun('qwq-32b/0', run, 3000 + run, nothing)])
  }
  expect((await store.runs()).map(({ run }) => run.run)).toEqual([29, 28, 27, 26, 25])
})

test('who asks a pattern by many names is one line of the day, and hides nobody', async () => {
  const { store } = await opened()
  const names = Array.from({ length: 50 }, (_, nth) => `gpt-${nth}`)
  const asked = names.map((modelAsked) => finished(nextId(), { modelAsked, route: 'gpt-*' }))
  const alias = finished(nextId(), { modelAsked: 'best', route: 'deepseek-r1' })
  store.recordRequests([...asked, alias])
  const rows = await store.usage({ ...ALL, by: ['model'] })
  expect(rows.map(({ model, requests }) => [model, requests]).sort()).toEqual([
    ['best', 1],
    ['gpt-*', 50],
  ])
  const [last] = await store.recentRequests(1)
  expect(last).toMatchObject({ modelAsked: 'best', route: 'deepseek-r1' })
})
