/** Start-up: what the engine says while it loads, and how long each phase takes (simulated ms). */
import type { Rehearsal } from '../../src/core/runtime.ts'
import type { SimulatedClock } from './clock.ts'
import type { Log } from './log.ts'
import type { Memory } from './memory.ts'
import type { Settings } from './settings.ts'

/**
 * Bytes a second from a local NVMe array or the page cache: R1's 163 shards in 56 s for two nodes
 * (tanjunchen, 2x8 H20), each of which keeps half of them.
 */
const DISK_BYTES_PER_SECOND = 6.15e9

/** Phases, milliseconds: vLLM's and SGLang's start-up logs on Hopper (design facts 2.6). */
const SPAN = {
  imports: 6000,
  nccl: 4000,
  compile: 22_000,
  profile: 5000,
  deepGemm: 40_000,
  graphs: 18_000,
  server: 1000,
}

/** Size of one shard of the published checkpoints: QwQ 14 files, R1 163. */
const SHARD_BYTES = { fp8: 4.13e9, other: 4.68e9 }

const GiB = 2 ** 30
const gib = (bytes: number): string => (bytes / GiB).toFixed(2)

export type Starting = {
  readonly settings: Settings
  readonly rehearsal: Rehearsal
  readonly memory: Memory
  readonly clock: SimulatedClock
  readonly log: Log
  /** How much VRAM is taken so far. */
  readonly reached: (memoryBytes: number) => void
  /** Waits for a simulated span of loading, longer where a fault slows the disk. */
  readonly load: (spanMs: number) => Promise<void>
  readonly pid: number
}

export const announce = ({ settings, log, clock }: Starting): Promise<void> => {
  if (settings.engine === 'sglang') {
    log.info(
      '',
      `server_args=ServerArgs(model_path='${settings.model}', tp_size=${settings.tensor})`,
    )
  } else if (settings.headless) {
    const { host, port } = settings.rendezvous ?? { host: '127.0.0.1', port: 0 }
    log.info(
      'APIServer',
      `Launching vLLM (v${settings.version}) headless multiproc executor, with head node address ` +
        `${host}:${port} for torch.distributed process group.`,
    )
  } else {
    log.info('APIServer', `vLLM API server version ${settings.version}, model ${settings.model}`)
    log.info('APIServer', `non-default args: {'model_tag': '${settings.model}'}`)
  }
  return clock.sleep(SPAN.imports)
}

export const meeting = ({ settings, log }: Starting): void => {
  const address = settings.rendezvous
  if (settings.engine === 'sglang') {
    log.info('', 'Init torch distributed begin.')
    return
  }
  log.info(
    'EngineCore',
    `Initializing a V1 LLM engine (v${settings.version}) with config: model='${settings.model}', ` +
      `tensor_parallel_size=${settings.tensor}, pipeline_parallel_size=${settings.pipeline}`,
  )
  if (address === null) return
  log.info(
    'Worker',
    `world_size=${settings.tensor * settings.pipeline} rank=${settings.nodeRank} ` +
      `distributed_init_method=tcp://${address.host}:${address.port} backend=nccl`,
  )
}

export const met = async ({ settings, log, clock, rehearsal }: Starting): Promise<void> => {
  if (settings.tensor * settings.pipeline > 1) await clock.sleep(SPAN.nccl)
  if (settings.engine === 'sglang') {
    log.info('', `Init torch distributed ends. mem usage=1.02 GB, GPUs=${rehearsal.gpus.length}`)
  } else if (settings.tensor > 1) log.info('Worker', 'vLLM is using nccl==2.28.3')
}

/** Shards with progress, as tqdm writes them to a log. */
export const loadWeights = async (start: Starting): Promise<void> => {
  const { settings, rehearsal, memory, clock, log } = start
  const { architecture } = rehearsal
  const size = architecture.weightsType === 'fp8' ? SHARD_BYTES.fp8 : SHARD_BYTES.other
  const shards = Math.max(1, Math.round(architecture.weightBytes / size))
  const totalMs = (architecture.weightBytes / settings.nodes / DISK_BYTES_PER_SECOND) * 1000
  const lines = Math.min(shards, 50)
  const vllm = settings.engine === 'vllm'
  if (vllm) log.info('Worker', `Starting to load model ${settings.model}...`)
  else log.info('', `Load weight begin. avail mem=${gib(rehearsal.memoryBytes)} GB`)
  const began = clock.now()
  for (let line = 0; line <= lines; line += 1) {
    if (line > 0) await start.load(totalMs / lines)
    const tookMs = clock.now() - began
    // tqdm's forecast: as fast as so far.
    const leftMs = line === 0 ? totalMs : (tookMs / line) * (lines - line)
    const done = Math.floor((shards * line) / lines)
    const percent = String(Math.floor((100 * done) / shards)).padStart(3)
    log.plain(
      `Loading safetensors checkpoint shards: ${percent}% Completed | ${done}/${shards} ` +
        `[${clockText(tookMs)}<${clockText(leftMs)}]`,
    )
    start.reached((memory.weightsBytes * done) / shards)
  }
  const seconds = ((clock.now() - began) / 1000).toFixed(2)
  if (vllm) {
    log.info('Worker', `Loading weights took ${seconds} seconds`)
    log.info(
      'Worker',
      `Model loading took ${gib(memory.weightsBytes)} GiB memory and ${seconds} seconds`,
    )
  } else {
    log.info('', `Load weight end. elapsed=${seconds} s, mem usage=${gib(memory.weightsBytes)} GB.`)
  }
}

const clockText = (ms: number): string => {
  const seconds = Math.round(ms / 1000)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${two(Math.floor(seconds / 60))}:${two(seconds % 60)}`
}

/** Profiling: afterwards the engine knows how much is left for the KV cache. */
export const profile = async (start: Starting): Promise<void> => {
  const { settings, clock, log, rehearsal } = start
  if (settings.engine === 'sglang') return
  if (!settings.eager) {
    log.info('Worker', 'Using cache directory: /root/.cache/vllm/torch_compile_cache')
    await clock.sleep(SPAN.compile)
    log.info('Worker', `torch.compile takes ${(SPAN.compile / 1000).toFixed(2)} s in total`)
  }
  await clock.sleep(SPAN.profile)
  if (rehearsal.architecture.weightsType === 'fp8') {
    log.info('Worker', 'DeepGEMM warmup (start)')
    await clock.sleep(SPAN.deepGemm)
  }
}

export const announceCache = (start: Starting): void => {
  const { settings, memory, log } = start
  start.reached(memory.usedBytes)
  const tokens = memory.poolTokens
  if (settings.engine === 'sglang') {
    const size = gib(tokens * memory.kvBytesPerToken)
    log.info('', `KV Cache is allocated. #tokens: ${tokens}, KV size: ${size} GB`)
    return
  }
  log.info('Worker', `Available KV cache memory: ${gib(memory.kvBytes)} GiB`)
  log.info(
    'EngineCore',
    `GPU KV cache size: ${tokens.toLocaleString('en-US')} tokens, Maximum concurrency for ` +
      `${settings.contextTokens.toLocaleString('en-US')} tokens per ` +
      `request: ${(tokens / settings.contextTokens).toFixed(2)}x`,
  )
}

export const captureGraphs = async ({ settings, clock, log, memory }: Starting): Promise<void> => {
  if (settings.engine === 'sglang') {
    if (!settings.eager) {
      log.info('', 'Capture cuda graph begin. This can take up to several minutes.')
      await clock.sleep(SPAN.graphs + SPAN.deepGemm / 2)
      log.info('', 'Capture cuda graph end. Time elapsed: 18.00 s.')
    }
    log.info(
      '',
      `max_total_num_tokens=${memory.poolTokens}, chunked_prefill_size=` +
        `${settings.batchTokensMax ?? -1}, max_running_requests=${settings.runningMax}, ` +
        `context_len=${settings.contextTokens}`,
    )
    return
  }
  if (settings.eager) return
  log.plain('Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/51')
  await clock.sleep(SPAN.graphs)
  log.plain('Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|##########| 51/51')
  log.info('Worker', `Graph capturing finished in ${SPAN.graphs / 1000} secs, took 1.60 GiB`)
}

/** What vLLM says it can do with the model (entrypoints of 0.32.0). */
const tasksOf = ({ pooling }: Settings): string => {
  const tasks = {
    embed: ['embed', 'token_embed'],
    classify: ['token_classify', 'classify'],
    generate: ['generate'],
  }
  return tasks[pooling?.task ?? 'generate'].map((task) => `'${task}'`).join(', ')
}

/** The last lines before the first request. */
export const opened = async ({ settings, log, clock, pid }: Starting): Promise<void> => {
  const url = `http://${settings.host}:${settings.port}`
  if (settings.engine === 'vllm') {
    log.info('APIServer', `Supported tasks: [${tasksOf(settings)}]`)
    log.info('APIServer', `Starting vLLM server on ${url}`)
    log.plain(`INFO:     Started server process [${pid}]`)
    log.plain('INFO:     Waiting for application startup.')
    log.plain('INFO:     Application startup complete.')
    return
  }
  log.plain(`INFO:     Started server process [${pid}]`)
  log.plain('INFO:     Application startup complete.')
  log.plain(`INFO:     Uvicorn running on ${url} (Press CTRL+C to quit)`)
  await clock.sleep(SPAN.server)
  log.info('', 'The server is fired up and ready to roll!')
}
