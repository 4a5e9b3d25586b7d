import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { labelsFromRecord, labelsToRecord, specHash } from '../../src/core/runtime.ts'
import { rankOf, ranksOf } from '../support/launches.ts'
import { deploymentOf, nodeOf, planOf, QWQ, R1, THREE } from '../support/plans.ts'

describe('what a driver gets', () => {
  it('names, GPUs and labels of both ranks of R1', () => {
    const [leader, follower] = ranksOf(THREE, R1)
    expect(leader).toMatchObject({
      name: 'penstock-deepseek-r1-0-0',
      node: 'h20-8a',
      gpus: [0, 1, 2, 3, 4, 5, 6, 7],
      ipc: 'host',
      shmBytes: 32 * 1024 ** 3,
      memlock: 'unlimited',
      privileged: false,
      rehearsal: null,
    })
    expect(follower?.labels).toEqual({
      deployment: 'deepseek-r1',
      replica: 0,
      rank: 1,
      size: 2,
      specHash: leader?.labels.specHash,
      engine: 'sglang',
      node: 'h20-8b',
      gpus: [0, 1, 2, 3, 4, 5, 6, 7],
      // The engine's HTTP port on the node of rank 0, on every rank.
      port: 8100,
      rehearsal: false,
    })
    expect(labelsFromRecord(labelsToRecord(leader?.labels ?? fail()))).toEqual(leader?.labels)
  })

  it('RDMA devices and pinned memory for groups on a fabric with adapters, for nobody else', () => {
    expect(rankOf(THREE, R1)).toMatchObject({
      devices: ['/dev/infiniband'],
      capabilities: ['IPC_LOCK'],
    })
    expect(rankOf(THREE.slice(1), QWQ)).toMatchObject({ devices: [], capabilities: [] })
    const plain = ['a', 'b'].map((name) => nodeOf(name, { fabric: { interface: 'eth0' } }))
    const spec = rankOf(plain, R1)
    expect(spec).toMatchObject({ devices: [], capabilities: [] })
    expect(spec.environment.NCCL_SOCKET_IFNAME).toBe('eth0')
    expect(spec.environment.NCCL_IB_HCA).toBeUndefined()
  })

  it("the machine's container settings", () => {
    const container = {
      privileged: true,
      memlock: 'default',
      ipc: 'private',
      shm: '512MiB',
      devices: ['/dev/gdrdrv'],
    }
    expect(rankOf([nodeOf('a', { container })], QWQ)).toMatchObject({
      privileged: true,
      memlock: 'default',
      ipc: 'private',
      shmBytes: 512 * 1024 ** 2,
      devices: ['/dev/gdrdrv'],
    })
  })

  it('a port for each replica on a node, by its lowest GPU', () => {
    const plan = planOf([nodeOf('a', { ports: { http: 9000 } })], [{ ...QWQ, replicas: 3 }])
    const replicas = plan.deployments[0]?.replicas ?? []
    expect(replicas.map(({ endpoint }) => endpoint)).toEqual([
      'http://10.0.0.11:9000',
      'http://10.0.0.11:9001',
      'http://10.0.0.11:9002',
    ])
  })

  it('binds `listen`, is reached at `address`; IPv6 in brackets', () => {
    const node = nodeOf('a', { address: 'fd00::1', listen: '0.0.0.0' })
    const [replica] = planOf([node], [QWQ]).deployments[0]?.replicas ?? []
    expect(replica?.endpoint).toBe('http://[fd00::1]:8100')
    expect(replica?.ranks[0]?.command.join(' ')).toContain('--host 0.0.0.0 --port 8100')
  })

  it('the rehearsal of a node that rehearses', () => {
    const nodes = THREE.map((node) => ({ ...node, rehearse: true }))
    const spec = rankOf(nodes, R1, 1)
    expect(spec.rehearsal).toMatchObject({
      node: 'h20-8b',
      gpus: [0, 1, 2, 3, 4, 5, 6, 7],
      gpuName: 'NVIDIA H20-96G',
      memoryBytes: 97_871 * 1024 ** 2,
      bandwidthBytesPerSecond: 4e12,
      fp8Flops: 296e12,
      speed: 1,
      architecture: { layers: 61, latentDimension: 576 },
    })
    expect(spec.labels.rehearsal).toBe(true)
    // The very command line of the real engine.
    expect(spec.command).toEqual(rankOf(THREE, R1, 1).command)
    expect(spec.rehearsal).not.toHaveProperty('asVersion')
    const older = rankOf(nodes, { ...R1, rehearseAs: '0.5.6' }, 1)
    expect(older.rehearsal).toMatchObject({ asVersion: '0.5.6' })
    expect(older.command).toEqual(spec.command)
  })
})

describe('the hash', () => {
  const hashOf = (settings: Record<string, unknown>, node: Record<string, unknown> = {}) =>
    rankOf([nodeOf('a', node)], deploymentOf('qwq', settings)).labels.specHash

  it('is the same for the same, whatever the order of the keys', () => {
    const spec = rankOf(THREE, QWQ)
    const { labels, ...bare } = spec
    expect(specHash([bare])).toBe(labels.specHash)
    const turned = Object.fromEntries(Object.entries(bare).toReversed())
    expect(specHash([{ ...bare, ...turned }])).toBe(labels.specHash)
    expect(hashOf({})).toBe(hashOf({ readyTimeout: '60m', drainTimeout: '1m' }))
  })

  it.each([
    ['image', { image: 'vllm/vllm-openai:v0.30.0@sha256:00' }, {}],
    ['context', { context: 16_384 }, {}],
    ['an argument', { extraArguments: ['--seed', '1'] }, {}],
    ['a variable', { environment: { NCCL_DEBUG: 'INFO' } }, {}],
    ['memoryFraction', { memoryFraction: 0.9 }, {}],
    ['the port', {}, { ports: { http: 9000 } }],
    ['the address', {}, { address: '10.0.0.12' }],
    ['a mount', {}, { weights: '/elsewhere' }],
    ['a container setting', {}, { container: { privileged: true } }],
    ['rehearsal', {}, { rehearse: true }],
  ])('differs with %s', (_, settings, node) => {
    expect(hashOf(settings, node)).not.toBe(hashOf({}))
  })

  it('what does not change the ranks does not change it: replicas, drainTimeout', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 99 }), (count, s) => {
        const settings = { replicas: count, drainTimeout: `${s}s` }
        expect(hashOf(settings)).toBe(hashOf({}))
      }),
      { numRuns: 20 },
    )
  })
})

const fail = (): never => {
  throw new Error('a rank is missing')
}
