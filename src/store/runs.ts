/** Runs of engines: their own counters beside what our callers' answers added up to. */
import type { Selectable } from 'kysely'
import type { EngineRun, OurTokens, TokenPair } from '../core/reconcile.ts'
import type { RequestRow } from './requests.ts'
import type { Database } from './sqlite.ts'
import type { Tables } from './tables.ts'
import { isUnmetered } from './usage.ts'

/** Runs that are kept: of one replica, and of all. */
const RUNS_OF_REPLICA_MAX = 5
const RUNS_MAX = 5000

const COUNT = `UPDATE engine_runs SET requests = requests + ?, cut = cut + ?,
  unmetered = unmetered + ?, prompt_tokens = prompt_tokens + ?,
  completion_tokens = completion_tokens + ? WHERE replica = ? AND opened_at_ms =
    (SELECT max(opened_at_ms) FROM engine_runs WHERE replica = ? AND opened_at_ms <= ?)`

/**
 * Within the caller's transaction. A request belongs to the last run that was open when it was let
 * through: what an engine answers after a restart is another run's.
 */
export const countInRuns = (database: Database, rows: readonly RequestRow[]): void => {
  for (const [replica, all] of Map.groupBy(rows, (row) => row.replica)) {
    if (replica === null) continue
    const newest = 'SELECT coalesce(max(opened_at_ms), 0) FROM engine_runs WHERE replica = ?'
    const openedAtMs = database.number(newest, [replica])
    // Nearly all are of the newest run: one statement for them together.
    const runs = Map.groupBy(all, (row) => Math.min(begunAtMs(row), openedAtMs))
    for (const [atMs, some] of runs) {
      const sum = (value: (row: RequestRow) => number): number =>
        some.reduce((total, row) => total + value(row), 0)
      database.write(COUNT, [
        some.length,
        sum((row) => (row.outcome === 'ok' ? 0 : 1)),
        sum((row) => (isUnmetered(row) ? 1 : 0)),
        sum((row) => row.prompt_tokens ?? 0),
        sum((row) => row.completion_tokens ?? 0),
        replica,
        replica,
        atMs,
      ])
    }
  }
}

const begunAtMs = (row: RequestRow): number => row.accepted_at_ms + (row.queue_ms ?? 0)

const columnsOf = (run: EngineRun) => ({
  opened_at_ms: Math.round(run.openedAtMs),
  read_at_ms: run.readAtMs === null ? null : Math.round(run.readAtMs),
  base_prompt: Math.round(run.base.prompt),
  base_completion: Math.round(run.base.completion),
  last_prompt: Math.round(run.last.prompt),
  last_completion: Math.round(run.last.completion),
  carried_prompt: Math.round(run.carried.prompt),
  carried_completion: Math.round(run.carried.completion),
  resets: run.resets,
  kills: run.kills,
})

const NOTHING_OF_OURS = {
  requests: 0,
  cut: 0,
  unmetered: 0,
  prompt_tokens: 0,
  completion_tokens: 0,
  probes: 0,
  probe_prompt: 0,
  probe_completion: 0,
} as const

/** Saves what the engines' counters said; what we counted beside it stays. */
export const saveRuns = (database: Database, runs: readonly EngineRun[]): void => {
  if (runs.length === 0) return
  const { query } = database
  database.transaction(() => {
    for (const run of runs) {
      const columns = columnsOf(run)
      const { replica } = run
      const row = { replica, run: Math.round(run.run), ...columns, ...NOTHING_OF_OURS }
      const insert = query.insertInto('engine_runs').values(row)
      const upsert = insert.onConflict((conflict) =>
        conflict.columns(['replica', 'run']).doUpdateSet(columns),
      )
      database.run(upsert)
      database.write(
        `DELETE FROM engine_runs WHERE replica = ? AND opened_at_ms <
          (SELECT min(opened_at_ms) FROM (SELECT opened_at_ms FROM engine_runs WHERE replica = ?
            ORDER BY opened_at_ms DESC LIMIT ${RUNS_OF_REPLICA_MAX}))`,
        [replica, replica],
      )
    }
    database.write(
      `DELETE FROM engine_runs WHERE opened_at_ms < coalesce(
        (SELECT opened_at_ms FROM engine_runs ORDER BY opened_at_ms DESC
          LIMIT 1 OFFSET ${RUNS_MAX}), 0)`,
      [],
    )
  })
}

/** Tokens that a probe of our own took from an engine. */
export const countProbe = (
  database: Database,
  { replica, run }: Pick<EngineRun, 'replica' | 'run'>,
  { prompt, completion }: TokenPair,
): void => {
  database.write(
    `UPDATE engine_runs SET probes = probes + 1, probe_prompt = probe_prompt + ?,
      probe_completion = probe_completion + ? WHERE replica = ? AND run = ?`,
    [prompt, completion, replica, run],
  )
}

export type KeptRun = { readonly run: EngineRun; readonly ours: OurTokens }

/** By replica, newest run first. */
export const keptRuns = async (database: Database): Promise<readonly KeptRun[]> => {
  const rows = await database.query
    .selectFrom('engine_runs')
    .selectAll()
    .orderBy('replica')
    .orderBy('opened_at_ms', 'desc')
    .execute()
  return rows.map(keptOf)
}

const keptOf = (row: Selectable<Tables['engine_runs']>): KeptRun => ({
  run: {
    replica: row.replica,
    run: row.run,
    openedAtMs: row.opened_at_ms,
    readAtMs: row.read_at_ms,
    base: { prompt: row.base_prompt, completion: row.base_completion },
    last: { prompt: row.last_prompt, completion: row.last_completion },
    carried: { prompt: row.carried_prompt, completion: row.carried_completion },
    resets: row.resets,
    kills: row.kills,
  },
  ours: {
    requests: row.requests,
    cut: row.cut,
    unmetered: row.unmetered,
    tokens: { prompt: row.prompt_tokens, completion: row.completion_tokens },
    probes: row.probes,
    probeTokens: { prompt: row.probe_prompt, completion: row.probe_completion },
  },
})
