/** Images: the simulator's own, a pull from a real registry, and a Docker that knows no GPUs. */
import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { NodeSpec } from '../../src/core/inventory.ts'
import { dockerDriver } from '../../src/drivers/docker.ts'
import type { Driver, PullProgress } from '../../src/drivers/driver.ts'
import { answers } from '../../src/drivers/port.ts'
import { buildSimulatorImage, simulatorImage } from '../../src/drivers/simulator-image.ts'
import { errorLine } from '../../src/errors.ts'
import { type Daemon, findOnPath, startDaemon, waitFor } from '../support/docker-daemon.ts'
import { importTestImage, TEST_IMAGE } from '../support/docker-lab.ts'
import { requirePart } from '../support/parts.ts'
import { freePort, nodeSpec, rankSpec, rehearsal } from '../support/rank.ts'
import { collect, FOREVER, failure, never, only } from './conformance.ts'

const ADDRESS = '127.0.0.8'
const ROOT = resolve(import.meta.dirname, '..', '..')
const DEADLINE_MS = 60_000

describe.skipIf(!requirePart('dockerd', findOnPath('dockerd') !== null))('images', () => {
  let directory: string
  let daemon: Daemon
  let node: NodeSpec
  let driver: Driver
  const notes: string[] = []

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'pi-'))
    const docker = `tcp://${ADDRESS}:${await freePort(ADDRESS)}`
    daemon = await startDaemon({ directory: join(directory, 'docker'), hosts: [docker] })
    await importTestImage(daemon)
    const container = { memlock: 'default', ipc: 'private' }
    node = nodeSpec('bare', { address: ADDRESS, docker, container })
    driver = dockerDriver({
      ...{ node, simulatorImage: simulatorImage('test') },
      note: (line) => notes.push(line),
    })
  }, 120_000)
  afterEach(async () => {
    for (const { name } of await driver.list(never)) await driver.stop(name, 0, never)
  })
  afterAll(async () => {
    await driver?.close()
    await daemon?.stop()
    rmSync(directory, { recursive: true, force: true })
  }, 120_000)

  describe('the simulator', () => {
    const build = (root: string) =>
      buildSimulatorImage({ root, version: 'test', nodes: [node, node], signal: never })

    test('is imported once, and again only when its content changed', async () => {
      const root = join(directory, 'root')
      const files = ['package.json', 'runtimes', 'src', 'node_modules/zod']
      for (const path of files) cpSync(join(ROOT, path), join(root, path), { recursive: true })
      const first = await build(root)
      expect(first).toMatchObject({ built: ['bare'], kept: [], image: 'penstock/simulator:test' })
      expect(await build(root)).toEqual({ ...first, built: [], kept: ['bare'] })
      writeFileSync(join(root, 'runtimes', 'simulator', 'more.txt'), 'new')
      const changed = await build(root)
      expect(changed.built).toEqual(['bare'])
      expect(changed.hash).not.toBe(first.hash)
      const images = await daemon.docker.listImages({ all: true })
      expect(images.map((image) => image.RepoTags?.[0]).sort()).toEqual(
        ['penstock/simulator:test', TEST_IMAGE].sort(),
      )
    }, 120_000)

    test('runs the real command line, though this Docker knows no GPUs', async () => {
      await build(ROOT)
      const port = await freePort(ADDRESS)
      const serve = ['vllm', 'serve', 'Qwen/QwQ-32B', '--host', ADDRESS, '--port', String(port)]
      const spec = rankSpec({
        ...{ node: 'bare', name: 'penstock-qwq-0-0', image: 'never/pulled:1', gpus: [0, 1] },
        ...{ command: serve, rehearsal: { ...rehearsal('bare', [0, 1]), speed: 500 } },
        labels: { rank: 0, size: 1, port },
      })
      await driver.start(spec, never)
      expect(notes).toEqual(['node bare: no NVIDIA runtime; rehearsing without GPU requests'])
      await waitFor('the engine', DEADLINE_MS, async () => {
        expect(only(await driver.list(never)).error).toBeNull()
        return await answers(ADDRESS, port, never)
      })
      const gpus = await collect(driver.exec(spec.name, ['nvidia-smi', '-L'], never))
      expect(gpus).toHaveLength(2)
      await driver.stop(spec.name, 20_000, never)
    }, 120_000)

    test('no simulator below the root', async () => {
      const error = await failure(build(join(directory, 'nowhere')))
      expect(error.code).toBe('invalid_input')
    })
  })

  test('a real engine is not started without its GPUs', async () => {
    const base = { node: 'bare', name: 'penstock-qwq-0-1', image: TEST_IMAGE }
    const spec = rankSpec({ ...base, command: ['sh', '-c', FOREVER], gpus: [0] })
    const error = await failure(driver.start(spec, never))
    expect(error.code).toBe('container_refused')
    expect(errorLine(error)).toContain(
      'node bare, test-0, rank 1: Docker there has no NVIDIA runtime; install nvidia-container-toolkit',
    )
    expect(await driver.list(never)).toEqual([])
  })

  const registryThere = requirePart('docker-registry', findOnPath('docker-registry') !== null)
  describe.skipIf(!registryThere)('a pull', () => {
    let registry: ChildProcess
    let image: string
    const spec = (name: string) =>
      rankSpec({
        ...{ node: 'bare', name: 'penstock-pull-0-1', image: name },
        command: ['sh', '-c', FOREVER],
      })

    beforeAll(async () => {
      const port = await freePort(ADDRESS)
      const config = join(directory, 'registry.yml')
      const storage = `storage: { filesystem: { rootdirectory: ${join(directory, 'registry')} } }`
      writeFileSync(config, `version: 0.1\n${storage}\nhttp: { addr: "${ADDRESS}:${port}" }\n`)
      const command = findOnPath('docker-registry') ?? 'docker-registry'
      registry = spawn(command, ['serve', config], { stdio: 'ignore' })
      await waitFor('the registry', DEADLINE_MS, () => answers(ADDRESS, port, never))
      const repo = `${ADDRESS}:${port}/team/engine`
      image = `${repo}:1`
      await daemon.docker.getImage(TEST_IMAGE).tag({ repo, tag: '1' })
      const push = await daemon.docker.getImage(image).push({ authconfig: { key: 'e30=' } })
      await new Promise((done) => daemon.docker.modem.followProgress(push, done))
      await daemon.docker.getImage(image).remove()
      await daemon.docker.getImage(TEST_IMAGE).remove({ force: true })
    }, 120_000)
    afterAll(async () => {
      registry?.kill('SIGKILL')
    })

    test('an abort in the middle leaves nothing', async () => {
      const controller = new AbortController()
      const reason = new Error('Ctrl-C')
      const start = driver.start(spec(image), controller.signal, () => controller.abort(reason))
      await expect(start).rejects.toBe(reason)
      expect(await driver.list(never)).toEqual([])
    })

    test('tells how far it is, and only when the image is missing', async () => {
      const seen: PullProgress[] = []
      await driver.start(spec(image), never, (progress) => seen.push(progress))
      const ratios = seen.filter(({ phase }) => phase === 'pull').map(({ ratio }) => ratio ?? 0)
      expect(ratios.at(-1)).toBe(1)
      expect(ratios).toEqual([...ratios].sort((a, b) => a - b))
      expect(seen.at(-1)).toEqual({ phase: 'start', ratio: null })
      await driver.stop('penstock-pull-0-1', 0, never)
      const again: string[] = []
      await driver.start(spec(image), never, ({ phase }) => again.push(phase))
      expect(again).toEqual(['start'])
    })

    test('a tag, or a repository, that the registry does not have', async () => {
      const tag = await failure(driver.start(spec(image.replace(/1$/, '2')), never))
      expect(tag.code).toBe('image_missing')
      expect(errorLine(tag)).toContain('its registry has no such tag')
      const other = await failure(driver.start(spec(image.replace('engine', 'none')), never))
      expect(other.code).toBe('image_missing')
    })
  })
})
