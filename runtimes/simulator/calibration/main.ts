/**
 * `make calibrate`: the simulator against every published measurement that we know. Exit code 1
 * when the goal is missed on rows held out. `--fit` prints the coefficients found from the `fit`
 * rows, to be put into physics/coefficients.ts.
 */
import { parseArgs } from 'node:util'
import { FITTED } from '../physics/coefficients.ts'
import { fitCoefficients } from './fit.ts'
import { heldOutErrors, meetsGoal, prepare, simulate, table } from './report.ts'
import { ROWS } from './rows.ts'

const { values } = parseArgs({ options: { fit: { type: 'boolean', default: false } } })

if (values.fit) {
  const rows = ROWS.filter(({ use }) => use.role === 'fit')
  const found = fitCoefficients(rows.map(prepare).filter((one) => one !== null))
  process.stdout.write(`export const FITTED: Fitted = ${JSON.stringify(found, null, 2)}\n`)
} else {
  const results = ROWS.map((row) => {
    const prepared = prepare(row)
    return prepared === null ? { row, figures: null } : simulate(prepared, FITTED)
  })
  process.stdout.write(table(results))
  if (!meetsGoal(heldOutErrors(results))) process.exitCode = 1
}
