/**
 * How many tokens of KV cache a rank has room for, as the engine itself would find out at start.
 * Figures: facts gathered in the design (QwQ-32B on one H20 about 94-102 k tokens, DeepSeek-R1 at
 * TP16 0.60-0.65 M); the constants below are set so that these come out.
 */
import type { Architecture } from '../../src/core/manifest.ts'
import type { Settings } from './settings.ts'

const GiB = 2 ** 30
const MiB = 2 ** 20

/** CUDA context and collectives' buffers of an SGLang process, gone before it measures. */
const CONTEXT_BYTES = GiB

export type Memory = {
  readonly weightsBytes: number
  readonly kvBytesPerToken: number
  /** May be zero or negative: then the engine dies of it. */
  readonly kvBytes: number
  readonly poolTokens: number
  /** VRAM in use on each GPU once the engine serves. */
  readonly usedBytes: number
  readonly fraction: number
}

/** KV bytes of one token on one GPU. MLA keeps one latent on every rank, GQA shares heads out. */
const kvBytesPerToken = (
  shape: Architecture,
  settings: Pick<Settings, 'tensor' | 'pipeline' | 'kvType'>,
): number => {
  const bytes = settings.kvType === 'fp8' ? 1 : 2
  const layers = Math.ceil(shape.layers / settings.pipeline)
  if (shape.latentDimension !== undefined) return shape.latentDimension * layers * bytes
  const heads = Math.max(1, Math.ceil((shape.kvHeads ?? shape.attentionHeads) / settings.tensor))
  const dimension = shape.headDimension ?? Math.floor(shape.hiddenSize / shape.attentionHeads)
  return 2 * layers * heads * dimension * bytes
}

/** Weights on one GPU; MLA projections are replicated, 1 GiB in R1 (79.4 GiB measured at TP8). */
const weightsBytes = (
  shape: Architecture,
  { tensor, pipeline }: Pick<Settings, 'tensor' | 'pipeline'>,
): number =>
  shape.weightBytes / (tensor * pipeline) +
  (shape.latentDimension !== undefined && tensor > 1 ? GiB : 0)

/** CUDA context 1.5 GiB, activations of one full batch, expert workspace, collective buffers. */
const overheadBytes = (shape: Architecture, settings: Settings): number =>
  1.5 * GiB +
  18 * (settings.batchTokensMax ?? settings.contextTokens) * shape.hiddenSize * 2 +
  (shape.activeParameters === undefined ? 0 : GiB) +
  (settings.tensor > 1 ? 0.5 * GiB : 0)

/** SGLang keeps the rest of the card for activations and graphs (srt/arg_groups/memory_hook.py). */
const staticFraction = (memoryBytes: number, settings: Settings): number => {
  const total = memoryBytes / MiB
  const activations = Math.max(settings.batchTokensMax ?? settings.contextTokens, 2048) * 1.5
  const parallel = ((settings.tensor * settings.pipeline) / 8) * 1024
  const graphs = (settings.tensor < 4 ? 256 : 512) * 2
  const reserved = Math.max(512 + activations + parallel + graphs, 10 * 1024)
  return Math.round(((total - Math.min(reserved, total)) / total) * 1000) / 1000
}

export const planMemory = (
  shape: Architecture,
  memoryBytes: number,
  settings: Settings,
): Memory => {
  const weights = weightsBytes(shape, settings)
  const perToken = kvBytesPerToken(shape, settings)
  const fraction = settings.memoryFraction ?? staticFraction(memoryBytes, settings)
  // vLLM's share covers everything. SGLang's is taken of what is free once the context is there
  // (srt/model_executor: rest = available - pre_load_available * (1 - mem_fraction_static)).
  const overhead =
    settings.engine === 'vllm' ? overheadBytes(shape, settings) : fraction * CONTEXT_BYTES
  const kvBytes = fraction * memoryBytes - weights - overhead
  const tokens = Math.floor(kvBytes / perToken)
  const capped = Math.min(tokens, settings.poolTokensMax ?? tokens)
  const poolTokens = Math.max(0, Math.floor(capped / settings.blockTokens) * settings.blockTokens)
  const used = weights + overhead + poolTokens * perToken
  return {
    weightsBytes: weights,
    kvBytesPerToken: perToken,
    kvBytes,
    poolTokens,
    usedBytes: Math.min(memoryBytes, used),
    fraction,
  }
}

const gib = (bytes: number): string => (bytes / GiB).toFixed(2)

/** The engine's last words when another's memory is still on the GPU; null: enough is free. */
export const occupiedError = (
  takenBytes: number,
  { fraction }: Memory,
  memoryBytes: number,
  { engine }: Settings,
): string | null => {
  const free = memoryBytes - takenBytes
  if (takenBytes === 0 || free >= fraction * memoryBytes) return null
  if (engine === 'sglang') {
    return (
      'RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. ' +
      `Current value: mem_fraction_static=${fraction}`
    )
  }
  return (
    `ValueError: Free memory on device cuda:0 (${gib(free)}/${gib(memoryBytes)} GiB) on startup ` +
    `is less than desired GPU memory utilization (${fraction}, ${gib(fraction * memoryBytes)} ` +
    'GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.'
  )
}

/** The engine's last words when the pool is too small; null when it starts. */
export const memoryError = (
  memory: Memory,
  memoryBytes: number,
  settings: Settings,
): string | null => {
  if (memory.weightsBytes > memoryBytes) {
    return (
      'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 462.00 MiB. GPU 0 has a ' +
      `total capacity of ${gib(memoryBytes)} GiB of which 214.19 MiB is free.`
    )
  }
  if (settings.engine === 'sglang') {
    return memory.poolTokens > 0
      ? null
      : 'RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. ' +
          `Current value: mem_fraction_static=${memory.fraction}`
  }
  if (memory.poolTokens <= 0) {
    return (
      'ValueError: No available memory for the cache blocks. Try increasing ' +
      '`gpu_memory_utilization` when initializing the engine.'
    )
  }
  if (memory.poolTokens >= settings.contextTokens) return null
  const needed = settings.contextTokens * memory.kvBytesPerToken
  return (
    `ValueError: To serve at least one request with the models's max seq len ` +
    `(${settings.contextTokens}), (${gib(needed)} GiB KV cache is needed, which is larger than ` +
    `the available KV cache memory (${gib(memory.kvBytes)} GiB). Based on the available memory, ` +
    `the estimated maximum model length is ${memory.poolTokens}. Try increasing ` +
    '`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.'
  )
}
