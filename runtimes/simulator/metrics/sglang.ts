/**
 * When SGLang writes its metrics: srt/observability/metrics_reporter.py of 0.5.23 and its
 * forerunners. Scheduler gauges are written with each prefill batch, every `decode_log_interval`
 * decode steps and, when idle, every 30 s: they lag, and this file lags with them.
 */
import type { SimulatedClock } from '../clock.ts'
import { atLeast } from '../flags/versions.ts'
import type { Memory } from '../memory.ts'
import type { Engine, StepResult } from '../physics/engine.ts'
import type { Sequence } from '../physics/sequence.ts'
import type { Settings } from '../settings.ts'
import type { EngineMetrics, HttpOutcome } from './engine-metrics.ts'
import type { Registry } from './registry.ts'
import { gaugesOf, histogramsOf, registriesOf, totalsOf } from './sglang-families.ts'

/** How often gauges are refreshed when nothing runs, simulated milliseconds. */
const IDLE_REFRESH_MS = 30_000
const GIB = 2 ** 30

export const sglangMetrics = (
  engine: Engine,
  settings: Settings,
  clock: SimulatedClock,
  memory: Memory,
): EngineMetrics => {
  const { scheduler, request, http } = registriesOf(settings, clock.epochSeconds())
  const gauges = gaugesOf(scheduler)
  constants({ scheduler, request }, { engine, settings, memory, startupMs: clock.now() })
  const totals = totalsOf(request, scheduler, settings.version)
  const histograms = histogramsOf(request, settings)
  const reporter = new Reporter(engine, gauges, settings, clock.now())
  return {
    step: (result) => {
      const { prefillTokens, decodeTokens } = result.load
      totals.realtime.compute.add(prefillTokens)
      totals.realtime.decode.add(decodeTokens)
      totals.realtime.cache.value = engine.totals.cachedTokens
      if (prefillTokens > 0) totals.passes.prefill.add(1)
      else totals.passes[settings.eager ? 'bare' : 'graph'].add(1)
      observeStep(result, histograms)
      reporter.step(result)
    },
    idle: () => reporter.idle(clock.now()),
    rejected: () => {},
    ended: (sequence) => observeRequest(sequence, totals, histograms),
    http: (outcome) => countHttp(http, outcome),
    throughput: () => {
      reporter.refresh(clock.now())
      return gauges.throughput.value
    },
    text: () => {
      reporter.refresh(clock.now())
      totals.retracted.value = engine.totals.preemptions
      return scheduler.text() + request.text() + http.text()
    },
  }
}

type Gauges = ReturnType<typeof gaugesOf>
type Histograms = ReturnType<typeof histogramsOf>
type Totals = ReturnType<typeof totalsOf>

/** `report_prefill_stats`, `report_decode_stats` and `_maybe_log_idle_metrics`. */
class Reporter {
  readonly #engine: Engine
  readonly #gauges: Gauges
  readonly #interval: number
  /** Newer versions decay a throughput that nobody refreshed and see a stale count when idle. */
  readonly #decays: boolean
  #decodeSteps = 0
  #decodeTokens = 0
  #decodeWrittenMs: number
  #writtenMs: number
  #hits = 0
  #queries = 0
  #retractions = 0

  constructor(engine: Engine, gauges: Gauges, settings: Settings, nowMs: number) {
    this.#engine = engine
    this.#gauges = gauges
    this.#interval = settings.decodeLogInterval
    this.#decays = atLeast(settings.version, '0.5.20')
    this.#decodeWrittenMs = nowMs
    this.#writtenMs = nowMs
  }

  step(result: StepResult): void {
    if (result.load.prefillTokens > 0) {
      this.#prefill(result)
      return
    }
    this.#decodeTokens += result.emitted.length
    this.#decodeSteps += 1
    if (this.#decodeSteps % this.#interval === 0) this.#decode(result.endMs)
  }

  idle(nowMs: number): void {
    if (this.#decays && this.#gauges.running.value > 0) this.#publishIdle(nowMs)
  }

  /** What an idle scheduler would have written by now; nothing changes while it is idle. */
  refresh(nowMs: number): void {
    if (this.#engine.idle && nowMs - this.#writtenMs > IDLE_REFRESH_MS) this.#publishIdle(nowMs)
  }

  /** Counts the batch that was running before; the new requests join it afterwards. */
  #prefill(result: StepResult): void {
    const { totals, running } = this.#engine
    let before = 0
    for (const { firstTokenMs } of running) {
      if (firstTokenMs >= 0 && firstTokenMs < result.endMs) before += 1
    }
    const queries = totals.prefixQueries - this.#queries
    const hits = totals.prefixHits - this.#hits
    this.#gauges.hitRate.value = queries > 0 ? hits / queries : 0
    this.#queries = totals.prefixQueries
    this.#hits = totals.prefixHits
    this.#gauges.queueLatency.value = meanQueueMs(result.emitted) / 1000
    if (this.#decays && result.endMs - this.#decodeWrittenMs > IDLE_REFRESH_MS) {
      this.#gauges.throughput.value = 0
    }
    this.#write(result.endMs, before)
  }

  #decode(nowMs: number): void {
    const spanMs = nowMs - this.#decodeWrittenMs
    if (spanMs > 0) this.#gauges.throughput.value = (this.#decodeTokens / spanMs) * 1000
    this.#decodeTokens = 0
    this.#decodeWrittenMs = nowMs
    this.#gauges.sequenceLengths.value = this.#engine.usedTokens
    this.#write(nowMs, this.#engine.running.length)
  }

  #publishIdle(nowMs: number): void {
    this.#gauges.throughput.value = 0
    this.#write(nowMs, this.#engine.running.length)
  }

  #write(nowMs: number, running: number): void {
    const { totals, pool, config, usedTokens, waiting } = this.#engine
    const gauges = this.#gauges
    gauges.running.value = running
    gauges.queued.value = waiting.size
    gauges.used.value = usedTokens
    gauges.kvUsed.value = usedTokens
    gauges.usage.value = pool.used / Math.max(1, pool.count)
    gauges.fullUsage.value = gauges.usage.value
    const held = Math.min(pool.free, Math.max(0, pool.cached - pool.used))
    gauges.evictable.value = held * config.blockTokens
    gauges.available.value = (pool.free - held) * config.blockTokens
    gauges.newTokenRatio.value = this.#engine.newTokenRatio ?? 0
    gauges.retracted.value = totals.preemptions - this.#retractions
    this.#retractions = totals.preemptions
    this.#writtenMs = nowMs
  }
}

const meanQueueMs = (sequences: readonly Sequence[]): number => {
  let sum = 0
  for (const { arrivedMs, admittedMs } of sequences) sum += Math.max(0, admittedMs - arrivedMs)
  return sequences.length === 0 ? 0 : sum / sequences.length
}

type Known = {
  readonly engine: Engine
  readonly settings: Settings
  readonly memory: Memory
  readonly startupMs: number
}

/** Written once, when the engine is up. */
const constants = (
  { scheduler, request }: { readonly scheduler: Registry; readonly request: Registry },
  { engine, settings, memory, startupMs }: Known,
): void => {
  const tokens = engine.pool.count * settings.blockTokens
  const set = (name: string, help: string, value: number) => {
    scheduler.gauge(`sglang:${name}`, help).value = value
  }
  set('max_total_num_tokens', 'Maximum total number of tokens in the KV cache pool.', tokens)
  set('page_size', 'KV cache page size in tokens.', 1)
  set('num_pages', 'Number of KV cache pages.', tokens)
  set('context_len', 'Maximum context length.', settings.contextTokens)
  set('is_cuda_graph', 'Whether the batch is using CUDA graph.', settings.eager ? 0 : 1)
  set('weight_memory_usage_gb', 'Memory of the model weights in GB.', memory.weightsBytes / GIB)
  const poolBytes = memory.poolTokens * memory.kvBytesPerToken
  set('kv_cache_memory_usage_gb', 'Memory of the KV cache pools in GB.', poolBytes / GIB)
  const startup = 'The time taken for the engine to start up.'
  request.gauge('sglang:engine_startup_time', startup).value = startupMs / 1000
  for (const phase of ['scheduler_e2e', 'tokenizer_e2e']) {
    const gauge = request.gauge('sglang:startup_time_seconds', 'Startup by phase.', { phase })
    gauge.value = startupMs / 1000
  }
}

const observeStep = (result: StepResult, histograms: Histograms): void => {
  let later = 0
  for (const sequence of result.emitted) {
    if (sequence.produced > 1) later += 1
    else {
      const seconds = (result.endMs - sequence.arrivedMs) / 1000
      histograms.ttft(sequence.streaming).observe(seconds)
    }
  }
  if (later > 0) histograms.itl.observe((result.endMs - result.startMs) / 1000, later)
}

const observeRequest = (sequence: Sequence, totals: Totals, histograms: Histograms): void => {
  const { streaming, promptTokens, produced, cached } = sequence
  const span = (from: number, to: number) => Math.max(0, to - from) / 1000
  if (sequence.finish === 'abort') totals.aborted.add(1)
  totals.requests(streaming).add(1)
  totals.prompt(streaming).add(promptTokens)
  totals.generation(streaming).add(produced)
  totals.cached.add(cached)
  histograms.prompt.observe(promptTokens)
  histograms.uncached.observe(promptTokens - cached)
  histograms.generation.observe(produced)
  histograms.retractions.observe(sequence.preemptions)
  histograms.e2e(streaming).observe(span(sequence.arrivedMs, sequence.endedMs))
  if (sequence.admittedMs < 0) return
  histograms.queue.observe(span(sequence.arrivedMs, sequence.admittedMs))
  if (sequence.firstTokenMs < 0) return
  histograms.prefillStage.observe(span(sequence.admittedMs, sequence.firstTokenMs))
  if (produced < 2) return
  const each = span(sequence.firstTokenMs, sequence.lastTokenMs) / (produced - 1)
  histograms.tpot(streaming).observe(each)
  histograms.oldTpot.observe(each)
}

const countHttp = (registry: Registry, { route, method, status }: HttpOutcome): void => {
  const labels = { endpoint: route, method }
  const requests = 'Total number of HTTP requests.'
  registry.counter('sglang:http_requests_total', requests, labels).add(1)
  const answers = { endpoint: route, status_code: String(status), method }
  const responses = 'Total number of HTTP responses.'
  registry.counter('sglang:http_responses_total', responses, answers).add(1)
}
