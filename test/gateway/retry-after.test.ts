import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { backoffOf, retryHeaders } from '../../src/gateway/retry-after.ts'

const NOW = Date.UTC(2026, 10, 24, 12, 0, 0)

describe('what an engine says', () => {
  test.each([
    [{}, null],
    [{ 'retry-after-ms': '1500' }, 1_500],
    [{ 'retry-after-ms': '0.2' }, 1],
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': '1.5' }, 1_500],
    [{ 'retry-after-ms': '250', 'retry-after': '7' }, 250],
    [{ 'retry-after-ms': 'soon', 'retry-after': '7' }, 7_000],
    [{ 'retry-after': 'Tue, 24 Nov 2026 12:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Tue, 24 Nov 2026 11:00:00 GMT' }, null],
    [{ 'retry-after': '0' }, null],
    [{ 'retry-after': '-3' }, null],
    [{ 'retry-after': 'later' }, null],
    [{ 'retry-after': '99999999999' }, 86_400_000],
  ])('%j is %s ms', (headers, waitMs) => {
    expect(backoffOf(headers, NOW)).toEqual({ waitMs, shouldRetry: null })
  })

  test('x-should-retry counts only as the SDKs read it', () => {
    for (const word of ['true', 'false']) {
      expect(backoffOf({ 'x-should-retry': word }, NOW).shouldRetry).toBe(word)
    }
    expect(backoffOf({ 'x-should-retry': 'maybe' }, NOW).shouldRetry).toBe(null)
  })

  test('any text is a wait within a day, or none', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (ms, seconds) => {
        const headers = { 'retry-after-ms': ms, 'retry-after': seconds }
        const { waitMs } = backoffOf(headers, NOW)
        if (waitMs === null) return
        expect(Number.isInteger(waitMs) && waitMs > 0 && waitMs <= 86_400_000).toBe(true)
      }),
    )
  })
})

test('what a client is told: both forms, and not to try again when it would be long', () => {
  expect(retryHeaders(1_200)).toEqual({ 'retry-after': 2, 'retry-after-ms': 1_200 })
  expect(retryHeaders(60_000)).toEqual({ 'retry-after': 60, 'retry-after-ms': 60_000 })
  expect(retryHeaders(60_001)).toEqual({
    'retry-after': 61,
    'retry-after-ms': 60_001,
    'x-should-retry': 'false',
  })
})
