/** The table of `make calibrate` and its verdict. */
import type { Fitted } from '../physics/coefficients.ts'
import { type Figures, measure, type Prepared } from './measure.ts'
import type { Measured, Row } from './row.ts'
import { costInputOf, traceOf } from './trace.ts'

/** What a rehearsal promises on rows that no coefficient was set from. */
export const GOAL = { medianRatio: 0.15, worstRatio: 0.35 }

const FIGURES = [
  ['outputPerSecond', 'tok/s'],
  ['tpotMs', 'TPOT ms'],
  ['ttftMs', 'TTFT ms'],
] as const satisfies readonly (readonly [keyof Measured, string])[]

export type Result = { readonly row: Row; readonly figures: Figures | null }

/** Null where the source says too little to repeat the load. */
export const prepare = (row: Row): Prepared | null =>
  row.load === null ? null : { row, trace: traceOf(row, row.load), input: costInputOf(row) }

export const simulate = (prepared: Prepared, fitted: Fitted): Result => ({
  row: prepared.row,
  figures: measure(prepared, fitted),
})

/** |simulated / measured - 1| of tokens/s and TPOT on held-out rows, in ascending order. */
export const heldOutErrors = (results: readonly Result[]): readonly number[] =>
  results
    .filter(({ row }) => row.use.role === 'held-out')
    .flatMap(({ row, figures }) =>
      (['outputPerSecond', 'tpotMs'] as const).flatMap((figure) => {
        const measured = row.measured[figure]
        if (measured === undefined || figures === null) return []
        return [Math.abs(figures[figure] / measured - 1)]
      }),
    )
    .sort((a, b) => a - b)

/** Share of error in the middle and at the end of an ascending list. */
export const summary = (errors: readonly number[]): { median: number; worst: number } => {
  const middle = (errors.length - 1) / 2
  const at = (index: number): number => errors[index] ?? Number.NaN
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    worst: at(errors.length - 1),
  }
}

/** False too when there is nothing to judge by. */
export const meetsGoal = (errors: readonly number[]): boolean => {
  const { median, worst } = summary(errors)
  return median <= GOAL.medianRatio && worst <= GOAL.worstRatio
}

const number = (value: number): string => value.toPrecision(value >= 1000 ? 4 : 3)

const shown = (value: number): string =>
  value >= 1000 ? String(Math.round(value)) : String(Number(number(value)))

const line = (cells: readonly string[]): string =>
  [
    (cells[0] ?? '').padEnd(42),
    (cells[1] ?? '').padEnd(8),
    ...cells.slice(2, 5).map((cell) => cell.padStart(9)),
    cells[5] ?? '',
  ]
    .join(' ')
    .trimEnd()

const roleOf = ({ use }: Row): string =>
  ({ fit: 'fit', 'held-out': 'held out', excluded: 'excluded' })[use.role]

const linesOf = ({ row, figures }: Result): readonly string[] =>
  FIGURES.filter(([key]) => row.measured[key] !== undefined).map(([key, unit], index) => {
    const measured = row.measured[key] ?? Number.NaN
    const simulated = figures === null ? null : figures[key]
    return line([
      index === 0 ? row.name : '',
      unit,
      shown(measured),
      simulated === null ? '-' : shown(simulated),
      simulated === null ? '-' : (simulated / measured).toFixed(2),
      index === 0 ? ` ${roleOf(row)}` : '',
    ])
  })

const excludedLines = (results: readonly Result[]): readonly string[] =>
  results.flatMap(({ row }) =>
    row.use.role === 'excluded' ? [`  ${row.name}: ${row.use.why}`] : [],
  )

const percent = (ratio: number): string => `${(100 * ratio).toFixed(1)} %`

export const table = (results: readonly Result[]): string => {
  const errors = heldOutErrors(results)
  const { median, worst } = summary(errors)
  const rows = results.filter(({ row }) => row.use.role === 'held-out').length
  return [
    line(['row', 'figure', 'measured', 'simulated', 'ratio', ' role']),
    ...results.flatMap(linesOf),
    '',
    'TTFT is shown only: nothing was fitted to it and the verdict leaves it out. The simulator ' +
      'has no network, no tokenizer and no client, which at low load are most of it.',
    '',
    'Excluded from fit and verdict, and why ("-": too little is published to repeat the load):',
    ...excludedLines(results),
    '',
    `Held out: ${rows} rows, ${errors.length} figures of tokens/s and TPOT. Error: median ` +
      `${percent(median)} (goal ${percent(GOAL.medianRatio)}), worst ${percent(worst)} ` +
      `(goal ${percent(GOAL.worstRatio)}): ${meetsGoal(errors) ? 'met' : 'MISSED'}`,
    '',
  ].join('\n')
}
