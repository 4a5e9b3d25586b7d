/** A rank to run: a shell script in place of an engine. */
import { createServer } from 'node:net'
import { NodeSchema, type NodeSpec } from '../../src/core/inventory.ts'
import type { Labels, RankSpec, Rehearsal } from '../../src/core/runtime.ts'

export const nodeSpec = (name: string, settings: Record<string, unknown>): NodeSpec => ({
  ...NodeSchema.parse(settings),
  name,
})

export type RankAsk = {
  readonly node: string
  readonly name: string
  readonly image: string
  readonly command: readonly string[]
  readonly labels?: Partial<Labels>
} & Omit<Partial<RankSpec>, 'labels'>

export const rankSpec = ({ labels, ...ask }: RankAsk): RankSpec => ({
  environment: {},
  gpus: [],
  mounts: [],
  ipc: 'private',
  shmBytes: 16 * 1024 * 1024,
  memlock: 'default',
  privileged: false,
  capabilities: [],
  devices: [],
  stopGraceMs: 5000,
  rehearsal: null,
  ...ask,
  labels: {
    deployment: 'test',
    replica: 0,
    // Rank 0 would be asked whether its port is free; the tests of that say so.
    rank: 1,
    size: 2,
    specHash: 'hash-one',
    engine: 'vllm',
    node: ask.node,
    gpus: ask.gpus ?? [],
    port: 8100,
    rehearsal: false,
    ...labels,
  },
})

export const rehearsal = (node: string, gpus: readonly number[]): Rehearsal => ({
  node,
  gpus,
  gpuName: 'NVIDIA H20',
  memoryBytes: 96 * 1024 ** 3,
  bandwidthBytesPerSecond: 4e12,
  bf16Flops: 148e12,
  fp8Flops: 296e12,
  interconnectBytesPerSecond: 900e9,
  powerLimitWatts: 500,
  architecture: {
    weightBytes: 65_527_752_704,
    parameters: 32_763_876_352,
    hiddenSize: 5120,
    layers: 64,
    attentionHeads: 40,
    kvHeads: 8,
    headDimension: 128,
    vocabulary: 152_064,
    maxContext: 40_960,
    weightsType: 'bf16',
  },
  speed: 20,
})

/** A listening socket that holds a port until closed. */
export const holdPort = (
  address: string,
): Promise<{ readonly port: number; close(): Promise<void> }> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', reject)
    server.listen(0, address, () => {
      const bound = server.address()
      const port = typeof bound === 'object' && bound !== null ? bound.port : 0
      const close = (): Promise<void> => new Promise((done) => server.close(() => done()))
      resolve({ port, close })
    })
  })

export const freePort = async (address: string): Promise<number> => {
  const held = await holdPort(address)
  await held.close()
  return held.port
}
