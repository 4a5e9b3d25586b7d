import { availableParallelism } from 'node:os'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { loadSettings, SettingsSchema, variableOf } from '../src/config.ts'

const problems = (env: Record<string, string>, flags: Record<string, unknown> = {}) => {
  const answer = loadSettings(env, flags)
  return answer.ok ? [] : answer.problems
}

test('the defaults are those of the README', () => {
  expect(loadSettings({ HOME: '/root' }, {})).toEqual({
    ok: true,
    settings: {
      home: './.penstock',
      gatewayPort: 8080,
      gatewayHost: '0.0.0.0',
      consolePort: 8001,
      consoleHost: '127.0.0.1',
      inventory: './inventory.yaml',
      manifests: './manifests',
      threads: Math.min(64, Math.max(1, availableParallelism() - 1)),
      logLevel: 'info',
      rehearsalSpeed: 20,
    },
  })
})

test('a flag wins over a variable, an empty variable is unset, numbers may be numbers', () => {
  const answer = loadSettings(
    { PENSTOCK_GATEWAY_PORT: '9000', PENSTOCK_CONSOLE_PORT: '', PENSTOCK_THREADS: '3' },
    { gatewayPort: '9001', rehearsalSpeed: 0.5, json: true, home: undefined },
  )
  expect(answer).toMatchObject({
    ok: true,
    settings: { gatewayPort: 9001, consolePort: 8001, threads: 3, rehearsalSpeed: 0.5 },
  })
  expect(answer.ok && Object.isFrozen(answer.settings)).toBe(true)
})

test('every problem is reported at once, by the name that the operator used', () => {
  const found = problems(
    {
      PENSTOCK_GATEWAY_PRT: '1',
      PENSTOCK_QQQQQQQQQQQQ: '1',
      PENSTOCK_CONSOLE_PORT: '70000',
      PENSTOCK_THREADS: '0',
      PENSTOCK_LOG_LEVEL: 'loud',
    },
    { gatewayPort: 'http' },
  )
  expect(found).toEqual([
    'PENSTOCK_GATEWAY_PRT: no such setting (did you mean PENSTOCK_GATEWAY_PORT?)',
    'PENSTOCK_QQQQQQQQQQQQ: no such setting',
    '--gateway-port: expected a number from 0 to 65535, got "http"',
    'PENSTOCK_CONSOLE_PORT: expected a number from 0 to 65535, got "70000"',
    'PENSTOCK_THREADS: expected a number from 1 to 64, got "0"',
    'PENSTOCK_LOG_LEVEL: expected one of trace, debug, info, warn, error, fatal, silent, got "loud"',
  ])
})

test.each([
  ['PENSTOCK_GATEWAY_PORT', '-1'],
  ['PENSTOCK_GATEWAY_PORT', '1e3'],
  ['PENSTOCK_GATEWAY_PORT', ' 80'],
  ['PENSTOCK_GATEWAY_PORT', '0x50'],
  ['PENSTOCK_GATEWAY_HOST', 'http://host'],
  ['PENSTOCK_GATEWAY_HOST', 'a b'],
  ['PENSTOCK_HOME', '  '],
  ['PENSTOCK_HOME', 'a\nb'],
  ['PENSTOCK_REHEARSAL_SPEED', '0'],
  ['PENSTOCK_REHEARSAL_SPEED', 'NaN'],
])('%s=%j is refused with its value', (name, value) => {
  expect(problems({ [name]: value })).toEqual([
    expect.stringMatching(
      new RegExp(`^${name}: expected .*, got ${JSON.stringify(value)}`.replaceAll('\\', '\\\\')),
    ),
  ])
})

test('one port for both listeners is refused, zero for both is fine', () => {
  expect(problems({ PENSTOCK_CONSOLE_PORT: '8080' })).toEqual([
    'gateway and console cannot share port 8080: change one of them',
  ])
  const apart = { PENSTOCK_CONSOLE_PORT: '8080', PENSTOCK_GATEWAY_HOST: '10.0.0.1' }
  expect(problems(apart)).toEqual([])
  expect(problems({ PENSTOCK_CONSOLE_PORT: '0', PENSTOCK_GATEWAY_PORT: '0' })).toEqual([])
})

test('what Penstock sets for its own children is no mistake', () => {
  expect(problems({ PENSTOCK_REHEARSAL: '{}', PENSTOCK_NODE: 'h20-1' })).toEqual([])
})

test('every setting has a description and a variable of its own', () => {
  for (const [key, schema] of Object.entries(SettingsSchema.shape)) {
    expect(schema.description, key).toMatch(/\w{3}/)
    expect(variableOf(key)).toMatch(/^PENSTOCK_[A-Z_]+$/)
  }
})

test('no environment makes it throw', () => {
  const name = fc.constantFrom(...Object.keys(SettingsSchema.shape).map(variableOf), 'PENSTOCK_X')
  fc.assert(
    fc.property(fc.dictionary(name, fc.string({ unit: 'binary' })), (env) => {
      const answer = loadSettings(env, {})
      expect(answer.ok || answer.problems.length > 0).toBe(true)
    }),
  )
})

test('a Redis is named by a URL, and what is wrong with it is said without its password', () => {
  const good = ['redis://10.0.0.5', 'rediss://user:secret@redis.example.com:6380/2']
  for (const url of good) {
    expect(loadSettings({ PENSTOCK_REDIS: url }, {})).toMatchObject({ settings: { redis: url } })
  }
  for (const url of [
    'http://:secret@10.0.0.5',
    '10.0.0.5:6379',
    'redis://',
    'redis://x/db',
    ':secret@x',
  ]) {
    expect(problems({ PENSTOCK_REDIS: url })).toEqual([
      'PENSTOCK_REDIS: expected a URL such as redis://10.0.0.5:6379',
    ])
  }
})
