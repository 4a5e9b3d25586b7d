/**
 * SGLang's metrics: srt/observability/metrics_collector.py. Scheduler gauges are written with each
 * prefill batch, every `decode_log_interval` decode steps and every 30 s when idle: they lag.
 */
import type { SimulatedClock } from '../clock.ts'
import type { Engine, StepResult } from '../physics/engine.ts'
import type { Sequence } from '../physics/sequence.ts'
import type { Settings } from '../settings.ts'
import type { EngineMetrics } from './engine-metrics.ts'
import { Registry } from './registry.ts'

const TTFT = [0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400]
const ITL = [
  0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2,
  0.4, 0.6, 0.8, 1, 2, 4, 6, 8,
]
const E2E = [
  0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400,
]
const QUEUE = [
  0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 100, 200, 300,
  500, 1000, 2000, 3000,
]
const SIZES = [
  1, 10, 50, 100, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000,
  12000, 15000, 20000, 30000, 40000, 60000, 100000, 200000, 400000,
]

/** How often gauges are refreshed when nothing runs, simulated milliseconds. */
const IDLE_REFRESH_MS = 30_000

export const sglangMetrics = (
  engine: Engine,
  settings: Settings,
  clock: SimulatedClock,
): EngineMetrics => {
  const model = settings.servedNames[0] ?? settings.model
  const created = clock.epochSeconds()
  const scheduler = new Registry(
    {
      model_name: model,
      engine_type: 'unified',
      tp_rank: '0',
      pp_rank: '0',
      moe_ep_rank: '0',
    },
    created,
  )
  const request = new Registry({ model_name: model, engine_type: 'unified' }, created)
  const http = new Registry({}, created)
  const gauges = gaugesOf(scheduler)
  constants(scheduler, engine, settings)
  const totals = totalsOf(request, scheduler)
  const histograms = histogramsOf(request)
  const state = { decodeSteps: 0, writtenMs: 0, tokensThen: 0, lastPrefill: 0, lastHits: 0 }
  const write = (nowMs: number) => writeGauges(engine, gauges, state, nowMs)
  return {
    step: (result) => {
      const { prefillTokens, decodeTokens } = result.load
      totals.realtime.compute.add(prefillTokens)
      totals.realtime.decode.add(decodeTokens)
      observeStep(result, histograms)
      if (prefillTokens === 0) state.decodeSteps += 1
      if (prefillTokens > 0 || state.decodeSteps % settings.decodeLogInterval === 0) {
        write(result.endMs)
      }
    },
    // Idle schedulers refresh lazily: see `text`.
    idle: () => {},
    rejected: () => {},
    ended: (sequence) => observeRequest(sequence, totals, histograms),
    http: ({ route, method, status }) => {
      const labels = { endpoint: route, method }
      http.counter('sglang:http_requests_total', 'Total number of HTTP requests.', labels).add(1)
      http
        .counter('sglang:http_responses_total', 'Total number of HTTP responses.', {
          endpoint: route,
          status_code: String(status),
          method,
        })
        .add(1)
    },
    text: () => {
      const now = clock.now()
      if (engine.idle && now - state.writtenMs > IDLE_REFRESH_MS) write(now)
      totals.retracted.value = engine.totals.preemptions
      return scheduler.text() + request.text() + http.text().trimStart()
    },
  }
}

const gaugesOf = (registry: Registry) => {
  const gauge = (name: string, help: string) => registry.gauge(`sglang:${name}`, help)
  return {
    running: gauge('num_running_reqs', 'The number of running requests.'),
    queued: gauge('num_queue_reqs', 'The number of requests in the waiting queue.'),
    grammar: gauge('num_grammar_queue_reqs', 'The number of requests in the grammar queue.'),
    retracted: gauge('num_retracted_reqs', 'The number of retracted requests.'),
    paused: gauge('num_paused_reqs', 'The number of paused requests.'),
    usage: gauge('token_usage', 'The token usage.'),
    fullUsage: gauge('full_token_usage', 'The token usage for full attention layers.'),
    used: gauge('num_used_tokens', 'The number of used tokens.'),
    available: gauge('kv_available_tokens', 'Tokens of KV that are free and hold nothing.'),
    evictable: gauge('kv_evictable_tokens', 'Tokens of KV that are cached and not held.'),
    kvUsed: gauge('kv_used_tokens', 'Tokens of KV that requests hold.'),
    throughput: gauge('gen_throughput', 'The generation throughput (token/s).'),
    hitRate: gauge('cache_hit_rate', 'The prefix cache hit rate.'),
    utilization: gauge('utilization', 'The utilization.'),
    newTokenRatio: gauge('new_token_ratio', 'The new token ratio.'),
  }
}

const constants = (registry: Registry, engine: Engine, settings: Settings): void => {
  const tokens = engine.pool.count * settings.blockTokens
  const set = (name: string, help: string, value: number) => {
    registry.gauge(`sglang:${name}`, help).value = value
  }
  set('max_total_num_tokens', 'Maximum total number of tokens in the KV cache pool.', tokens)
  set('page_size', 'Page size of the KV cache.', 1)
  set('num_pages', 'Number of pages in the KV cache.', tokens)
  set('context_len', 'Context length.', settings.contextTokens)
  set('is_cuda_graph', 'Whether the batch is using CUDA graph.', settings.eager ? 0 : 1)
  registry.gauge('sglang:new_token_ratio', 'The new token ratio.').value = 0.7
}

const totalsOf = (request: Registry, scheduler: Registry) => {
  const counter = (name: string, help: string) => request.counter(`sglang:${name}_total`, help)
  const realtime = (mode: string) =>
    scheduler.counter('sglang:realtime_tokens_total', 'Tokens processed, by mode.', { mode })
  const cached = (source: string) =>
    request.counter('sglang:cached_tokens_total', 'Cached prompt tokens.', { cache_source: source })
  return {
    prompt: counter('prompt_tokens', 'Number of prefill tokens processed.'),
    generation: counter('generation_tokens', 'Number of generation tokens processed.'),
    requests: counter('num_requests', 'Number of requests processed.'),
    aborted: counter('num_aborted_requests', 'Number of requests aborted.'),
    cached: [cached('device'), cached('total')],
    retracted: scheduler.counter(
      'sglang:num_retracted_requests_total',
      'Total number of retracted requests.',
    ),
    realtime: {
      compute: realtime('prefill_compute'),
      cache: realtime('prefill_cache'),
      decode: realtime('decode'),
    },
  }
}

const histogramsOf = (registry: Registry) => {
  const seconds = (name: string, help: string, edges: readonly number[]) =>
    registry.histogram(`sglang:${name}_seconds`, help, edges)
  const size = (name: string, help: string) =>
    registry.histogram(`sglang:${name}_histogram`, help, SIZES)
  return {
    ttft: seconds('time_to_first_token', 'Histogram of time to first token in seconds.', TTFT),
    itl: seconds('inter_token_latency', 'Histogram of inter-token latency in seconds.', ITL),
    e2e: seconds('e2e_request_latency', 'Histogram of End-to-end request latency in seconds', E2E),
    queue: seconds('queue_time', 'Histogram of queueing time in seconds.', QUEUE),
    prompt: size('prompt_tokens', 'Histogram of prompt token length.'),
    uncached: size('uncached_prompt_tokens', 'Histogram of uncached prompt token length.'),
    generation: size('generation_tokens', 'Histogram of generation token length.'),
  }
}

type Gauges = ReturnType<typeof gaugesOf>
type Histograms = ReturnType<typeof histogramsOf>
type Totals = ReturnType<typeof totalsOf>
type LagState = {
  decodeSteps: number
  writtenMs: number
  tokensThen: number
  lastPrefill: number
  lastHits: number
}

const writeGauges = (engine: Engine, gauges: Gauges, state: LagState, nowMs: number): void => {
  const { totals, pool, config } = engine
  const spanMs = nowMs - state.writtenMs
  gauges.running.value = engine.running.length
  gauges.queued.value = engine.waiting.size
  gauges.used.value = engine.usedTokens
  gauges.kvUsed.value = engine.usedTokens
  gauges.usage.value = pool.used / Math.max(1, pool.count)
  gauges.fullUsage.value = gauges.usage.value
  const held = Math.min(pool.free, Math.max(0, pool.cached - pool.used))
  gauges.evictable.value = held * config.blockTokens
  gauges.available.value = (pool.free - held) * config.blockTokens
  gauges.utilization.value = Math.min(1, gauges.usage.value)
  if (spanMs > 0) {
    gauges.throughput.value = ((totals.generationTokens - state.tokensThen) / spanMs) * 1000
  }
  const queries = totals.prefixQueries - state.lastPrefill
  if (queries > 0) gauges.hitRate.value = (totals.prefixHits - state.lastHits) / queries
  state.writtenMs = nowMs
  state.tokensThen = totals.generationTokens
  state.lastPrefill = totals.prefixQueries
  state.lastHits = totals.prefixHits
}

const observeStep = (result: StepResult, histograms: Histograms): void => {
  let later = 0
  for (const sequence of result.emitted) {
    if (sequence.produced > 1) later += 1
    else histograms.ttft.observe((result.endMs - sequence.arrivedMs) / 1000)
  }
  if (later > 0) histograms.itl.observe((result.endMs - result.startMs) / 1000, later)
}

const observeRequest = (sequence: Sequence, totals: Totals, histograms: Histograms): void => {
  if (sequence.finish === 'abort') totals.aborted.add(1)
  totals.requests.add(1)
  totals.prompt.add(sequence.promptTokens)
  totals.generation.add(sequence.produced)
  totals.realtime.cache.add(sequence.cached)
  for (const counter of totals.cached) counter.add(sequence.cached)
  histograms.prompt.observe(sequence.promptTokens)
  histograms.uncached.observe(sequence.promptTokens - sequence.cached)
  histograms.generation.observe(sequence.produced)
  histograms.e2e.observe(Math.max(0, sequence.endedMs - sequence.arrivedMs) / 1000)
  if (sequence.admittedMs >= 0) {
    histograms.queue.observe((sequence.admittedMs - sequence.arrivedMs) / 1000)
  }
}
