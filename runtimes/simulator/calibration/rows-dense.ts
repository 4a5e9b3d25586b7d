/** Published rows of dense models of 32 B. */
import { GPUS } from './gpus.ts'
import { closed, EXCLUDED, FIT, HELD_OUT, type Row, type RowOf, SHAREGPT } from './row.ts'

const qwen3: RowOf = {
  model: 'Qwen/Qwen3-32B',
  gpu: GPUS.h100,
  gpus: 1,
  engine: 'vllm',
  flags: '--max-model-len 8192',
  source: 'gpustack docs: Qwen3-32B BF16, ShareGPT burst',
}
const sglang = { engine: 'sglang', flags: '--context-length 8192' } as const
const qwq: RowOf = { ...qwen3, model: 'Qwen/QwQ-32B' }

export const DENSE_ROWS: readonly Row[] = [
  {
    ...qwen3,
    ...sglang,
    name: 'Qwen3-32B one H20 c1',
    gpu: GPUS.h20,
    load: closed(1, 1, 2048),
    measured: { outputPerSecond: 20.72 },
    source: 'Qwen3 docs speed_benchmark, SGLang 0.4.6.post1, BF16, prompt 1, answer 2048',
    use: HELD_OUT,
  },
  {
    ...qwen3,
    name: 'Qwen3-32B H100 vLLM ShareGPT burst',
    load: SHAREGPT,
    measured: { outputPerSecond: 1131.6, tpotMs: 88 },
    use: HELD_OUT,
  },
  {
    ...qwen3,
    ...sglang,
    name: 'Qwen3-32B H100 SGLang ShareGPT burst',
    load: SHAREGPT,
    measured: { outputPerSecond: 814 },
    use: HELD_OUT,
  },
  {
    ...qwen3,
    name: 'Qwen3-32B FP8 H100 TensorRT-LLM',
    load: null,
    measured: { outputPerSecond: 2060 },
    use: EXCLUDED('another engine, other weights'),
  },
  {
    ...qwen3,
    name: 'Qwen3-32B A100 vLLM ShareGPT burst',
    gpu: GPUS.a100,
    load: SHAREGPT,
    measured: { outputPerSecond: 832 },
    use: FIT,
  },
  {
    ...qwq,
    name: 'QwQ-32B 8xH200 TP8 c1',
    gpu: GPUS.h200,
    gpus: 8,
    flags: '--tensor-parallel-size 8',
    load: closed(1, 512, 1024),
    measured: { outputPerSecond: 115 },
    source: 'vllm #18725; lengths not said, 512 / 1024 assumed (at c1 they hardly matter)',
    use: HELD_OUT,
  },
  {
    ...qwq,
    name: 'QwQ-32B-Preview 2xA100 TP2 c1',
    gpu: GPUS.a100,
    gpus: 2,
    flags: '--tensor-parallel-size 2 --max-model-len 8192',
    load: closed(1, 512, 1024),
    measured: { outputPerSecond: 38.2 },
    source: 'evalscope docs, vLLM 0.6.3; lengths not said, 512 / 1024 assumed',
    use: HELD_OUT,
  },
  {
    ...qwq,
    name: 'QwQ-32B-Preview A100 transformers c1',
    gpu: GPUS.a100,
    load: null,
    measured: { outputPerSecond: 17.9 },
    source: 'evalscope docs',
    use: EXCLUDED('Hugging Face transformers, not an engine that is played'),
  },
]
