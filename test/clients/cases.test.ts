import { isDeepStrictEqual } from 'node:util'
import { afterEach, describe, expect, test } from 'vitest'
import { closeAll, startWorld } from '../support/gateway.ts'
import { HELLO, sightIn } from './cases.ts'
import { PLAIN, pageOf } from './cases-page.ts'
import { CASES } from './table.ts'

const SDKS = ['js', 'python'] as const

afterEach(closeAll)

describe('the table', () => {
  test('has each case once, and a reason exactly where the caller can tell the difference', () => {
    expect(CASES.length).toBeGreaterThanOrEqual(25)
    expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length)
    const told = CASES.map(({ name, sight, openai, differs }) => {
      const differ = SDKS.some(
        (sdk) => !isDeepStrictEqual(sightIn(sdk, sight), sightIn(sdk, openai.sight)),
      )
      return { name, fits: differ === (differs !== undefined) }
    })
    expect(told.filter(({ fits }) => !fits)).toEqual([])
  })

  test('is docs/sdk-cases.md (vitest -u writes it)', async () => {
    await expect(pageOf(CASES)).toMatchFileSnapshot('../../docs/sdk-cases.md')
  })
})

test.each(PLAIN)('$method $path', async ({ method, path, headers, status, has }) => {
  const { url } = await startWorld(() => HELLO)
  const response = await fetch(`${url}${path}`, { method, headers })
  expect([response.status, await response.text()]).toEqual([status, ''])
  expect(Object.fromEntries(response.headers)).toMatchObject(has)
  expect(response.headers.get('x-request-id')).toMatch(/^req-/)
})
