/**
 * Finds the coefficients from the rows marked `fit`: least squares over the logarithms of
 * simulated / measured, by Levenberg and Marquardt's method with differences for derivatives.
 * Few rows, twelve unknowns: a weak pull towards what is known beforehand decides what no row does.
 */
import type { Fitted } from '../physics/coefficients.ts'
import { measure, type Prepared } from './measure.ts'

type Prior = { readonly value: number; readonly least: number; readonly most: number }

const NAMES = [
  'baseMs',
  'sequenceMs',
  'bandwidthEfficiency',
  'expertEfficiency',
  'computeEfficiency',
  'expertComputeEfficiency',
  'eagerLayerMs',
  'prefillLayerMs',
  'nodeLayerMs',
  'crossLayerMs',
  'crossH20LayerMs',
  'crossH20ExpertShare',
] as const satisfies readonly (keyof Fitted)[]

/**
 * Where a fit starts and what it is pulled to: shares that good kernels reach, 30 microseconds for
 * an all-reduce with its launch over NVLink and 100 across nodes.
 */
const PRIORS: Readonly<Record<(typeof NAMES)[number], Prior>> = {
  baseMs: { value: 3, least: 0.5, most: 10 },
  sequenceMs: { value: 0.1, least: 0.001, most: 1 },
  bandwidthEfficiency: { value: 0.7, least: 0.3, most: 0.92 },
  expertEfficiency: { value: 0.7, least: 0.2, most: 0.92 },
  computeEfficiency: { value: 0.6, least: 0.2, most: 0.8 },
  expertComputeEfficiency: { value: 0.4, least: 0.1, most: 0.8 },
  eagerLayerMs: { value: 1, least: 0.1, most: 4 },
  prefillLayerMs: { value: 1, least: 0.1, most: 4 },
  nodeLayerMs: { value: 0.06, least: 0.01, most: 1 },
  crossLayerMs: { value: 0.2, least: 0.01, most: 3 },
  crossH20LayerMs: { value: 0.2, least: 0.01, most: 3 },
  crossH20ExpertShare: { value: 0.7, least: 0.1, most: 1 },
}

/** A figure off by 10 % weighs as much as a coefficient off its prior by a factor of e. */
const PULL = 0.1

const fittedOf = (logs: readonly number[]): Fitted => {
  const at = (name: (typeof NAMES)[number]): number => {
    const { least, most } = PRIORS[name]
    const value = Math.exp(logs[NAMES.indexOf(name)] ?? Number.NaN)
    return Number(Math.min(most, Math.max(least, value)).toPrecision(12))
  }
  return {
    baseMs: at('baseMs'),
    sequenceMs: at('sequenceMs'),
    bandwidthEfficiency: at('bandwidthEfficiency'),
    expertEfficiency: at('expertEfficiency'),
    computeEfficiency: at('computeEfficiency'),
    expertComputeEfficiency: at('expertComputeEfficiency'),
    eagerLayerMs: at('eagerLayerMs'),
    prefillLayerMs: at('prefillLayerMs'),
    nodeLayerMs: at('nodeLayerMs'),
    crossLayerMs: at('crossLayerMs'),
    crossH20LayerMs: at('crossH20LayerMs'),
    crossH20ExpertShare: at('crossH20ExpertShare'),
  }
}

const residuals = (rows: readonly Prepared[], logs: readonly number[]): readonly number[] => {
  const fitted = fittedOf(logs)
  const errors = rows.flatMap((one) => {
    const { measured } = one.row
    const figures = measure(one, fitted)
    return (['outputPerSecond', 'tpotMs'] as const).flatMap((figure) => {
      const value = measured[figure]
      return value === undefined ? [] : [Math.log(figures[figure] / value)]
    })
  })
  const pulls = NAMES.map((name, index) => PULL * ((logs[index] ?? 0) - priorLog(name)))
  return [...errors, ...pulls]
}

const priorLog = (name: (typeof NAMES)[number]): number => Math.log(PRIORS[name].value)

const squares = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value * value, 0)

/** Gauss's elimination with the largest pivot; `matrix` holds the right side as last column. */
const solve = (matrix: number[][]): readonly number[] => {
  const size = matrix.length
  const cell = (row: number, column: number): number => matrix[row]?.[column] ?? Number.NaN
  for (let column = 0; column < size; column += 1) {
    let pivot = column
    for (let row = column + 1; row < size; row += 1) {
      if (Math.abs(cell(row, column)) > Math.abs(cell(pivot, column))) pivot = row
    }
    const [upper, lower] = [matrix[column] ?? [], matrix[pivot] ?? []]
    matrix[column] = lower
    matrix[pivot] = upper
    for (let row = 0; row < size; row += 1) {
      if (row === column) continue
      const factor = cell(row, column) / cell(column, column)
      matrix[row] = (matrix[row] ?? []).map((value, k) => value - factor * cell(column, k))
    }
  }
  return matrix.map((row, index) => (row[size] ?? Number.NaN) / cell(index, index))
}

/** One damped Gauss-Newton step: (J'J + damping diag J'J) x = -J'r. */
const stepFrom = (
  rows: readonly Prepared[],
  logs: readonly number[],
  now: readonly number[],
  damping: number,
): readonly number[] => {
  const difference = 1e-5
  const slopes = logs.map((_, moved) => {
    const there = logs.map((value, index) => (index === moved ? value + difference : value))
    return residuals(rows, there).map((value, index) => (value - (now[index] ?? 0)) / difference)
  })
  const dot = (a: readonly number[], b: readonly number[]): number =>
    a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0)
  const matrix = slopes.map((left, row) => [
    ...slopes.map((right, column) => dot(left, right) * (row === column ? 1 + damping : 1)),
    -dot(left, now),
  ])
  return solve(matrix)
}

/** Three digits: more would claim what so few rows cannot know. */
const rounded = (fitted: Fitted): Fitted => {
  const short = (value: number): number => Number(value.toPrecision(3))
  return fittedOf(NAMES.map((name) => Math.log(short(fitted[name]))))
}

/** Coefficients that fit the rows given, which should be those marked `fit`. */
export const fitCoefficients = (rows: readonly Prepared[]): Fitted => {
  let logs: readonly number[] = NAMES.map(priorLog)
  let now = residuals(rows, logs)
  let damping = 1e-2
  for (let round = 0; round < 60 && damping < 1e6; round += 1) {
    const step = stepFrom(rows, logs, now, damping)
    const there = logs.map((value, index) => value + (step[index] ?? 0))
    const then = residuals(rows, there)
    const better = squares(then) < squares(now)
    const settled = better && squares(now) - squares(then) < 1e-12
    if (better) [logs, now] = [there, then]
    damping *= better ? 0.3 : 5
    if (settled) break
  }
  return rounded(fittedOf(logs))
}
