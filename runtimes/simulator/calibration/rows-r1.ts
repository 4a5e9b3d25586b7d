/** Published rows of DeepSeek-R1. Every row that we know is here; none is left out silently. */
import { GPUS } from './gpus.ts'
import {
  closed,
  EXCLUDED,
  FIT,
  HELD_OUT,
  type Load,
  type Row,
  type RowOf,
  SHAREGPT,
} from './row.ts'

const R1 = 'deepseek-ai/DeepSeek-R1'
const R1_0528 = 'deepseek-ai/DeepSeek-R1-0528'

const BADLY_TUNED =
  'badly tuned: the author finds it slower than one node and blames the link; tokens/s falls ' +
  'between c128 and c256, which no step-time model should imitate'
const EAGER_TURN =
  'above c64 more requests bring fewer tokens/s, a step of 257 ms after one of 116: as in the ' +
  'two-node table of the same author, no step-time model should imitate it'
const BATCH_UNKNOWN =
  'room for KV decides the batch here, and neither the card (H20 with 96 GB or H20-3e with 141), ' +
  'nor the memory share, nor the version is published: 96 GB and 0.95 as shown give 0.4 of it, ' +
  '141 GB and 0.9 to 0.95 give 0.8 to 1.0; to choose the card by the result would be to fit it'
const SPLIT =
  'prefill and decode on separate nodes, wide expert parallelism or multi-token prediction: ' +
  'a deployment that the simulator does not play'
const DP_ATTENTION = 'data-parallel attention: not played by the simulator'
const OLD_VLLM = 'vLLM 0.7.2 (V0 engine, first MLA): that step loop is not the one played'
const UNKNOWN_LOAD = 'a peak or production figure: lengths or concurrency are not published'

const acrossH20: RowOf = {
  model: R1,
  gpu: GPUS.h20,
  gpus: 8,
  engine: 'sglang',
  flags: '--tp-size 16 --nnodes 2 --node-rank 0 --dist-init-addr 127.0.0.1:5000',
  source: 'tanjunchen 2025-04-05, SGLang about 0.4.4, 128 in / 128 out',
}

const acrossH20Rows: readonly Row[] = (
  [
    [1, 17.4, 55.6, 286, FIT],
    [8, 89.4, 85, 632, FIT],
    [32, 209.5, 149.5, 670, HELD_OUT],
    [128, 505, 247.5, 1200, FIT],
    [256, 376, 671, 1850, EXCLUDED(BADLY_TUNED)],
    [512, 448, 1130, 3700, EXCLUDED(BADLY_TUNED)],
    [1024, 1090, 925, 2950, EXCLUDED(BADLY_TUNED)],
  ] as const
).map(
  ([concurrency, outputPerSecond, tpotMs, ttftMs, use]): Row => ({
    ...acrossH20,
    name: `R1 2x8 H20 TP16 c${concurrency}`,
    load: closed(concurrency, 128, 128),
    measured: { outputPerSecond, tpotMs, ttftMs },
    use,
  }),
)

const h20: RowOf = {
  model: R1,
  gpu: GPUS.h20,
  gpus: 8,
  engine: 'sglang',
  flags: '--tp-size 8 --mem-fraction-static 0.95',
  source: 'dragonfive blog',
}

const eager: RowOf = {
  ...h20,
  engine: 'vllm',
  flags:
    '--tensor-parallel-size 8 --max-model-len 4096 --enforce-eager ' +
    '--gpu-memory-utilization 0.95 --max-num-seqs 256 --max-num-batched-tokens 16384',
  source: 'tanjunchen, vLLM 0.8.2, eager, 128 in / 128 out',
}

const eagerRows: readonly Row[] = (
  [
    [1, { outputPerSecond: 9, tpotMs: 110 }, FIT],
    [32, { outputPerSecond: 260, tpotMs: 115.5 }, HELD_OUT],
    [64, { outputPerSecond: 506, tpotMs: 116 }, HELD_OUT],
    [128, { outputPerSecond: 497, ttftMs: 1700 }, EXCLUDED(EAGER_TURN)],
    [1024, { outputPerSecond: 800, ttftMs: 64_000 }, EXCLUDED(EAGER_TURN)],
  ] as const
).map(
  ([concurrency, measured, use]): Row => ({
    ...eager,
    name: `R1 8xH20 vLLM eager c${concurrency}`,
    load: closed(concurrency, 128, 128),
    measured,
    use,
  }),
)

const BURST: Load = { concurrency: 500, requests: 500, prompt: 100, answer: 5150, spread: 'none' }

const h20Rows: readonly Row[] = [
  ...eagerRows,
  {
    ...h20,
    name: 'R1 8xH20 TP8 running 32, burst of 128',
    flags: `${h20.flags} --max-running-requests 32`,
    // A mean TTFT of 221 s is that of 128 requests at once: a replaced one would wait 500 s.
    load: { concurrency: 128, requests: 128, prompt: 3500, answer: 1500, spread: 'none' },
    measured: { outputPerSecond: 280, tpotMs: 108, ttftMs: 221_000 },
    source: 'tanjunchen, March 2025, SGLang, mem 0.95, max-running 32, 3500 in / 1500 out',
    use: FIT,
  },
  {
    ...h20,
    name: 'R1 8xH20 TP8 burst of 500',
    load: BURST,
    measured: { outputPerSecond: 877 },
    source: 'dragonfive blog: about 100 in / 5150 out; memory share not said, 0.95 assumed',
    use: EXCLUDED(BATCH_UNKNOWN),
  },
  {
    ...h20,
    name: 'R1 8xH20 TP8 + DP attention burst of 500',
    load: BURST,
    measured: { outputPerSecond: 1541 },
    use: EXCLUDED(DP_ATTENTION),
  },
  {
    ...h20,
    name: 'R1 8xH20 vLLM 0.7.2 burst of 500',
    engine: 'vllm',
    flags: '--tensor-parallel-size 8 --gpu-memory-utilization 0.95 --max-model-len 8192',
    load: BURST,
    measured: { outputPerSecond: 523 },
    use: EXCLUDED(OLD_VLLM),
  },
  ...(
    [
      ['1+2 nodes H20, a node', { outputPerSecond: 5700 }],
      ['H20 batch 48, a GPU', { outputPerSecond: 714, tpotMs: 70 }],
      ['H20 batch 32, a GPU', { outputPerSecond: 675, tpotMs: 50 }],
      ['H20 batch 12, a GPU', { outputPerSecond: 423, tpotMs: 30 }],
      ['H20 batch 1', { outputPerSecond: 47.5, tpotMs: 21 }],
    ] as const
  ).map(
    ([name, measured]): Row => ({
      ...h20,
      name: `R1 PD+EP16+MTP ${name}`,
      load: null,
      measured,
      source: 'lmsys / Ant Group 2025-09-26, SGLang 0.5.2',
      use: EXCLUDED(SPLIT),
    }),
  ),
]

const h200: RowOf = {
  model: R1_0528,
  gpu: GPUS.h200,
  gpus: 8,
  engine: 'sglang',
  flags: '--tp-size 8',
  source: 'IX #870: SGLang 0.5.7, random 1k in / 1k out (0.8 to 1 of it); tokens/s: per GPU x 8',
}
const vllmH200 = { ...h200, engine: 'vllm', flags: '--tensor-parallel-size 8' } as const
const GPUSTACK = 'gpustack docs: ShareGPT burst of 1000, vLLM 0.11.0 and SGLang 0.5.3'

const h200Rows: readonly Row[] = [
  ...(
    [
      [8, 596.8, 12.8, 331, FIT],
      [16, 895.2, 17.2, 356, HELD_OUT],
      [64, 1788.8, 34.6, 423, HELD_OUT],
    ] as const
  ).map(
    ([concurrency, outputPerSecond, tpotMs, ttftMs, use]): Row => ({
      ...h200,
      name: `R1 8xH200 TP8 c${concurrency}`,
      load: closed(concurrency, 922, 922, 'near'),
      measured: { outputPerSecond, tpotMs, ttftMs },
      use,
    }),
  ),
  {
    ...h200,
    name: 'R1 8xH200 SGLang ShareGPT burst',
    load: SHAREGPT,
    measured: { outputPerSecond: 3172 },
    source: GPUSTACK,
    use: FIT,
  },
  {
    ...vllmH200,
    name: 'R1 8xH200 vLLM ShareGPT burst',
    load: SHAREGPT,
    measured: { outputPerSecond: 2621, tpotMs: 227.45 },
    source: GPUSTACK,
    use: HELD_OUT,
  },
  {
    ...h200,
    name: 'R1 8xH200 DP attention ShareGPT burst',
    load: SHAREGPT,
    measured: { outputPerSecond: 3415 },
    source: GPUSTACK,
    use: EXCLUDED(DP_ATTENTION),
  },
  {
    ...vllmH200,
    name: 'R1 8xH200 batch 4',
    load: closed(4, 219, 203),
    measured: { outputPerSecond: 197, tpotMs: 19.4, ttftMs: 123 },
    source: 'gpustack docs',
    use: EXCLUDED('contradicts IX #870, where twice the batch on the same node takes 12.8 ms'),
  },
  {
    ...vllmH200,
    name: 'R1 H200 wide EP, a GPU',
    load: null,
    measured: { outputPerSecond: 2200 },
    source: 'vLLM blog 2025-12-17, CoreWeave, saturated (1.5 k earlier)',
    use: EXCLUDED(SPLIT),
  },
  {
    ...vllmH200,
    name: 'R1 8xH200 vLLM, peak',
    load: null,
    measured: { outputPerSecond: 1000 },
    source: 'DeepSeek-R1 #507, early 2025',
    use: EXCLUDED(UNKNOWN_LOAD),
  },
  {
    ...h200,
    name: 'R1 2 nodes H200 PD c128',
    load: null,
    measured: { outputPerSecond: 2060, tpotMs: 109 },
    source: 'sglang #5490, 1k in / 1k out',
    use: EXCLUDED(SPLIT),
  },
]

const b200: RowOf = {
  ...h200,
  gpu: GPUS.b200,
  source:
    'SGLang cookbook DeepSeek-R1.md: 0.5.6.post1, 8xB200, random 1k / 1k (mean about 500 / 500)',
}

const acrossH100: RowOf = {
  ...acrossH20,
  gpu: GPUS.h100,
  source: 'sglang #3656, February 2025',
}
const OLD_SGLANG =
  'engines of February 2025, link not said; the same hardware is published at 43 tok/s since'

const otherRows: readonly Row[] = [
  {
    ...b200,
    name: 'R1 8xB200 TP8 c1',
    load: closed(1, 500, 500, 'wide'),
    measured: { outputPerSecond: 105, tpotMs: 9.2, ttftMs: 153 },
    use: FIT,
  },
  {
    ...b200,
    name: 'R1 8xB200 TP8 c100',
    load: closed(100, 500, 500, 'wide'),
    measured: { outputPerSecond: 2283, tpotMs: 40.1, ttftMs: 563 },
    use: HELD_OUT,
  },
  {
    ...acrossH100,
    name: 'R1 2x8 H100 InfiniBand c1',
    load: closed(1, 128, 128),
    measured: { outputPerSecond: 43, tpotMs: 23.1, ttftMs: 180 },
    source: 'tt-inference-server #356, SGLang R1-0528',
    use: FIT,
  },
  {
    ...acrossH100,
    name: 'R1 2x8 H100 SGLang c1, February 2025',
    load: closed(1, 128, 128),
    measured: { outputPerSecond: 19 },
    use: EXCLUDED(OLD_SGLANG),
  },
  {
    ...acrossH100,
    name: 'R1 2x8 H100 vLLM c1, February 2025',
    load: null,
    measured: { outputPerSecond: 30 },
    use: EXCLUDED(OLD_SGLANG),
  },
  {
    ...acrossH100,
    name: 'R1 AWQ 2x8 H100 without InfiniBand, peak',
    load: null,
    measured: { outputPerSecond: 980 },
    source: 'dzhsurf, vLLM 0.7.3 AWQ (one node about 620)',
    use: EXCLUDED(UNKNOWN_LOAD),
  },
  {
    ...acrossH100,
    name: 'R1 TP8xPP2 H100, a node',
    load: null,
    measured: { outputPerSecond: 821 },
    source: 'neuralmagic, cited by dzhsurf',
    use: EXCLUDED(UNKNOWN_LOAD),
  },
  ...(
    [
      ['vLLM 0.7.2', 1076, 195],
      ['SGLang', 659, 311],
    ] as const
  ).map(([name, outputPerSecond, tpotMs]) => ({
    ...acrossH100,
    gpu: GPUS.h800,
    name: `R1 2x8 H800 rate 4 ${name}`,
    load: null,
    measured: { outputPerSecond, tpotMs },
    source: 'dragonfive blog, 2000 in / 2000 out',
    use: EXCLUDED('4 requests/s is above capacity and how many were sent is not published'),
  })),
  {
    ...h200,
    gpu: GPUS.h800,
    name: "R1 8xH800 DeepSeek's own, a node",
    load: null,
    measured: { outputPerSecond: 14_800, tpotMs: 47.6 },
    source: 'deepseek-ai/open-infra-index, February 2025 (73.7 k in)',
    use: EXCLUDED(SPLIT),
  },
]

export const R1_ROWS: readonly Row[] = [...acrossH20Rows, ...h20Rows, ...h200Rows, ...otherRows]
