/**
 * One deployment before any node is chosen: is it sound, and on which GPU profiles of the inventory
 * does it fit? Refuses to know what is free (core/placement.ts).
 */
import { architectureOf } from './catalogue.ts'
import { type Fit, fitOf, unchecked } from './fit.ts'
import type { NodeSpec } from './inventory.ts'
import type { Architecture, Deployment } from './manifest.ts'
import type { Demand } from './placement.ts'
import type { GpuProfile, GpuProfiles } from './profile.ts'
import type { Runtime } from './runtime.ts'

/** Begins a line that is no reason but a way out. */
export const WOULD_FIT = 'would fit with'

export type Judged = {
  readonly deployment: Deployment
  readonly runtime: Runtime
  /** Null only when the model's shape is not known. */
  readonly demand: Demand | null
  /** What to show when no replica is placed: the best of the fits. */
  readonly best: Fit
  readonly refusals: readonly string[]
}

export const judge = (
  deployment: Deployment,
  nodes: readonly NodeSpec[],
  { runtime, profiles }: { runtime: Runtime; profiles: GpuProfiles },
): Judged => {
  const contradictions = runtime.contradictions(deployment)
  const architecture = architectureOf(deployment)
  if (architecture === null) {
    const reason = 'the shape of its model is not known: give `architecture` in the manifest'
    const best = unchecked(deployment, false, [reason])
    return { deployment, runtime, demand: null, best, refusals: [reason, ...contradictions] }
  }
  const allowed = nodes.filter(({ name }) => deployment.nodes?.includes(name) ?? true)
  const ask = { deployment, architecture, runtime, profiles }
  const fits = fitsOn({ ...ask, allowed }, profilesOf(allowed, profiles))
  const demand = { deployment, architecture, fits }
  const named = deployment.nodes !== undefined && allowed.some(({ device }) => device === 'cpu')
  const best = bestOf([...fits.values()])
  if (best === null) return withoutGpus({ deployment, runtime, demand }, named, contradictions)
  if (best.ok || named) return { deployment, runtime, demand, best, refusals: contradictions }
  const refusals = [...best.reasons, ...best.remedies.map((way) => `${WOULD_FIT} ${way}`)]
  return { deployment, runtime, demand, best, refusals: [...refusals, ...contradictions] }
}

const withoutGpus = (
  given: Pick<Judged, 'deployment' | 'runtime' | 'demand'>,
  cpuNamed: boolean,
  contradictions: readonly string[],
): Judged => {
  if (cpuNamed) {
    const best = unchecked(given.deployment, true, ['not checked: cpu'])
    return { ...given, best, refusals: contradictions }
  }
  const reason = 'no node of the inventory that it may use has GPUs of a known profile'
  const best = unchecked(given.deployment, false, [reason])
  return { ...given, best, refusals: [reason, ...contradictions] }
}

type FitsAsk = {
  readonly deployment: Deployment
  readonly architecture: Architecture
  readonly runtime: Runtime
  readonly profiles: GpuProfiles
  readonly allowed: readonly NodeSpec[]
}

const fitsOn = (ask: FitsAsk, used: readonly GpuProfile[]): ReadonlyMap<string, Fit> => {
  const { deployment, architecture, runtime, profiles, allowed } = ask
  return new Map(
    used.map((profile) => [
      profile.name,
      fitOf({
        architecture,
        profile,
        parallel: deployment.parallel,
        context: deployment.context,
        kvCache: deployment.kvCache,
        memoryFraction: deployment.memoryFraction ?? runtime.memory.fraction,
        overheadBytes: runtime.memory.overheadBytes,
        otherProfiles: [...profiles.values()],
        gpusPerNode: largest(allowed, profile.name),
      }),
    ]),
  )
}

const largest = (nodes: readonly NodeSpec[], profile: string): number =>
  Math.max(0, ...nodes.map(({ gpus }) => (gpus?.profile === profile ? gpus.count : 0)))

const profilesOf = (nodes: readonly NodeSpec[], profiles: GpuProfiles): readonly GpuProfile[] => {
  const names = new Set(
    nodes.flatMap(({ device, gpus }) =>
      device === 'cuda' && gpus !== undefined ? [gpus.profile] : [],
    ),
  )
  return [...names].sort().flatMap((name) => profiles.get(name) ?? [])
}

/** Fitting before not fitting, then the most room for KV. */
const bestOf = (fits: readonly Fit[]): Fit | null =>
  fits.reduce<Fit | null>((best, one) => {
    if (best === null || Number(one.ok) > Number(best.ok)) return one
    return one.ok === best.ok && one.kvBytesPerGpu > best.kvBytesPerGpu ? one : best
  }, null)
