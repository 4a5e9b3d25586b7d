/** Counters that stand still while work goes on: /metrics repeats what it said last. */
import type { EngineMetrics } from './engine-metrics.ts'

export const freezable = (metrics: EngineMetrics, frozen: () => boolean): EngineMetrics => {
  let last: string | null = null
  return {
    step: (result) => metrics.step(result),
    ended: (sequence) => metrics.ended(sequence),
    idle: () => metrics.idle(),
    rejected: () => metrics.rejected(),
    http: (outcome) => metrics.http(outcome),
    throughput: () => metrics.throughput?.() ?? 0,
    text: () => {
      if (last === null || !frozen()) last = metrics.text()
      return last
    },
  }
}
