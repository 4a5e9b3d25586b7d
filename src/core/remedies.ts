/**
 * What would make a deployment fit: every line is a change that was tried out with the same sum, so
 * none is a guess. Changes one thing at a time, and for KV in fp8 also the context with it.
 */
import type { GpuProfile } from './profile.ts'
import { type FitAsk, shapeReasons, sumOf } from './sum.ts'
import { gib, plural, thousands } from './units.ts'

/** A context is offered in steps of this many tokens; below one step it is no offer. */
const CONTEXT_STEP = 1024
/** Beyond this share the driver and other processes get no room (operators report 0.95 to run). */
const FRACTION_MAX = 0.95
const PROFILES_SHOWN = 3

type Change = Partial<FitAsk>

export const remediesFor = (ask: FitAsk, kvPoolTokens: number): readonly string[] => {
  const { maxContext } = ask.architecture
  // A context beyond the model's own is never asked of the alternatives.
  const sane = ask.context > maxContext ? { ...ask, context: maxContext } : ask
  const structural = shapeReasons(sane)
  return [
    ...(structural.length === 0 ? contextRemedies(sane, kvPoolTokens) : tensorRemedies(sane)),
    ...fractionRemedies(sane),
    ...widerRemedies(sane),
    ...profileRemedies(sane),
  ]
}

/** The pool under a change, tokens; null when it is refused. */
const poolUnder = (ask: FitAsk, change: Change): number | null => {
  const changed = { ...ask, ...change }
  if (shapeReasons(changed).length > 0) return null
  const { kvPoolTokens } = sumOf(changed)
  return kvPoolTokens >= changed.context ? kvPoolTokens : null
}

const holds = (pool: number): string => `the pool then holds ${thousands(pool)} tokens`

const contextRemedies = (ask: FitAsk, pool: number): readonly string[] => {
  const down = (tokens: number): number => Math.floor(tokens / CONTEXT_STEP) * CONTEXT_STEP
  const lines: string[] = []
  const context = Math.min(down(pool), ask.architecture.maxContext)
  if (context >= CONTEXT_STEP) lines.push(`context: ${context} or less`)
  // Without FP8 units the engines emulate or refuse an fp8 KV cache: not offered.
  if (ask.kvCache === 'fp8' || ask.profile.fp8Flops === undefined) return lines
  const narrow = { ...ask, kvCache: 'fp8' } as const
  const fits = poolUnder(narrow, {})
  if (fits !== null) return [...lines, `kvCache: fp8; ${holds(fits)}`]
  const reduced = down(sumOf(narrow).kvPoolTokens)
  if (reduced >= CONTEXT_STEP) lines.push(`kvCache: fp8 and context: ${reduced} or less`)
  return lines
}

/** For a tensor size that the heads do not divide over: the nearest ones that fit. */
const tensorRemedies = (ask: FitAsk): readonly string[] => {
  const gpus = ask.parallel.tensor * ask.parallel.pipeline
  const lines: string[] = []
  for (let tensor = gpus; tensor >= 1; tensor -= 1) {
    if (gpus % tensor !== 0) continue
    const parallel = { ...ask.parallel, tensor, pipeline: gpus / tensor }
    const pool = poolUnder(ask, { parallel })
    if (pool === null) continue
    lines.push(`${parallelWords(parallel)}; ${holds(pool)}`)
    break
  }
  return lines
}

const fractionRemedies = (ask: FitAsk): readonly string[] => {
  for (let hundredths = 50; hundredths <= FRACTION_MAX * 100; hundredths += 1) {
    const memoryFraction = hundredths / 100
    if (memoryFraction <= ask.memoryFraction) continue
    const pool = poolUnder(ask, { memoryFraction })
    if (pool !== null) return [`memoryFraction: ${memoryFraction}; ${holds(pool)}`]
  }
  return []
}

/** Twice or four times the GPUs: in the same nodes, or else with as many nodes more. */
const widerRemedies = (ask: FitAsk): readonly string[] => {
  const { nodes, tensor, pipeline } = ask.parallel
  const same = widened(ask, (factor) => ({ nodes, tensor: tensor * factor, pipeline }))
  if (same.length > 0) return same
  return [
    ...widened(ask, (factor) => ({ nodes: nodes * factor, tensor: tensor * factor, pipeline })),
    ...widened(ask, (factor) => ({ nodes: nodes * factor, tensor, pipeline: pipeline * factor })),
  ]
}

const widened = (ask: FitAsk, way: (factor: number) => FitAsk['parallel']): readonly string[] => {
  for (const factor of [2, 4]) {
    const parallel = way(factor)
    if (gpusOn(parallel) > (ask.gpusPerNode ?? Number.POSITIVE_INFINITY)) continue
    const pool = poolUnder(ask, { parallel })
    if (pool !== null) return [`${parallelWords(parallel)}; ${holds(pool)}`]
  }
  return []
}

const gpusOn = ({ nodes, tensor, pipeline }: FitAsk['parallel']): number =>
  (tensor * pipeline) / nodes

const parallelWords = (parallel: FitAsk['parallel']): string => {
  const { nodes, tensor, pipeline } = parallel
  const each = gpusOn(parallel)
  const where =
    nodes === 1
      ? `${plural(each, 'GPU')} of one node`
      : `${nodes} nodes with ${plural(each, 'such GPU')} each`
  return `parallel: { nodes: ${nodes}, tensor: ${tensor}, pipeline: ${pipeline} }, ${where}`
}

const profileRemedies = (ask: FitAsk): readonly string[] =>
  [...(ask.otherProfiles ?? [])]
    .filter(
      ({ name, memoryBytes }) =>
        name !== ask.profile.name && memoryBytes.value > ask.profile.memoryBytes.value,
    )
    .sort(bySize)
    .flatMap((profile) => {
      const pool = poolUnder(ask, { profile })
      return pool === null
        ? []
        : [`GPUs of profile ${profile.name} (${gib(profile.memoryBytes.value)}); ${holds(pool)}`]
    })
    .slice(0, PROFILES_SHOWN)

const bySize = (a: GpuProfile, b: GpuProfile): number =>
  a.memoryBytes.value - b.memoryBytes.value || (a.name < b.name ? -1 : 1)
