/**
 * Usage by day: one row for each day, consumer, key, model asked and served, and deployment, kept
 * by adding. Bounded by day and over all days; what does not fit shares the row "other", so that
 * sums stay whole whatever a caller sends.
 */

import { dayOf } from '../core/day.ts'
import { patternOf } from '../core/pattern.ts'
import {
  addUsage,
  noUsage,
  type UsageAsk,
  type UsageDimension,
  type UsageRow,
  type UsageSums,
} from '../core/usage-report.ts'
import { PenstockError } from '../errors.ts'
import type { RequestRow } from './requests.ts'
import type { Database } from './sqlite.ts'
import { type Tables, USAGE_SUMS } from './tables.ts'

/** Consumers x models of one day that are told apart. */
export const DAY_ROWS_MAX = 20_000
/** Days with any use that are kept: this year can be held against the last. */
export const DAYS_MAX = 800
/** Over all days, at about 200 bytes each; the oldest days go first. */
const ROWS_MAX = 1_000_000
/** Rows that one question may read, and hold the main thread for: about a second. */
const READ_MAX = 200_000
const OTHER = 'other'

const KEYS = ['day', 'consumer', 'key_id', 'model_asked', 'model_served', 'deployment'] as const
type DayKey = Pick<Tables['usage_days'], (typeof KEYS)[number]>

/**
 * What a caller asked for is a name only where it led somewhere, and then that of its route where
 * the route is a pattern: else it is any string at all, and a day has room for so many.
 */
const askedOf = ({ deployment, route, model_asked: asked }: RequestRow): string => {
  if (deployment === null) return ''
  return route !== null && patternOf(route).kind !== 'exact' ? route : (asked ?? '')
}

const keyOf = (row: RequestRow): DayKey => ({
  day: dayOf(row.accepted_at_ms),
  consumer: row.consumer ?? '',
  key_id: row.key_id ?? '',
  model_asked: askedOf(row),
  model_served: row.model_served ?? '',
  deployment: row.deployment ?? '',
})

const sumsOf = (row: RequestRow): UsageSums => {
  const none = noUsage()
  return {
    requests: 1,
    outcomes: { ...none.outcomes, [row.outcome]: 1 },
    spilled: row.spillover === null ? 0 : 1,
    unmetered: isUnmetered(row) ? 1 : 0,
    promptTokens: row.prompt_tokens ?? 0,
    cachedTokens: row.cached_tokens ?? 0,
    completionTokens: row.completion_tokens ?? 0,
    reasoningTokens: row.reasoning_tokens ?? 0,
    queueMs: row.queue_ms ?? 0,
    queued: row.queue_ms === null ? 0 : 1,
    ttftMs: row.ttft_ms ?? 0,
    ttftKnown: row.ttft_ms === null ? 0 : 1,
    durationMs: row.duration_ms,
  }
}

/** It reached an engine, and nobody said how many tokens that took. */
export const isUnmetered = (row: RequestRow): boolean =>
  row.replica !== null && row.prompt_tokens === null

type Columns = Pick<Tables['usage_days'], (typeof USAGE_SUMS)[number]>

const columnsOf = (sums: UsageSums): Columns => ({
  requests: sums.requests,
  ...sums.outcomes,
  spilled: sums.spilled,
  unmetered: sums.unmetered,
  prompt_tokens: sums.promptTokens,
  cached_tokens: sums.cachedTokens,
  completion_tokens: sums.completionTokens,
  reasoning_tokens: sums.reasoningTokens,
  queue_ms: sums.queueMs,
  queued: sums.queued,
  ttft_ms: sums.ttftMs,
  ttft_known: sums.ttftKnown,
  duration_ms: sums.durationMs,
})

/** Within the caller's transaction. */
export const countInDays = (database: Database, rows: readonly RequestRow[]): void => {
  const batch = new Map<string, { readonly key: DayKey; sums: UsageSums }>()
  for (const row of rows) {
    const key = keyOf(row)
    const text = JSON.stringify(KEYS.map((name) => key[name]))
    const entry = batch.get(text) ?? { key, sums: noUsage() }
    entry.sums = addUsage([entry.sums, sumsOf(row)])
    batch.set(text, entry)
  }
  const sizes = new Map<number, number>()
  let newDay = false
  for (const { key, sums } of batch.values()) {
    if (add(database, key, sums)) continue
    const size = sizes.get(key.day) ?? sizeOf(database, key.day)
    newDay ||= size === 0
    put(database, size < DAY_ROWS_MAX ? key : crowded(key), sums)
    sizes.set(key.day, size + 1)
  }
  if (newDay) prune(database)
}

const sizeOf = (database: Database, day: number): number =>
  database.number('SELECT count(*) FROM usage_days WHERE day = ?', [day])

const crowded = (key: DayKey): DayKey => ({
  ...key,
  consumer: OTHER,
  key_id: OTHER,
  model_asked: OTHER,
})

const UPDATE = `UPDATE usage_days SET ${USAGE_SUMS.map((sum) => `${sum} = ${sum} + ?`).join(', ')}
  WHERE ${KEYS.map((key) => `${key} = ?`).join(' AND ')}`

/** False: there is no such row yet. */
const add = (database: Database, key: DayKey, sums: UsageSums): boolean => {
  const columns = columnsOf(sums)
  const values = [...USAGE_SUMS.map((sum) => columns[sum]), ...KEYS.map((name) => key[name])]
  return database.write(UPDATE, values).changes === 1
}

const INSERT = `INSERT INTO usage_days (${[...KEYS, ...USAGE_SUMS].join(', ')})
  VALUES (${[...KEYS, ...USAGE_SUMS].map(() => '?').join(', ')})`

const put = (database: Database, key: DayKey, sums: UsageSums): void => {
  if (add(database, key, sums)) return
  const columns = columnsOf(sums)
  const values = [...KEYS.map((name) => key[name]), ...USAGE_SUMS.map((sum) => columns[sum])]
  database.write(INSERT, values)
}

/** Days are counted, not subtracted: a clock that was once years ahead must not empty the past. */
export const dropPast = (table: 'usage_days' | 'cost_days'): string =>
  `DELETE FROM ${table} WHERE day <= coalesce(
    (SELECT DISTINCT day FROM ${table} ORDER BY day DESC LIMIT 1 OFFSET ${DAYS_MAX}), -1)`

const prune = (database: Database): void => {
  database.write(dropPast('usage_days'), [])
  while (database.number('SELECT count(*) FROM usage_days') > ROWS_MAX) {
    database.write('DELETE FROM usage_days WHERE day = (SELECT min(day) FROM usage_days)', [])
  }
}

const COLUMN = {
  day: 'day',
  consumer: 'consumer',
  key: 'key_id',
  model: 'model_asked',
  served: 'model_served',
  deployment: 'deployment',
} as const satisfies Record<UsageDimension, (typeof KEYS)[number]>

/**
 * Sums by the dimensions asked for, and always by day and deployment, which cost goes by.
 * Throws invalid_request when that is more than one question may read.
 */
export const usageRows = async (
  database: Database,
  { fromDay, toDay, by }: UsageAsk,
): Promise<readonly UsageRow[]> => {
  const grouped = [...new Set([...by, 'day' as const, 'deployment' as const])]
  const rows = await database.query
    .selectFrom('usage_days')
    .select(grouped.map((name) => COLUMN[name]))
    .select(({ fn }) => USAGE_SUMS.map((sum) => fn.sum<number>(sum).as(sum)))
    .where('day', '>=', fromDay)
    .where('day', '<=', toDay)
    .groupBy(grouped.map((name) => COLUMN[name]))
    .limit(READ_MAX + 1)
    .execute()
  if (rows.length > READ_MAX) {
    const advice = 'ask for fewer days, or by fewer dimensions'
    throw new PenstockError('invalid_request', `that is more than ${READ_MAX} rows: ${advice}`)
  }
  return rows.map((row) => usageOf(row))
}

type Read = Partial<DayKey> & Columns

const usageOf = (row: Read): UsageRow => ({
  day: row.day ?? 0,
  consumer: row.consumer || null,
  key: row.key_id || null,
  model: row.model_asked || null,
  served: row.model_served || null,
  deployment: row.deployment || null,
  requests: row.requests,
  outcomes: {
    ok: row.ok,
    refused: row.refused,
    client_gone: row.client_gone,
    upstream_error: row.upstream_error,
    interrupted: row.interrupted,
    timeout: row.timeout,
  },
  spilled: row.spilled,
  unmetered: row.unmetered,
  promptTokens: row.prompt_tokens,
  cachedTokens: row.cached_tokens,
  completionTokens: row.completion_tokens,
  reasoningTokens: row.reasoning_tokens,
  queueMs: row.queue_ms,
  queued: row.queued,
  ttftMs: row.ttft_ms,
  ttftKnown: row.ttft_known,
  durationMs: row.duration_ms,
})
