/** vLLM's metrics: vllm/v1/metrics/loggers.py; names, labels and buckets as on the wire. */

import { atLeast } from '../flags/versions.ts'
import type { Memory } from '../memory.ts'
import type { Engine, StepResult } from '../physics/engine.ts'
import type { FinishReason, Sequence } from '../physics/sequence.ts'
import type { Settings } from '../settings.ts'
import type { EngineMetrics, HttpOutcome } from './engine-metrics.ts'
import { exportsFamily } from './families.ts'
import { Registry, steps125 } from './registry.ts'

const TTFT = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
]
const ITL = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
]
const LATENCY = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
]
const ITERATION = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
const N = [1, 2, 5, 10, 20]
const HTTP_SECONDS = [0.1, 0.5, 1]

/** FINISH_REASON_STRINGS of vllm/v1/engine/__init__.py, and since when they are there. */
const REASONS: Readonly<Record<FinishReason | 'repetition', string>> = {
  stop: '0.0',
  length: '0.0',
  abort: '0.0',
  error: '0.14.1',
  repetition: '0.19.1',
}

/** `created`: Unix seconds of the start, for the `_created` series. */
export const vllmMetrics = (
  engine: Engine,
  settings: Settings,
  memory: Memory,
  created: number,
): EngineMetrics => {
  const model = settings.servedNames[0] ?? settings.model
  const shows = exportsFamily(settings)
  const registry = new Registry({ model_name: model, engine: '0' }, created, shows)
  const http = new Registry({}, created)
  untouched(registry)
  const rejected = rejectionsOf(new Registry({ model_name: model }, created, shows))
  const gauges = gaugesOf(registry)
  cacheInfo(registry, settings, memory)
  const counters = countersOf(registry)
  const histograms = histogramsOf(registry, settings.contextTokens)
  const finished = new Map(
    Object.keys(REASONS)
      .filter((reason) => reasonAt(settings.version, reason))
      .map((reason) => [
        reason,
        registry.counter(
          'vllm:request_success_total',
          'Count of successfully processed requests.',
          {
            finished_reason: reason,
          },
        ),
      ]),
  )
  const snapshot = () => {
    gauges.running.value = engine.running.length
    gauges.waiting.value = engine.waiting.size
    gauges.capacity.value = engine.waiting.size
    gauges.usage.value = engine.pool.used / Math.max(1, engine.pool.count)
    gauges.oldUsage.value = gauges.usage.value
    counters.queries.value = engine.totals.prefixQueries
    counters.hits.value = engine.totals.prefixHits
    counters.oldQueries.value = engine.totals.prefixQueries
    counters.oldHits.value = engine.totals.prefixHits
    counters.preemptions.value = engine.totals.preemptions
    counters.prompt.value = engine.totals.promptTokens
    counters.generation.value = engine.totals.generationTokens
    counters.computed.value = engine.totals.promptTokens - engine.totals.cachedTokens
    counters.cacheHit.value = engine.totals.cachedTokens
    counters.cached.value = engine.totals.cachedTokens
    counters.device.value = engine.totals.cachedTokens
  }
  return {
    step: (result) => {
      observeStep(result, histograms)
      snapshot()
    },
    idle: snapshot,
    ended: (sequence) => {
      finished.get(sequence.finish ?? 'error')?.add(1)
      observeRequest(sequence, histograms)
    },
    http: (outcome) => countHttp(http, outcome),
    rejected: () => rejected.own.add(1),
    text: () => http.text().trimStart() + registry.text() + rejected.text(),
  }
}

const reasonAt = (version: string, reason: string): boolean =>
  Object.entries(REASONS).some(([name, from]) => name === reason && atLeast(version, from))

const gaugesOf = (registry: Registry) => {
  const by = 'vllm:num_requests_waiting_by_reason'
  const byHelp = 'Number of requests waiting, by reason.'
  const asleep = (state: string) =>
    registry.gauge('vllm:engine_sleep_state', 'Engine sleep state.', { sleep_state: state })
  const gauges = {
    running: registry.gauge(
      'vllm:num_requests_running',
      'Number of requests in model execution batches.',
    ),
    waiting: registry.gauge(
      'vllm:num_requests_waiting',
      'Number of requests waiting to be processed.',
    ),
    capacity: registry.gauge(by, byHelp, { reason: 'capacity' }),
    deferred: registry.gauge(by, byHelp, { reason: 'deferred' }),
    usage: registry.gauge('vllm:kv_cache_usage_perc', 'KV-cache usage. 1 means 100 percent usage.'),
    oldUsage: registry.gauge(
      'vllm:gpu_cache_usage_perc',
      'GPU KV-cache usage. 1 means 100 percent usage.' +
        'DEPRECATED: Use vllm:kv_cache_usage_perc instead.',
    ),
    awake: asleep('awake'),
  }
  gauges.awake.value = 1
  asleep('weights_offloaded')
  asleep('discard_all')
  return gauges
}

const cacheInfo = (registry: Registry, settings: Settings, memory: Memory): void => {
  registry.gauge('vllm:cache_config_info', 'Information of the LLMEngine CacheConfig', {
    block_size: String(settings.blockTokens),
    cache_dtype: settings.kvType === 'fp8' ? 'fp8' : 'auto',
    enable_prefix_caching: settings.prefixCache ? 'True' : 'False',
    gpu_memory_utilization: String(settings.memoryFraction),
    is_attention_free: 'False',
    ...(atLeast(settings.version, '0.28.0')
      ? {
          kv_cache_max_concurrency: (memory.poolTokens / settings.contextTokens).toFixed(2),
          kv_cache_size_tokens: String(memory.poolTokens),
        }
      : {}),
    num_cpu_blocks: 'None',
    num_gpu_blocks: String(Math.floor(memory.poolTokens / settings.blockTokens)),
    prefix_caching_hash_algo: 'sha256',
    sliding_window: 'None',
  }).value = 1
}

/** Families that a plain rehearsal never moves, but that a scraper meets. */
const untouched = (registry: Registry): void => {
  const zero = (name: string, help: string) => registry.counter(`vllm:${name}_total`, help)
  zero('external_prefix_cache_queries', 'External prefix cache queries, in tokens.')
  zero('external_prefix_cache_hits', 'External prefix cache hits, in tokens.')
  zero('mm_cache_queries', 'Multi-modal cache queries, in terms of number of queried items.')
  zero('mm_cache_hits', 'Multi-modal cache hits, in terms of number of cached items.')
  zero('estimated_flops_per_gpu', 'Estimated number of floating point operations per GPU.')
  zero('estimated_read_bytes_per_gpu', 'Estimated number of bytes read from memory per GPU.')
  zero('estimated_write_bytes_per_gpu', 'Estimated number of bytes written to memory per GPU.')
}

/** This family has no `engine` label. */
const rejectionsOf = (registry: Registry) => {
  const name = 'vllm:admission_rejections_total'
  const help = 'Number of admission attempts rejected by a queue limit, by reason.'
  const own = registry.counter(name, help, { reason: 'max_num_queued_reqs' })
  registry.counter(name, help, { reason: 'max_num_queued_tokens' })
  return { own, text: () => registry.text() }
}

const sourced = (registry: Registry, family: string, help: string) => (source: string) =>
  registry.counter(`vllm:${family}_total`, help, { source })

const countersOf = (registry: Registry) => ({
  ...promptSources(registry),
  queries: registry.counter(
    'vllm:prefix_cache_queries_total',
    'Prefix cache queries, in terms of number of queried tokens.',
  ),
  oldQueries: registry.counter(
    'vllm:gpu_prefix_cache_queries_total',
    'GPU prefix cache queries, in terms of number of queried' +
      'tokens. DEPRECATED: Use vllm:prefix_cache_queries instead.',
  ),
  oldHits: registry.counter(
    'vllm:gpu_prefix_cache_hits_total',
    'GPU prefix cache hits, in terms of number of cached ' +
      'tokens. DEPRECATED: Use vllm:prefix_cache_hits instead.',
  ),
  hits: registry.counter(
    'vllm:prefix_cache_hits_total',
    'Prefix cache hits, in terms of number of cached tokens.',
  ),
  preemptions: registry.counter(
    'vllm:num_preemptions_total',
    'Cumulative number of preemption from the engine.',
  ),
  prompt: registry.counter('vllm:prompt_tokens_total', 'Number of prefill tokens processed.'),
  generation: registry.counter(
    'vllm:generation_tokens_total',
    'Number of generation tokens processed.',
  ),
})

const promptSources = (registry: Registry) => {
  const by = sourced(registry, 'prompt_tokens_by_source', 'Number of prompt tokens by source.')
  const tier = sourced(
    registry,
    'prompt_tokens_cached_by_source',
    'Prefix-cache hit tokens by the cache tier that supplied them.',
  )
  const [computed, cacheHit] = [by('local_compute'), by('local_cache_hit')]
  by('external_kv_transfer')
  const device = tier('device')
  for (const source of ['host', 'p2p', 'disk', 'external_unspecified']) tier(source)
  const help = 'Number of cached prompt tokens (local + external).'
  const cached = registry.counter('vllm:prompt_tokens_cached_total', help)
  return { computed, cacheHit, device, cached }
}

const histogramsOf = (registry: Registry, context: number) => {
  const seconds = (name: string, help: string) =>
    registry.histogram(`vllm:${name}_seconds`, help, LATENCY)
  const tokens = (name: string, help: string) =>
    registry.histogram(`vllm:${name}`, help, steps125(context))
  return {
    ttft: registry.histogram(
      'vllm:time_to_first_token_seconds',
      'Histogram of time to first token in seconds.',
      TTFT,
    ),
    itl: registry.histogram(
      'vllm:inter_token_latency_seconds',
      'Histogram of inter-token latency in seconds.',
      ITL,
    ),
    oldItl: registry.histogram(
      'vllm:time_per_output_token_seconds',
      'Histogram of time per output token in seconds.' +
        'DEPRECATED: Use vllm:inter_token_latency_seconds instead.',
      ITL,
    ),
    tpot: registry.histogram(
      'vllm:request_time_per_output_token_seconds',
      'Histogram of time_per_output_token_seconds per request.',
      ITL,
    ),
    e2e: seconds('e2e_request_latency', 'Histogram of e2e request latency in seconds.'),
    queue: seconds('request_queue_time', 'Histogram of time spent in WAITING phase for request.'),
    inference: seconds('request_inference_time', 'Histogram of time spent in RUNNING phase.'),
    prefill: seconds('request_prefill_time', 'Histogram of time spent in PREFILL phase.'),
    decode: seconds('request_decode_time', 'Histogram of time spent in DECODE phase.'),
    prompt: tokens('request_prompt_tokens', 'Number of prefill tokens processed.'),
    generation: tokens('request_generation_tokens', 'Number of generation tokens processed.'),
    maxGeneration: tokens(
      'request_max_num_generation_tokens',
      'Histogram of maximum number of requested generation tokens.',
    ),
    maxTokens: tokens(
      'request_params_max_tokens',
      'Histogram of the max_tokens request parameter.',
    ),
    computed: tokens(
      'request_prefill_kv_computed_tokens',
      'Histogram of new KV tokens computed during prefill (excluding cached tokens).',
    ),
    preemptions: registry.histogram(
      'vllm:request_num_preemptions',
      'Histogram of the number of preemptions per request.',
      [1, 2, 3, 4, 5, 10, 20],
    ),
    n: registry.histogram('vllm:request_params_n', 'Histogram of the n request parameter.', N),
    iteration: registry.histogram(
      'vllm:iteration_tokens_total',
      'Histogram of number of tokens per engine_step.',
      ITERATION,
    ),
  }
}

type Histograms = ReturnType<typeof histogramsOf>

const observeStep = (result: StepResult, histograms: Histograms): void => {
  let [made, later] = [0, 0]
  for (const sequence of result.emitted) {
    if (!sequence.pooling) made += 1
    if (sequence.produced > 1) later += 1
    else histograms.ttft.observe((result.endMs - sequence.arrivedMs) / 1000)
  }
  histograms.iteration.observe(result.load.prefillTokens + made)
  if (later === 0) return
  const seconds = (result.endMs - result.startMs) / 1000
  histograms.itl.observe(seconds, later)
  histograms.oldItl.observe(seconds, later)
}

const observeRequest = (sequence: Sequence, histograms: Histograms): void => {
  const span = (from: number, to: number) => Math.max(0, to - from) / 1000
  histograms.e2e.observe(span(sequence.arrivedMs, sequence.endedMs))
  histograms.prompt.observe(sequence.promptTokens)
  histograms.generation.observe(sequence.produced)
  histograms.maxGeneration.observe(sequence.produced)
  if (!sequence.pooling) histograms.maxTokens.observe(sequence.maxTokens)
  histograms.n.observe(sequence.siblings)
  histograms.preemptions.observe(sequence.preemptions)
  if (sequence.admittedMs < 0) return
  histograms.queue.observe(span(sequence.arrivedMs, sequence.admittedMs))
  histograms.inference.observe(span(sequence.admittedMs, sequence.endedMs))
  if (sequence.firstTokenMs < 0) return
  histograms.prefill.observe(span(sequence.admittedMs, sequence.firstTokenMs))
  const decode = span(sequence.firstTokenMs, sequence.lastTokenMs)
  histograms.decode.observe(decode)
  histograms.computed.observe(sequence.promptTokens - sequence.cached)
  histograms.tpot.observe(decode / Math.max(1, sequence.produced - 1))
}

/** prometheus-fastapi-instrumentator; health and metrics paths are left out by vLLM. */
const countHttp = (registry: Registry, { route, method, status, seconds }: HttpOutcome): void => {
  if (['/health', '/metrics', '/load', '/ping', '/version', '/server_info'].includes(route)) return
  const labels = { handler: route, method, status: `${Math.floor(status / 100)}xx` }
  registry
    .counter(
      'http_requests_total',
      'Total number of requests by method, status and handler.',
      labels,
    )
    .add(1)
  registry
    .histogram('http_request_duration_seconds', 'Latency by handler.', HTTP_SECONDS, {
      handler: route,
      method,
    })
    .observe(seconds)
}
