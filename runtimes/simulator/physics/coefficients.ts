/**
 * Coefficients of the step-time model (physics/cost.ts). `FITTED` is what `make calibrate
 * ARGS=--fit` prints: found from the rows of calibration/rows.ts marked `fit`, from no others. A
 * test holds that they are what the fit finds. Times in milliseconds.
 */
export type Coefficients = {
  readonly name: string
  /** Scheduler and launch of one step, whatever is in it. */
  readonly baseMs: number
  /** Host work for each answer in the step: sampling, detokenising, bookkeeping. */
  readonly sequenceMs: number
  /** Latency of a layer's two all-reduces and of their launch; zero on one GPU. */
  readonly layerMs: number
  /** Launching one layer of experts kernel by kernel, in eager mode and in prefill. */
  readonly eagerLayerMs: number
  readonly prefillLayerMs: number
  /** Bandwidth that an all-reduce of many tokens reaches on one GPU's link. */
  readonly linkBytesPerSecond: number
  /** Shares of the GPU's bandwidth and FLOPS that kernels reach. */
  readonly bandwidthEfficiency: number
  readonly expertEfficiency: number
  readonly kvEfficiency: number
  readonly computeEfficiency: number
  readonly expertComputeEfficiency: number
}

export type Fitted = {
  readonly baseMs: number
  readonly sequenceMs: number
  readonly bandwidthEfficiency: number
  readonly expertEfficiency: number
  readonly computeEfficiency: number
  readonly expertComputeEfficiency: number
  readonly eagerLayerMs: number
  readonly prefillLayerMs: number
  /** Tensor parallel inside a node, over NVLink. */
  readonly nodeLayerMs: number
  /** Tensor parallel across nodes: InfiniBand on H100 nodes. */
  readonly crossLayerMs: number
  /** The same on the H20 nodes that were measured, with the engine of April 2025. */
  readonly crossH20LayerMs: number
  /** Of what experts reach inside a node: TP16 leaves 128 columns of each to a rank. */
  readonly crossH20ExpertShare: number
}

export const FITTED: Fitted = {
  baseMs: 4.02,
  sequenceMs: 0.137,
  bandwidthEfficiency: 0.883,
  expertEfficiency: 0.92,
  computeEfficiency: 0.751,
  expertComputeEfficiency: 0.288,
  eagerLayerMs: 1.8,
  prefillLayerMs: 0.776,
  nodeLayerMs: 0.0653,
  crossLayerMs: 0.294,
  crossH20LayerMs: 0.754,
  crossH20ExpertShare: 0.414,
}

/** Not fitted, no row tells them apart: half of NVLink's 450 GB/s, half of a 400 Gb/s NIC. */
const LINK = { node: 225e9, cross: 25e9 }
/** Not fitted: published rows have short contexts; paged attention reads at about this share. */
const KV_EFFICIENCY = 0.6

const H20 = /\bH20\b/

/** Picks the coefficients for a placement. */
export const coefficientsFrom = (
  fitted: Fitted,
  gpuName: string,
  placement: { readonly crossNode: boolean; readonly sharded: boolean },
): Coefficients => {
  const shared = {
    name: 'one GPU',
    baseMs: fitted.baseMs,
    sequenceMs: fitted.sequenceMs,
    layerMs: 0,
    eagerLayerMs: fitted.eagerLayerMs,
    prefillLayerMs: fitted.prefillLayerMs,
    linkBytesPerSecond: LINK.node,
    bandwidthEfficiency: fitted.bandwidthEfficiency,
    expertEfficiency: fitted.expertEfficiency,
    kvEfficiency: KV_EFFICIENCY,
    computeEfficiency: fitted.computeEfficiency,
    expertComputeEfficiency: fitted.expertComputeEfficiency,
  }
  if (!placement.sharded) return shared
  const node = { ...shared, name: 'one node, several GPUs', layerMs: fitted.nodeLayerMs }
  if (!placement.crossNode) return node
  const cross = { ...node, linkBytesPerSecond: LINK.cross }
  if (!H20.test(gpuName)) {
    return { ...cross, name: 'tensor parallel across nodes', layerMs: fitted.crossLayerMs }
  }
  return {
    ...cross,
    name: 'H20, tensor parallel across nodes',
    layerMs: fitted.crossH20LayerMs,
    expertEfficiency: fitted.expertEfficiency * fitted.crossH20ExpertShare,
    expertComputeEfficiency: fitted.expertComputeEfficiency * fitted.crossH20ExpertShare,
  }
}

export const coefficientsFor = (
  gpuName: string,
  crossNode: boolean,
  sharded: boolean,
): Coefficients => coefficientsFrom(FITTED, gpuName, { crossNode, sharded })
