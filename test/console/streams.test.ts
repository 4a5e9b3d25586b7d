import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ApplyEvent } from '../../src/core/admin.ts'
import { PenstockError } from '../../src/errors.ts'
import { asAdmin, ask, readEvents, type TestConsole, testConsole } from '../support/console.ts'

let at: TestConsole

beforeEach(async () => {
  at = await testConsole()
})

afterEach(async () => {
  await at.console.close()
  expect(at.errors).toEqual([])
})

const body = JSON.stringify({ manifests: [{ path: 'a.yaml', text: 'kind: Deployment' }] })
const apply = {
  method: 'POST',
  body,
  headers: { ...asAdmin, 'content-type': 'application/json' },
}

const whenAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve())
  })

const note = (index: number, text = ''): ApplyEvent => ({
  kind: 'rank',
  replica: 'deepseek-r1/0',
  rank: 1,
  node: 'h20-8b',
  phase: 'weights',
  ratio: index / 100,
  note: text,
})

describe('apply', () => {
  test('tells each event as it happens, named by its kind, and ends after the last', async () => {
    let goOn = (): void => undefined
    const gate = new Promise<void>((resolve) => {
      goOn = resolve
    })
    const last: ApplyEvent = { kind: 'done', message: '2 replicas are ready' }
    at.admin.applyEvents = async function* () {
      yield { kind: 'plan', text: 'line 1\nline 2', actions: 2 }
      await gate
      yield note(50)
      yield last
    }
    const reader = await readEvents(at.base, '/admin/v1/apply', apply)
    const plan = await reader.until(({ event }) => event === 'plan')
    expect(plan.data).toEqual({ kind: 'plan', text: 'line 1\nline 2', actions: 2 })
    expect(reader.events.length).toBe(1)
    goOn()
    await reader.ended
    expect(reader.events.slice(1)).toEqual([
      { event: 'rank', data: note(50) },
      { event: 'done', data: last },
    ])
  })

  test('a failure on the way is the last event: coded ones whole, bugs without their text', async () => {
    const failWith = async (error: unknown) => {
      at.admin.applyEvents = async function* () {
        yield note(1)
        throw error
      }
      const reader = await readEvents(at.base, '/admin/v1/apply', apply)
      await reader.ended
      return reader.events.at(-1)
    }
    const place = { node: 'h20-8b', rank: 1 }
    const away = new PenstockError('node_unreachable', 'connection refused', place)
    expect(await failWith(away)).toEqual({
      event: 'failed',
      data: { kind: 'failed', message: 'node h20-8b, rank 1: connection refused' },
    })
    const bug = await failWith(new TypeError('secret detail'))
    expect(bug?.event).toBe('failed')
    expect(JSON.stringify(bug)).not.toContain('secret')
    expect(at.errors.splice(0)).toEqual(['console stream failed'])
    at.admin.applyEvents = async function* () {
      yield note(1)
    }
    const silent = await readEvents(at.base, '/admin/v1/apply', apply)
    await silent.ended
    expect(silent.events.at(-1)?.event).toBe('failed')
  })

  test('the caller leaving aborts the reporting', async () => {
    const aborted = new Promise<void>((resolve) => {
      at.admin.applyEvents = async function* (_files, signal) {
        yield note(1)
        await whenAborted(signal)
        resolve()
        throw signal.reason
      }
    })
    const reader = await readEvents(at.base, '/admin/v1/apply', apply)
    await reader.until(({ event }) => event === 'rank')
    reader.leave()
    await aborted
  })

  test('a caller that does not read holds the reports back', async () => {
    let told = 0
    const text = 'x'.repeat(500_000)
    at.admin.applyEvents = async function* () {
      for (; told < 400; told += 1) yield note(told, text)
      yield { kind: 'done', message: 'all' }
    }
    const reader = await readEvents(at.base, '/admin/v1/apply', apply)
    reader.pause()
    // The count must stand still while nobody reads: 200 MB would be told otherwise.
    let before = -1
    await expect
      .poll(
        () => {
          const still = told === before && told > 0
          before = told
          return still
        },
        { interval: 500, timeout: 20_000 },
      )
      .toBe(true)
    expect(told).toBeLessThan(100)
    reader.resume()
    await reader.until(({ event }) => event === 'done')
    expect(reader.events.length).toBe(401)
  })
})

describe('logs', () => {
  const logs = '/admin/v1/logs?target=deepseek-r1/0'

  test('are lines of text, asked for as the query says', async () => {
    at.admin.logLines = async function* () {
      yield 'INFO loading <b>weights</b>'
      yield 'Größe 中'
    }
    const answer = await ask(at.base, `${logs}&rank=1&lines=50`, { headers: asAdmin })
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(answer.body).toBe('INFO loading <b>weights</b>\nGröße 中\n')
    expect(at.admin.asked).toEqual([{ target: 'deepseek-r1/0', rank: 1, lines: 50, follow: false }])
  })

  test('of an unknown replica are a 404, not half a text', async () => {
    at.admin.logLines = async function* () {
      yield* []
      throw new PenstockError('not_found', 'there is no deepseek-r1/0')
    }
    const answer = await ask(at.base, logs, { headers: asAdmin })
    expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([404, 'not_found'])
  })

  test('that break off say why in a last line', async () => {
    at.admin.logLines = async function* () {
      yield 'one'
      throw new PenstockError('node_unreachable', 'connection reset', { node: 'h20-8a' })
    }
    const answer = await ask(at.base, logs, { headers: asAdmin })
    expect(answer.body).toBe('one\npenstock: the log ends here: node h20-8a: connection reset\n')
  })

  test('that are followed answer before the first line, and stop when the caller leaves', async () => {
    let say = (_line: string): void => undefined
    const line = new Promise<string>((resolve) => {
      say = resolve
    })
    let left = (): void => undefined
    const stopped = new Promise<void>((resolve) => {
      left = resolve
    })
    at.admin.logLines = async function* (_ask, signal) {
      yield await line
      await whenAborted(signal)
      left()
      throw signal.reason
    }
    const reader = await readEvents(at.base, `${logs}&follow=true`)
    expect(reader.status).toBe(200)
    say('hello')
    await expect.poll(() => reader.raw(), { timeout: 20_000 }).toBe('hello\n')
    reader.leave()
    await stopped
  })
})
