/** The GPUs of the published rows; figures as in gpu-profiles/ (a test compares them). */
export type Gpu = {
  readonly name: string
  readonly memoryBytes: number
  readonly bandwidthBytesPerSecond: number
  readonly bf16Flops: number
  /** Where FP8 is missing, the weights are computed with in BF16. */
  readonly fp8Flops: number
}

export const GPUS = {
  h20: {
    name: 'NVIDIA H20',
    memoryBytes: 102_625_181_696,
    bandwidthBytesPerSecond: 4e12,
    bf16Flops: 148e12,
    fp8Flops: 296e12,
  },
  h100: {
    name: 'NVIDIA H100 80GB HBM3',
    memoryBytes: 85_520_809_984,
    bandwidthBytesPerSecond: 3.35e12,
    bf16Flops: 989e12,
    fp8Flops: 1978e12,
  },
  h200: {
    name: 'NVIDIA H200',
    memoryBytes: 150_754_820_096,
    bandwidthBytesPerSecond: 4.8e12,
    bf16Flops: 989e12,
    fp8Flops: 1978e12,
  },
  h800: {
    name: 'NVIDIA H800',
    memoryBytes: 85_520_809_984,
    bandwidthBytesPerSecond: 3.35e12,
    bf16Flops: 989e12,
    fp8Flops: 1979e12,
  },
  a100: {
    name: 'NVIDIA A100-SXM4-80GB',
    memoryBytes: 85_899_345_920,
    bandwidthBytesPerSecond: 2.039e12,
    bf16Flops: 312e12,
    fp8Flops: 312e12,
  },
  /** No profile in gpu-profiles/: DGX B200 data sheet, dense figures, an eighth of the system. */
  b200: {
    name: 'NVIDIA B200',
    memoryBytes: 192_265_846_784,
    bandwidthBytesPerSecond: 8e12,
    bf16Flops: 2250e12,
    fp8Flops: 4500e12,
  },
} as const satisfies Readonly<Record<string, Gpu>>
