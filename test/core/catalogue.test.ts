import { describe, expect, test } from 'vitest'
import { architectureOf, knownRepositories, parsersOf } from '../../src/core/catalogue.ts'
import { architectureFromConfig } from '../../src/core/checkpoint.ts'
import { type Architecture, ArchitectureSchema, WeightsSchema } from '../../src/core/manifest.ts'

/** Shapes as the models' config.json give them (sources in core/catalogue.ts). */
const qwen = (family: 'Qwen2' | 'Qwen3', shape: Readonly<Record<string, unknown>>) => ({
  architectures: [`${family}ForCausalLM`],
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  num_key_value_heads: 8,
  ...shape,
})

const QWEN25_32B = qwen('Qwen2', {
  hidden_size: 5120,
  intermediate_size: 27_648,
  num_hidden_layers: 64,
  num_attention_heads: 40,
  vocab_size: 152_064,
  max_position_embeddings: 131_072,
})

const DEEPSEEK_V3 = {
  architectures: ['DeepseekV3ForCausalLM'],
  hidden_size: 7168,
  intermediate_size: 18_432,
  moe_intermediate_size: 2048,
  num_hidden_layers: 61,
  num_attention_heads: 128,
  num_key_value_heads: 128,
  q_lora_rank: 1536,
  kv_lora_rank: 512,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  n_routed_experts: 256,
  n_shared_experts: 1,
  num_experts_per_tok: 8,
  first_k_dense_replace: 3,
  num_nextn_predict_layers: 1,
  vocab_size: 129_280,
  max_position_embeddings: 163_840,
  rope_scaling: { type: 'yarn', factor: 40, original_max_position_embeddings: 4096 },
  torch_dtype: 'bfloat16',
  quantization_config: { quant_method: 'fp8', fmt: 'e4m3', weight_block_size: [128, 128] },
}

const read = (config: unknown, weightBytes = 1): Architecture => {
  const reading = architectureFromConfig(config, weightBytes)
  if (!reading.ok) throw new Error(reading.reason)
  return reading.architecture
}

const weights = (huggingface: string) => ({ weights: WeightsSchema.parse({ huggingface }) })

const known = (repository: string): Architecture => {
  const architecture = architectureOf(weights(repository))
  if (architecture === null) throw new Error(`${repository} is not known`)
  return architecture
}

describe('the catalogue', () => {
  test.each(knownRepositories)('%s has a whole shape', (repository) => {
    const shape = known(repository)
    expect(ArchitectureSchema.parse(shape)).toEqual(shape)
    const latent = shape.latentDimension !== undefined
    expect(shape.kvHeads === undefined && shape.headDimension === undefined).toBe(latent)
    // bf16 weights are two bytes a parameter; FP8 ones a little over one (scales, embeddings).
    const perParameter = shape.weightBytes / shape.parameters
    expect(perParameter).toBeGreaterThanOrEqual(shape.weightsType === 'bf16' ? 2 : 1)
    expect(perParameter).toBeLessThan(shape.weightsType === 'bf16' ? 2.0001 : 1.01)
  })

  test.each([
    ['Qwen/QwQ-32B', QWEN25_32B],
    ['deepseek-ai/DeepSeek-R1-Distill-Qwen-32B', QWEN25_32B],
    ['Qwen/Qwen2.5-32B-Instruct', { ...QWEN25_32B, max_position_embeddings: 32_768 }],
    [
      'Qwen/Qwen2.5-7B-Instruct',
      qwen('Qwen2', {
        hidden_size: 3584,
        intermediate_size: 18_944,
        num_hidden_layers: 28,
        num_attention_heads: 28,
        num_key_value_heads: 4,
        vocab_size: 152_064,
        max_position_embeddings: 32_768,
      }),
    ],
    [
      'Qwen/Qwen2.5-72B-Instruct',
      qwen('Qwen2', {
        hidden_size: 8192,
        intermediate_size: 29_568,
        num_hidden_layers: 80,
        num_attention_heads: 64,
        vocab_size: 152_064,
        max_position_embeddings: 32_768,
      }),
    ],
    [
      'Qwen/Qwen3-32B',
      qwen('Qwen3', {
        hidden_size: 5120,
        intermediate_size: 25_600,
        num_hidden_layers: 64,
        num_attention_heads: 64,
        head_dim: 128,
        vocab_size: 151_936,
        max_position_embeddings: 40_960,
      }),
    ],
  ])('%s is what its config.json says', (repository, config) => {
    const shape = known(repository)
    expect(shape).toEqual(read(config, 2 * shape.parameters))
  })

  test('QwQ-32B has the figures of facts/engines.md 6.1', () => {
    const shape = known('Qwen/QwQ-32B')
    expect(shape.parameters).toBe(32_763_876_352)
    expect(shape.weightBytes).toBe(65_527_752_704)
    const { layers, kvHeads = 0, headDimension = 0 } = shape
    expect(2 * layers * kvHeads * headDimension * 2).toBe(262_144)
  })

  test('DeepSeek-R1 has the figures of facts/engines.md 6.2', () => {
    const shape = known('deepseek-ai/DeepSeek-R1')
    // The checkpoint as recorded, less its prediction layer.
    const config = read(DEEPSEEK_V3, 688_586_727_753)
    const { weightBytes, activeParameters = 0, ...rest } = config
    expect(shape).toMatchObject(rest)
    expect(Math.abs(weightBytes / shape.weightBytes - 1)).toBeLessThan(0.0001)
    expect(activeParameters / 1e9).toBeCloseTo(37.6, 1)
    expect((shape.latentDimension ?? 0) * shape.layers * 2).toBe(70_272)
  })

  test('a manifest’s own shape wins, an unknown id has none', () => {
    const own = { ...known('Qwen/QwQ-32B'), layers: 3 }
    expect(architectureOf({ ...weights('Qwen/QwQ-32B'), architecture: own })).toBe(own)
    expect(architectureOf(weights('acme/model'))).toBeNull()
    expect(architectureOf(weights('__proto__/constructor'.slice(2)))).toBeNull()
  })

  test('an id of ModelScope counts too', () => {
    const modelscope = WeightsSchema.parse({ modelscope: 'Qwen/QwQ-32B' })
    expect(architectureOf({ weights: modelscope })).toEqual(known('Qwen/QwQ-32B'))
  })
})

describe('parsers', () => {
  test.each([
    ['Qwen/QwQ-32B', 'vllm', 'deepseek_r1', 'hermes'],
    ['Qwen/QwQ-32B', 'sglang', 'deepseek-r1', 'qwen25'],
    ['Qwen/Qwen3-32B', 'vllm', 'qwen3', 'hermes'],
    ['Qwen/Qwen2.5-7B-Instruct', 'sglang', null, 'qwen25'],
    ['deepseek-ai/DeepSeek-R1', 'sglang', 'deepseek-r1', null],
    ['deepseek-ai/DeepSeek-R1-0528', 'sglang', 'deepseek-r1', 'deepseekv3'],
    ['deepseek-ai/DeepSeek-R1-0528', 'vllm', 'deepseek_r1', 'deepseek_v3'],
    ['deepseek-ai/DeepSeek-V3-0324', 'vllm', null, 'deepseek_v3'],
    ['acme/model', 'vllm', null, null],
  ] as const)('%s on %s: %s, %s', (repository, engine, reasoning, tools) => {
    expect(parsersOf(weights(repository), engine)).toEqual({ reasoning, tools })
  })

  test('the manifest overrides each, and none is off', () => {
    const deployment = { ...weights('Qwen/QwQ-32B'), reasoning: 'none', tools: 'llama3_json' }
    expect(parsersOf(deployment, 'vllm')).toEqual({ reasoning: null, tools: 'llama3_json' })
  })
})

describe('config.json of a checkpoint', () => {
  const llama = {
    architectures: ['LlamaForCausalLM'],
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 128_256,
    max_position_embeddings: 131_072,
    rope_scaling: { rope_type: 'llama3', factor: 8, original_max_position_embeddings: 8192 },
    torch_dtype: 'bfloat16',
  }

  test('Llama 3.1 8B: 8,030,261,248 parameters, its scaled context as it stands', () => {
    expect(read(llama)).toMatchObject({ parameters: 8_030_261_248, maxContext: 131_072 })
  })

  test('names of transformers 5, tied embeddings, heads that are not shared', () => {
    const { torch_dtype: _, rope_scaling: __, num_key_value_heads: ___, ...rest } = llama
    const shape = read({ ...rest, dtype: 'float16', tie_word_embeddings: true })
    expect(shape).toMatchObject({ weightsType: 'fp16', kvHeads: 32 })
    const untied = read({ ...rest, dtype: 'float16' })
    expect(untied.parameters - shape.parameters).toBe(128_256 * 4096)
  })

  test('YaRN stretches the original context', () => {
    const rope = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32_768 }
    const short = { ...QWEN25_32B, max_position_embeddings: 32_768 }
    expect(read({ ...short, rope_scaling: rope }).maxContext).toBe(131_072)
    expect(read({ ...short, rope_parameters: rope }).maxContext).toBe(131_072)
    expect(read(DEEPSEEK_V3).maxContext).toBe(163_840)
  })

  test.each([
    ['awq', 'int4'],
    ['gptq', 'int4'],
    ['fp8', 'fp8'],
  ])('quantised by %s: %s', (method, type) => {
    const config = { ...llama, quantization_config: { quant_method: method, bits: 4 } }
    expect(read(config).weightsType).toBe(type)
  })

  test.each([
    [null, 'config.json names no architecture'],
    [[], 'config.json names no architecture'],
    [{ architectures: [] }, 'config.json names no architecture'],
    [{ architectures: ['MambaForCausalLM'] }, 'config.json is of a MambaForCausalLM, whose'],
    [{ ...llama, hidden_size: 'x' }, 'config.json: hidden_size: '],
    [{ ...llama, num_hidden_layers: -1 }, 'config.json: num_hidden_layers: '],
    [{ ...llama, torch_dtype: undefined }, 'weights of an unknown type (not given)'],
    [
      { ...llama, quantization_config: { quant_method: 'gptq', bits: 8 } },
      'weights of an unknown type (gptq)',
    ],
    [{ ...llama, quantization_config: { quant_method: 'bitsandbytes' } }, 'unknown type'],
    [{ ...DEEPSEEK_V3, kv_lora_rank: undefined }, 'config.json: kv_lora_rank: '],
  ])('refused: %j', (config, reason) => {
    const reading = architectureFromConfig(config, 1)
    expect(reading.ok ? '' : reading.reason).toContain(reason)
  })
})
