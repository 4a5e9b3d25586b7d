/**
 * Every metric that Penstock exports, declared here and nowhere else. Base units; nothing that a
 * client sends becomes a label unbounded.
 * https://prometheus.io/docs/practices/naming/
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** Up to 80 s as vLLM has them: a first token behind a long prompt takes that long. */
const TTFT_BUCKETS = [0.05, 0.1, 0.25, 0.5, 0.75, 1, 2, 3, 5, 7.5, 10, 20, 40, 80, 160]
/** As vLLM has them, with a few more where people begin to wait for words. */
const TPOT_BUCKETS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
/** Models that think answer for minutes; an hour is the longest that we let one run. */
const DURATION_BUCKETS = [0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600]

/** Gauges whose name ends in _total, which is for counters (promtool says so). */
const MISNAMED = ['handles', 'requests', 'resources'].map(
  (what) => `penstock_nodejs_active_${what}_total`,
)

export const declare = () => {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, prefix: 'penstock_' })
  for (const name of MISNAMED) registry.removeSingleMetric(name)
  const { counter, gauge, histogram } = declarers(registry)
  return {
    registry,
    buildInfo: gauge('build_info', 'Always 1; the labels say what runs.', ['version', 'node']),
    requests: counter('requests_total', 'Requests ended, by how.', ['route', 'status', 'outcome']),
    tokens: counter('tokens_total', 'Tokens of ended requests.', ['route', 'kind']),
    consumerRequests: counter('consumer_requests_total', 'Requests ended.', ['consumer']),
    consumerTokens: counter('consumer_tokens_total', 'Tokens used.', ['consumer', 'kind']),
    ttft: histogram('time_to_first_token_seconds', 'Accepted to first token.', TTFT_BUCKETS),
    tpot: histogram(
      'time_per_output_token_seconds',
      'Of whole streams, after the first.',
      TPOT_BUCKETS,
    ),
    queueWait: histogram('queue_wait_seconds', 'In the gateway queue, if at all.', TTFT_BUCKETS),
    duration: histogram('request_duration_seconds', 'Accepted to ended.', DURATION_BUCKETS),
    spilled: counter('spillover_total', 'Requests that a stand-in answered, by cause.', [
      'from',
      'to',
      'reason',
    ]),
    threadRestarts: counter('gateway_thread_restarts_total', 'Gateway threads replaced.', []),
    fleet: declareFleet(registry),
  }
}

/** What is filled in from the latest view: all of it is emptied before. */
const declareFleet = (registry: Registry) => {
  const { counter, gauge } = declarers(registry)
  const replica = ['deployment', 'replica'] as const
  const signal = ['deployment', 'replica', 'signal'] as const
  const state = ['deployment', 'replica', 'state'] as const
  const rank = ['deployment', 'replica', 'rank', 'node', 'state'] as const
  const gpu = ['node', 'gpu', 'uuid'] as const
  return {
    rehearsal: gauge('rehearsal', '1 while the engines are simulated.', []),
    reloads: counter('config_reloads_total', 'Changed manifests taken over.', []),
    reloadFailures: counter('config_reload_failures_total', 'Changes that were not usable.', []),
    reloadOk: gauge('config_last_reload_successful', '0 while the files on disk are broken.', []),
    reloadedAt: gauge(
      'config_last_reload_success_timestamp_seconds',
      'When a change was last taken over.',
      [],
    ),
    generation: gauge('desired_generation', 'Generation of the applied manifests.', []),
    inFlight: gauge('requests_in_flight', 'Requests that the gateway is working on.', []),
    limitOverflows: counter('limit_overflows_total', 'Subjects that had to share a bucket.', []),
    redisUp: gauge('redis_up', '1 while every gateway thread can ask Redis.', []),
    limitsShared: gauge('limits_shared', 'Gateway threads, by who decides their limits.', [
      'state',
    ]),
    limitGateways: gauge('limits_gateways', 'Gateways that share the limits.', []),
    localDecisions: counter('limits_local_decisions_total', 'Decided while Redis was away.', []),
    threads: gauge('gateway_threads', 'Gateway threads that serve.', []),

    nodeReachable: gauge('node_reachable', '1 when its driver answers.', ['node']),
    nodeAge: gauge('node_observation_age_seconds', 'Age of the last observation.', ['node']),
    gpuUtilization: gauge('gpu_utilization_ratio', 'Share of time with work, 0 to 1.', gpu),
    gpuMemoryUsed: gauge('gpu_memory_used_bytes', 'VRAM in use.', gpu),
    gpuMemorySize: gauge('gpu_memory_size_bytes', 'VRAM there is.', gpu),
    gpuPower: gauge('gpu_power_watts', 'Power drawn.', gpu),
    gpuTemperature: gauge('gpu_temperature_celsius', 'Core temperature.', gpu),
    gpuAge: gauge('gpu_reading_age_seconds', 'Age of the last reading.', gpu),

    replicasWanted: gauge('replicas_wanted', 'Replicas the manifest asks for.', ['deployment']),
    state: gauge('replica_state', '1 for the state it is in.', state),
    restarts: counter('replica_restarts_total', 'Restarts of the whole group.', replica),
    breaker: gauge(
      'breaker_state',
      '0: the gateway asks it, 1: it leaves it alone, 2: one request probes it.',
      replica,
    ),
    admissionCeiling: gauge('admission_ceiling_requests', 'Requests given it at a time.', replica),
    queueDepth: gauge('queue_depth', 'Requests in the gateway queue.', ['deployment']),
    saturation: gauge('saturation', 'How full a model is: 1 is full.', ['model']),
    replicaInFlight: gauge('replica_requests_in_flight', 'Our requests on it.', replica),
    running: gauge('replica_requests_running', 'Requests in its batch.', replica),
    waiting: gauge('replica_requests_waiting', 'Requests in its own queue.', replica),
    kvUsage: gauge('replica_kv_cache_usage_ratio', 'KV cache in use, 0 to 1.', replica),
    kvCapacity: gauge('replica_kv_cache_capacity_tokens', 'KV cache size.', replica),
    promptRate: gauge('replica_prompt_tokens_per_second', 'Prompt tokens read.', replica),
    generationRate: gauge('replica_generation_tokens_per_second', 'Tokens generated.', replica),
    signalAge: gauge('replica_signal_age_seconds', 'Age of a signal of the engine.', signal),
    scrapeFailures: counter('scrape_failures_total', 'Engine scrapes that failed.', replica),
    rankState: gauge('rank_state', '1 for the state its container is in.', rank),
  }
}

const declarers = (registry: Registry) => {
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter<L>({ name: `penstock_${name}`, help, labelNames, registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Gauge<L>({ name: `penstock_${name}`, help, labelNames, registers })
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name: `penstock_${name}`, help, labelNames: ['route'], buckets, registers })
  return { counter, gauge, histogram }
}

export type Declarations = ReturnType<typeof declare>
export type FleetMetrics = Declarations['fleet']
