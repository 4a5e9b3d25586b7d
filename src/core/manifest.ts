/**
 * manifests/*.yaml: what the operator wants. Decides what a Deployment may say (a Gateway:
 * core/gateway-manifest.ts); cross-document rules are in core/desired.ts. Types are inferred from
 * the schemas.
 */
import { z } from 'zod'
import { Duration } from './duration.ts'
import { GatewaySchema } from './gateway-manifest.ts'
import { Name } from './inventory.ts'

/** Model shape, in the words of the model's config.json; figures that the fit needs. */
export const ArchitectureSchema = z.strictObject({
  weightBytes: z.int().positive().max(1e14).describe('bytes that the engine loads, without MTP'),
  parameters: z.int().positive().max(1e14),
  activeParameters: z.int().positive().max(1e14).optional().describe('a mixture of experts'),
  hiddenSize: z.int().positive().max(1e6),
  layers: z.int().positive().max(1000),
  attentionHeads: z.int().positive().max(10_000),
  /** Grouped-query attention: KV heads are sharded over tensor ranks. */
  kvHeads: z.int().positive().max(10_000).optional(),
  headDimension: z.int().positive().max(10_000).optional(),
  /** Multi-head latent attention: `kv_lora_rank + qk_rope_head_dim`, replicated on each rank. */
  latentDimension: z.int().positive().max(100_000).optional(),
  vocabulary: z.int().positive().max(1e7),
  maxContext: z.int().positive().max(1e8),
  weightsType: z.enum(['bf16', 'fp16', 'fp8', 'int4', 'fp32']).default('bf16'),
})

const Repository = z
  .string()
  .regex(/^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/, 'expected owner/name')

export const WeightsSchema = z
  .strictObject({
    huggingface: Repository.optional(),
    modelscope: Repository.optional(),
    path: z.string().min(1).optional().describe("absolute, or below the node's `weights`"),
    from: z.enum(['huggingface', 'modelscope', 'path']).optional(),
    revision: z
      .string()
      .regex(/^[\w./-]{1,128}$/)
      .optional(),
    offline: z.boolean().default(false).describe('never contact a hub; weights are there already'),
  })
  .refine((w) => w.huggingface ?? w.modelscope ?? w.path, {
    message: 'expected one of huggingface, modelscope, path',
  })
  .refine((w) => w.from === undefined || w[w.from] !== undefined, {
    message: '`from` names a source that is not given',
    path: ['from'],
  })

export const DeploymentSchema = z.strictObject({
  kind: z.literal('Deployment'),
  name: Name,
  weights: WeightsSchema,
  architecture: ArchitectureSchema.optional().describe('only for a model Penstock does not know'),
  engine: z.enum(['vllm', 'sglang']),
  image: z.string().min(1).optional().describe('with tag or digest; default: the pinned one'),
  rehearseAs: z
    .string()
    .regex(/^v?\d+(\.\d+){1,2}$/, { message: 'expected a version such as 0.11 or 0.11.2' })
    .optional()
    .describe("the engine's version that a rehearsal plays; real runs take the image's"),
  parallel: z
    .strictObject({
      nodes: z.int().min(1).max(64).default(1),
      tensor: z.int().min(1).max(512).default(1),
      pipeline: z.int().min(1).max(64).default(1),
    })
    .prefault({}),
  context: z.int().min(16).max(10_000_000).describe('longest request, prompt and answer, tokens'),
  replicas: z.int().min(0).max(1000).default(1),
  nodes: z.array(Name).min(1).max(1000).optional().describe('only on these nodes'),
  kvCache: z.enum(['auto', 'fp8']).default('auto'),
  memoryFraction: z.number().min(0.1).max(0.99).optional().describe('share of VRAM to use'),
  maxRunning: z.int().min(1).max(100_000).optional().describe('requests in one batch'),
  reasoning: z.string().optional().describe("reasoning parser; default: the model's; none: off"),
  tools: z.string().optional().describe("tool-call parser; default: the model's; none: off"),
  extraArguments: z.array(z.string().min(1).max(4096)).max(100).default([]),
  environment: z.record(z.string().regex(/^[A-Z_][A-Z0-9_]*$/), z.string()).default({}),
  readyTimeout: Duration.prefault('60m'),
  drainTimeout: Duration.prefault('5m'),
})

export const DocumentSchema = z.discriminatedUnion('kind', [DeploymentSchema, GatewaySchema])

export type Architecture = z.output<typeof ArchitectureSchema>
export type Weights = z.output<typeof WeightsSchema>
export type Deployment = z.output<typeof DeploymentSchema>
