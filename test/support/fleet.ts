/** A fleet as an operator has it: QwQ-32B on one H20, DeepSeek-R1 across two nodes of eight. */
import type { Series } from '../../src/core/admin.ts'
import type { Fit } from '../../src/core/fit.ts'
import type { FinishedRequest } from '../../src/core/snapshot.ts'
import type {
  DeploymentView,
  FleetView,
  GpuView,
  NodeView,
  RankView,
  ReplicaView,
} from '../../src/core/view.ts'

const GIB = 1024 ** 3
const NAME = 'NVIDIA H20'

export const gpu = (index: number, changes: Partial<GpuView> = {}): GpuView => ({
  index,
  uuid: `GPU-5d0c1f7e-0000-4000-8000-${String(index).padStart(12, '0')}`,
  name: NAME,
  utilizationRatio: 0.9 + (index % 8) / 100,
  memoryUsedBytes: 88.4 * GIB + index * 0.1 * GIB,
  memoryTotalBytes: 95.6 * GIB,
  powerWatts: 381 + index * 4,
  temperatureCelsius: 58 + (index % 8),
  ageMs: 800,
  ...changes,
})

const eight = (holder: string): Record<string, string> =>
  Object.fromEntries(Array.from({ length: 8 }, (_, index) => [String(index), holder]))

export const node = (name: string, changes: Partial<NodeView> = {}): NodeView => ({
  name,
  address: '10.0.0.11',
  driver: 'docker',
  rehearsal: false,
  reachable: true,
  reason: '',
  ageMs: 900,
  facts: { engine: 'Docker Engine 28.2.2', hostname: name, cpus: 192, memoryBytes: 2048 * GIB },
  profile: 'h20-96g',
  gpuCount: 1,
  allocated: { 0: 'qwq-32b/0' },
  gpus: [gpu(0)],
  ...changes,
})

export const rank = (number: number, on: string, changes: Partial<RankView> = {}): RankView => ({
  rank: number,
  node: on,
  gpus: [0, 1, 2, 3, 4, 5, 6, 7],
  container: `penstock-deepseek-r1-0-${number}`,
  state: 'running',
  exitCode: null,
  phase: 'ready',
  phaseRatio: null,
  error: null,
  ...changes,
})

const reading = (value: number) => ({ value, ageMs: 1200 })

export const replica = (id: string, changes: Partial<ReplicaView> = {}): ReplicaView => ({
  id,
  state: 'ready',
  sinceMs: 1_790_000_000_000 - 3 * 3_600_000,
  reason: 'answers and passed its smoke test',
  endpoint: 'http://10.0.0.11:8100',
  restarts: 0,
  inFlight: 38,
  breaker: 'closed',
  ceiling: 64,
  saturation: 0.73,
  ranks: [rank(0, 'h20-1', { gpus: [0], container: 'penstock-qwq-32b-0-0' })],
  signals: {
    requestsRunning: reading(36),
    requestsWaiting: reading(2),
    kvCacheUsageRatio: reading(0.62),
    kvCapacityTokens: reading(88_064),
  },
  promptTokensPerSecond: 5240,
  generationTokensPerSecond: 912,
  ...changes,
})

export const sampleFit = (changes: Partial<Fit> = {}): Fit => ({
  ok: true,
  profile: 'h20-96g',
  parallel: { nodes: 1, tensor: 1, pipeline: 1 },
  context: 32_768,
  memoryBytes: 96 * GIB,
  memoryFraction: 0.9,
  budgetBytes: 86.4 * GIB,
  weightsBytesPerGpu: 61 * GIB,
  overheadBytesPerGpu: 3 * GIB,
  overhead: [{ what: 'activations and CUDA graphs', bytes: 3 * GIB }],
  kvBytesPerGpu: 22 * GIB,
  kvBytesPerTokenPerGpu: 262_144,
  kvPoolTokens: 90_112,
  fullContextRequests: 2.75,
  reasons: [],
  remedies: [],
  ...changes,
})

export const deployment = (
  name: string,
  changes: Partial<DeploymentView> = {},
): DeploymentView => ({
  name,
  engine: 'vllm',
  weights: 'Qwen/QwQ-32B',
  context: 32_768,
  replicasWanted: 1,
  removed: false,
  fit: sampleFit(),
  refusals: [],
  waiting: 3,
  saturation: 1.08,
  replicas: [replica(`${name}/0`)],
  ...changes,
})

const r1 = (): DeploymentView =>
  deployment('deepseek-r1', {
    engine: 'sglang',
    weights: 'deepseek-ai/DeepSeek-R1',
    context: 65_536,
    fit: sampleFit({
      parallel: { nodes: 2, tensor: 16, pipeline: 1 },
      context: 65_536,
      weightsBytesPerGpu: 41.9 * GIB,
      kvPoolTokens: 536_000,
      fullContextRequests: 8.17,
    }),
    replicas: [
      replica('deepseek-r1/0', {
        endpoint: 'http://10.0.0.21:8100',
        restarts: 1,
        inFlight: 61,
        ranks: [rank(0, 'h20-8a'), rank(1, 'h20-8b')],
        signals: {
          requestsRunning: reading(48),
          requestsWaiting: reading(13),
          kvCacheUsageRatio: reading(0.91),
          kvCapacityTokens: reading(518_400),
        },
        promptTokensPerSecond: 9120,
        generationTokensPerSecond: 1484,
      }),
    ],
  })

export const fleet = (nowMs: number, changes: Partial<FleetView> = {}): FleetView => {
  const gpus = Array.from({ length: 8 }, (_, index) => gpu(index))
  const many = { gpuCount: 8, gpus, allocated: eight('deepseek-r1/0') }
  return {
    version: '0.1.0',
    rehearsal: false,
    rehearsalSpeed: 20,
    nowMs,
    generation: 7,
    config: { problem: null, broken: false, reloads: 0, failures: 0, reloadedAtMs: null },
    gateway: {
      ...{ url: 'http://localhost:8080', threads: 15, inFlight: 99 },
      limits: { overflows: 0, redis: null },
    },
    nodes: [
      node('h20-1'),
      node('h20-8a', { address: '10.0.0.21', ...many }),
      node('h20-8b', { address: '10.0.0.22', ...many }),
    ],
    deployments: [
      r1(),
      deployment('qwq-32b', { replicas: [replica('qwq-32b/0', { sinceMs: nowMs - 7_980_000 })] }),
    ],
    routes: [
      { model: 'deepseek-r1', to: 'deepseek-r1' },
      { model: 'qwq-32b', to: 'qwq-32b' },
    ],
    ...changes,
  }
}

export const request = (
  id: string,
  acceptedAtMs: number,
  changes: Partial<FinishedRequest> = {},
): FinishedRequest => ({
  id,
  acceptedAtMs,
  path: '/v1/chat/completions',
  consumer: 'search-team',
  key: 'key_1',
  modelAsked: 'qwq-32b',
  modelServed: 'qwq-32b',
  deployment: 'qwq-32b',
  replica: 'qwq-32b/0',
  stream: true,
  status: 200,
  outcome: 'ok',
  reason: 'stop',
  promptTokens: 812,
  completionTokens: 1934,
  cachedTokens: 256,
  reasoningTokens: 1500,
  ttftMs: 431,
  durationMs: 61_250,
  ...changes,
})

const asR1 = { modelAsked: 'deepseek-r1', modelServed: 'deepseek-r1', deployment: 'deepseek-r1' }

/** Newest first, one of each way to end. */
export const requests = (nowMs: number, count = 24): readonly FinishedRequest[] => {
  const kinds: readonly Partial<FinishedRequest>[] = [
    { ...asR1, replica: 'deepseek-r1/0', consumer: 'research', promptTokens: 3120, ttftMs: 1210 },
    {},
    { consumer: 'it-desk', reason: 'length', completionTokens: 4096, durationMs: 128_400 },
    {
      ...asR1,
      replica: null,
      modelServed: null,
      status: 429,
      outcome: 'refused',
      reason: 'rate_limit_exceeded',
      promptTokens: null,
      completionTokens: null,
      ttftMs: null,
      durationMs: 1,
    },
    { outcome: 'client_gone', reason: 'client_gone', status: 499, completionTokens: 211 },
    {
      ...asR1,
      replica: 'deepseek-r1/0',
      outcome: 'interrupted',
      status: 502,
      reason: 'stream_interrupted',
      completionTokens: 77,
    },
  ]
  return Array.from({ length: count }, (_, index) =>
    request(`req-${index}`, nowMs - 4000 - index * 7300, kinds[index % kinds.length]),
  )
}

/** An hour in steps of ten seconds to `last`, with a gap of three minutes, which must stay one. */
export const history = (nowMs: number): readonly Series[] => {
  const shape = (step: number): number => Math.sin(step / 19) * 0.6 + Math.sin(step / 5.3) * 0.25
  const series = (name: string, of: string, last: number, swing: number): Series => {
    const shift = of.startsWith('q') ? 40 : 0
    const base = last - swing * shape(359 + shift)
    const most = name === 'kvCacheUsageRatio' ? 0.98 : Number.POSITIVE_INFINITY
    const points = Array.from({ length: 360 }, (_, step): readonly [number, number] => [
      nowMs - (359 - step) * 10_000,
      Math.min(most, Math.max(0, base + swing * shape(step + shift))),
    ])
    return {
      name,
      labels: { replica: of },
      points: points.filter((_, step) => step < 150 || step > 168),
    }
  }
  return [
    series('kvCacheUsageRatio', 'deepseek-r1/0', 0.91, 0.24),
    series('kvCacheUsageRatio', 'qwq-32b/0', 0.62, 0.2),
    series('requestsRunning', 'deepseek-r1/0', 48, 14),
    series('requestsRunning', 'qwq-32b/0', 36, 10),
    series('requestsWaiting', 'deepseek-r1/0', 13, 9),
    series('requestsWaiting', 'qwq-32b/0', 2, 2),
    series('generationTokensPerSecond', 'deepseek-r1/0', 1484, 380),
    series('generationTokensPerSecond', 'qwq-32b/0', 912, 200),
  ]
}
