/**
 * How long one forward step takes: FLOPs and bytes of the architecture against the GPU's figures,
 * times the efficiencies of physics/coefficients.ts. Pure; milliseconds of simulated time.
 */
import type { Architecture } from '../../../src/core/manifest.ts'
import type { Coefficients } from './coefficients.ts'

/** What one step computes. */
export type StepLoad = {
  /** Sequences that produce their next token from one. */
  decodeTokens: number
  /** KV tokens that those read, summed. */
  decodeContext: number
  prefillTokens: number
  /** Sum over prefill tokens of the context that each attends to. */
  prefillContext: number
}

export type CostModel = {
  readonly stepMs: (load: Readonly<StepLoad>) => number
  /** Share of the step in which the GPU computes or reads, for its utilisation, 0..1. */
  readonly busyRatio: number
}

export type CostInput = {
  readonly shape: Architecture
  readonly bandwidthBytesPerSecond: number
  readonly flops: number
  readonly tensor: number
  readonly pipeline: number
  readonly kvBytesPerToken: number
  readonly coefficients: Coefficients
  /** `--enforce-eager`, `--disable-cuda-graph`: decode steps are launched kernel by kernel too. */
  readonly eager?: boolean
}

/** Routed experts that one token visits, of how many: DeepSeek-V3's 8 of 256. */
const EXPERTS = { routed: 256, active: 8 }

/**
 * Rows of a matrix kernel's tile: fewer tokens cost as much arithmetic as these. 64 is the
 * smallest tile of Hopper's wgmma and the default BLOCK_SIZE_M of the FP8 fused-MoE kernels. It
 * is why an H20, poor in arithmetic, reaches a third of its bandwidth at batch 1.
 */
const TILE_ROWS = 64

const BYTES = { bf16: 2, fp16: 2, fp8: 1, int4: 0.5, fp32: 4 } as const

type Parts = {
  readonly denseMs: (tokens: number) => number
  readonly expertsMs: (tokens: number) => number
}

/** Weights are read once a step, or computed with: whichever takes longer. */
const weights = (input: CostInput): Parts => {
  const { shape, coefficients: c, tensor } = input
  const active = shape.activeParameters ?? shape.parameters
  // Total = shared + routed and active = shared + routed x 8/256 give both parts.
  const ratio = EXPERTS.active / EXPERTS.routed
  const routed = Math.max(0, (shape.parameters - active) / (1 - ratio))
  const dense = shape.parameters - routed
  const routedBytes = routed * BYTES[shape.weightsType]
  const denseBytes = Math.max(0, shape.weightBytes - routedBytes)
  const bandwidth = (input.bandwidthBytesPerSecond / 1000) * tensor
  const peak = (input.flops / 1000) * tensor
  const rowMs = 2 / (peak * c.computeEfficiency)
  const expertRowMs = 2 / (peak * c.expertComputeEfficiency)
  return {
    denseMs: (tokens) =>
      Math.max(
        denseBytes / (bandwidth * c.bandwidthEfficiency),
        dense * rowMs * Math.max(TILE_ROWS, tokens),
      ),
    expertsMs: (tokens) => {
      if (routed === 0) return 0
      const touched = 1 - (1 - ratio) ** Math.max(1, tokens)
      const rows = Math.max(TILE_ROWS, (tokens * ratio) / touched)
      const readMs = routedBytes / (bandwidth * c.expertEfficiency)
      return touched * Math.max(readMs, routed * expertRowMs * rows)
    },
  }
}

/**
 * Latent attention computes much with what it reads: each head against the whole latent, scores
 * and values. A rank's heads fill a tile of 64 rows (FlashMLA's BLOCK_M), be they fewer: on an H20
 * that takes longer than reading. In BF16 whatever the weights: half of the peak in FP8.
 */
const latentMs = ({ shape, flops, tensor, coefficients }: CostInput): number => {
  if (shape.latentDimension === undefined) return 0
  const heads = Math.max(TILE_ROWS, shape.attentionHeads / tensor)
  const peak = (flops * BYTES[shape.weightsType]) / BYTES.bf16
  const work = 4 * shape.latentDimension * heads * shape.layers
  return work / ((peak / 1000) * coefficients.computeEfficiency)
}

export const costModel = (input: CostInput): CostModel => {
  const { shape, coefficients: c, tensor, pipeline } = input
  const { denseMs, expertsMs } = weights(input)
  const fixedMs = c.baseMs + (tensor > 1 ? shape.layers * c.layerMs : 0)
  // Prefill is of no captured size. The CPU launches ahead of the GPU: the slower of both counts.
  // Some forty kernels a layer of experts make that felt; the few of a dense layer do not.
  const layers = shape.activeParameters === undefined ? 0 : shape.layers
  const launchMs = (load: Readonly<StepLoad>): number => {
    if (input.eager === true) return layers * c.eagerLayerMs
    return load.prefillTokens > 0 ? layers * c.prefillLayerMs : 0
  }
  // A ring all-reduce sends each activation twice, (n-1)/n of it; two all-reduces a layer.
  const sentBytes = (4 * (tensor - 1) * shape.layers * shape.hiddenSize * BYTES.bf16) / tensor
  const sentMs = sentBytes / (c.linkBytesPerSecond / 1000)
  // A stage holds its share of the layers; a token crosses all stages one after another.
  const kvBandwidth = (input.bandwidthBytesPerSecond / 1000) * c.kvEfficiency
  const kvReadMs = (input.kvBytesPerToken * pipeline) / kvBandwidth
  const kvMs = Math.max(kvReadMs, latentMs(input))
  const heads =
    shape.attentionHeads * (shape.headDimension ?? shape.hiddenSize / shape.attentionHeads)
  const attentionMs =
    (4 * shape.layers * heads) / tensor / ((input.flops / 1000) * c.computeEfficiency)
  const idle = c.baseMs / (fixedMs + denseMs(1) + expertsMs(1))
  return {
    // Pipeline stages work on as many batches at once: each sees its share of the sequences.
    stepMs: (load) => {
      const decodes = load.decodeTokens / pipeline
      const tokens = decodes + load.prefillTokens
      const attention = (kvMs * load.decodeContext) / pipeline + attentionMs * load.prefillContext
      const host = c.sequenceMs * load.decodeTokens
      const gpu = sentMs * tokens + denseMs(tokens) + expertsMs(tokens) + attention
      return host + Math.max(fixedMs + gpu, launchMs(load))
    },
    busyRatio: Math.min(0.99, 1 - idle),
  }
}
