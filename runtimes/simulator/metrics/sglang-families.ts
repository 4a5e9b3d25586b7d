/**
 * SGLang's metric families: srt/metrics/collector.py, later srt/observability/metrics_collector.py.
 * Names, labels and buckets of each played version; which version has which: families.ts.
 */
import { atLeast } from '../flags/versions.ts'
import type { Settings } from '../settings.ts'
import { exportsFamily } from './families.ts'
import { type Distribution, type Labels, Registry, type Value } from './registry.ts'

const TTFT = [0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400]
const TTFT_0_4_4 = [0.1, 0.3, 0.5, 0.7, 0.9, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 120, 160]
const ITL = [
  0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2,
  0.4, 0.6, 0.8, 1, 2, 4, 6, 8,
]
const ITL_0_4_4 = [
  0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.075, 0.1, 0.15,
  0.2, 0.3, 0.4, 0.5, 0.75, 1, 2,
]
const TPOT_0_4_4 = [
  0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6,
  0.8, 1, 2,
]
const E2E = [
  0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400,
]
const E2E_0_4_6 = [0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 800]
const E2E_0_4_4 = [
  0.1, 0.2, 0.4, 0.8, 1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 500, 1000,
]
const QUEUE = [
  0, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 300, 400, 500,
  600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000,
]
const QUEUE_0_5_15 = [0, 0.001, 0.005, 0.01, 0.05, ...QUEUE.slice(1)]
const SIZES = [
  ...[100, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 12000],
  ...[15000, 20000, 22000, 25000, 30000, 35000, 40000, 66000, 99000, 132000, 300000, 600000],
  ...[900000, 1100000],
]
const SIZES_0_5_15 = [
  ...[100, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 12500],
  ...[15000, 17500, 20000, 22500, 25000, 27500, 30000, 35000, 40000, 60000, 80000, 100000, 200000],
  ...[300000, 400000, 600000, 800000, 1000000, 1100000],
]
const RETRACTIONS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 75, 100]

/** `exponential_buckets(start=0.001, width=1.62, length=30)` */
const STAGES = Array.from({ length: 30 }, (_, power) => 0.001 * 1.62 ** power)

/** The newest list that is not newer than the version; lists from old to new. */
const listAt = (
  version: string,
  lists: readonly (readonly [from: string, edges: readonly number[]])[],
): readonly number[] => lists.findLast(([from]) => atLeast(version, from))?.[1] ?? []

/** Scheduler families carry ranks, request families do not; HTTP ones no model either. */
export const registriesOf = (settings: Settings, created: number) => {
  const { version } = settings
  const shows = exportsFamily(settings)
  const model_name = settings.servedNames[0] ?? settings.model
  const engine_type = 'unified'
  const scheduler: Labels = {
    model_name,
    engine_type,
    ...(atLeast(version, '0.5.3') ? { tp_rank: '0', pp_rank: '0' } : {}),
    ...(atLeast(version, '0.5.10') ? { moe_ep_rank: '0' } : {}),
    // With priorities the total is the series whose priority is empty.
    ...(settings.priority !== 'off' && atLeast(version, '0.5.10') ? { priority: '' } : {}),
  }
  const request: Labels = {
    model_name,
    ...(atLeast(version, '0.5.15') ? { engine_type } : {}),
  }
  return {
    scheduler: new Registry(scheduler, created, shows),
    request: new Registry(request, created, shows),
    http: new Registry({}, created, shows),
  }
}

export const gaugesOf = (registry: Registry) => {
  const gauge = (name: string, help: string) => registry.gauge(`sglang:${name}`, help)
  const gauges = {
    running: gauge('num_running_reqs', 'The number of running requests.'),
    queued: gauge('num_queue_reqs', 'The number of requests in the waiting queue.'),
    retracted: gauge('num_retracted_reqs', 'The number of retracted requests.'),
    usage: gauge('token_usage', 'The token usage.'),
    fullUsage: gauge('full_token_usage', 'The token usage for full attention layers.'),
    used: gauge('num_used_tokens', 'The number of used tokens.'),
    available: gauge('kv_available_tokens', 'Free token slots in the KV cache pool.'),
    evictable: gauge('kv_evictable_tokens', 'Evictable token slots in the KV cache pool.'),
    kvUsed: gauge('kv_used_tokens', 'Token slots in use in the KV cache pool.'),
    throughput: gauge('gen_throughput', 'The generation throughput (token/s).'),
    hitRate: gauge('cache_hit_rate', 'The prefix cache hit rate.'),
    newTokenRatio: gauge('new_token_ratio', 'The new token ratio.'),
    graph: gauge('is_cuda_graph', 'Whether the batch is using CUDA graph.'),
    sequenceLengths: gauge('decode_sum_seq_lens', 'The sum of all sequence lengths in decode.'),
    queueLatency: gauge(
      'avg_request_queue_latency',
      'The average request queue latency for the last batch of requests in seconds.',
    ),
  }
  // Nothing sets `max_running_requests_under_SLO` in the versions read, so this one stays at 0.
  gauge('utilization', 'The utilization.')
  for (const name of UNMOVED) gauge(name, 'Not moved by a rehearsal.')
  return gauges
}

/** Without grammars, drafts, sliding windows, disaggregation and pauses these stay at 0. */
const UNMOVED = [
  ...['num_grammar_queue_reqs', 'num_paused_reqs', 'swa_token_usage', 'mamba_usage'],
  ...['spec_accept_length', 'spec_accept_rate', 'pending_prealloc_token_usage'],
  ...['num_prefill_bootstrap_queue_reqs', 'num_prefill_inflight_queue_reqs'],
  ...['num_decode_prealloc_queue_reqs', 'num_decode_transfer_queue_reqs'],
]

/** Counters that newer versions split by whether the client streams. */
const splitAt = (version: string) => atLeast(version, '0.5.20')
const streamLabels = (streaming: boolean): Labels => ({ is_streaming: String(streaming) })

type Split<T> = (streaming: boolean) => T

const split = <T>(version: string, make: (labels: Labels) => T): Split<T> => {
  if (!splitAt(version)) {
    const one = make({})
    return () => one
  }
  const [yes, no] = [make(streamLabels(true)), make(streamLabels(false))]
  return (streaming) => (streaming ? yes : no)
}

export const totalsOf = (request: Registry, scheduler: Registry, version: string) => {
  const counter = (name: string, help: string): Split<Value> =>
    split(version, (labels) => request.counter(`sglang:${name}_total`, help, labels))
  const labelled = (family: string, help: string, label: string) => (value: string) =>
    scheduler.counter(`sglang:${family}_total`, help, { [label]: value })
  const realtime = labelled('realtime_tokens', 'Total number of tokens processed.', 'mode')
  const passes = labelled('cuda_graph_passes', 'Total number of forward passes.', 'mode')
  const source: Labels = atLeast(version, '0.5.10') ? { cache_source: 'device' } : {}
  return {
    prompt: counter('prompt_tokens', 'Number of prefill tokens processed.'),
    generation: counter('generation_tokens', 'Number of generation tokens processed.'),
    requests: counter('num_requests', 'Number of requests processed.'),
    aborted: request.counter('sglang:num_aborted_requests_total', 'Number of requests aborted.'),
    structured: request.counter(
      'sglang:num_so_requests_total',
      'Number of structured output requests processed.',
    ),
    cached: request.counter(
      'sglang:cached_tokens_total',
      'Number of cached prompt tokens.',
      source,
    ),
    retracted: scheduler.counter(
      'sglang:num_retracted_requests_total',
      'Total number of retracted requests.',
    ),
    passes: {
      graph: passes('decode_cuda_graph'),
      bare: passes('decode_none'),
      prefill: passes('prefill_none'),
    },
    realtime: {
      compute: realtime('prefill_compute'),
      cache: realtime('prefill_cache'),
      decode: realtime('decode'),
    },
  }
}

export const histogramsOf = (registry: Registry, { version, buckets }: Settings) => {
  const seconds = (name: string, help: string, edges: readonly number[]): Split<Distribution> =>
    split(version, (labels) => registry.histogram(`sglang:${name}_seconds`, help, edges, labels))
  const plain = (name: string, help: string, edges: readonly number[], labels: Labels = {}) =>
    registry.histogram(`sglang:${name}`, help, edges, labels)
  const sizes = listAt(version, [
    ['0', SIZES],
    ['0.5.15', SIZES_0_5_15],
  ])
  const ttft = listAt(version, [
    ['0', TTFT_0_4_4],
    ['0.4.6', TTFT],
  ])
  const itl = listAt(version, [
    ['0', ITL_0_4_4],
    ['0.4.6', ITL],
  ])
  const e2e = listAt(version, [
    ['0', E2E_0_4_4],
    ['0.4.6', E2E_0_4_6],
    ['0.5.3', E2E],
  ])
  const itlEdges = buckets.itl ?? itl
  return {
    ttft: seconds('time_to_first_token', 'Time to first token.', buckets.ttft ?? ttft),
    itl: plain('inter_token_latency_seconds', 'Inter-token latency in seconds.', itlEdges),
    e2e: seconds('e2e_request_latency', 'End-to-end request latency.', buckets.e2e ?? e2e),
    tpot: seconds('request_time_per_output_token', 'Per-request TPOT in seconds.', itlEdges),
    oldTpot: plain('time_per_output_token_seconds', 'Time per output token.', TPOT_0_4_4),
    queue: plain(
      'queue_time_seconds',
      'Histogram of queueing time in seconds.',
      atLeast(version, '0.5.15') ? QUEUE_0_5_15 : QUEUE,
    ),
    prefillStage: plain('per_stage_req_latency_seconds', 'Latency of each stage.', STAGES, {
      stage: 'prefill_forward',
    }),
    prompt: plain('prompt_tokens_histogram', 'Histogram of prompt token length.', sizes),
    uncached: plain('uncached_prompt_tokens_histogram', 'Uncached prompt tokens.', sizes),
    generation: plain('generation_tokens_histogram', 'Generation token length.', sizes),
    retractions: plain('num_retractions', 'Retraction counts per request.', RETRACTIONS),
  }
}
