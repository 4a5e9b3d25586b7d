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
}

/** Routed experts that one token visits, of how many: DeepSeek-V3's 8 of 256. */
const EXPERTS = { routed: 256, active: 8 }

const BYTES = { bf16: 2, fp16: 2, fp8: 1, int4: 0.5, fp32: 4 } as const

export const costModel = (input: CostInput): CostModel => {
  const { shape, coefficients: c, tensor, pipeline } = input
  const active = shape.activeParameters ?? shape.parameters
  const perParameter = BYTES[shape.weightsType]
  // Total = shared + routed and active = shared + routed x 8/256 give both parts.
  const ratio = EXPERTS.active / EXPERTS.routed
  const routed = Math.max(0, (shape.parameters - active) / (1 - ratio)) * perParameter
  const dense = Math.max(0, shape.weightBytes - routed)
  const bandwidth = input.bandwidthBytesPerSecond / 1000
  const flops = input.flops / 1000
  const denseMs = dense / tensor / (bandwidth * c.bandwidthEfficiency)
  const expertsMs = routed / tensor / (bandwidth * c.expertEfficiency)
  const fixedMs = c.baseMs + (tensor > 1 ? shape.layers * c.perLayerMs : 0)
  // A stage holds its share of the layers; a token crosses all stages one after another.
  const kvMs = (input.kvBytesPerToken * pipeline) / (bandwidth * c.kvEfficiency)
  const tokenFlopsMs = (2 * active) / tensor / (flops * c.computeEfficiency)
  const heads =
    shape.attentionHeads * (shape.headDimension ?? shape.hiddenSize / shape.attentionHeads)
  const attentionMs = (4 * shape.layers * heads) / tensor / (flops * c.computeEfficiency)
  return {
    // Pipeline stages work on as many batches at once: each sees its share of the sequences.
    stepMs: (load) => {
      const decodes = load.decodeTokens / pipeline
      const tokens = decodes + load.prefillTokens
      const touched = routed === 0 ? 0 : 1 - (1 - ratio) ** Math.max(1, tokens)
      const memory = denseMs + expertsMs * touched + (kvMs * load.decodeContext) / pipeline
      const compute = tokenFlopsMs * tokens + attentionMs * load.prefillContext
      return fixedMs + Math.max(memory, compute) + c.perTokenMs * tokens
    },
    busyRatio: Math.min(0.99, 1 - c.baseMs / (fixedMs + denseMs + expertsMs * ratio + 1)),
  }
}
