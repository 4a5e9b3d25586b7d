/** From gateway.yaml to what the gateway threads are told; and backends' keys on the way. */
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { Backends } from '../../src/control/backends.ts'
import { issueLine, parseFiles } from '../../src/control/load.ts'
import { gatewaySnapshot } from '../../src/control/snapshot.ts'
import { Spillovers } from '../../src/control/spillover.ts'
import { type Backend, GatewaySchema } from '../../src/core/gateway-manifest.ts'
import { type Asking, Routing } from '../../src/core/routing.ts'
import type { GatewaySnapshot } from '../../src/core/snapshot.ts'
import { Fleet } from '../../src/fleet.ts'
import { H20 } from '../support/plans.ts'

const ROOT = path.join(import.meta.dirname, '../..')
const EXAMPLE = path.join(ROOT, 'docs/examples/gateway.yaml')
const read = (file: string) => ({ path: file, text: readFileSync(file, 'utf8') })
const directory = () => mkdtempSync(path.join(tmpdir(), 'penstock-backends-'))

const environment = { OPENAI_API_KEY: 'sk-from-the-environment' }

/** The example beside the repository's own deployments, none of which runs. */
const exampleIn = (folder: string) => {
  const inventory = 'nodes:\n  a: { address: 10.0.0.1, gpus: { profile: h20-96g, count: 16 } }\n'
  const manifests = ['deepseek-r1', 'qwq-32b'].map((name) =>
    read(path.join(ROOT, `manifests/${name}.yaml`)),
  )
  const example = { ...read(EXAMPLE), path: path.join(folder, 'gateway.yaml') }
  const files = {
    inventory: { path: 'inventory.yaml', text: inventory },
    manifests: [...manifests, example],
  }
  const answer = parseFiles(files, new Map([['h20-96g', H20]]))
  if (!answer.ok) throw new Error(answer.issues.map(issueLine).join('\n'))
  return answer.desired
}

const snapshotIn = (folder: string, nowMs = 1_000): { fleet: Fleet; snapshot: GatewaySnapshot } => {
  const fleet = new Fleet()
  const { deployments, gateway } = exampleIn(folder)
  const backends = new Backends({ environment, slotOf: (name) => fleet.backendSlot(name) })
  const common = {
    fleet,
    backends,
    spillovers: new Spillovers(fleet),
    rehearsal: false,
    version: 1,
  }
  return { fleet, snapshot: gatewaySnapshot({ ...common, deployments, gateway, keys: [], nowMs }) }
}

describe('the example of docs/examples', () => {
  const folder = directory()
  writeFileSync(path.join(folder, 'deepseek.key'), 'sk-from-the-file\n')
  const { snapshot, fleet } = snapshotIn(folder)
  const routing = new Routing(snapshot.routes)
  const route = (name: string, more: Partial<Asking> = {}) => {
    const key = { hash: '', id: 'k', consumer: 'alice', models: null }
    const found = routing.find(name, { key, group: null, headers: {}, ...more })
    if (!found.ok) throw new Error(found.message)
    return found.route
  }

  test('routes by name, group and header', () => {
    expect(route('best').deployment).toBe('deepseek-r1')
    expect(route('deepseek-r1', { group: 'batch' }).deployment).toBe('qwq-32b')
    const there = route('deepseek-r1', { headers: { 'x-canary': 'always' } })
    expect(there).toMatchObject({ deployment: 'deepseek', servedModel: 'deepseek-reasoner' })
    expect(route('gpt-5')).toMatchObject({ deployment: 'openai', servedModel: 'gpt-5' })
    expect(route('o3-mini').deployment).toBe('openai')
    expect(() => route('o3-mini!')).toThrow('does not exist')
  })

  test('says what the route does, and who may answer in its place', () => {
    const best = route('best')
    expect(best.policy).toMatchObject({ balance: 'prefix', slowStart: 120_000 })
    expect(best.split?.map(({ percent, route: one }) => [percent, one.deployment])).toEqual([
      [5, 'deepseek'],
    ])
    expect(best.split?.[0]?.route).toMatchObject({
      servedModel: 'deepseek-reasoner',
      standIn: { route: { deployment: 'qwq-32b' } },
      fallback: { routes: [{ deployment: 'openai' }] },
    })
    expect(best.standIn?.route).toMatchObject({ deployment: 'qwq-32b', model: 'deepseek-r1' })
    expect(best.fallback?.routes.map(({ deployment }) => deployment)).toEqual([
      'deepseek',
      'openai',
    ])
    expect(snapshot.consumers).toMatchObject([{ name: 'nightly', group: 'batch', weight: 0.2 }])
  })

  test('backends are targets with their keys; they queue for themselves', () => {
    const openai = route('gpt-5')
    expect(openai.targets).toMatchObject([
      {
        id: 'backend/openai',
        url: 'https://api.openai.com',
        state: 'ready',
        backend: {
          name: 'openai',
          basePath: '/v1',
          authorization: 'Bearer sk-from-the-environment',
        },
      },
    ])
    expect(openai.policy?.queue.ceiling).toBe('none')
    const there = route('best').split?.[0]?.route.targets[0]
    expect(there?.backend?.authorization).toBe('Bearer sk-from-the-file')
    expect(new Set([openai.targets[0]?.slot, there?.slot]).size).toBe(2)
    // A replica that comes gets another row than the backends have.
    const record = fleet.known('qwq-32b/0', 'qwq-32b', 0, 0)
    expect([openai.targets[0]?.slot, there?.slot]).not.toContain(record?.slot)
  })

  test('without its key a backend is not there, and the route says why', () => {
    const { snapshot: without } = snapshotIn(directory())
    const canary = without.routes.find(({ deployment }) => deployment === 'deepseek')
    expect(canary?.targets).toEqual([])
    expect(canary?.why).toBe('backend deepseek has no key: its file cannot be read (ENOENT)')
  })
})

describe('a key', () => {
  const backendOf = (key: unknown): Backend => {
    const url = 'https://api.example.com/v1/'
    const { backends } = GatewaySchema.parse({ kind: 'Gateway', backends: { one: { url, key } } })
    const backend = backends.one
    if (backend === undefined) throw new Error('no backend')
    return backend
  }
  const reader = (env: Readonly<Record<string, string>> = {}) => {
    const backends = new Backends({ environment: env, slotOf: () => 7 })
    return (key: unknown, nowMs = 0) => {
      const { targets, why } = backends.of('one', backendOf(key), nowMs)
      return targets[0]?.backend?.authorization ?? why
    }
  }

  test('of a file counts as soon as it changes, by its time or its size', () => {
    const file = path.join(directory(), 'key')
    const look = reader()
    expect(look({ file }, 0)).toBe('backend one has no key: its file cannot be read (ENOENT)')
    writeFileSync(file, 'first-key\n')
    expect(look({ file }, 1_000)).toBe('Bearer first-key')
    writeFileSync(file, 'other-key\n')
    utimesSync(file, 5, 5)
    // Looked at a moment ago.
    expect(look({ file }, 1_100)).toBe('Bearer first-key')
    expect(look({ file }, 2_000)).toBe('Bearer other-key')
    rmSync(file)
    expect(look({ file }, 3_000)).toContain('ENOENT')
  })

  test('that no header can carry is refused without being shown', () => {
    const look = reader({ EMPTY: ' \n', LINES: 'a\r\nx-other: b', ACCENT: 'clé', GOOD: ' good ' })
    const bad = 'it holds characters that no header can carry'
    expect(look({ environment: 'NONE' })).toContain('the environment variable NONE is not set')
    expect(look({ environment: 'EMPTY' })).toContain('it is empty')
    expect(look({ environment: 'LINES' })).toBe(`backend one has no key: ${bad}`)
    expect(look({ environment: 'ACCENT' })).toContain(bad)
    expect(look({ environment: 'GOOD' })).toBe('Bearer good')
    const large = path.join(directory(), 'key')
    writeFileSync(large, 'x'.repeat(20_000))
    expect(look({ file: large })).toContain('its file is too large for a key')
  })

  test('is not needed where none is named', () => {
    const backends = new Backends({ environment: {}, slotOf: () => 7 })
    const { targets } = backends.of('one', backendOf(undefined), 0)
    expect(targets[0]?.backend).toEqual({ name: 'one', basePath: '/v1', authorization: null })
  })

  test('without a row in the counts a backend is not asked', () => {
    const backends = new Backends({ environment: {}, slotOf: () => null })
    expect(backends.of('one', backendOf(undefined), 0).targets).toEqual([])
  })
})
