/**
 * The sum behind a fit: VRAM, budget, weights, overhead, KV pool of one GPU; and what no memory can
 * mend. Judged in core/fit.ts, tried out with changes in core/remedies.ts.
 */
import type { Architecture } from './manifest.ts'
import {
  type FitTerm,
  type KvCache,
  kvBytesPerToken,
  overheadTerms,
  type Parallel,
  weightBytesPerGpu,
} from './memory.ts'
import type { GpuProfile } from './profile.ts'
import { thousands } from './units.ts'

export type FitSum = {
  /** The GPU profile that the sum is for; null when nothing was checked (a cpu node). */
  readonly profile: string | null
  readonly parallel: Parallel
  readonly context: number
  /** VRAM of one GPU, bytes, and the share that the engine may use. */
  readonly memoryBytes: number
  readonly memoryFraction: number
  readonly budgetBytes: number
  readonly weightsBytesPerGpu: number
  readonly overheadBytesPerGpu: number
  /** The parts of the overhead; they add up to it. */
  readonly overhead: readonly FitTerm[]
  /** What is left for the KV cache on each GPU; may be negative. */
  readonly kvBytesPerGpu: number
  readonly kvBytesPerTokenPerGpu: number
  /** Tokens that the KV pool of one replica holds. */
  readonly kvPoolTokens: number
  /** How many requests of full context the pool holds at once, rounded down to hundredths. */
  readonly fullContextRequests: number
}

export type FitAsk = {
  readonly architecture: Architecture
  readonly profile: GpuProfile
  readonly parallel: Parallel
  readonly context: number
  readonly kvCache: KvCache
  /**
   * Share of VRAM for weights, KV cache and overhead together: vLLM's --gpu-memory-utilization.
   * SGLang's --mem-fraction-static leaves the overhead out; runtimes/sglang.ts converts.
   */
  readonly memoryFraction: number
  /** What the engine needs on every GPU whatever the model: Runtime.memory.overheadBytes. */
  readonly overheadBytes: number
  /** GPU models to look for a way out among. */
  readonly otherProfiles?: readonly GpuProfile[]
  /** GPUs of the largest node with this profile: no way out is looked for beyond it. */
  readonly gpusPerNode?: number
}

export const sumOf = (ask: FitAsk): FitSum => {
  const { architecture, profile, parallel, context, memoryFraction } = ask
  const memoryBytes = profile.memoryBytes.value
  const budgetBytes = Math.floor(memoryBytes * memoryFraction)
  const weightsBytesPerGpu = weightBytesPerGpu(architecture, parallel)
  const overhead = overheadTerms(architecture, parallel, ask.overheadBytes)
  const overheadBytesPerGpu = overhead.reduce((bytes, term) => bytes + term.bytes, 0)
  const kvBytesPerGpu = budgetBytes - weightsBytesPerGpu - overheadBytesPerGpu
  const kvBytesPerTokenPerGpu = kvBytesPerToken(architecture, parallel, ask.kvCache)
  const kvPoolTokens = Math.max(0, Math.floor(kvBytesPerGpu / kvBytesPerTokenPerGpu))
  return {
    profile: profile.name,
    parallel,
    context,
    memoryBytes,
    memoryFraction,
    budgetBytes,
    weightsBytesPerGpu,
    overheadBytesPerGpu,
    overhead,
    kvBytesPerGpu,
    kvBytesPerTokenPerGpu,
    kvPoolTokens,
    fullContextRequests: Math.floor((kvPoolTokens / context) * 100) / 100,
  }
}

/** What no amount of memory mends. */
export const shapeReasons = ({ architecture, parallel, context }: FitAsk): readonly string[] => {
  const { nodes, tensor, pipeline } = parallel
  const { attentionHeads, layers, maxContext } = architecture
  const reasons: string[] = []
  if ((tensor * pipeline) % nodes !== 0) {
    const gpus = tensor * pipeline
    reasons.push(
      `tensor ${tensor} x pipeline ${pipeline} = ${gpus} GPUs, not a multiple of ${nodes} nodes`,
    )
  }
  if (attentionHeads % tensor !== 0) {
    reasons.push(
      `the model's ${attentionHeads} attention heads do not divide over tensor ${tensor}`,
    )
  }
  if (pipeline > layers) reasons.push(`pipeline ${pipeline} exceeds the model's ${layers} layers`)
  if (context > maxContext) {
    reasons.push(`context ${thousands(context)} exceeds the model's ${thousands(maxContext)}`)
  }
  return reasons
}
