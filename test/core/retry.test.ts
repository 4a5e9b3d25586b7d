import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { GatewaySchema } from '../../src/core/gateway-manifest.ts'
import {
  type Blame,
  blameOfStatus,
  mayRetry,
  metCause,
  USUAL_RETRY,
  withinBudget,
} from '../../src/core/retry.ts'
import { RetryBudget } from '../../src/gateway/retry-budget.ts'

const ERROR: Blame = { kind: 'error', status: 502 }
const UNREACHABLE: Blame = { kind: 'unreachable', status: null }
const yes = (): boolean => true
const no = (): boolean => false

test('the usual policy is the one that a manifest without a word gets', () => {
  const { routes } = GatewaySchema.parse({ kind: 'Gateway', routes: [{ model: 'm', to: 'm' }] })
  expect(routes[0]?.retry).toEqual(USUAL_RETRY)
})

test("a client's own mistakes are nobody else's: only 408, 429 and 5xx have a cause", () => {
  for (let status = 400; status < 600; status += 1) {
    const blame = blameOfStatus(status, { engineStatus: status, busy: false })
    expect(blame !== null).toBe(status >= 500 || status === 408 || status === 429)
  }
  expect(blameOfStatus(429, { engineStatus: 429, busy: false })?.kind).toBe('busy')
  expect(blameOfStatus(503, { engineStatus: 503, busy: true })?.kind).toBe('busy')
  expect(blameOfStatus(503, { engineStatus: 503, busy: false })?.kind).toBe('error')
  expect(blameOfStatus(504, { engineStatus: 504, busy: false })?.kind).toBe('timeout')
})

test('a single status is a cause of its own', () => {
  expect(metCause(ERROR, [502])).toBe(502)
  expect(metCause(ERROR, ['error', 502])).toBe(502)
  expect(metCause(ERROR, [500, 'timeout'])).toBeNull()
  expect(metCause(ERROR, ['error'])).toBe('error')
})

describe('a retry', () => {
  const base = { policy: USUAL_RETRY, blame: ERROR, retries: 0, sdkRetries: false, budget: yes }
  test('needs a cause, an attempt that is left, budget, and a client that does not retry', () => {
    expect(mayRetry(base)).toBe(true)
    expect(mayRetry({ ...base, retries: 2 })).toBe(false)
    expect(mayRetry({ ...base, budget: no })).toBe(false)
    expect(mayRetry({ ...base, sdkRetries: true })).toBe(false)
    expect(mayRetry({ ...base, blame: { kind: 'busy', status: 429 } })).toBe(false)
  })

  test('after a connection that never was needs only the attempt', () => {
    const other = { ...base, blame: UNREACHABLE, budget: no, sdkRetries: true }
    expect(mayRetry({ ...other, policy: { ...USUAL_RETRY, on: [] } })).toBe(true)
    expect(mayRetry({ ...other, retries: 2 })).toBe(false)
  })

  test('takes no budget when it may not be made', () => {
    let taken = 0
    const budget = (): boolean => {
      taken += 1
      return true
    }
    mayRetry({ ...base, retries: 2, budget })
    mayRetry({ ...base, sdkRetries: true, budget })
    mayRetry({ ...base, blame: UNREACHABLE, budget })
    expect(taken).toBe(0)
  })
})

test('a share of none is none; a quiet route may retry three times a second', () => {
  const quiet = { requests: 1, retries: 0, retriesThisSecond: 0 }
  expect(withinBudget(quiet, 0)).toBe(false)
  expect(withinBudget(quiet, 0.1)).toBe(true)
  expect(withinBudget({ ...quiet, retries: 2, retriesThisSecond: 2 }, 0.1)).toBe(true)
  expect(withinBudget({ ...quiet, retries: 3, retriesThisSecond: 3 }, 0.1)).toBe(false)
})

test('over any window retries stay within the share or the floor, whichever thread asks', () => {
  const request = fc.record({ afterMs: fc.integer({ min: 0, max: 300 }), fails: fc.boolean() })
  fc.assert(
    fc.property(fc.array(request, { maxLength: 400 }), (requests) => {
      const clock = { nowMs: 1_000_000 }
      const first = new RetryBudget(() => clock.nowMs)
      const threads = [first, new RetryBudget(() => clock.nowMs, first.buffer)]
      const log: { readonly second: number; readonly retry: boolean }[] = []
      for (const [index, { afterMs, fails }] of requests.entries()) {
        clock.nowMs += afterMs
        const second = Math.floor(clock.nowMs / 1_000)
        const budget = threads[index % 2]
        budget?.began('r')
        log.push({ second, retry: false })
        if (!fails || budget?.take('r', 0.1) !== true) continue
        const window = log.filter((one) => one.second > second - 10)
        const retries = window.filter(({ retry }) => retry).length + 1
        const inSecond = log.filter((one) => one.retry && one.second === second).length + 1
        expect(inSecond <= 3 || retries <= (window.length - retries + 1) * 0.1).toBe(true)
        log.push({ second, retry: true })
      }
    }),
  )
})
