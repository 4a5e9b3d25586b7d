/**
 * vLLM: the launch of one rank, its log and its metric names. Native multi-node (`--nnodes`, no
 * Ray, which the image no longer has). Written against vLLM v0.30; names of older versions are kept
 * as metric aliases. Sources: vllm docs/serving/parallelism_scaling.md, vllm/envs.py,
 * vllm/v1/metrics/loggers.py, vllm/entrypoints/cli/serve.py.
 */
import { contradictionsIn, type OwnedFlag, variableContradictions } from '../src/core/arguments.ts'
import { parsersOf } from '../src/core/catalogue.ts'
import {
  fabricEnvironment,
  flags,
  KEEP_ALIVE_SECONDS,
  leaderOf,
  rankOf,
  SHUTDOWN_SECONDS,
  STOP_GRACE_MS,
  seconds,
} from '../src/core/ranks.ts'
import type { Launch, LaunchAsk, MetricAlias, Runtime } from '../src/core/runtime.ts'
import { GIB } from '../src/core/units.ts'
import { type Source, sourceOf } from '../src/core/weights.ts'
import { phaseReader } from './phase.ts'

/**
 * Pinned by tag. A manifest's `image` may add `@sha256:…`, or name the `-cu129` variant: the plain
 * tag is CUDA 13 and wants driver R580 or newer.
 */
const IMAGE = 'vllm/vllm-openai:v0.30.0'

/** GiB of RAM for the KV cache of the CPU build; its own default follows the machine's memory. */
const CPU_KV_GIB = 4

const launch = (ask: LaunchAsk): Launch => {
  const { deployment } = ask
  const { node } = rankOf(ask)
  const source = sourceOf(deployment.weights, node)
  return {
    image: deployment.image ?? IMAGE,
    command: ['vllm', 'serve', source.model, ...argumentsOf(ask), ...deployment.extraArguments],
    environment: {
      ...environmentOf(ask, source),
      ...source.environment,
      ...fabricEnvironment(ask),
      ...deployment.environment,
    },
    mounts: source.mounts,
    stopGraceMs: STOP_GRACE_MS,
  }
}

const argumentsOf = (ask: LaunchAsk): readonly string[] => {
  const { deployment, architecture } = ask
  const { node } = rankOf(ask)
  const follower = ask.rank > 0
  const parsers = parsersOf(deployment, 'vllm')
  return flags({
    '--served-model-name': deployment.name,
    '--revision': deployment.weights.revision ?? null,
    // A headless rank serves no HTTP: an address there would be noise that looks like a port.
    '--host': follower ? null : (node.listen ?? node.address),
    '--port': follower ? null : ask.httpPort,
    '--tensor-parallel-size': deployment.parallel.tensor,
    '--pipeline-parallel-size': deployment.parallel.pipeline,
    ...groupFlags(ask),
    '--max-model-len': deployment.context,
    '--gpu-memory-utilization': ask.memory?.fraction ?? null,
    '--kv-cache-dtype': deployment.kvCache,
    '--max-num-seqs': deployment.maxRunning ?? null,
    // DeepSeek's repositories carry their own configuration class.
    '--trust-remote-code': architecture.latentDimension !== undefined,
    '--reasoning-parser': parsers.reasoning,
    '--enable-auto-tool-choice': parsers.tools !== null,
    '--tool-call-parser': parsers.tools,
    '--enable-prompt-tokens-details': true,
    '--shutdown-timeout': SHUTDOWN_SECONDS,
  })
}

const groupFlags = (ask: LaunchAsk): Readonly<Record<string, string | number | boolean>> => {
  if (ask.ranks.length === 1) return {}
  // One rank may load much longer than another; within the ready budget none gives up on it.
  const timeout = seconds(ask.deployment.readyTimeout)
  return {
    '--nnodes': ask.ranks.length,
    '--node-rank': ask.rank,
    '--master-addr': leaderOf(ask).node.address,
    '--master-port': ask.rendezvousPort,
    '--distributed-timeout-seconds': timeout,
    '--cpu-distributed-timeout-seconds': timeout,
    '--headless': ask.rank > 0,
  }
}

const environmentOf = (ask: LaunchAsk, source: Source): Readonly<Record<string, string>> => ({
  // Left alone, vLLM takes the address of the default route: wrong on hosts with several networks.
  VLLM_HOST_IP: rankOf(ask).node.address,
  VLLM_ENGINE_READY_TIMEOUT_S: String(seconds(ask.deployment.readyTimeout)),
  VLLM_HTTP_TIMEOUT_KEEP_ALIVE: String(KEEP_ALIVE_SECONDS),
  // No telemetry from machines that often have no way out; it also saves the wait for it.
  VLLM_NO_USAGE_STATS: '1',
  ...(source.hub === 'modelscope' ? { VLLM_USE_MODELSCOPE: 'true' } : {}),
  // torch.compile's cache: with it a restart skips minutes of compilation.
  ...(source.directory === null ? {} : { VLLM_CACHE_ROOT: `${source.directory}/.cache/vllm` }),
  ...(ask.memory === null ? { VLLM_CPU_KVCACHE_SPACE: String(CPU_KV_GIB) } : {}),
})

const OWNED: readonly OwnedFlag[] = [
  { names: ['--model', '--config'], instead: 'set weights and the other fields of the manifest' },
  { names: ['--served-model-name'], instead: 'the deployment name is the model name' },
  { names: ['--revision'], instead: 'set weights.revision' },
  { names: ['--host', '--port', '--uds', '--root-path'], instead: 'Penstock gives out addresses' },
  { names: ['--tensor-parallel-size', '-tp'], instead: 'set parallel.tensor' },
  { names: ['--pipeline-parallel-size', '-pp'], instead: 'set parallel.pipeline' },
  {
    names: ['--nnodes', '-n', '--node-rank', '-r', '--master-addr', '--master-port', '--headless'],
    instead: 'Penstock forms the group: set parallel.nodes',
  },
  {
    names: [
      ...['--data-parallel-size', '-dp', '--data-parallel-rank', '-dpn'],
      ...['--data-parallel-start-rank', '-dpr', '--data-parallel-size-local', '-dpl'],
      ...['--data-parallel-address', '-dpa', '--data-parallel-rpc-port', '-dpp'],
      ...['--data-parallel-backend', '-dpb', '--data-parallel-hybrid-lb', '-dph'],
      ...['--data-parallel-external-lb', '-dpe', '--api-server-count', '-asc'],
    ],
    instead: 'data parallelism is not planned for: set replicas',
  },
  { names: ['--distributed-executor-backend'], instead: 'Penstock launches without Ray' },
  {
    names: ['--distributed-timeout-seconds', '--cpu-distributed-timeout-seconds'],
    instead: 'set readyTimeout',
  },
  { names: ['--max-model-len'], instead: 'set context' },
  {
    names: [
      ...['--gpu-memory-utilization', '--device-memory-utilization', '--kv-cache-memory-bytes'],
      ...['--kv-cache-memory', '--num-gpu-blocks-override'],
    ],
    instead: 'set memoryFraction, which the fit reckons with',
  },
  { names: ['--kv-cache-dtype'], instead: 'set kvCache' },
  { names: ['--max-num-seqs'], instead: 'set maxRunning' },
  { names: ['--reasoning-parser'], instead: 'set reasoning' },
  {
    names: ['--tool-call-parser', '--enable-auto-tool-choice', '--no-enable-auto-tool-choice'],
    instead: 'set tools',
  },
  {
    names: ['--enable-prompt-tokens-details', '--no-enable-prompt-tokens-details'],
    instead: 'always on: the gateway counts cached tokens by it',
  },
  { names: ['--disable-log-stats'], instead: 'Penstock needs the metrics' },
  { names: ['--shutdown-timeout'], instead: 'set drainTimeout' },
  {
    names: ['--api-key', '--ssl-keyfile', '--ssl-certfile', '--ssl-ca-certs', '--ssl-cert-reqs'],
    instead: 'engines are reached by the gateway only, in plain HTTP and without a key',
  },
]

const OWNED_VARIABLES = {
  VLLM_HOST_IP: "set the node's address",
  VLLM_PORT: 'Penstock gives out ports',
  VLLM_API_KEY: 'the gateway holds the keys',
  VLLM_USE_MODELSCOPE: 'set weights.from',
} as const

const sum = (metric: string): MetricAlias => ({ metric, combine: 'sum' })
const max = (metric: string): MetricAlias => ({ metric, combine: 'max' })

/** The engine label counts data-parallel engines: counts add up, a fill level is the fullest's. */
const metrics = {
  requestsRunning: [sum('vllm:num_requests_running')],
  requestsWaiting: [sum('vllm:num_requests_waiting')],
  // Renamed in 0.10 (#18354), the old name gone in 0.12 (#29330).
  kvCacheUsageRatio: [max('vllm:kv_cache_usage_perc'), max('vllm:gpu_cache_usage_perc')],
  kvCapacityTokens: [
    // Since 2026-06 (#42206); before that blocks times their size, both labels of the same metric.
    { metric: 'vllm:cache_config_info', label: 'kv_cache_size_tokens', combine: 'sum' },
    {
      metric: 'vllm:cache_config_info',
      product: ['num_gpu_blocks', 'block_size'],
      combine: 'sum',
    },
  ],
  promptTokensTotal: [sum('vllm:prompt_tokens_total')],
  generationTokensTotal: [sum('vllm:generation_tokens_total')],
  preemptionsTotal: [sum('vllm:num_preemptions_total')],
  prefixCacheHitTokensTotal: [
    sum('vllm:prefix_cache_hits_total'),
    sum('vllm:gpu_prefix_cache_hits_total'),
  ],
  prefixCacheQueryTokensTotal: [
    sum('vllm:prefix_cache_queries_total'),
    sum('vllm:gpu_prefix_cache_queries_total'),
  ],
  // A histogram in spite of its name: its count rises by one with each engine step.
  stepsTotal: [sum('vllm:iteration_tokens_total_count')],
} satisfies Runtime['metrics']

const phase = phaseReader([
  ['ready', /Application startup complete/],
  ['graphs', /Capturing CUDA graphs|Graph capturing finished/],
  [
    'profile',
    /Loading weights took|Model loading took/,
    /Using cache directory|Dynamo bytecode transform|torch\.compile t(akes|ook)|Compiling a graph/,
    /Available KV cache memory|GPU KV cache size/,
    /DeepGEMM warmup|Autotuning process/i,
  ],
  ['weights', /Starting to load model|Loading \w+ checkpoint shards|Loading pt checkpoint/],
  ['rendezvous', /Initializing a V1 LLM engine|distributed_init_method=|vLLM is using nccl/i],
  ['start', /vLLM API server version|Launching headless|Running in headless mode|non-default args/],
])

export const vllm: Runtime = {
  name: 'vllm',
  launch,
  contradictions: ({ extraArguments, environment }) => [
    ...contradictionsIn(extraArguments, OWNED),
    ...variableContradictions(environment, OWNED_VARIABLES),
  ],
  // /health answers from a flag, without touching the engine; under a busy CPU 2 s are too few.
  ready: { path: '/health', probeTimeoutMs: 10_000 },
  metrics,
  phase,
  // 0.92 is vLLM's own default since #38284. Beside activations an engine holds its CUDA context
  // (0.5 GiB), workspaces and captured graphs (0.7 to 1 GiB in the start-up logs read).
  memory: { fraction: 0.92, overheadBytes: 1.5 * GIB },
}
