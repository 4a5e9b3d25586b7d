/**
 * Fit: bytes needed against bytes there, per GPU, with the sum shown. Decides whether one request
 * of full context fits into the KV pool, which is what both engines demand at start; if not, says
 * what would (core/remedies.ts). Refuses to know which GPUs are free (core/placement.ts).
 */
import { remediesFor } from './remedies.ts'
import { type FitAsk, type FitSum, shapeReasons, sumOf } from './sum.ts'
import { gib, kib, thousands } from './units.ts'

export type Fit = FitSum & {
  readonly ok: boolean
  /** Why it does not fit, and what would make it fit; empty when ok, but for a cpu node's note. */
  readonly reasons: readonly string[]
  readonly remedies: readonly string[]
}

export const fitOf = (ask: FitAsk): Fit => {
  const sum = sumOf(ask)
  const reasons = [...shapeReasons(ask), ...memoryReasons(ask, sum)]
  const ok = reasons.length === 0
  return { ...sum, ok, reasons, remedies: ok ? [] : remediesFor(ask, sum.kvPoolTokens) }
}

/** A Fit with no sum: on a cpu node (ok) or when there is nothing to reckon with (not ok). */
export const unchecked = (
  { parallel, context }: Pick<Fit, 'parallel' | 'context'>,
  ok: boolean,
  reasons: readonly string[],
): Fit => ({
  ok,
  profile: null,
  parallel,
  context,
  memoryBytes: 0,
  memoryFraction: 0,
  budgetBytes: 0,
  weightsBytesPerGpu: 0,
  overheadBytesPerGpu: 0,
  overhead: [],
  kvBytesPerGpu: 0,
  kvBytesPerTokenPerGpu: 0,
  kvPoolTokens: 0,
  fullContextRequests: 0,
  reasons,
  remedies: [],
})

const memoryReasons = (ask: FitAsk, sum: FitSum): readonly string[] => {
  if (sum.kvPoolTokens >= ask.context) return []
  const short =
    sum.kvBytesPerGpu <= 0
      ? 'weights and overhead leave no room for a KV cache'
      : `the KV pool holds ${thousands(sum.kvPoolTokens)} tokens, ` +
        `one request of full context needs ${thousands(ask.context)}`
  return [`${short}: ${sumLine(sum)}`]
}

/** The whole sum on one line: `0.92 x 95.6 GiB = 87.9 GiB, less …`. */
const sumLine = (sum: FitSum): string =>
  [
    `${sum.memoryFraction} x ${gib(sum.memoryBytes)} = ${gib(sum.budgetBytes)} per GPU`,
    `less ${gib(sum.weightsBytesPerGpu)} weights`,
    `less ${gib(sum.overheadBytesPerGpu)} overhead`,
    `leaves ${gib(sum.kvBytesPerGpu)} at ${kib(sum.kvBytesPerTokenPerGpu)} a token`,
  ].join(', ')
