/** A runtime with nothing engine-specific, for tests of the control side. */
import type { Runtime, Runtimes } from '../../src/core/runtime.ts'

export const plainRuntime = (name: string): Runtime => ({
  name,
  launch: () => ({
    image: 'image:1',
    command: ['engine'],
    environment: {},
    mounts: [],
    stopGraceMs: 1000,
  }),
  contradictions: () => [],
  ready: { path: '/health', probeTimeoutMs: 1000 },
  metrics: {
    requestsRunning: [],
    requestsWaiting: [],
    kvCacheUsageRatio: [],
    kvCapacityTokens: [],
    promptTokensTotal: [],
    generationTokensTotal: [],
    preemptionsTotal: [],
    prefixCacheHitTokensTotal: [],
    prefixCacheQueryTokensTotal: [],
    stepsTotal: [],
  },
  phase: () => null,
  memory: { fraction: 0.9, overheadBytes: 0 },
})

export const plainRuntimes: Runtimes = {
  vllm: plainRuntime('vllm'),
  sglang: plainRuntime('sglang'),
}
