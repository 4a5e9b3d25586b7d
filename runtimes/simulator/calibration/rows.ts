/** All published rows, read in the sources that each names. */
import type { Row } from './row.ts'
import { DENSE_ROWS } from './rows-dense.ts'
import { R1_ROWS } from './rows-r1.ts'

export const ROWS: readonly Row[] = [...R1_ROWS, ...DENSE_ROWS]
