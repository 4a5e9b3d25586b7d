import { afterEach, beforeEach, expect, it } from 'vitest'
import { z } from 'zod'
import { ReconciliationSchema, UsageReportSchema } from '../../src/console/usage-answers.ts'
import { dayOf, parseDay } from '../../src/core/day.ts'
import { CONSUMER_KEY } from '../support/admin.ts'
import { asAdmin, ask, type TestConsole, testConsole } from '../support/console.ts'

let at: TestConsole
beforeEach(async () => {
  at = await testConsole()
})
afterEach(async () => {
  await at.console.close()
  expect(at.errors).toEqual([])
})

const get = (path: string) => ask(at.base, path, { headers: asAdmin })

const Refusal = z.object({ error: z.object({ message: z.string(), param: z.string() }) })

it('asks for the days and dimensions of the query, and answers what the document says', async () => {
  const { status, body } = await get('/admin/v1/usage?from=2026-11-01&to=2026-11-24&by=day,key')
  expect(status).toBe(200)
  const report = UsageReportSchema.parse(JSON.parse(body))
  expect(report).toMatchObject({ from: '2026-11-01', to: '2026-11-24', by: ['day', 'key'] })
  expect(at.admin.asked).toEqual([
    { fromDay: parseDay('2026-11-01'), toDay: parseDay('2026-11-24'), by: ['day', 'key'] },
  ])
})

it('takes the last 30 days by consumer and model when nothing is said', async () => {
  await get('/admin/v1/usage')
  const today = dayOf(Date.now())
  const [asked] = z
    .array(z.object({ fromDay: z.number(), toDay: z.number() }))
    .parse(at.admin.asked)
  // Midnight may have passed between the question and here.
  expect([today, today - 1]).toContain(asked?.toDay)
  expect((asked?.toDay ?? 0) - (asked?.fromDay ?? 0)).toBe(29)
  expect(at.admin.asked).toMatchObject([{ by: ['consumer', 'model'] }])
})

it.each([
  ['by=colour', 'by', 'expected some of day, consumer'],
  ['by=', 'by', 'expected some of day, consumer'],
  ['from=2026-02-30', 'from', 'expected a day such as'],
  ['to=yesterday', 'to', 'expected a day such as'],
  ['from=2026-11-02&to=2026-11-01', 'from', '`from` is after `to`'],
  ['from=2020-01-01&to=2026-11-01', 'from', 'usage is kept for 800 days'],
  ['since=3', 'since', 'unknown key "since"'],
  ['by=day&by=key', 'by', 'expected string'],
])('refuses %s, naming the parameter', async (query, param, message) => {
  const { status, body } = await get(`/admin/v1/usage?${query}`)
  expect(status, body).toBe(400)
  const { error } = Refusal.parse(JSON.parse(body))
  expect(error.param).toBe(param)
  expect(error.message).toContain(message)
  expect(at.admin.asked).toEqual([])
})

it('needs an admin key', async () => {
  for (const path of ['/admin/v1/usage', '/admin/v1/usage/reconcile']) {
    expect((await ask(at.base, path)).status).toBe(401)
    const headers = { authorization: `Bearer ${CONSUMER_KEY}` }
    expect((await ask(at.base, path, { headers })).status).toBe(403)
  }
})

it('reconciles', async () => {
  const { status, body } = await get('/admin/v1/usage/reconcile')
  expect(status).toBe(200)
  expect(ReconciliationSchema.parse(JSON.parse(body))).toEqual({ runs: [] })
})
