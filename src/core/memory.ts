/**
 * How many bytes one GPU needs for a model: its share of the weights, a token of KV cache, and what
 * is neither. Knows tensor and pipeline sharding; refuses to know which GPU it is (core/fit.ts).
 * Formulas and check values: vLLM and SGLang at the versions that runtimes/ pins; DeepSeek-R1's
 * measured 79.41 GiB per GPU at tensor 8 (HabanaAI/vllm-fork #809) is met within 0.5 %.
 */
import type { Architecture, Deployment } from './manifest.ts'
import { GIB } from './units.ts'

export type Parallel = Deployment['parallel']
export type KvCache = Deployment['kvCache']
export type FitTerm = { readonly what: string; readonly bytes: number }

/** Tokens in one engine step: vLLM's and SGLang's default on GPUs of 70 GiB and more. */
const BATCHED_TOKENS = 8192
/**
 * Live 16-bit values per batched token, in hidden sizes, at the peak of a forward pass: gate, up
 * and their product (3 x 5.4 hidden sizes in Qwen2-32B), residual and input. vLLM prints its own
 * figure as `peak activation`; 18 gives 1.4 GiB for QwQ-32B and 2.0 GiB for DeepSeek-R1.
 */
const ACTIVATION_WIDTH = 18
/** Experts that a token is copied to (top-8 in DeepSeek-V3, Qwen3 and Kimi K2). */
const EXPERTS_PER_TOKEN = 8
/** NCCL channel buffers, the custom all-reduce's and its graph's: about 1 GiB from two GPUs on. */
const COLLECTIVE_BYTES = 1 * GIB
/** The same again, halved, for channels that leave the machine. */
const FABRIC_BYTES = 0.5 * GIB
/** q_lora_rank of DeepSeek V2, V3, R1 and Kimi K2; not in the manifest, worth under 1 %. */
const MLA_QUERY_LATENT = 1536

const WEIGHT_BYTES = { bf16: 2, fp16: 2, fp8: 1, int4: 0.5, fp32: 4 } as const

/** Layers of the longest pipeline stage: engines give the remainder out one layer at a time. */
const stageLayers = ({ layers }: Architecture, { pipeline }: Parallel): number =>
  Math.ceil(layers / pipeline)

/**
 * Weights on the fullest GPU, bytes. Matrices are sharded over tensor x pipeline, experts too.
 * MLA's down-projections (query and KV latents) are whole on every tensor rank. Embedding and head
 * sit on the first and the last stage, which roughly cancels out; norms are too small to matter.
 */
export const weightBytesPerGpu = (architecture: Architecture, parallel: Parallel): number => {
  const { weightBytes, hiddenSize, layers, latentDimension, weightsType } = architecture
  const replicated =
    latentDimension === undefined
      ? 0
      : layers * hiddenSize * (latentDimension + MLA_QUERY_LATENT) * WEIGHT_BYTES[weightsType]
  const stage = stageLayers(architecture, parallel) / layers
  const sharded = Math.max(0, weightBytes - replicated) / parallel.tensor
  return Math.ceil((sharded + Math.min(replicated, weightBytes)) * stage)
}

/** KV cache of one token on the fullest GPU, bytes. */
export const kvBytesPerToken = (
  architecture: Architecture,
  parallel: Parallel,
  kvCache: KvCache,
): number => {
  // `auto` follows the model's computing type, which is 16 bits wide for every weight type here.
  const bytes = kvCache === 'fp8' ? 1 : 2
  const layers = stageLayers(architecture, parallel)
  // MLA keeps one latent a token, the same on every tensor rank: more ranks do not shard it.
  if (architecture.latentDimension !== undefined) {
    return architecture.latentDimension * layers * bytes
  }
  const heads = architecture.kvHeads ?? architecture.attentionHeads
  const dimension =
    architecture.headDimension ?? architecture.hiddenSize / architecture.attentionHeads
  // With more ranks than KV heads each rank still holds one (vLLM, SGLang: replicated heads).
  return 2 * layers * Math.ceil(heads / parallel.tensor) * dimension * bytes
}

/** What is neither weights nor KV cache, bytes per GPU, part by part. */
export const overheadTerms = (
  architecture: Architecture,
  parallel: Parallel,
  engineBytes: number,
): readonly FitTerm[] => {
  const step = BATCHED_TOKENS * architecture.hiddenSize * 2
  const terms = [
    { what: 'CUDA context, graphs, workspaces', bytes: engineBytes },
    { what: `activations of ${BATCHED_TOKENS} tokens`, bytes: step * ACTIVATION_WIDTH },
  ]
  if (architecture.activeParameters !== undefined) {
    terms.push({ what: 'expert dispatch', bytes: step * EXPERTS_PER_TOKEN })
  }
  if (parallel.tensor * parallel.pipeline > 1) {
    const bytes = COLLECTIVE_BYTES + (parallel.nodes > 1 ? FABRIC_BYTES : 0)
    terms.push({ what: 'NCCL buffers', bytes })
  }
  return terms
}
