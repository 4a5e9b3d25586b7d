/** What a benchmark would report of a trace under given coefficients. */

import { coefficientsFrom, type Fitted } from '../physics/coefficients.ts'
import { type CostInput, costModel } from '../physics/cost.ts'
import type { Row } from './row.ts'
import type { Trace } from './trace.ts'

export type Figures = {
  readonly outputPerSecond: number
  /** Mean over answers of (last - first token) / (tokens - 1). */
  readonly tpotMs: number
  readonly ttftMs: number
}

export type Prepared = {
  readonly row: Row
  readonly trace: Trace
  readonly input: Omit<CostInput, 'coefficients'>
}

export const measure = ({ row, trace, input }: Prepared, fitted: Fitted): Figures => {
  const placement = { crossNode: input.tensor > row.gpus, sharded: input.tensor > 1 }
  const coefficients = coefficientsFrom(fitted, row.gpu.name, placement)
  const cost = costModel({ ...input, coefficients })
  const ends = new Float64Array(trace.steps.length + 1)
  for (const [index, step] of trace.steps.entries()) {
    ends[index + 1] = (ends[index] ?? 0) + cost.stepMs(step)
  }
  const at = (step: number): number => ends[step] ?? Number.NaN
  let [tokens, ttft, tpot, several] = [0, 0, 0, 0]
  for (const answer of trace.answers) {
    tokens += answer.tokens
    ttft += at(answer.first) - at(answer.arrived)
    if (answer.tokens < 2) continue
    several += 1
    tpot += (at(answer.last) - at(answer.first)) / (answer.tokens - 1)
  }
  return {
    outputPerSecond: (tokens / at(trace.steps.length)) * 1000,
    tpotMs: tpot / several,
    ttftMs: ttft / trace.answers.length,
  }
}
