/**
 * A checkpoint's config.json to the shape that the fit needs. Knows the families that Penstock
 * deploys (Llama, Qwen2, Qwen3, DeepSeek-V3) and refuses the others with a reason: a guessed KV
 * size would place a model where it does not fit. Field names and defaults are those of the
 * `transformers` configuration classes; `dtype` and `rope_parameters` are their names since v5.
 */
import { z } from 'zod'
import type { Architecture } from './manifest.ts'

const Count = z.int().positive().max(1e9)

const Rope = z.object({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  factor: z.number().positive().max(1e4).optional(),
  original_max_position_embeddings: Count.optional(),
})

const Shared = z.object({
  hidden_size: Count,
  intermediate_size: Count,
  num_hidden_layers: Count,
  num_attention_heads: Count,
  vocab_size: Count,
  max_position_embeddings: Count,
  tie_word_embeddings: z.boolean().default(false),
  dtype: z.string().optional(),
  torch_dtype: z.string().optional(),
  rope_scaling: Rope.nullish(),
  rope_parameters: Rope.nullish(),
  quantization_config: z
    .object({ quant_method: z.string(), bits: z.number().optional() })
    .nullish(),
})

const Dense = Shared.extend({
  num_key_value_heads: Count.optional(),
  head_dim: Count.nullish(),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
})

const Mixture = Shared.extend({
  q_lora_rank: Count,
  kv_lora_rank: Count,
  qk_nope_head_dim: Count,
  qk_rope_head_dim: Count,
  v_head_dim: Count,
  moe_intermediate_size: Count,
  n_routed_experts: Count,
  n_shared_experts: Count,
  num_experts_per_tok: Count,
  first_k_dense_replace: z.int().nonnegative(),
  num_nextn_predict_layers: z.int().nonnegative().max(8).default(0),
})

const Head = z.object({ architectures: z.array(z.string()).min(1) })

type Common = z.output<typeof Shared>
type WeightsType = Architecture['weightsType']

export type CheckpointReading =
  | { readonly ok: true; readonly architecture: Architecture }
  | { readonly ok: false; readonly reason: string }

const refuse = (reason: string): CheckpointReading => ({ ok: false, reason })

const FAMILIES = ['LlamaForCausalLM', 'Qwen2ForCausalLM', 'Qwen3ForCausalLM'] as const
type DenseFamily = (typeof FAMILIES)[number]

/** `weightBytes` is what the weight files hold, in bytes; a prediction layer is taken off it. */
export const architectureFromConfig = (config: unknown, weightBytes: number): CheckpointReading => {
  const head = Head.safeParse(config)
  if (!head.success) return refuse('config.json names no architecture')
  const named = head.data.architectures[0] ?? ''
  const family = FAMILIES.find((name) => name === named)
  if (family !== undefined) {
    const dense = Dense.safeParse(config)
    if (!dense.success) return refuse(firstProblem(dense.error))
    return finish(dense.data, (type) => denseShape(family, dense.data, { type, weightBytes }))
  }
  if (named === 'DeepseekV3ForCausalLM') {
    const mixture = Mixture.safeParse(config)
    if (!mixture.success) return refuse(firstProblem(mixture.error))
    return finish(mixture.data, (type) => mixtureShape(mixture.data, { type, weightBytes }))
  }
  return refuse(`config.json is of a ${named.slice(0, 60)}, whose memory needs are not known`)
}

const firstProblem = (error: z.ZodError): string => {
  const issue = error.issues[0]
  return `config.json: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not understood'}`
}

const finish = (config: Common, shape: (type: WeightsType) => Architecture): CheckpointReading => {
  const type = weightsType(config)
  return type === null
    ? refuse(`config.json: weights of an unknown type (${typeName(config).slice(0, 60)})`)
    : { ok: true, architecture: shape(type) }
}

const typeName = ({ quantization_config, dtype, torch_dtype }: Common): string =>
  quantization_config?.quant_method ?? dtype ?? torch_dtype ?? 'not given'

const TYPES: ReadonlyMap<string, WeightsType> = new Map<string, WeightsType>([
  ['bfloat16', 'bf16'],
  ['float16', 'fp16'],
  ['float32', 'fp32'],
  ['fp8', 'fp8'],
  ['awq', 'int4'],
  ['gptq', 'int4'],
])

const weightsType = (config: Common): WeightsType | null => {
  const type = TYPES.get(typeName(config)) ?? null
  // GPTQ also comes in 8 bits, which no weights type here stands for.
  const bits = config.quantization_config?.bits
  return type === 'int4' && bits !== undefined && bits !== 4 ? null : type
}

/** YaRN stretches the context over its original length; other scalings are in the config's own. */
const maxContext = (config: Common): number => {
  const rope = config.rope_parameters ?? config.rope_scaling
  if ((rope?.rope_type ?? rope?.type) !== 'yarn') return config.max_position_embeddings
  const original = rope?.original_max_position_embeddings ?? config.max_position_embeddings
  return Math.floor(original * (rope?.factor ?? 1))
}

type Loaded = { readonly type: WeightsType; readonly weightBytes: number }

const denseShape = (
  family: DenseFamily,
  config: z.output<typeof Dense>,
  { type, weightBytes }: Loaded,
): Architecture => {
  const { hidden_size: hidden, num_attention_heads: heads, intermediate_size: inner } = config
  const headDimension = config.head_dim ?? Math.floor(hidden / heads)
  const kvHeads = config.num_key_value_heads ?? heads
  const [query, key] = [heads * headDimension, kvHeads * headDimension]
  const biased = family === 'Qwen2ForCausalLM' || config.attention_bias
  const layer =
    2 * hidden * query +
    2 * hidden * key +
    3 * hidden * inner +
    2 * hidden +
    (biased ? query + 2 * key : 0) +
    // Qwen2 has no bias on the output projection, the others put one there too.
    (config.attention_bias && family !== 'Qwen2ForCausalLM' ? hidden : 0) +
    (config.mlp_bias ? 2 * inner + hidden : 0) +
    (family === 'Qwen3ForCausalLM' ? 2 * headDimension : 0)
  const embeddings = config.vocab_size * hidden * (config.tie_word_embeddings ? 1 : 2)
  return {
    weightBytes,
    parameters: config.num_hidden_layers * layer + embeddings + hidden,
    hiddenSize: hidden,
    layers: config.num_hidden_layers,
    attentionHeads: heads,
    kvHeads,
    headDimension,
    vocabulary: config.vocab_size,
    maxContext: maxContext(config),
    weightsType: type,
  }
}

/** What matrices and vectors hold: parameters, and bytes with the block scales of FP8. */
type Held = { readonly parameters: number; readonly bytes: number }

const total = (parts: readonly Held[]): Held => ({
  parameters: parts.reduce((sum, part) => sum + part.parameters, 0),
  bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
})

const times = (count: number, part: Held): Held => ({
  parameters: count * part.parameters,
  bytes: count * part.bytes,
})

/** Vectors, gates, embeddings and heads stay in 16 bits also where matrices are FP8. */
const wide = (parameters: number): Held => ({ parameters, bytes: 2 * parameters })

/** Side of a block of FP8 weights that shares one 4-byte scale (weight_block_size, DeepSeek-V3). */
const BLOCK = 128

const matrix =
  (type: WeightsType) =>
  (rows: number, columns: number): Held => {
    const parameters = rows * columns
    if (type !== 'fp8') return { parameters, bytes: parameters * (type === 'fp32' ? 4 : 2) }
    const scales = Math.ceil(rows / BLOCK) * Math.ceil(columns / BLOCK)
    return { parameters, bytes: parameters + 4 * scales }
  }

type MixtureConfig = z.output<typeof Mixture>

/** One decoder layer; DeepSeek-V3's inference/model.py names the matrices. */
const mixtureLayer = (config: MixtureConfig, type: WeightsType, experts: number): Held => {
  const of = matrix(type)
  const { hidden_size: hidden, num_attention_heads: heads } = config
  const { q_lora_rank: queryRank, kv_lora_rank: rank, v_head_dim: value } = config
  const nope = config.qk_nope_head_dim
  const attention = [
    of(queryRank, hidden),
    of(heads * (nope + config.qk_rope_head_dim), queryRank),
    of(rank + config.qk_rope_head_dim, hidden),
    of(heads * (nope + value), rank),
    of(hidden, heads * value),
    wide(queryRank + rank + 2 * hidden),
  ]
  const inner = experts === 0 ? config.intermediate_size : config.moe_intermediate_size
  const feedForward = total([of(inner, hidden), of(inner, hidden), of(hidden, inner)])
  if (experts === 0) return total([...attention, feedForward])
  // The router: one row an expert in 16 bits, and a correction bias in 32.
  const routed = config.n_routed_experts
  const router = [wide(routed * hidden), { parameters: routed, bytes: 4 * routed }]
  return total([...attention, times(experts, feedForward), ...router])
}

const mixtureShape = (config: MixtureConfig, { type, weightBytes }: Loaded): Architecture => {
  const { hidden_size: hidden, num_hidden_layers: layers, n_shared_experts: shared } = config
  const dense = Math.min(config.first_k_dense_replace, layers)
  const embeddings = wide(config.vocab_size * hidden * (config.tie_word_embeddings ? 1 : 2))
  const all = (experts: number): Held =>
    total([
      times(dense, mixtureLayer(config, type, 0)),
      times(layers - dense, mixtureLayer(config, type, experts)),
      embeddings,
      wide(hidden),
    ])
  // A prediction layer comes with its own copies of embedding and head, a projection of two hidden
  // states to one, and three norms (DeepSeek-V3 README_WEIGHTS).
  const prediction = times(
    config.num_nextn_predict_layers,
    total([
      mixtureLayer(config, type, config.n_routed_experts + shared),
      embeddings,
      wide(2 * hidden * hidden + 3 * hidden),
    ]),
  )
  const loaded = weightBytes - prediction.bytes
  return {
    weightBytes: loaded > 0 ? loaded : weightBytes,
    parameters: all(config.n_routed_experts + shared).parameters,
    activeParameters: all(config.num_experts_per_tok + shared).parameters,
    hiddenSize: hidden,
    layers,
    attentionHeads: config.num_attention_heads,
    latentDimension: config.kv_lora_rank + config.qk_rope_head_dim,
    vocabulary: config.vocab_size,
    maxContext: maxContext(config),
    weightsType: type,
  }
}
