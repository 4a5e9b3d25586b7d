import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { NodeSpec } from '../../src/core/inventory.ts'
import { labelsToRecord } from '../../src/core/runtime.ts'
import { dockerDriver } from '../../src/drivers/docker.ts'
import { errorLine } from '../../src/errors.ts'
import { findOnPath, waitFor } from '../support/docker-daemon.ts'
import { LAB, type Lab, startLab, TEST_IMAGE } from '../support/docker-lab.ts'
import { requirePart } from '../support/parts.ts'
import { freePort, nodeSpec, rankSpec, rehearsal } from '../support/rank.ts'
import { collect, conformance, FOREVER, failure, never, only, type Rig } from './conformance.ts'

let lab: Lab
let port: number

const nodeOf = (index: number): NodeSpec => {
  const { name, address, gpus } = LAB[index] ?? LAB[0]
  return nodeSpec(name, {
    address,
    docker: `tcp://${address}:${port}`,
    gpus: { profile: 'h20-96g', count: gpus },
    container: { memlock: 'default', ipc: 'private' },
  })
}

const engineOf = (index: number) => {
  const engine = lab.engines[index]
  if (engine === undefined) throw new Error('the lab is not up')
  return engine
}

const open = (index: number) =>
  dockerDriver({ node: nodeOf(index), simulatorImage: TEST_IMAGE, hfToken: undefined })

const setup = (index: number) => async (): Promise<Rig> => {
  const { docker } = engineOf(index)
  const sleeper = { Image: TEST_IMAGE, Cmd: ['sleep', '1000'], HostConfig: { NetworkMode: 'host' } }
  return {
    node: nodeOf(index),
    image: TEST_IMAGE,
    open: () => open(index),
    foreign: async (name) => {
      const container = await docker.createContainer({ ...sleeper, name })
      await container.start()
      return async () => {
        const running = (await container.inspect()).State.Running
        await container.remove({ force: true })
        return running
      }
    },
    damaged: async (spec) => {
      const Labels = { ...labelsToRecord(spec.labels), 'dev.penstock.rank': 'first' }
      const container = await docker.createContainer({ ...sleeper, name: spec.name, Labels })
      return () => container.remove({ force: true })
    },
    close: async () => undefined,
  }
}

describe.skipIf(!requirePart('dockerd', findOnPath('dockerd') !== null))('docker driver', () => {
  beforeAll(async () => {
    port = await freePort('127.0.0.2')
    lab = await startLab(mkdtempSync(join(tmpdir(), 'pl-')), port)
  }, 120_000)
  afterAll(async () => {
    await lab?.stop()
  }, 120_000)

  for (const [index, { name }] of LAB.entries()) conformance(`on ${name}`, setup(index))

  describe('what the container gets', () => {
    test('the GPUs of its indices, also in rehearsal', async () => {
      const driver = open(1)
      for (const rehearsed of [null, rehearsal('h20-8a', [2, 3])]) {
        const command = ['sh', '-c', FOREVER]
        const spec = rankSpec({
          ...{ node: 'h20-8a', name: 'penstock-gpus-0-0', image: TEST_IMAGE, command },
          ...{ gpus: [2, 3], rehearsal: rehearsed },
          labels: { specHash: `hash-${rehearsed === null}` },
        })
        await driver.start(spec, never)
        // Process 1, not an exec: Docker gives that only what the image and we have set.
        const show = ['sh', '-c', 'tr "\\0" "\\n" < /proc/1/environ']
        const environment = await collect(driver.exec(spec.name, show, never))
        expect(environment).toContain('NVIDIA_VISIBLE_DEVICES=2,3')
        const given = environment.find((line) => line.startsWith('PENSTOCK_REHEARSAL='))
        expect(given?.slice('PENSTOCK_REHEARSAL='.length)).toEqual(
          rehearsed === null ? undefined : JSON.stringify(rehearsed),
        )
        await driver.stop(spec.name, 2000, never)
      }
    })

    test('mounts, shared memory, capabilities, environment, the host network', async () => {
      const driver = open(0)
      const directory = mkdtempSync(join(tmpdir(), 'penstock-mount-'))
      const spec = rankSpec({
        ...{ node: 'h20-1', name: 'penstock-all-0-0', image: TEST_IMAGE },
        command: ['sh', '-c', `echo from inside > /out/file; ${FOREVER}`],
        mounts: [{ host: directory, inside: '/out', readOnly: false }],
        capabilities: ['IPC_LOCK'],
        shmBytes: 32 * 1024 * 1024,
        devices: ['/dev/fuse'],
      })
      const { docker } = engineOf(0)
      await driver.start({ ...spec, devices: [] }, never)
      const { HostConfig } = await docker.getContainer(spec.name).inspect()
      expect(HostConfig).toMatchObject({
        NetworkMode: 'host',
        ShmSize: 32 * 1024 * 1024,
        Init: true,
      })
      expect(HostConfig.CapAdd).toHaveLength(1)
      expect(await collect(driver.exec(spec.name, ['cat', '/out/file'], never))).toEqual([
        'from inside',
      ])
      await driver.stop(spec.name, 2000, never)
      rmSync(directory, { recursive: true })
    })
  })

  describe('failures, in one line', () => {
    const spec = (over: object) =>
      rankSpec({
        ...{ node: 'h20-1', name: 'penstock-bad-0-0', image: TEST_IMAGE, command: ['sleep', '9'] },
        labels: { deployment: 'qwq', rank: 0, port: 8177 },
        ...over,
      })
    const where = 'node h20-1, qwq-0, rank 0: '

    test('no such image, and no registry to pull it from', async () => {
      const bad = spec({ image: '127.0.0.2:9/team/none:1' })
      const error = await failure(open(0).start(bad, never))
      expect(error.code).toBe('image_missing')
      expect(errorLine(error)).toContain(
        `${where}image 127.0.0.2:9/team/none:1: its registry cannot`,
      )
      expect(await open(0).list(never)).toEqual([])
    })

    test('no simulator image', async () => {
      const driver = dockerDriver({ node: nodeOf(0), simulatorImage: 'penstock/simulator:none' })
      const error = await failure(driver.start(spec({ rehearsal: rehearsal('h20-1', []) }), never))
      expect(errorLine(error)).toBe(
        `${where}image penstock/simulator:none is not on this node; run \`penstock simulator-image\``,
      )
    })

    test('a ulimit that the engine may not set', async () => {
      const error = await failure(open(0).start(spec({ memlock: 'unlimited' }), never))
      expect(error.code).toBe('container_refused')
      expect(errorLine(error)).toContain(`${where}the engine may not set ulimit`)
      expect(errorLine(error)).toContain('container: { memlock: default }')
      expect(await open(0).list(never)).toEqual([])
    })

    test('a device that is not there', async () => {
      const error = await failure(open(0).start(spec({ devices: ['/dev/infiniband'] }), never))
      expect(errorLine(error)).toContain(`${where}a device of \`container.devices\` is missing`)
    })

    test('a daemon that is away, a socket that is not there', async () => {
      const away = { ...nodeOf(0), docker: 'tcp://127.0.0.2:9' }
      const error = await failure(dockerDriver({ node: away, simulatorImage: 'x' }).list(never))
      expect(error.code).toBe('node_unreachable')
      expect(errorLine(error)).toBe(
        'node h20-1: Docker at tcp://127.0.0.2:9: nothing listens there; is dockerd running?',
      )
      const socket = { ...nodeOf(0), docker: 'unix:///nowhere/docker.sock' }
      const other = await failure(dockerDriver({ node: socket, simulatorImage: 'x' }).facts(never))
      expect(errorLine(other)).toContain('there is no such socket')
    })
  })

  describe('the daemon dies', () => {
    test('in the middle of a follow: said, and found again when it is back', async () => {
      const driver = open(2)
      const command = ['sh', '-c', 'while :; do echo tick; sleep 0.2; done']
      const spec = rankSpec({
        ...{ node: 'h20-8b', name: 'penstock-live-0-0', image: TEST_IMAGE, command },
      })
      await driver.start(spec, never)
      const seen: string[] = []
      const followed = (async (): Promise<string> => {
        for await (const line of driver.follow(spec.name, 1, never)) seen.push(line)
        return 'ended'
      })().catch((error: unknown) => errorLine(error))
      await waitFor('a line', 20_000, async () => seen.length > 0)
      await engineOf(2).kill()
      expect(await followed).toMatch(/^(ended|node h20-8b: Docker at .* the connection broke.*)$/)
      const error = await failure(driver.list(never))
      expect(error.code).toBe('node_unreachable')
      await engineOf(2).start()
      expect(only(await driver.list(never)).name).toBe(spec.name)
      await driver.start(spec, never)
      expect(only(await driver.list(never)).state).toBe('running')
      await driver.stop(spec.name, 300, never)
    })
  })
})
