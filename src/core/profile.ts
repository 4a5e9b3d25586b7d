/** gpu-profiles/*.yaml: facts about one GPU model, each figure with its source. */
import { z } from 'zod'

const figure = (what: string) =>
  z
    .strictObject({
      value: z.number().positive().max(1e16),
      source: z.string().min(3),
      verified: z.boolean().default(true).describe('false when no primary source was read'),
    })
    .describe(what)

export const ProfileSchema = z.strictObject({
  /** Names that nvidia-smi prints for this model, exact or as a prefix. */
  names: z.array(z.string().min(1)).min(1),
  memoryBytes: figure('VRAM that nvidia-smi shows, bytes'),
  bandwidthBytesPerSecond: figure('HBM bandwidth'),
  bf16Flops: figure('dense BF16 FLOP/s'),
  fp8Flops: figure('dense FP8 FLOP/s').optional(),
  interconnectBytesPerSecond: figure('GPU to GPU, both directions summed'),
  powerLimitWatts: figure('board power limit'),
})

export type GpuProfile = z.output<typeof ProfileSchema> & { readonly name: string }
export type GpuProfiles = ReadonlyMap<string, GpuProfile>
