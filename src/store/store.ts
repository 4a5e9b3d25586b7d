/**
 * The durable side of Penstock, in `<home>/penstock.db`: keys, what was last applied, finished
 * requests, audit. One Penstock per home. Reading is asynchronous, writing is done on return.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, systemClock } from '../clock.ts'
import type { CreatedKey, InputFiles, KeyRequest, KeyRole, KeyView } from '../core/admin.ts'
import type { CostRow } from '../core/cost.ts'
import type { EngineRun, TokenPair } from '../core/reconcile.ts'
import type { FinishedRequest, GatewayKey } from '../core/snapshot.ts'
import type { UsageAsk, UsageRow } from '../core/usage-report.ts'
import { costRows, costsUntilMs, type Days, recordCosts } from './costs.ts'
import { type Desired, loadDesired, saveDesired } from './desired.ts'
import { guarded } from './failure.ts'
import { Keys } from './keys.ts'
import { takeLock } from './lock.ts'
import { migrate } from './migrations.ts'
import { defineFingerprint, REQUESTS_MAX, recentRequests, recordRequests } from './requests.ts'
import { countProbe, type KeptRun, keptRuns, saveRuns } from './runs.ts'
import { Database } from './sqlite.ts'
import { usageRows } from './usage.ts'

const AUDIT_MAX = 10_000
const AUDIT_TEXT_MAX = 4000

export type AuditEntry = {
  readonly atMs: number
  readonly who: string
  readonly what: string
  readonly detail: string
}

/** Every verb throws store_failed, naming the file, when the disk does not do its part. */
export type Store = {
  /** The key itself is in the answer and nowhere else. Throws invalid_request, conflict. */
  createKey(ask: KeyRequest): CreatedKey
  keys(): readonly KeyView[]
  /** Throws not_found; conflict for the last admin key. */
  revokeKey(id: string): KeyView
  roleOf(key: string): KeyRole | null
  /** Live consumer keys, for the snapshot. */
  consumerKeys(): readonly GatewayKey[]
  /** Returns the generation. An inventory of null keeps the one saved last. */
  saveDesired(files: InputFiles, rehearsal: boolean): number
  loadDesired(): Promise<Desired | null>
  /** In one transaction; the same request twice is kept, and counted, once. */
  recordRequests(requests: readonly FinishedRequest[]): void
  /** Newest first. */
  recentRequests(limit: number): Promise<readonly FinishedRequest[]>
  /** Sums by day, deployment and the dimensions asked for. Throws invalid_request: too many. */
  usage(ask: UsageAsk): Promise<readonly UsageRow[]>
  /** Adds what the machines cost; all of it up to `untilMs` (epoch) is then written down. */
  recordCosts(rows: readonly CostRow[], untilMs: number): void
  costs(days: Days): Promise<readonly CostRow[]>
  /** Null: no cost was ever written down. */
  costsUntilMs(): number | null
  /** The Penstock before this one did not close the store: it was killed. */
  readonly wasKilled: boolean
  saveRuns(runs: readonly EngineRun[]): void
  countProbe(run: Pick<EngineRun, 'replica' | 'run'>, tokens: TokenPair): void
  /** By replica, newest run first, with what finished requests added up to in each. */
  runs(): Promise<readonly KeptRun[]>
  audit(who: string, what: string, detail: string): void
  /** Newest first. */
  auditLog(limit: number): Promise<readonly AuditEntry[]>
  /** Gives the home back; closing twice is once. */
  close(): Promise<void>
}

export type StoreOptions = {
  readonly home: string
  readonly clock?: Clock
  /** Finished requests that are kept. */
  readonly requestsMax?: number
}

/** Throws already_running when another Penstock has this home, and store_failed. */
export const openStore = async (options: StoreOptions): Promise<Store> => {
  const { home, clock = systemClock } = options
  guarded(home, () => mkdirSync(home, { recursive: true, mode: 0o700 }))
  const release = takeLock(home, { pid: process.pid, startedAtMs: clock.now() })
  try {
    const database = new Database(join(home, 'penstock.db'))
    try {
      migrate(database, clock.now())
      defineFingerprint(database)
      return await build(database, options, release)
    } catch (error) {
      await database.close()
      throw error
    }
  } catch (error) {
    release()
    throw error
  }
}

const build = async (
  database: Database,
  { clock = systemClock, requestsMax = REQUESTS_MAX }: StoreOptions,
  release: () => void,
): Promise<Store> => {
  const keys = await Keys.load(database)
  const wasKilled = beginSession(database)
  let open = true
  let inventory = (await loadDesired(database))?.files.inventory ?? null
  return {
    createKey: (ask) => keys.create(ask, clock.now()),
    keys: () => keys.list(),
    revokeKey: (id) => keys.revoke(id, clock.now()),
    roleOf: (key) => keys.roleOf(key),
    consumerKeys: () => keys.consumerKeys(),
    saveDesired: (asked, rehearsal) => {
      const files = { ...asked, inventory: asked.inventory ?? inventory }
      const generation = saveDesired(database, { savedAtMs: clock.now(), rehearsal, files })
      inventory = files.inventory
      return generation
    },
    loadDesired: () => loadDesired(database),
    recordRequests: (requests) => recordRequests(database, requests, requestsMax),
    recentRequests: (limit) => recentRequests(database, limit),
    usage: (ask) => usageRows(database, ask),
    recordCosts: (rows, untilMs) => recordCosts(database, rows, untilMs),
    costs: (days) => costRows(database, days),
    costsUntilMs: () => costsUntilMs(database),
    wasKilled,
    saveRuns: (runs) => saveRuns(database, runs),
    countProbe: (run, tokens) => countProbe(database, run, tokens),
    runs: () => keptRuns(database),
    audit: (who, what, detail) => audit(database, { atMs: clock.now(), who, what, detail }),
    auditLog: (limit) => auditLog(database, limit),
    close: async () => {
      if (!open) return
      open = false
      endSession(database)
      await database.close()
      release()
    },
  }
}

/** SQLite keeps a number for its user in the file's head: 1 while a Penstock has it open. */
const beginSession = (database: Database): boolean => {
  const before = database.number('PRAGMA user_version')
  database.exec('PRAGMA user_version = 1')
  return before === 1
}

const endSession = (database: Database): void => database.exec('PRAGMA user_version = 0')

const audit = (database: Database, entry: AuditEntry): void => {
  const { query } = database
  const cut = (text: string): string => text.slice(0, AUDIT_TEXT_MAX)
  database.transaction(() => {
    const { lastRowId } = database.run(
      query.insertInto('audit').values({
        at_ms: entry.atMs,
        who: cut(entry.who),
        what: cut(entry.what),
        detail: cut(entry.detail),
      }),
    )
    database.run(query.deleteFrom('audit').where('seq', '<=', lastRowId - AUDIT_MAX))
  })
}

const auditLog = async (database: Database, limit: number): Promise<readonly AuditEntry[]> => {
  const rows = await database.query
    .selectFrom('audit')
    .select(['at_ms as atMs', 'who', 'what', 'detail'])
    .orderBy('seq', 'desc')
    .limit(Math.max(0, Math.floor(limit)))
    .execute()
  return rows
}
