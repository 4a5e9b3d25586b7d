/** Values for tests of the control side: a planned replica of any size and its containers. */
import type { Container } from '../../src/core/observed.ts'
import type { PlannedReplica } from '../../src/core/plan.ts'
import type { Labels, RankSpec } from '../../src/core/runtime.ts'

export type ReplicaOptions = {
  readonly deployment?: string
  readonly replica?: number
  readonly nodes?: readonly string[]
  readonly specHash?: string
  readonly endpoint?: string
  readonly engine?: string
}

export const plannedReplica = (options: ReplicaOptions = {}): PlannedReplica => {
  const { deployment = 'deepseek-r1', replica = 0, nodes = ['a', 'b'], specHash = 'h1' } = options
  const { endpoint = 'http://127.0.0.1:1', engine = 'sglang' } = options
  const ranks = nodes.map((node, rank): RankSpec => {
    const labels: Labels = {
      deployment,
      replica,
      rank,
      size: nodes.length,
      specHash,
      engine,
      node,
      gpus: [0],
      port: 8100,
      rehearsal: true,
    }
    return {
      name: `penstock-${deployment}-${replica}-${rank}`,
      node,
      image: 'image:1',
      command: ['engine'],
      environment: {},
      gpus: [0],
      mounts: [],
      ipc: 'private',
      shmBytes: 0,
      memlock: 'default',
      privileged: false,
      capabilities: [],
      devices: [],
      stopGraceMs: 30_000,
      labels,
      rehearsal: null,
    }
  })
  return {
    id: `${deployment}/${replica}`,
    deployment,
    replica,
    ranks,
    specHash,
    endpoint,
    reason: 'test',
    rejected: [],
  }
}

export const containersOf = (
  want: PlannedReplica,
  change: (rank: number) => Partial<Container> | null = () => ({}),
): readonly Container[] =>
  want.ranks.flatMap((spec): readonly Container[] => {
    const changes = change(spec.labels.rank)
    if (changes === null) return []
    return [
      {
        name: spec.name,
        labels: spec.labels,
        state: 'running',
        exitCode: null,
        startedAtMs: 1,
        error: null,
        ...changes,
      },
    ]
  })
