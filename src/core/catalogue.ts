/**
 * The models that Penstock knows by repository id: their shape, which the fit needs, and the names
 * of the parsers that split reasoning and tool calls out of their answers. Refuses to guess: a
 * model that is not here gives its `architecture:` itself or lies on this machine with its
 * config.json.
 *
 * Shapes are figures of each model's config.json. `parameters` and `weightBytes` follow from the
 * shape by core/checkpoint.ts, and the tests compute every one of them again. Copies read:
 * ai-dynamo/aiconfigurator model_configs at 095f58a5 (DeepSeek-R1, DeepSeek-V3, Qwen3), those named
 * in the shared facts (QwQ-32B), and the sources named at each entry.
 */
import type { Architecture, Deployment } from './manifest.ts'

/** Qwen2.5-32B: also the base that QwQ-32B and R1-Distill-Qwen-32B were trained from. */
const QWEN25_32B = {
  weightBytes: 65_527_752_704,
  parameters: 32_763_876_352,
  hiddenSize: 5120,
  layers: 64,
  attentionHeads: 40,
  kvHeads: 8,
  headDimension: 128,
  vocabulary: 152_064,
  weightsType: 'bf16',
} as const

/** DeepSeek-V3 and R1: without the multi-token-prediction layer, which engines load on demand. */
const DEEPSEEK_V3 = {
  // 671.03 B parameters, 37 B of them active (DeepSeek-V3 README); FP8 with 128 x 128 block scales.
  weightBytes: 673_150_611_808,
  parameters: 671_026_419_200,
  activeParameters: 37_000_000_000,
  hiddenSize: 7168,
  layers: 61,
  attentionHeads: 128,
  latentDimension: 576,
  vocabulary: 129_280,
  maxContext: 163_840,
  weightsType: 'fp8',
} as const

type Family = 'qwq' | 'qwen2.5' | 'qwen3' | 'deepseek-v3' | 'deepseek-r1' | 'deepseek-r1-0528'
type Known = { readonly family: Family; readonly architecture: Architecture }

const KNOWN: ReadonlyMap<string, Known> = new Map<string, Known>([
  // 131,072 in the copies of March 2025; a later revision is said to say 40,960 (facts, 4.2), so
  // the engine's own check has the last word.
  ['Qwen/QwQ-32B', { family: 'qwq', architecture: { ...QWEN25_32B, maxContext: 131_072 } }],
  // "The current config.json is set for context length up to 32,768 tokens" (its model card).
  [
    'Qwen/Qwen2.5-32B-Instruct',
    { family: 'qwen2.5', architecture: { ...QWEN25_32B, maxContext: 32_768 } },
  ],
  [
    'Qwen/Qwen2.5-7B-Instruct',
    // Figures of config.json as public test suites and print-outs repeat them (several agree).
    {
      family: 'qwen2.5',
      architecture: {
        weightBytes: 15_231_233_024,
        parameters: 7_615_616_512,
        hiddenSize: 3584,
        layers: 28,
        attentionHeads: 28,
        kvHeads: 4,
        headDimension: 128,
        vocabulary: 152_064,
        maxContext: 32_768,
        weightsType: 'bf16',
      },
    },
  ],
  [
    'Qwen/Qwen2.5-72B-Instruct',
    // Figures of config.json as public test suites repeat them (two agree).
    {
      family: 'qwen2.5',
      architecture: {
        weightBytes: 145_412_407_296,
        parameters: 72_706_203_648,
        hiddenSize: 8192,
        layers: 80,
        attentionHeads: 64,
        kvHeads: 8,
        headDimension: 128,
        vocabulary: 152_064,
        maxContext: 32_768,
        weightsType: 'bf16',
      },
    },
  ],
  [
    'Qwen/Qwen3-32B',
    {
      family: 'qwen3',
      architecture: {
        weightBytes: 65_524_246_528,
        parameters: 32_762_123_264,
        hiddenSize: 5120,
        layers: 64,
        attentionHeads: 64,
        kvHeads: 8,
        headDimension: 128,
        vocabulary: 151_936,
        maxContext: 40_960,
        weightsType: 'bf16',
      },
    },
  ],
  // Base model Qwen2.5-32B (DeepSeek-R1 README); context 131,072 in public model lists.
  [
    'deepseek-ai/DeepSeek-R1-Distill-Qwen-32B',
    { family: 'deepseek-r1', architecture: { ...QWEN25_32B, maxContext: 131_072 } },
  ],
  ['deepseek-ai/DeepSeek-R1', { family: 'deepseek-r1', architecture: DEEPSEEK_V3 }],
  ['deepseek-ai/DeepSeek-R1-0528', { family: 'deepseek-r1-0528', architecture: DEEPSEEK_V3 }],
  ['deepseek-ai/DeepSeek-V3', { family: 'deepseek-v3', architecture: DEEPSEEK_V3 }],
  ['deepseek-ai/DeepSeek-V3-0324', { family: 'deepseek-v3', architecture: DEEPSEEK_V3 }],
])

/** Ids as Hugging Face and ModelScope spell them: for these models both spell them alike. */
export const knownRepositories: readonly string[] = [...KNOWN.keys()]

const knownOf = ({ weights }: Pick<Deployment, 'weights'>): Known | null =>
  KNOWN.get(weights.huggingface ?? '') ?? KNOWN.get(weights.modelscope ?? '') ?? null

/** The manifest's own `architecture` wins; null when nobody knows the model's shape. */
export const architectureOf = (
  deployment: Pick<Deployment, 'weights' | 'architecture'>,
): Architecture | null => deployment.architecture ?? knownOf(deployment)?.architecture ?? null

type Engine = Deployment['engine']
export type Parsers = { readonly reasoning: string | null; readonly tools: string | null }

const OFF: Parsers = { reasoning: null, tools: null }

/**
 * Names of parsers by family and engine: shared facts 4.1, with vLLM's and SGLang's pages on
 * reasoning outputs and tool calling for Qwen3 and V3. The January R1 was not trained for tools
 * (vLLM lists its series without tool calling); 0528 was, through a template of the engine's.
 */
const PARSERS: Readonly<Record<Family, Readonly<Record<Engine, Parsers>>>> = {
  qwq: {
    vllm: { reasoning: 'deepseek_r1', tools: 'hermes' },
    sglang: { reasoning: 'deepseek-r1', tools: 'qwen25' },
  },
  'qwen2.5': {
    vllm: { reasoning: null, tools: 'hermes' },
    sglang: { reasoning: null, tools: 'qwen25' },
  },
  qwen3: {
    vllm: { reasoning: 'qwen3', tools: 'hermes' },
    sglang: { reasoning: 'qwen3', tools: 'qwen25' },
  },
  'deepseek-v3': {
    vllm: { reasoning: null, tools: 'deepseek_v3' },
    sglang: { reasoning: null, tools: 'deepseekv3' },
  },
  'deepseek-r1': {
    vllm: { reasoning: 'deepseek_r1', tools: null },
    sglang: { reasoning: 'deepseek-r1', tools: null },
  },
  'deepseek-r1-0528': {
    vllm: { reasoning: 'deepseek_r1', tools: 'deepseek_v3' },
    sglang: { reasoning: 'deepseek-r1', tools: 'deepseekv3' },
  },
}

const chosen = (given: string | undefined, usual: string | null): string | null =>
  given === undefined ? usual : given === 'none' ? null : given

/** The parsers to launch with: what the manifest names (`none` is off), else the model's own. */
export const parsersOf = (
  deployment: Pick<Deployment, 'weights' | 'reasoning' | 'tools'>,
  engine: Engine,
): Parsers => {
  const known = knownOf(deployment)
  const usual = known === null ? OFF : PARSERS[known.family][engine]
  return {
    reasoning: chosen(deployment.reasoning, usual.reasoning),
    tools: chosen(deployment.tools, usual.tools),
  }
}
