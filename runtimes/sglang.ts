/**
 * SGLang: the launch of one rank, its log and its metric names. The same command line on every
 * node, but for the rank. Written against SGLang v0.5.20; older metric names are kept as aliases.
 * Sources: sglang python/sglang/srt/server_args.py, srt/environ.py,
 * srt/observability/metrics_collector.py, benchmark/deepseek_v3/README.md.
 */
import { contradictionsIn, type OwnedFlag, variableContradictions } from '../src/core/arguments.ts'
import { parsersOf } from '../src/core/catalogue.ts'
import {
  fabricEnvironment,
  flags,
  hostPort,
  KEEP_ALIVE_SECONDS,
  leaderOf,
  rankOf,
  STOP_GRACE_MS,
  seconds,
} from '../src/core/ranks.ts'
import type { Launch, LaunchAsk, MetricAlias, Runtime } from '../src/core/runtime.ts'
import { GIB } from '../src/core/units.ts'
import { type Source, sourceOf } from '../src/core/weights.ts'
import { phaseReader } from './phase.ts'

/** Pinned by tag; a manifest's `image` may add `@sha256:…` or name the `-cu129` variant. */
const IMAGE = 'lmsysorg/sglang:v0.5.20'

/**
 * Seconds without a finished batch until SGLang ends itself; its 300 are too few for a DeepGEMM
 * compilation (10 minutes a node) and for pipelines (#17941). Penstock watches progress itself.
 */
const WATCHDOG_SECONDS = 1800

/** What a process holds on each GPU before SGLang measures the free memory: context and NCCL. */
const CONTEXT_BYTES = 1 * GIB

const launch = (ask: LaunchAsk): Launch => {
  const { deployment } = ask
  const source = sourceOf(deployment.weights, rankOf(ask).node)
  return {
    image: deployment.image ?? IMAGE,
    command: [
      ...['python3', '-m', 'sglang.launch_server', '--model-path', source.model],
      ...argumentsOf(ask),
      ...deployment.extraArguments,
    ],
    environment: {
      ...environmentOf(ask, source),
      ...source.environment,
      ...fabricEnvironment(ask),
      ...deployment.environment,
    },
    mounts: source.mounts,
    // SGLang ends its running requests after SIGTERM however long they take; this is the limit.
    stopGraceMs: STOP_GRACE_MS,
  }
}

const argumentsOf = (ask: LaunchAsk): readonly string[] => {
  const { deployment, architecture } = ask
  const { node } = rankOf(ask)
  const parsers = parsersOf(deployment, 'sglang')
  return flags({
    '--served-model-name': deployment.name,
    '--revision': deployment.weights.revision ?? null,
    // Followers serve a stub on their own port; it answers 200 whatever happens, nobody asks it.
    '--host': node.listen ?? node.address,
    '--port': portOf(ask),
    '--tp-size': deployment.parallel.tensor,
    '--pp-size': deployment.parallel.pipeline,
    ...groupFlags(ask),
    '--context-length': deployment.context,
    '--device': ask.memory === null ? 'cpu' : null,
    '--mem-fraction-static': staticFraction(ask),
    '--kv-cache-dtype': deployment.kvCache === 'fp8' ? 'fp8_e4m3' : 'auto',
    '--max-running-requests': deployment.maxRunning ?? null,
    // DeepSeek's repositories carry their own configuration class.
    '--trust-remote-code': architecture.latentDimension !== undefined,
    '--reasoning-parser': parsers.reasoning,
    '--tool-call-parser': parsers.tools,
    '--enable-metrics': true,
    '--enable-cache-report': true,
    '--watchdog-timeout': WATCHDOG_SECONDS,
  })
}

const groupFlags = (ask: LaunchAsk): Readonly<Record<string, string | number>> => {
  if (ask.ranks.length === 1) return {}
  return {
    '--nnodes': ask.ranks.length,
    '--node-rank': ask.rank,
    '--dist-init-addr': hostPort(leaderOf(ask).node.address, ask.rendezvousPort),
    // One rank may load much longer than another; within the ready budget none gives up on it.
    '--dist-timeout': seconds(ask.deployment.readyTimeout),
  }
}

/** Rank 0 takes the replica's port; a follower the one that its own lowest GPU entitles it to. */
const portOf = (ask: LaunchAsk): number => {
  const { node, gpus } = rankOf(ask)
  return ask.rank === 0 ? ask.httpPort : node.ports.http + Math.min(...gpus)
}

/**
 * SGLang's pool is `free * f - weights`, where `free` is measured after the CUDA context is there;
 * activations and graphs live in the other `1 - f`. The plan's pool is `budget - weights -
 * overhead`, so f = (budget - overhead) / free, and the engine gets the pool that the plan shows.
 * (srt/model_executor: rest = available - pre_load_available * (1 - mem_fraction_static))
 */
const staticFraction = ({ memory }: LaunchAsk): string | null => {
  if (memory === null) return null
  const { gpuBytes, fraction, overheadBytes } = memory
  const share = (gpuBytes * fraction - overheadBytes) / (gpuBytes - CONTEXT_BYTES)
  return (Math.floor(Math.max(0.1, share) * 1000) / 1000).toFixed(3)
}

const environmentOf = (ask: LaunchAsk, source: Source): Readonly<Record<string, string>> => ({
  // Left alone, SGLang takes the address of the default route: wrong with several networks.
  SGLANG_HOST_IP: rankOf(ask).node.address,
  // srt/environ.py: SGLANG_TIMEOUT_KEEP_ALIVE = EnvInt(5), handed to uvicorn.
  SGLANG_TIMEOUT_KEEP_ALIVE: String(KEEP_ALIVE_SECONDS),
  ...(source.hub === 'modelscope' ? { SGLANG_USE_MODELSCOPE: 'true' } : {}),
  // DeepGEMM's compiled kernels: without them each start of R1 compiles for ten minutes.
  ...(source.directory === null
    ? {}
    : {
        SGLANG_CACHE_DIR: `${source.directory}/.cache/sglang`,
        SGLANG_DG_CACHE_DIR: `${source.directory}/.cache/deep_gemm`,
      }),
})

const OWNED: readonly OwnedFlag[] = [
  {
    names: ['--model-path', '--model', '--config'],
    instead: 'set weights and the other fields of the manifest',
  },
  { names: ['--served-model-name'], instead: 'the deployment name is the model name' },
  { names: ['--revision'], instead: 'set weights.revision' },
  {
    names: [
      '--host',
      '--port',
      '--fastapi-root-path',
      '--nccl-port',
      '--grpc-mode',
      '--smg-grpc-mode',
    ],
    instead: 'Penstock gives out addresses',
  },
  { names: ['--tensor-parallel-size', '--tp-size', '--tp'], instead: 'set parallel.tensor' },
  { names: ['--pipeline-parallel-size', '--pp-size', '--pp'], instead: 'set parallel.pipeline' },
  {
    names: ['--nnodes', '--node-rank', '--dist-init-addr', '--nccl-init-addr'],
    instead: 'Penstock forms the group: set parallel.nodes',
  },
  {
    names: ['--data-parallel-size', '--dp-size', '--dp', '--enable-dp-attention'],
    instead: 'data parallelism is not planned for: set replicas',
  },
  { names: ['--base-gpu-id', '--gpu-id-step', '--device'], instead: 'Penstock gives out the GPUs' },
  { names: ['--use-ray'], instead: 'Penstock launches without Ray' },
  { names: ['--dist-timeout'], instead: 'set readyTimeout' },
  { names: ['--context-length'], instead: 'set context' },
  {
    names: ['--mem-fraction-static', '--max-total-tokens'],
    instead: 'set memoryFraction, which the fit reckons with',
  },
  { names: ['--kv-cache-dtype'], instead: 'set kvCache' },
  { names: ['--max-running-requests'], instead: 'set maxRunning' },
  { names: ['--reasoning-parser'], instead: 'set reasoning' },
  { names: ['--tool-call-parser'], instead: 'set tools' },
  { names: ['--enable-metrics'], instead: 'always on: Penstock needs the metrics' },
  {
    names: ['--enable-cache-report'],
    instead: 'always on: the gateway counts cached tokens by it',
  },
  { names: ['--watchdog-timeout'], instead: 'Penstock watches the progress itself' },
  {
    names: ['--api-key', '--admin-api-key', '--ssl-keyfile', '--ssl-certfile', '--ssl-ca-certs'],
    instead: 'engines are reached by the gateway only, in plain HTTP and without a key',
  },
]

const OWNED_VARIABLES = {
  SGLANG_HOST_IP: "set the node's address",
  HOST_IP: "set the node's address",
  SGLANG_USE_MODELSCOPE: 'set weights.from',
} as const

/** Both the colon of today and the underscore of old versions. */
const named = (name: string, combine: MetricAlias['combine']): readonly MetricAlias[] => [
  { metric: `sglang:${name}`, combine },
  { metric: `sglang_${name}`, combine },
]

/**
 * Gauges come once per scheduler, and with priorities once more per priority beside their total:
 * the largest is the total. Counters of the tokenizer process come once.
 */
const metrics = {
  requestsRunning: named('num_running_reqs', 'max'),
  requestsWaiting: named('num_queue_reqs', 'max'),
  kvCacheUsageRatio: named('token_usage', 'max'),
  kvCapacityTokens: named('max_total_num_tokens', 'max'),
  promptTokensTotal: named('prompt_tokens_total', 'sum'),
  generationTokensTotal: named('generation_tokens_total', 'sum'),
  preemptionsTotal: [
    ...named('num_retracted_requests_total', 'max'),
    // Before 0.5.10 only a histogram of retractions per finished request (0.5.6 on).
    { metric: 'sglang:num_retractions_sum', combine: 'sum' },
  ],
  // Newer versions split by source; `total` is no sum but a source of its own: what came without
  // details (observe_one_finished_request in metrics_collector.py). Older ones have one series.
  prefixCacheHitTokensTotal: named('cached_tokens_total', 'sum'),
  // Every prompt token is looked up.
  prefixCacheQueryTokensTotal: named('prompt_tokens_total', 'sum'),
  // No step counter: tokens as they are computed rise with each step, and that is what is asked.
  stepsTotal: [
    ...named('realtime_tokens_total', 'sum'),
    ...named('generation_tokens_total', 'sum'),
  ],
} satisfies Runtime['metrics']

const phase = phaseReader([
  // `Application startup complete` comes earlier: the warm-up request is still to be answered.
  ['ready', /The server is fired up and ready to roll/],
  ['graphs', /Capture [\w ]*?cuda graph|Capturing batches/i],
  [
    'profile',
    /Load weight end|KV Cache is allocated|Memory pool end|DeepGEMM|max_total_num_tokens=/,
  ],
  [
    'weights',
    /Load weight begin|Beginning to load weights/,
    /Loading \w+ checkpoint shards|Multi-thread loading shards/,
  ],
  ['rendezvous', /Init torch distributed (begin|ends)/],
  ['start', /server_args=ServerArgs\(/],
])

export const sglang: Runtime = {
  name: 'sglang',
  launch,
  contradictions: ({ extraArguments, environment }) => [
    ...contradictionsIn(extraArguments, OWNED),
    ...variableContradictions(environment, OWNED_VARIABLES),
  ],
  // /health runs a token through the engine and takes up to SGLANG_HEALTH_CHECK_TIMEOUT = 20 s.
  ready: { path: '/health', probeTimeoutMs: 25_000 },
  metrics,
  phase,
  // The same share of VRAM in all as with vLLM; see `staticFraction` for what the engine is told.
  memory: { fraction: 0.92, overheadBytes: 1.5 * GIB },
}
