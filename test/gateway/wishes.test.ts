import { describe, expect, test } from 'vitest'
import { wishesOf } from '../../src/gateway/wishes.ts'

describe('what a caller asks of the gateway', () => {
  test.each([
    [{}, { denies: false, priority: null }],
    [{ 'x-penstock-spillover': 'deny' }, { denies: true, priority: null }],
    [{ 'x-penstock-spillover': 'allow', 'x-penstock-priority': 'low' }, { priority: 'low' }],
    [
      { 'x-penstock-spillover': '', 'x-penstock-priority': '' },
      { denies: false, priority: null },
    ],
  ])('%j', (headers, wishes) => {
    expect(wishesOf(headers)).toMatchObject(wishes)
  })

  test.each([
    ['x-penstock-spillover', 'denied', 'expected allow or deny, found "denied"'],
    // Two headers of one name, as Node joins them.
    ['x-penstock-spillover', 'deny, allow', 'expected allow or deny, found "deny, allow"'],
    ['x-penstock-priority', 'HIGH', 'expected low or normal or high, found "HIGH"'],
    ['x-penstock-priority', 'x'.repeat(300), `found "${'x'.repeat(40)}"`],
  ])('%s: %j is refused by name', (name, value, said) => {
    expect(() => wishesOf({ [name]: value })).toThrow(
      expect.objectContaining({
        code: 'invalid_request',
        place: { param: name },
        message: expect.stringContaining(`header ${name}: `),
      }),
    )
    expect(() => wishesOf({ [name]: value })).toThrow(said)
  })
})
