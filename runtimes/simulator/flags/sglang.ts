/**
 * `python3 -m sglang.launch_server …` to Settings. Unknown flags end as argparse does (exit 2),
 * contradictions as SGLang's checks do (an exception's last line, exit 1).
 */

import { NEW_TOKEN_RATIO } from '../physics/admission.ts'
import {
  type Command,
  environmentSeconds,
  type Facts,
  portProblem,
  positive,
  readAddress,
  type Settings,
  usageError,
} from '../settings.ts'
import { type Flags, parseFlags } from './argparse.ts'
import { sglangPooling } from './pooling.ts'
import { flagsAt, playedVersion, splitVersion } from './versions.ts'

/** The newest release whose source was read (wheel sglang 0.5.23). */
export const SGLANG_VERSION = '0.5.23'

const PROGRAM = 'launch_server.py'
const USAGE = 'launch_server.py [-h] --model-path MODEL_PATH [options]'

export const readSglang = (argv: readonly string[], facts: Facts): Command => {
  const { asked, rest } = splitVersion(argv)
  const played = playedVersion('sglang', asked ?? facts.asVersion ?? null)
  if (!played.ok) return { ok: false, code: 2, message: played.message }
  const { version } = played
  const { all, taken } = flagsAt('sglang', version)
  const parsed = parseFlags(taken, rest, 0, { all, dotted: false })
  if (!parsed.ok) return usageError(PROGRAM, USAGE, parsed.message)
  const { flags } = parsed
  const model = flags.text('--model-path')
  if (model === null) {
    return usageError(PROGRAM, USAGE, 'the following arguments are required: --model-path/--model')
  }
  const problem = contradiction(flags, facts)
  return problem === null
    ? { ok: true, settings: settingsOf(flags, model, facts, version) }
    : { ok: false, code: 1, message: problem }
}

const contradiction = (flags: Flags, facts: Facts): string | null => {
  const tensor = flags.number('--tp-size') ?? 1
  const pipeline = flags.number('--pp-size') ?? 1
  const data = flags.number('--dp-size') ?? 1
  const nodes = flags.number('--nnodes') ?? 1
  const rank = flags.number('--node-rank') ?? 0
  const world = tensor * pipeline
  if (world < 1 || nodes < 1 || world % nodes !== 0) {
    return 'AssertionError: tp_size must be divisible by number of nodes'
  }
  if (rank < 0 || rank >= nodes)
    return `AssertionError: node_rank ${rank} is not below nnodes ${nodes}`
  if (flags.on('--enable-dp-attention') && tensor % data !== 0) {
    return `AssertionError: tp_size (${tensor}) must be divisible by dp_size (${data})`
  }
  const address = flags.text('--dist-init-addr')
  if (nodes > 1 && address === null) {
    return 'AssertionError: --dist-init-addr is required when --nnodes > 1'
  }
  if (address !== null && readAddress(address) === null) {
    return `ValueError: --dist-init-addr: cannot read ${address}: expected host:port`
  }
  if (world / nodes > facts.localGpus) {
    return (
      'RuntimeError: CUDA error: invalid device ordinal ' +
      `(${world / nodes} ranks on a node with ${facts.localGpus} GPUs)`
    )
  }
  if (facts.attentionHeads % tensor !== 0) {
    return `AssertionError: ${facts.attentionHeads} is not divisible by ${tensor}`
  }
  const length = flags.number('--context-length')
  if (length !== null && length > facts.maxContext && !longAllowed(facts)) {
    return (
      `ValueError: User-specified context_length (${length}) is greater than the derived ` +
      `context_length (${facts.maxContext}). This may lead to incorrect model outputs or CUDA ` +
      'errors. To allow overriding this maximum, set the env var ' +
      'SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1'
    )
  }
  if (flags.on('--enable-metrics') && EDGES.some((name) => !ascending(edges(flags, name)))) {
    return 'ValueError: Buckets not in sorted order'
  }
  const fraction = flags.number('--mem-fraction-static') ?? 0.5
  if (Number.isNaN(fraction)) return 'ValueError: cannot convert float NaN to integer'
  if (!Number.isFinite(fraction)) return 'OverflowError: cannot convert float infinity to integer'
  return portProblem(flags.number('--port'))
}

const EDGES = [
  '--bucket-time-to-first-token',
  '--bucket-inter-token-latency',
  '--bucket-e2e-request-latency',
]

/** prometheus_client refuses other edges. */
const ascending = (list: readonly number[] | null): boolean =>
  (list ?? []).every((edge, index, all) => index === 0 || edge >= (all[index - 1] ?? 0))

const longAllowed = ({ environment }: Facts): boolean =>
  ['1', 'true'].includes(environment.SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN ?? '')

const edges = (flags: Flags, name: string): readonly number[] | null => {
  const given = flags.list(name).map(Number)
  return given.length === 0 ? null : given
}

/** uvicorn writes its access log at level info. */
const unlogged = (flags: Flags): Settings['unlogged'] => {
  const level = flags.text('--log-level-http') ?? flags.text('--log-level') ?? 'info'
  if (!['info', 'debug', 'trace'].includes(level.toLowerCase())) return null
  return { paths: [], prefixes: flags.list('--uvicorn-access-log-exclude-prefixes') }
}

/** srt/managers/scheduler_components/new_token_ratio_tracker.py */
const newTokenRatio = (flags: Flags, { environment }: Facts): number => {
  const base = environmentSeconds(environment.SGLANG_INIT_NEW_TOKEN_RATIO, NEW_TOKEN_RATIO)
  return Math.min(1, base * (flags.number('--schedule-conservativeness') ?? 1))
}

const settingsOf = (flags: Flags, model: string, facts: Facts, version: string): Settings => {
  const nodes = flags.number('--nnodes') ?? 1
  const address = flags.text('--dist-init-addr')
  const priority = flags.on('--enable-priority-scheduling')
  // Defaults by GPU size: srt/arg_groups/memory_hook.py (35, 60 and 160 GiB are the borders).
  const chunk = facts.memoryBytes < 60 * 2 ** 30 ? 4096 : 8192
  const chunkFlag = flags.number('--chunked-prefill-size')
  return {
    engine: 'sglang',
    version,
    model,
    servedNames: [flags.text('--served-model-name') ?? model],
    host: flags.text('--host') ?? '127.0.0.1',
    port: flags.number('--port') ?? 30000,
    apiKey: flags.text('--api-key'),
    tensor: flags.number('--tp-size') ?? 1,
    pipeline: flags.number('--pp-size') ?? 1,
    nodes,
    nodeRank: flags.number('--node-rank') ?? 0,
    rendezvous: nodes > 1 && address !== null ? readAddress(address) : null,
    headless: false,
    contextTokens: positive(flags, '--context-length', facts.maxContext),
    memoryFraction: flags.number('--mem-fraction-static'),
    kvType: (flags.text('--kv-cache-dtype') ?? 'auto').startsWith('fp8') ? 'fp8' : 'auto',
    // SGLang's page is one token; 16 here keeps the radix tree's stand-in small (16 times fewer
    // entries), at the price of a pool that looks at most 15 tokens a request fuller.
    blockTokens: Math.max(16, positive(flags, '--page-size', 1)),
    batchTokensMax: chunkFlag !== null && chunkFlag < 0 ? null : (chunkFlag ?? chunk),
    runningMax: positive(flags, '--max-running-requests', 2048),
    queuedMax: flags.number('--max-queued-requests'),
    poolTokensMax: flags.number('--max-total-tokens'),
    newTokenRatio: newTokenRatio(flags, facts),
    prefixCache: !flags.on('--disable-radix-cache'),
    priority: !priority
      ? 'off'
      : flags.on('--schedule-low-priority-values-first')
        ? 'low-first'
        : 'high-first',
    eager: flags.on('--disable-cuda-graph'),
    ...sglangPooling(flags),
    reasoningParser: flags.text('--reasoning-parser'),
    toolParser: flags.text('--tool-call-parser'),
    cachedTokensInUsage: flags.on('--enable-cache-report'),
    usageAlways: flags.on('--stream-response-default-include-usage'),
    metrics: flags.on('--enable-metrics'),
    unlogged: unlogged(flags),
    hiddenMetrics: false,
    buckets: {
      ttft: edges(flags, '--bucket-time-to-first-token'),
      itl: edges(flags, '--bucket-inter-token-latency'),
      e2e: edges(flags, '--bucket-e2e-request-latency'),
    },
    decodeLogInterval: positive(flags, '--decode-log-interval', 40),
    streamInterval: positive(flags, '--stream-interval', 1),
    shutdownTimeoutMs: 0,
    rendezvousTimeoutMs: positive(flags, '--dist-timeout', 600) * 1000,
    readyTimeoutMs: Number.POSITIVE_INFINITY,
    // srt/environ.py: handed to uvicorn, whose default it is.
    keepAliveMs: environmentSeconds(facts.environment.SGLANG_TIMEOUT_KEEP_ALIVE, 5) * 1000,
    watchdogMs: positive(flags, '--watchdog-timeout', 300) * 1000,
  }
}
