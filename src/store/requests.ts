/**
 * Finished requests: written in batches, the newest kept. Each is summed into its day, and into
 * its engine's run, in the transaction that writes it: what is counted survives the row.
 */
import { createHash } from 'node:crypto'
import type { Selectable } from 'kysely'
import type { FinishedRequest } from '../core/snapshot.ts'
import { countInRuns } from './runs.ts'
import type { Database } from './sqlite.ts'
import type { Tables } from './tables.ts'
import { countInDays } from './usage.ts'

export const REQUESTS_MAX = 100_000
/**
 * Requests that are recognised by a fingerprint when they come again after their row went: 30 MB.
 * So a batch that is sent twice counts once unless 1,100,000 other requests ended in between.
 */
const COUNTED_MAX = 1_000_000
/** Nobody reads so much: what claims more is no count, and would spoil the sums. */
const COUNT_MAX = 2 ** 32
/** Characters of a decision's words that are kept. */
const DECISION_MAX = 2000

/** Token counts come from engines: one that is no count must not lose the batch it is in. */
const whole = (value: number | null): number | null => {
  const rounded = Math.round(value ?? Number.NaN)
  return Number.isSafeInteger(rounded) ? rounded : null
}

const tokens = (value: number | null): number | null => {
  const count = whole(value)
  return count !== null && count >= 0 && count <= COUNT_MAX ? count : null
}

const finite = (value: number | null | undefined): number | null =>
  value !== null && value !== undefined && Number.isFinite(value) ? value : null

export type RequestRow = Omit<Selectable<Tables['requests']>, 'seq'>

const rowOf = (request: FinishedRequest): RequestRow => ({
  id: request.id,
  accepted_at_ms: whole(request.acceptedAtMs) ?? 0,
  path: request.path,
  consumer: request.consumer,
  key_id: request.key,
  model_asked: request.modelAsked,
  model_served: request.modelServed,
  deployment: request.deployment,
  replica: request.replica,
  stream: request.stream ? 1 : 0,
  status: whole(request.status) ?? 0,
  outcome: request.outcome,
  reason: request.reason,
  prompt_tokens: tokens(request.promptTokens),
  completion_tokens: tokens(request.completionTokens),
  cached_tokens: tokens(request.cachedTokens),
  reasoning_tokens: tokens(request.reasoningTokens),
  ttft_ms: finite(request.ttftMs),
  duration_ms: finite(request.durationMs) ?? 0,
  spillover: request.spillover ?? null,
  queue_ms: finite(request.queueMs),
  retries: whole(request.retries ?? null),
  continuations: whole(request.continuations ?? null),
  decision: request.decision?.slice(0, DECISION_MAX) ?? null,
  route: request.route ?? null,
})

const requestOf = (row: Selectable<Tables['requests']>): FinishedRequest => ({
  id: row.id,
  acceptedAtMs: row.accepted_at_ms,
  path: row.path,
  consumer: row.consumer,
  key: row.key_id,
  modelAsked: row.model_asked,
  modelServed: row.model_served,
  deployment: row.deployment,
  replica: row.replica,
  stream: row.stream !== 0,
  status: row.status,
  outcome: row.outcome,
  reason: row.reason,
  promptTokens: row.prompt_tokens,
  completionTokens: row.completion_tokens,
  cachedTokens: row.cached_tokens,
  reasoningTokens: row.reasoning_tokens,
  ttftMs: row.ttft_ms,
  durationMs: row.duration_ms,
  ...(row.spillover === null ? {} : { spillover: row.spillover }),
  ...(row.queue_ms === null ? {} : { queueMs: row.queue_ms }),
  ...(row.retries === null ? {} : { retries: row.retries }),
  ...(row.continuations === null ? {} : { continuations: row.continuations }),
  ...(row.decision === null ? {} : { decision: row.decision }),
  ...(row.route === null ? {} : { route: row.route }),
})

/** Caller-chosen id, our moment, and a duration that nobody can choose: 64 bits of them. */
const FINGERPRINT = 'fingerprint'
export const defineFingerprint = (database: Database): void =>
  database.define(FINGERPRINT, (id, acceptedAtMs, durationMs) =>
    createHash('sha256')
      .update(`${String(id)}\0${String(acceptedAtMs)}\0${String(durationMs)}`)
      .digest()
      .readBigInt64LE(),
  )

const anyCounted = (database: Database): boolean =>
  database.number('SELECT count(*) FROM (SELECT 1 FROM counted LIMIT 1)') > 0

const isCounted = (database: Database, row: RequestRow): boolean => {
  const sql = `SELECT count(*) FROM counted WHERE fingerprint = ${FINGERPRINT}(?, ?, ?)`
  return database.number(sql, [row.id, row.accepted_at_ms, row.duration_ms]) > 0
}

/** False: it is there already. */
const insert = (database: Database, row: RequestRow): boolean => {
  const columns = Object.keys(row)
  const places = columns.map(() => '?').join(', ')
  const sql = `INSERT INTO requests (${columns.join(', ')}) VALUES (${places})
    ON CONFLICT DO NOTHING`
  return database.write(sql, Object.values(row)).changes === 1
}

/** Drops the oldest rows beyond `max`, and remembers that they were counted. */
const prune = (database: Database, max: number): void => {
  const newest = database.number('SELECT coalesce(max(seq), 0) FROM requests')
  const oldest = database.number('SELECT coalesce(min(seq), 0) FROM requests')
  if (oldest > newest - max) return
  database.write(
    `INSERT INTO counted (fingerprint)
      SELECT ${FINGERPRINT}(id, accepted_at_ms, duration_ms) FROM requests WHERE seq <= ?
      ON CONFLICT DO NOTHING`,
    [newest - max],
  )
  database.write('DELETE FROM requests WHERE seq <= ?', [newest - max])
  const last = database.number('SELECT coalesce(max(seq), 0) FROM counted')
  database.write('DELETE FROM counted WHERE seq <= ?', [last - COUNTED_MAX])
}

/**
 * One transaction a batch; a request already counted (same id, accepted at the same millisecond,
 * of the same duration) is left as it is, so that a batch may be sent again. `max` rows are kept.
 */
export const recordRequests = (
  database: Database,
  requests: readonly FinishedRequest[],
  max: number,
): void => {
  if (requests.length === 0) return
  database.transaction(() => {
    const pruned = anyCounted(database)
    const added = requests
      .map(rowOf)
      .filter((row) => !(pruned && isCounted(database, row)) && insert(database, row))
    countInDays(database, added)
    countInRuns(database, added)
    prune(database, max)
  })
}

/** Newest first. */
export const recentRequests = async (
  database: Database,
  limit: number,
): Promise<readonly FinishedRequest[]> => {
  const rows = await database.query
    .selectFrom('requests')
    .selectAll()
    .orderBy('seq', 'desc')
    .limit(Math.max(0, Math.floor(limit)))
    .execute()
  return rows.map(requestOf)
}
