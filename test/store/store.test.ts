import { statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { openStore, type StoreOptions } from '../../src/store/store.ts'
import { manualClock } from '../support/clock.ts'
import { temporaryDirectory } from '../support/home.ts'
import { finished } from './requests.ts'

const opened = async (options: Partial<StoreOptions> = {}) => {
  const home = options.home ?? temporaryDirectory()
  const store = await openStore({ clock: manualClock(), ...options, home })
  onTestFinished(() => store.close())
  return { home, store }
}

test('a key is shown once: only its hash is on the disk, and it works after a reopen', async () => {
  const { home, store } = await opened()
  const made = store.createKey({ role: 'consumer', consumer: 'team a', models: ['qwq-32b'] })
  const admin = store.createKey({ role: 'admin', consumer: 'operator', models: null })
  expect(made.key).toMatch(/^sk-ps-[0-9A-Za-z]{40}$/)
  expect(admin.key).toMatch(/^sk-ps-admin-[0-9A-Za-z]{40}$/)
  expect(made.view).toEqual({
    id: expect.stringMatching(/^key_[0-9A-Za-z]{12}$/),
    role: 'consumer',
    consumer: 'team a',
    prefix: made.key.slice(0, 10),
    models: ['qwq-32b'],
    createdAtMs: 1_700_000_000_000,
    revokedAtMs: null,
  })
  await store.close()

  const file = new DatabaseSync(join(home, 'penstock.db'), { readOnly: true })
  const dump = JSON.stringify(file.prepare('SELECT * FROM keys').all())
  file.close()
  expect(dump).not.toContain(made.key.slice(6))
  expect(dump).not.toContain(admin.key.slice(12))

  const again = (await opened({ home })).store
  expect(again.keys()).toEqual([made.view, admin.view])
  expect([made.key, admin.key, `${made.key}x`, '', 'x'.repeat(1e6)].map(again.roleOf)).toEqual([
    'consumer',
    'admin',
    null,
    null,
    null,
  ])
  expect(again.consumerKeys()).toEqual([
    {
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
      id: made.view.id,
      consumer: 'team a',
      models: ['qwq-32b'],
    },
  ])
})

test('a revoked key is refused, also after a reopen; revoking twice is once', async () => {
  const { home, store } = await opened()
  const { key, view } = store.createKey({ role: 'consumer', consumer: 'a', models: null })
  const revoked = store.revokeKey(view.id)
  expect(revoked).toEqual({ ...view, revokedAtMs: 1_700_000_000_000 })
  expect(store.revokeKey(view.id)).toEqual(revoked)
  await store.close()
  const again = (await opened({ home })).store
  expect([again.roleOf(key), again.consumerKeys(), again.keys()]).toEqual([null, [], [revoked]])
})

test('keys that cannot be are refused in one line', async () => {
  const { store } = await opened()
  const { view } = store.createKey({ role: 'admin', consumer: 'operator', models: null })
  expect(() => store.revokeKey('key_none')).toThrow('there is no key key_none')
  expect(() => store.revokeKey(view.id)).toThrow('last admin key')
  store.createKey({ role: 'admin', consumer: 'second', models: null })
  expect(store.revokeKey(view.id).revokedAtMs).not.toBeNull()
  for (const consumer of ['', ' ', 'x'.repeat(101)]) {
    expect(() => store.createKey({ role: 'consumer', consumer, models: null })).toThrow('consumer')
  }
})

test('secrets use the whole alphabet evenly and never repeat', async () => {
  const { store } = await opened()
  const keys = Array.from({ length: 500 }, () => {
    return store.createKey({ role: 'consumer', consumer: 'a', models: null }).key.slice(6)
  })
  const counts = new Map<string, number>()
  for (const letter of keys.join('')) counts.set(letter, (counts.get(letter) ?? 0) + 1)
  expect([new Set(keys).size, counts.size]).toEqual([500, 62])
  // 20,000 draws of 62: 322 expected each, standard deviation 18; 7 of them are never by chance.
  for (const count of counts.values()) expect(Math.abs(count - 322)).toBeLessThan(126)
})

test('what was last applied comes back; a null inventory keeps the one before', async () => {
  const { home, store } = await opened()
  expect(await store.loadDesired()).toBeNull()
  const inventory = { path: 'inventory.yaml', text: 'nodes: {}\n# ü\u0000' }
  const manifests = [{ path: 'manifests/a.yaml', text: 'kind: Deployment\n' }]
  expect(store.saveDesired({ inventory, manifests: [] }, true)).toBe(1)
  const stopped = ['qwq-32b']
  expect(store.saveDesired({ inventory: null, manifests, stopped }, false)).toBe(2)
  await store.close()
  const again = (await opened({ home })).store
  expect(await again.loadDesired()).toEqual({
    generation: 2,
    savedAtMs: 1_700_000_000_000,
    rehearsal: false,
    files: { inventory, manifests, stopped },
  })
  for (let more = 3; more <= 40; more += 1) {
    expect(again.saveDesired({ inventory: null, manifests }, false)).toBe(more)
  }
  const huge = { path: 'a', text: 'x'.repeat(17 * 1024 * 1024) }
  expect(() => again.saveDesired({ inventory: huge, manifests }, false)).toThrow('16 MiB')
  await again.close()
  const file = new DatabaseSync(join(home, 'penstock.db'), { readOnly: true })
  expect(file.prepare('SELECT count(*) AS n FROM desired').get()).toEqual({ n: 20 })
  file.close()
})

test('requests come back as they were, newest first, once, and bounded', async () => {
  const { store } = await opened({ requestsMax: 1000 })
  store.recordRequests([])
  const empty = finished('refused', {
    consumer: null,
    key: null,
    modelAsked: null,
    modelServed: null,
    deployment: null,
    replica: null,
    promptTokens: null,
    completionTokens: null,
    reasoningTokens: null,
    ttftMs: null,
    stream: false,
    status: 401,
    outcome: 'refused',
    reason: "invalid_api_key'); DROP TABLE requests; --",
  })
  const batch = [finished('a'), empty]
  store.recordRequests(batch)
  store.recordRequests([...batch, finished('a', { acceptedAtMs: 1_700_000_000_001 })])
  expect(await store.recentRequests(10)).toEqual([
    finished('a', { acceptedAtMs: 1_700_000_000_001 }),
    empty,
    finished('a'),
  ])
  store.recordRequests(Array.from({ length: 2500 }, (_, at) => finished(`b${at}`)))
  const kept = await store.recentRequests(1e9)
  expect([kept.length, kept[0]?.id, kept.at(-1)?.id]).toEqual([1000, 'b2499', 'b1500'])
  expect((await store.recentRequests(3)).map((request) => request.id)).toEqual([
    'b2499',
    'b2498',
    'b2497',
  ])
})

test('any request that a gateway could report is read back equal', async () => {
  const { store } = await opened()
  const text = fc.string({ unit: 'binary', maxLength: 40 }).map((raw) => raw.toWellFormed())
  const tokens = fc.option(fc.nat(2 ** 31))
  let serial = 0
  await fc.assert(
    fc.asyncProperty(
      text,
      text,
      tokens,
      fc.double({ min: 0, max: 1e9, noNaN: true }),
      async (...values) => {
        const [consumer, reason, promptTokens, durationMs] = values
        serial += 1
        const request = finished(`r${serial}`, { consumer, reason, promptTokens, durationMs })
        store.recordRequests([request])
        const [read] = await store.recentRequests(1)
        expect(read).toEqual(request)
      },
    ),
    { numRuns: 60 },
  )
})

test('a number that is none is unknown, and loses nothing beside it', async () => {
  const { store } = await opened()
  const odd = finished('odd', {
    promptTokens: Number.NaN,
    completionTokens: 1e300,
    cachedTokens: Number.POSITIVE_INFINITY,
    reasoningTokens: 2.4,
    ttftMs: Number.NEGATIVE_INFINITY,
    durationMs: Number.NaN,
  })
  store.recordRequests([finished('before'), odd, finished('after')])
  expect((await store.recentRequests(5)).map(({ id }) => id)).toEqual(['after', 'odd', 'before'])
  expect((await store.recentRequests(5))[1]).toEqual({
    ...odd,
    promptTokens: null,
    completionTokens: null,
    cachedTokens: null,
    reasoningTokens: 2,
    ttftMs: null,
    durationMs: 0,
  })
})

test('audit keeps who did what, newest first', async () => {
  const { store } = await opened()
  store.audit('key_1', 'apply', 'generation 3')
  store.audit('cli', 'restart', 'x'.repeat(10_000))
  const entries = await store.auditLog(10)
  expect(entries.map(({ who, what }) => [who, what])).toEqual([
    ['cli', 'restart'],
    ['key_1', 'apply'],
  ])
  expect(entries[0]?.detail.length).toBe(4000)
})

test('the files are for their owner only, whatever the umask', async () => {
  const before = process.umask(0)
  onTestFinished(() => {
    process.umask(before)
  })
  const { home, store } = await opened({ home: join(temporaryDirectory(), 'a', 'home') })
  store.audit('a', 'b', 'c')
  const mode = (name: string) => (statSync(join(home, name)).mode & 0o777).toString(8)
  expect(mode('.')).toBe('700')
  for (const name of ['penstock.db', 'penstock.db-wal', 'penstock.db-shm', 'penstock.lock']) {
    expect(mode(name), name).toBe('600')
  }
})

test('why a stand-in answered is kept; a request that none answered says nothing of it', async () => {
  const { store } = await opened()
  store.recordRequests([finished('r1', { spillover: 'saturation' }), finished('r2')])
  const [newest, older] = await store.recentRequests(2)
  expect(older?.spillover).toBe('saturation')
  expect(newest).not.toHaveProperty('spillover')
})
