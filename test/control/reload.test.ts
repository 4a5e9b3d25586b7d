/** Hot reload on real files: edits in place, renames, halves, and what waits for an apply. */
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { runtimes } from '../../runtimes/index.ts'
import { systemClock as clock } from '../../src/clock.ts'
import { loadProfiles } from '../../src/control/profiles.ts'
import { readInputs } from '../../src/control/read.ts'
import { watchManifests } from '../../src/control/reload.ts'
import { Wanted } from '../../src/control/wanted.ts'
import type { InputFiles } from '../../src/core/admin.ts'
import { Fleet } from '../../src/fleet.ts'
import { until } from '../support/gateway.ts'

const INVENTORY = 'nodes: { a: { address: 127.0.0.1, gpus: { profile: h20-96g, count: 1 } } }\n'
const QWQ = (context: number): string => `kind: Deployment
name: qwq-32b
weights: { huggingface: Qwen/QwQ-32B }
engine: vllm
context: ${context}
`
const gatewayOf = (tokens: number): string => `kind: Gateway
routes:
  - model: qwq-32b
    to: qwq-32b
    limits: [{ per: consumer, tokensPerMinute: ${tokens} }]
`

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end()
})

const world = async () => {
  const home = mkdtempSync(join(tmpdir(), 'penstock-reload-'))
  ends.push(() => rmSync(home, { recursive: true }))
  const directory = join(home, 'manifests')
  mkdirSync(directory)
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text)
  writeFileSync(join(home, 'inventory.yaml'), INVENTORY)
  write('qwq-32b.yaml', QWQ(32_768))
  write('gateway.yaml', gatewayOf(100))
  const profiles = await loadProfiles('gpu-profiles')
  if (!profiles.ok) throw new Error('profiles')
  const fleet = new Fleet()
  const setup = { fleet, clock, runtimes, profiles: profiles.profiles }
  const wanted = new Wanted({ ...setup, rehearse: false, rehearsalSpeed: 1 })
  const saved: InputFiles[] = []
  const lines: string[] = []
  const log = {
    info: (line: string) => lines.push(line),
    error: (line: string) => lines.push(line),
  }
  const apply = async (): Promise<void> => {
    const inventoryPath = join(home, 'inventory.yaml')
    const { files } = await readInputs({ inventoryPath, manifestsDir: directory })
    const checked = wanted.check(files)
    if (!checked.ok) throw new Error('the files of this test do not check')
    wanted.use(files, checked.desired)
  }
  const store = {
    saveDesired: (files: InputFiles): number => saved.push(files),
    audit: () => undefined,
  }
  const start = (): void => {
    ends.push(watchManifests({ fleet, clock, wanted, store, rehearse: false, directory, log }))
  }
  const tokens = (): number | undefined =>
    wanted.desired.gateway.routes[0]?.limits[0]?.tokensPerMinute
  const { config } = fleet
  return { directory, write, wanted, saved, lines, apply, start, tokens, config, store }
}

/** Longer than a look, a rest and another look take. */
const aWhile = (): Promise<void> => clock.sleep(1_500)

describe('a changed Gateway', () => {
  test('is taken over and saved; deployments stay as they were', async () => {
    const { write, apply, start, tokens, wanted, saved, config, lines } = await world()
    await apply()
    start()
    await aWhile()
    const { deployments } = wanted.desired
    const sinceMs = performance.now()
    write('gateway.yaml', gatewayOf(200))
    await until('the new limit', () => tokens() === 200)
    console.log(
      `a changed gateway.yaml is in use after ${Math.round(performance.now() - sinceMs)} ms`,
    )
    expect(wanted.desired.deployments).toEqual(deployments)
    expect(saved).toHaveLength(1)
    expect(saved[0]?.inventory?.text).toBe(INVENTORY)
    expect(saved[0]?.manifests.map(({ text }) => text)).toContain(gatewayOf(200))
    expect(config).toMatchObject({ problem: null, broken: false, reloads: 1, failures: 0 })
    expect(lines.join()).toContain('gateway.yaml changed on disk: in use now')
  })

  test.each([
    ['cut after its first line', 'kind: Gateway\n'],
    ['with every line commented out', '# kind: Gateway\n# routes: []\n'],
  ])('%s would drop every limit, and waits for an apply', async (_name, text) => {
    const { write, apply, start, tokens, config, saved } = await world()
    await apply()
    start()
    await aWhile()
    write('gateway.yaml', text)
    await until('it is said', () => config.broken)
    expect(config.problem).toContain('no route is declared')
    expect(tokens()).toBe(100)
    expect(saved).toEqual([])
    write('gateway.yaml', gatewayOf(300))
    await until('the new limit', () => tokens() === 300)
    expect(config.broken).toBe(false)
  })

  test('that cannot be saved is tried again, and is not in use before', async () => {
    const { write, apply, start, tokens, config, store } = await world()
    await apply()
    start()
    await aWhile()
    const save = store.saveDesired
    store.saveDesired = () => {
      throw new Error('the disk is full')
    }
    write('gateway.yaml', gatewayOf(400))
    await until('it is said', () => config.broken)
    expect(config.problem).toContain('the disk is full')
    expect(tokens()).toBe(100)
    store.saveDesired = save
    await until('the new limit', () => tokens() === 400)
    expect(config.broken).toBe(false)
  })

  test('also by rename-and-replace, again and again', async () => {
    const { directory, write, apply, start, tokens } = await world()
    await apply()
    start()
    await aWhile()
    for (const amount of [201, 202, 203]) {
      write('.gateway.yaml.swp', gatewayOf(amount))
      renameSync(join(directory, '.gateway.yaml.swp'), join(directory, 'gateway.yaml'))
      await until(`limit ${amount}`, () => tokens() === amount)
    }
    expect(readdirSync(directory).sort()).toEqual(['gateway.yaml', 'qwq-32b.yaml'])
  })

  test('where nothing tells of changes, a look every half second does', async () => {
    const { directory, apply, start, tokens } = await world()
    // As Kubernetes mounts a ConfigMap: the files are links through a link that is swapped; the
    // change happens in another directory than the one that is watched.
    const data = join(directory, '..', 'data')
    for (const [name, amount] of [
      ['one', 100],
      ['two', 222],
    ] as const) {
      mkdirSync(join(data, name), { recursive: true })
      writeFileSync(join(data, name, 'gateway.yaml'), gatewayOf(amount))
    }
    symlinkSync('one', join(data, 'now'))
    unlinkSync(join(directory, 'gateway.yaml'))
    symlinkSync(join(data, 'now', 'gateway.yaml'), join(directory, 'gateway.yaml'))
    await apply()
    start()
    await aWhile()
    const sinceMs = performance.now()
    symlinkSync('two', join(data, 'next'))
    renameSync(join(data, 'next'), join(data, 'now'))
    await until('the new limit', () => tokens() === 222)
    console.log(`a swapped link is in use after ${Math.round(performance.now() - sinceMs)} ms`)
  })

  test('a file that is still being written is waited for', async () => {
    const { directory, write, apply, start, tokens, config } = await world()
    await apply()
    start()
    await aWhile()
    const file = join(directory, 'gateway.yaml')
    // Each half by itself is valid YAML, and the first would be a gateway without limits.
    const text = gatewayOf(300)
    write('gateway.yaml', '')
    for (let at = 0; at < text.length; at += 20) {
      appendFileSync(file, text.slice(at, at + 20))
      await clock.sleep(30)
    }
    await until('the new limit', () => tokens() === 300)
    expect(config.failures).toBe(0)
    expect(config.reloads).toBe(1)
  })
})

describe('what cannot be used', () => {
  test('keeps the old one, says where, and heals', async () => {
    const { directory, write, apply, start, tokens, config, lines, saved } = await world()
    await apply()
    start()
    await aWhile()
    write('gateway.yaml', gatewayOf(400).replace('limits', 'limitz'))
    await until('the problem', () => config.broken)
    expect(config.problem).toMatch(/gateway\.yaml:5:5: routes\[0\]\.limitz: .*did you mean/)
    expect(config.problem).toMatch(/what was in use before stays in use/)
    expect(lines.filter((line) => line.includes('limitz'))).toHaveLength(1)
    unlinkSync(join(directory, 'gateway.yaml'))
    await until(
      'that it is gone',
      () => config.problem?.startsWith('gateway.yaml is gone') === true,
    )
    write('gateway.yaml', '\u0000not yaml: [')
    await until('another problem', () => config.failures === 3)
    expect([tokens(), saved.length]).toEqual([100, 0])
    write('gateway.yaml', gatewayOf(500))
    await until('the new limit', () => tokens() === 500)
    expect(config).toMatchObject({ problem: null, broken: false, reloads: 1 })
  })

  test('a changed deployment waits for an apply, and the gateway with it', async () => {
    const { write, apply, start, tokens, wanted, config, saved } = await world()
    await apply()
    start()
    await aWhile()
    write('qwq-32b.yaml', QWQ(16_384))
    await until('the notice', () => config.problem !== null)
    expect(config.problem).toMatch(/^qwq-32b changed in .*: `penstock apply` takes it over$/)
    write('gateway.yaml', gatewayOf(600))
    await until('the other notice', () => config.problem?.includes('the gateway with it') === true)
    expect([tokens(), saved.length, config.broken, config.failures]).toEqual([100, 0, false, 0])
    expect(wanted.desired.deployments[0]?.context).toBe(32_768)
    await apply()
    await until('no notice', () => config.problem === null)
    expect([tokens(), wanted.desired.deployments[0]?.context]).toEqual([600, 16_384])
  })

  test('a directory that is not what was applied is left alone until it is', async () => {
    const { write, apply, start, tokens, config } = await world()
    await apply()
    write('gateway.yaml', gatewayOf(700))
    start()
    await until('the notice', () => config.problem !== null)
    expect(config.problem).toMatch(/is not what was applied/)
    write('gateway.yaml', gatewayOf(800))
    await aWhile()
    expect(tokens()).toBe(100)
    await apply()
    await until('no notice', () => config.problem === null)
    write('gateway.yaml', gatewayOf(900))
    await until('the new limit', () => tokens() === 900)
  })
})
