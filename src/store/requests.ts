/** Finished requests: written in batches, bounded; usage is counted from them later. */
import type { Selectable } from 'kysely'
import type { FinishedRequest } from '../core/snapshot.ts'
import type { Database } from './sqlite.ts'
import type { Tables } from './tables.ts'

export const REQUESTS_MAX = 100_000
/** 20 values a row; SQLite takes 32,766 in one statement. */
const CHUNK = 500

/** Token counts come from engines: one that is no count must not lose the batch it is in. */
const whole = (value: number | null): number | null =>
  value !== null && Number.isSafeInteger(Math.round(value)) ? Math.round(value) : null

const finite = (value: number | null): number | null =>
  value !== null && Number.isFinite(value) ? value : null

const rowOf = (request: FinishedRequest) => ({
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
  prompt_tokens: whole(request.promptTokens),
  completion_tokens: whole(request.completionTokens),
  cached_tokens: whole(request.cachedTokens),
  reasoning_tokens: whole(request.reasoningTokens),
  ttft_ms: finite(request.ttftMs),
  duration_ms: finite(request.durationMs) ?? 0,
  spillover: request.spillover ?? null,
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
})

/**
 * One transaction a batch; a request already there (same id, accepted at the same millisecond)
 * is left as it is, so that a batch may be sent again. `max` rows are kept.
 */
export const recordRequests = (
  database: Database,
  requests: readonly FinishedRequest[],
  max: number,
): void => {
  if (requests.length === 0) return
  const { query } = database
  database.transaction(() => {
    for (let start = 0; start < requests.length; start += CHUNK) {
      const rows = requests.slice(start, start + CHUNK).map(rowOf)
      const insert = query.insertInto('requests').values(rows)
      database.run(insert.onConflict((conflict) => conflict.doNothing()))
    }
    const newest = database.number('SELECT coalesce(max(seq), 0) FROM requests')
    database.run(query.deleteFrom('requests').where('seq', '<=', newest - max))
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
