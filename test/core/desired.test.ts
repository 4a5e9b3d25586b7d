import { describe, expect, test } from 'vitest'
import { type Finding, findings, gatewayOf, type Parts } from '../../src/core/desired.ts'
import { GatewaySchema } from '../../src/core/gateway-manifest.ts'
import { InventorySchema } from '../../src/core/inventory.ts'
import { DeploymentSchema } from '../../src/core/manifest.ts'
import type { GpuProfile } from '../../src/core/profile.ts'

const figure = { value: 1, source: 'test', verified: true }
const H20: GpuProfile = {
  name: 'h20-96g',
  names: ['NVIDIA H20'],
  memoryBytes: figure,
  bandwidthBytesPerSecond: figure,
  bf16Flops: figure,
  interconnectBytesPerSecond: figure,
  powerLimitWatts: figure,
}

const GPUS = { gpus: { profile: 'h20-96g', count: 8 } }

const inventory = (nodes: Readonly<Record<string, unknown>>) => ({
  document: 0,
  value: {
    nodes: Object.entries(InventorySchema.parse({ nodes }).nodes).map(([name, node]) => ({
      name,
      ...node,
    })),
  },
})

const deployment = (more: Readonly<Record<string, unknown>> = {}) =>
  DeploymentSchema.parse({
    kind: 'Deployment',
    name: 'qwq',
    weights: { huggingface: 'Qwen/QwQ-32B' },
    engine: 'vllm',
    context: 32_768,
    ...more,
  })

const gateway = (...routes: readonly unknown[]) => GatewaySchema.parse({ kind: 'Gateway', routes })

type Given = {
  readonly nodes?: Readonly<Record<string, unknown>>
  readonly deployments?: readonly ReturnType<typeof deployment>[]
  readonly gateways?: readonly ReturnType<typeof gateway>[]
}

/** Document 0 is the inventory, then the deployments, then the gateways. */
const parts = ({ nodes, deployments = [deployment()], gateways = [] }: Given): Parts => {
  const declared = nodes ?? { a: { address: 'a', ...GPUS }, b: { address: 'b', ...GPUS } }
  const first = deployments.length + 1
  return {
    inventory: inventory(declared),
    deployments: deployments.map((value, index) => ({ document: index + 1, value })),
    gateways: gateways.map((value, index) => ({ document: first + index, value })),
    nodeNames: new Set(Object.keys(declared)),
    deploymentNames: deployments.map(({ name }, index) => ({ document: index + 1, value: name })),
    profiles: new Map([['h20-96g', H20]]),
  }
}

const shown = ({ document, path, message, other }: Finding): string =>
  `${document} ${path.join('.')}: ${message}${other === undefined ? '' : ` @${other.document}`}`

const found = (given: Given): string[] => findings(parts(given)).map(shown)

describe('nodes', () => {
  test('whole ones', () => expect(found({})).toEqual([]))

  test('two with one address, unless both are loopback or processes', () => {
    const pair = (first: object, second: object) =>
      found({ nodes: { a: { ...GPUS, ...first }, b: { ...GPUS, ...second } } })
    expect(pair({ address: 'H' }, { address: 'h' })).toEqual([
      '0 nodes.b.address: node a has the address h too @0',
    ])
    const process = { driver: 'process' }
    expect(pair({ address: 'h', ...process }, { address: 'h' })).toHaveLength(1)
    expect(pair({ address: 'h', ...process }, { address: 'h', ...process })).toEqual([])
    expect(pair({ address: '127.0.0.1' }, { address: '127.0.0.1' })).toEqual([])
    expect(pair({ address: '::1' }, { address: '::1', ...process })).toEqual([])
  })

  test('device and gpus contradict each other', () => {
    expect(found({ nodes: { a: { address: 'a', device: 'cpu', ...GPUS } } })).toEqual([
      '0 nodes.a.gpus: a node with device: cpu has no gpus',
    ])
    expect(found({ nodes: { a: { address: 'a', device: 'cpu' } } })).toEqual([])
    expect(found({ nodes: { a: { address: 'a' } } })).toEqual([
      expect.stringContaining('0 nodes.a.gpus: missing: expected profile and count'),
    ])
  })

  test('profiles', () => {
    const one = (profile: string) =>
      found({ nodes: { a: { address: 'a', gpus: { profile, count: 1 } } } })
    expect(one('h20-96')).toEqual([
      '0 nodes.a.gpus.profile: no such GPU profile "h20-96" (did you mean "h20-96g"?)',
    ])
    expect(one('constructor')).toEqual([
      '0 nodes.a.gpus.profile: no such GPU profile "constructor"; known: h20-96g',
    ])
  })

  test('tls belongs to tcp', () => {
    const tls = { ca: 'a', cert: 'b', key: 'c' }
    const node = (docker: string) => ({ a: { address: 'a', tls, docker, ...GPUS } })
    expect(found({ nodes: node('tcp://a:2376') })).toEqual([])
    expect(found({ nodes: node('ssh://ops@a') })).toEqual([
      '0 nodes.a.tls: only for a tcp:// endpoint, docker is ssh://ops@a',
    ])
  })
})

describe('deployments', () => {
  const one = (more: Readonly<Record<string, unknown>>) =>
    found({ deployments: [deployment(more)] })

  test('a name used twice, and once more', () => {
    const same = deployment()
    expect(found({ deployments: [same, same, same] })).toEqual([
      '2 name: another deployment qwq is declared @1',
      '3 name: another deployment qwq is declared @1',
    ])
  })

  test.each([
    [{ nodes: 2, tensor: 16, pipeline: 1 }, []],
    [{ nodes: 2, tensor: 8, pipeline: 2 }, []],
    [
      { nodes: 3, tensor: 8, pipeline: 2 },
      ['1 parallel.nodes: 3 nodes cannot share tensor × pipeline = 16 GPUs evenly'],
    ],
    [
      { nodes: 1, tensor: 3, pipeline: 1 },
      ['1 parallel.tensor: 128 attention heads cannot be split over 3 GPUs evenly'],
    ],
    [
      { nodes: 1, tensor: 1, pipeline: 62 },
      ['1 parallel.pipeline: the model has 61 layers, fewer than 62 stages'],
    ],
  ])('R1 over %j', (parallel, expected) => {
    expect(one({ weights: { huggingface: 'deepseek-ai/DeepSeek-R1' }, parallel })).toEqual(expected)
  })

  test('nodes: unknown, twice, too few', () => {
    expect(one({ nodes: ['a', 'b'] })).toEqual([])
    expect(one({ nodes: ['a', 'c', 'a'] })).toEqual([
      '1 nodes.1: no node c in the inventory (did you mean "a"?)',
      '1 nodes.2: node a is listed twice',
    ])
    expect(one({ nodes: ['a'], parallel: { nodes: 2, tensor: 2 } })).toEqual([
      '1 nodes: 1 listed, but parallel.nodes asks for 2',
    ])
  })

  test('a context that the model was not made for', () => {
    expect(one({ context: 131_072 })).toEqual([])
    expect(one({ context: 131_073 })).toEqual([
      '1 context: the model was made for at most 131072 tokens, got 131073',
    ])
  })

  test('a model of unknown shape', () => {
    expect(one({ weights: { huggingface: 'acme/model' } })).toEqual([
      '1 weights.huggingface: the shape of acme/model is not known here: add an architecture',
    ])
    expect(one({ weights: { modelscope: 'Qwen/QwQ-32b' } })).toEqual([
      expect.stringContaining('1 weights.modelscope: the shape of Qwen/QwQ-32b is not known'),
    ])
    expect(one({ weights: { path: '/models/x' } })).toEqual([
      '1 weights.path: the shape of /models/x is not known here: add an architecture',
    ])
  })
})

describe('gateway', () => {
  const routes = (...given: readonly unknown[]) => found({ gateways: [gateway(...given)] })

  test('none, or one without routes: a route for each deployment', () => {
    const two = [deployment(), deployment({ name: 'r1' })]
    expect(gatewayOf(null, two)).toMatchObject({
      routes: [
        { model: 'qwq', to: 'qwq', limits: [], stallTimeout: 300_000 },
        { model: 'r1', to: 'r1' },
      ],
      maxBody: 32 * 1024 * 1024,
    })
    const quiet = { ...gateway(), keepAlive: 1 }
    expect(gatewayOf(quiet, two)).toMatchObject({ keepAlive: 1, routes: [{}, { model: 'r1' }] })
    const own = gateway({ model: 'm', to: 'qwq' })
    expect(gatewayOf(own, two)).toBe(own)
  })

  test('two of them', () => {
    expect(found({ gateways: [gateway(), gateway()] })).toEqual([
      '3 kind: another document of kind Gateway is declared @2',
    ])
  })

  test('routes to nowhere, and one model twice', () => {
    expect(
      routes({ model: 'm', to: 'qwq' }, { model: 'm', to: 'qwp' }, { model: 'n', to: 'elsewhere' }),
    ).toEqual([
      '2 routes.1.to: no deployment or backend qwp in the manifests (did you mean "qwq"?)',
      '2 routes.2.to: no deployment or backend elsewhere in the manifests',
      '2 routes.1.model: another route has the model "m" @2',
    ])
  })

  test('spillover to itself and to nowhere', () => {
    const spill = (to: string) =>
      routes({ model: 'm', to: 'qwq', spillover: { to, on: ['tokens'] } })
    expect(spill('qwq')).toEqual([
      '2 routes.0.spillover.to: a route cannot spill to its own deployment',
    ])
    expect(spill('r1')).toEqual([
      '2 routes.0.spillover.to: no deployment or backend r1 in the manifests',
    ])
  })

  test('a limit that limits nothing', () => {
    expect(routes({ model: 'm', to: 'qwq', limits: [{ per: 'key' }] })).toEqual([
      '2 routes.0.limits.0: limits nothing: expected an amount, such as tokensPerMinute or concurrent',
    ])
    expect(routes({ model: 'm', to: 'qwq', limits: [{ per: 'ip', concurrent: 3 }] })).toEqual([])
  })
})

describe('what could not be read', () => {
  test('nothing is called unknown that may stand there', () => {
    const whole = parts({
      deployments: [deployment({ nodes: ['elsewhere'] })],
      gateways: [gateway({ model: 'm', to: 'elsewhere' })],
    })
    expect(findings(whole)).toHaveLength(2)
    expect(findings({ ...whole, nodeNames: null, deploymentNames: null })).toEqual([])
    expect(findings({ ...whole, nodeNames: null })).toHaveLength(1)
  })

  test('many unknown names among many known ones do not take long to judge', () => {
    const known = Array.from({ length: 10_000 }, (_, index) => `deployment-number-${index}`)
    const to = Array.from({ length: 10_000 }, (_, index) => `deployment-nomber-${index}`)
    const whole = parts({ gateways: [gateway(...to.map((name) => ({ model: name, to: name })))] })
    const names = known.map((value) => ({ document: 1, value }))
    const all = findings({ ...whole, deploymentNames: names })
    expect(all).toHaveLength(10_000)
    expect(all.filter(({ message }) => message.includes('did you mean'))).toHaveLength(20)
  })
})
