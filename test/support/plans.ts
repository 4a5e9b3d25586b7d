/** Values for tests of the plan: profiles, nodes, deployments, and a fleet that obeys a plan. */

import { runtimes } from '../../runtimes/index.ts'
import { NodeSchema, type NodeSpec } from '../../src/core/inventory.ts'
import { type Deployment, DeploymentSchema } from '../../src/core/manifest.ts'
import type { Container, NodeObservation } from '../../src/core/observed.ts'
import type { Plan } from '../../src/core/plan.ts'
import { plan } from '../../src/core/planner.ts'
import { type GpuProfile, ProfileSchema } from '../../src/core/profile.ts'
import type { RankSpec } from '../../src/core/runtime.ts'

const MIB = 1024 ** 2

export const profileOf = (
  name: string,
  memoryMib: number,
  figures: { bandwidth?: number; bf16?: number; fp8?: number } = {},
): GpuProfile => {
  const figure = (value: number) => ({ value, source: 'test' })
  const { bandwidth = 4e12, bf16 = 148e12, fp8 = 296e12 } = figures
  return {
    name,
    ...ProfileSchema.parse({
      names: [`NVIDIA ${name.toUpperCase()}`],
      memoryBytes: figure(memoryMib * MIB),
      bandwidthBytesPerSecond: figure(bandwidth),
      bf16Flops: figure(bf16),
      ...(fp8 === 0 ? {} : { fp8Flops: figure(fp8) }),
      interconnectBytesPerSecond: figure(900e9),
      powerLimitWatts: figure(500),
    }),
  }
}

/** 97,871 MiB: what nvidia-smi shows for an H20 with 96 GB. */
export const H20 = profileOf('h20-96g', 97_871)
export const H20_141 = profileOf('h20-141g', 143_771)
export const A100 = profileOf('a100-80g', 81_920, { fp8: 0 })
export const L20 = profileOf('l20', 46_068)

export const PROFILES: ReadonlyMap<string, GpuProfile> = new Map(
  [H20, H20_141, A100, L20].map((profile) => [profile.name, profile]),
)

export const nodeOf = (name: string, settings: Record<string, unknown> = {}): NodeSpec => ({
  name,
  ...NodeSchema.parse({
    address: '10.0.0.11',
    gpus: { profile: 'h20-96g', count: 8 },
    fabric: { interface: 'bond0', hca: ['mlx5_0', 'mlx5_1'], gidIndex: 3 },
    weights: '/data/models',
    ...settings,
  }),
})

export const deploymentOf = (name: string, settings: Record<string, unknown> = {}): Deployment =>
  DeploymentSchema.parse({
    kind: 'Deployment',
    name,
    weights: { huggingface: 'Qwen/QwQ-32B' },
    engine: 'vllm',
    context: 32_768,
    ...settings,
  })

export const QWQ = deploymentOf('qwq-32b', { context: 65_536 })
export const R1 = deploymentOf('deepseek-r1', {
  weights: { huggingface: 'deepseek-ai/DeepSeek-R1', revision: 'main' },
  engine: 'sglang',
  parallel: { nodes: 2, tensor: 16 },
  context: 65_536,
})

/** The inventory of the README: one H20, and twice eight. */
export const THREE: readonly NodeSpec[] = [
  nodeOf('h20-1', { address: '10.0.0.11', gpus: { profile: 'h20-96g', count: 1 } }),
  nodeOf('h20-8a', { address: '10.0.0.21' }),
  nodeOf('h20-8b', { address: '10.0.0.22' }),
]

export const runningOf = (spec: RankSpec, changes: Partial<Container> = {}): Container => ({
  name: spec.name,
  labels: spec.labels,
  state: 'running',
  exitCode: null,
  startedAtMs: 1,
  error: null,
  ...changes,
})

export const observe = (
  nodes: readonly NodeSpec[],
  containers: readonly Container[] = [],
): readonly NodeObservation[] =>
  nodes.map(({ name }) => ({
    node: name,
    reachable: true,
    containers: containers.filter(({ labels }) => labels.node === name),
    readAtMs: 1,
  }))

export const unreachable = (
  observed: readonly NodeObservation[],
  node: string,
): readonly NodeObservation[] =>
  observed.map((one) =>
    one.node === node ? { ...one, reachable: false, reason: 'connect: no route to host' } : one,
  )

export const planOf = (
  nodes: readonly NodeSpec[],
  deployments: readonly Deployment[],
  observed: readonly NodeObservation[] = observe(nodes),
): Plan =>
  plan({
    desired: { inventory: { nodes }, deployments, profiles: PROFILES },
    observed,
    runtimes,
    options: { rehearsalSpeed: 1 },
  })

/** Containers of a fleet that has done what the plan says: all its replicas run, nothing else. */
export const applied = ({ deployments }: Plan): readonly Container[] =>
  deployments.flatMap(({ replicas }) =>
    replicas.flatMap(({ ranks }) => ranks.map((spec) => runningOf(spec))),
  )
