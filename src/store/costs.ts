/** What the machines cost, by day: kept by adding, together with the moment up to which it is. */
import type { CostRow } from '../core/cost.ts'
import type { Database } from './sqlite.ts'
import { dropPast } from './usage.ts'

/** Of all days; the oldest go first. A node has as many a day as deployments take turns on it. */
const ROWS_MAX = 500_000

/** Adds `rows` and says that everything up to `untilMs` (epoch) is written down now. */
export const recordCosts = (
  database: Database,
  rows: readonly CostRow[],
  untilMs: number,
): void => {
  database.transaction(() => {
    const days = [...new Set(rows.map(({ day }) => day))]
    const newDay = days.some((day) => isNew(database, day))
    for (const row of rows) {
      database.write(
        `INSERT INTO cost_days VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
          SET amount = amount + excluded.amount, gpu_seconds = gpu_seconds + excluded.gpu_seconds`,
        [row.day, row.node, row.deployment, row.state, row.currency, row.amount, row.gpuSeconds],
      )
    }
    database.write(
      'INSERT INTO cost_meter VALUES (1, ?) ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms',
      [Math.round(untilMs)],
    )
    if (newDay) prune(database)
  })
}

const isNew = (database: Database, day: number): boolean => {
  const sql = 'SELECT count(*) FROM (SELECT 1 FROM cost_days WHERE day = ? LIMIT 1)'
  return database.number(sql, [day]) === 0
}

const prune = (database: Database): void => {
  database.write(dropPast('cost_days'), [])
  while (database.number('SELECT count(*) FROM cost_days') > ROWS_MAX) {
    database.write('DELETE FROM cost_days WHERE day = (SELECT min(day) FROM cost_days)', [])
  }
}

/** Null: nothing was ever written down. */
export const costsUntilMs = (database: Database): number | null => {
  const atMs = database.number('SELECT coalesce(max(at_ms), -1) FROM cost_meter')
  return atMs < 0 ? null : atMs
}

export type Days = { readonly fromDay: number; readonly toDay: number }

export const costRows = async (
  database: Database,
  { fromDay, toDay }: Days,
): Promise<readonly CostRow[]> => {
  const rows = await database.query
    .selectFrom('cost_days')
    .selectAll()
    .where('day', '>=', fromDay)
    .where('day', '<=', toDay)
    .execute()
  return rows.map(({ gpu_seconds: gpuSeconds, ...row }) => ({ ...row, gpuSeconds }))
}
