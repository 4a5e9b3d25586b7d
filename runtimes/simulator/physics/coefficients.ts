/**
 * Efficiency coefficients of the step-time model, each with the published row it was set from
 * (design facts, section 7). Times in milliseconds. The first row whose test fits is taken.
 *
 * The model of one step (physics/cost.ts):
 *   base + layers x perLayerMs + dense bytes / (bandwidth x bandwidthEfficiency)
 *   + expert bytes touched / (bandwidth x expertEfficiency) + KV bytes / (bandwidth x 0.6)
 *   + tokens x perTokenMs, and never less than FLOPs / (peak x computeEfficiency).
 */
export type Coefficients = {
  readonly name: string
  readonly source: string
  /** Scheduler, sampling and launch overhead of one step. */
  readonly baseMs: number
  /** Two all-reduces a layer; zero on one GPU. */
  readonly perLayerMs: number
  readonly bandwidthEfficiency: number
  /** Experts are small and scattered: their reads reach less of the bandwidth. */
  readonly expertEfficiency: number
  readonly kvEfficiency: number
  readonly computeEfficiency: number
  /** Communication of one token's activations through all layers. */
  readonly perTokenMs: number
}

type Row = Coefficients & {
  readonly fits: (gpuName: string, crossNode: boolean, sharded: boolean) => boolean
}

const H20 = /\bH20\b/
const A100 = /\bA[18]00\b/

const ROWS: readonly Row[] = [
  {
    name: 'H20, tensor parallel across nodes',
    source:
      'tanjunchen 2025-04-05, SGLang 0.4.4, R1, 2x8 H20 TP16, 128/128: TPOT 55.6 (c1), 85 (c8), ' +
      '144-155 (c32), 245-250 ms (c128); least squares over the four rows',
    baseMs: 4,
    perLayerMs: 0.755,
    bandwidthEfficiency: 0.6,
    expertEfficiency: 0.084,
    kvEfficiency: 0.6,
    computeEfficiency: 0.45,
    perTokenMs: 0.576,
    fits: (gpu, cross) => cross && H20.test(gpu),
  },
  {
    name: 'tensor parallel across nodes',
    source: 'tt-inference-server #356: SGLang R1-0528, 2x8 H100 + IB: TPOT 23.1 ms at c1',
    baseMs: 4,
    perLayerMs: 0.28,
    bandwidthEfficiency: 0.65,
    expertEfficiency: 0.3,
    kvEfficiency: 0.6,
    computeEfficiency: 0.45,
    perTokenMs: 0.3,
    fits: (_, cross) => cross,
  },
  {
    name: 'H20, one node, several GPUs',
    source:
      'tanjunchen, March 2025, SGLang, R1, 8xH20, max-running 32, 3500/1500: TPOT 108 ms; ' +
      'lmsys / Ant 2025-09-26: BS 32 a GPU under 50 ms when tuned',
    baseMs: 4,
    perLayerMs: 0.32,
    bandwidthEfficiency: 0.5,
    expertEfficiency: 0.22,
    kvEfficiency: 0.6,
    computeEfficiency: 0.45,
    perTokenMs: 0.3,
    fits: (gpu, _, sharded) => sharded && H20.test(gpu),
  },
  {
    name: 'one node, several GPUs',
    source:
      'IX #870: SGLang 0.5.7, R1, 8xH200 TP8, 1k/1k: TPOT 12.8 (c8), 17.2 (c16), 34.6 ms (c64); ' +
      'vllm #18725: QwQ-32B on 8xH200, 115 tok/s at c1',
    baseMs: 2.5,
    perLayerMs: 0.075,
    bandwidthEfficiency: 0.65,
    expertEfficiency: 0.95,
    kvEfficiency: 0.6,
    computeEfficiency: 0.45,
    perTokenMs: 0.19,
    fits: (_gpu, _cross, sharded) => sharded,
  },
  {
    name: 'H20, one GPU',
    source:
      'Qwen3 speed_benchmark (2025-05-20): Qwen3-32B BF16, SGLang, one H20-96, batch 1: 20.72 ' +
      'tok/s = 48.3 ms; 65.5 GB in 45.3 ms is 0.36 of 4.0 TB/s',
    baseMs: 3,
    perLayerMs: 0,
    bandwidthEfficiency: 0.3615,
    expertEfficiency: 0.3,
    kvEfficiency: 0.6,
    computeEfficiency: 0.6,
    perTokenMs: 0,
    fits: (gpu) => H20.test(gpu),
  },
  {
    name: 'A100, one GPU',
    source: 'gpustack docs: Qwen3-32B BF16, A100-80, ShareGPT burst, vLLM: 832 output tok/s',
    baseMs: 3,
    perLayerMs: 0,
    bandwidthEfficiency: 0.7,
    expertEfficiency: 0.5,
    kvEfficiency: 0.6,
    computeEfficiency: 0.6,
    perTokenMs: 0,
    fits: (gpu) => A100.test(gpu),
  },
  {
    name: 'one GPU',
    source: 'gpustack docs: Qwen3-32B BF16, H100, ShareGPT burst, vLLM 0.11: 1131.6 tok/s, 88 ms',
    baseMs: 3,
    perLayerMs: 0,
    bandwidthEfficiency: 0.7,
    expertEfficiency: 0.5,
    kvEfficiency: 0.6,
    computeEfficiency: 0.45,
    perTokenMs: 0,
    fits: () => true,
  },
]

export const coefficientsFor = (
  gpuName: string,
  crossNode: boolean,
  sharded: boolean,
): Coefficients => {
  const row = ROWS.find(({ fits }) => fits(gpuName, crossNode, sharded))
  if (row === undefined) throw new Error('coefficients: the last row fits everything')
  return row
}
