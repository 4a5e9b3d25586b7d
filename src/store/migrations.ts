/**
 * Schema changes, in order; a released one is never edited, only followed by another. Each runs
 * in its own transaction together with its row in `migrations`.
 */
import { PenstockError } from '../errors.ts'
import type { Database } from './sqlite.ts'

type Migration = { readonly name: string; readonly sql: string }

const MIGRATIONS: readonly Migration[] = [
  {
    name: 'keys, desired state, requests, audit',
    sql: `
      CREATE TABLE keys (
        id TEXT PRIMARY KEY, role TEXT NOT NULL, consumer TEXT NOT NULL, prefix TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE, models TEXT, created_at_ms INTEGER NOT NULL,
        revoked_at_ms INTEGER
      ) STRICT;
      CREATE TABLE desired (
        generation INTEGER PRIMARY KEY AUTOINCREMENT, saved_at_ms INTEGER NOT NULL,
        rehearsal INTEGER NOT NULL, files TEXT NOT NULL
      ) STRICT;
      CREATE TABLE requests (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, accepted_at_ms INTEGER NOT NULL,
        path TEXT NOT NULL, consumer TEXT, key_id TEXT, model_asked TEXT, model_served TEXT,
        deployment TEXT, replica TEXT, stream INTEGER NOT NULL, status INTEGER NOT NULL,
        outcome TEXT NOT NULL, reason TEXT NOT NULL, prompt_tokens INTEGER,
        completion_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
        ttft_ms REAL, duration_ms REAL NOT NULL,
        UNIQUE (id, accepted_at_ms)
      ) STRICT;
      CREATE INDEX requests_by_time ON requests (accepted_at_ms);
      CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL,
        what TEXT NOT NULL, detail TEXT NOT NULL
      ) STRICT;`,
  },
  {
    name: 'why a stand-in answered',
    sql: 'ALTER TABLE requests ADD COLUMN spillover TEXT;',
  },
]

const SCHEMA_VERSION = MIGRATIONS.length

/** Brings the database to SCHEMA_VERSION; throws store_failed when it is already beyond. */
export const migrate = (database: Database, nowMs: number): void => {
  database.exec(`CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT`)
  const version = database.number('SELECT coalesce(max(version), 0) FROM migrations')
  if (version > SCHEMA_VERSION) {
    throw new PenstockError(
      'store_failed',
      `${database.path} was written by a newer Penstock (schema ${version}, this one knows ` +
        `${SCHEMA_VERSION}): start that version again, or move the file away`,
    )
  }
  for (const [index, { name, sql }] of MIGRATIONS.slice(version).entries()) {
    database.transaction(() => {
      database.exec(sql)
      database.write('INSERT INTO migrations VALUES (?, ?, ?)', [version + index + 1, name, nowMs])
    })
  }
}
