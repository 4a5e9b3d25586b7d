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
  {
    /**
     * A caller may choose the id of a request, so id and moment alone let it hide requests: the
     * same again is now id, moment and duration, which no caller can choose.
     */
    name: 'usage by day, cost, engine runs',
    sql: `
      ALTER TABLE requests RENAME TO requests_old;
      DROP INDEX requests_by_time;
      CREATE TABLE requests (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, accepted_at_ms INTEGER NOT NULL,
        path TEXT NOT NULL, consumer TEXT, key_id TEXT, model_asked TEXT, model_served TEXT,
        deployment TEXT, replica TEXT, stream INTEGER NOT NULL, status INTEGER NOT NULL,
        outcome TEXT NOT NULL, reason TEXT NOT NULL, prompt_tokens INTEGER,
        completion_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
        ttft_ms REAL, duration_ms REAL NOT NULL, spillover TEXT, queue_ms REAL,
        retries INTEGER, continuations INTEGER, decision TEXT,
        UNIQUE (id, accepted_at_ms, duration_ms)
      ) STRICT;
      INSERT INTO requests SELECT *, NULL, NULL, NULL, NULL FROM requests_old;
      DROP TABLE requests_old;
      CREATE INDEX requests_by_time ON requests (accepted_at_ms);
      CREATE TABLE usage_days (
        day INTEGER NOT NULL, consumer TEXT NOT NULL, key_id TEXT NOT NULL,
        model_asked TEXT NOT NULL, model_served TEXT NOT NULL, deployment TEXT NOT NULL,
        requests INTEGER NOT NULL, ok INTEGER NOT NULL, refused INTEGER NOT NULL,
        client_gone INTEGER NOT NULL, upstream_error INTEGER NOT NULL,
        interrupted INTEGER NOT NULL, timeout INTEGER NOT NULL, spilled INTEGER NOT NULL,
        unmetered INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL, queue_ms REAL NOT NULL, queued INTEGER NOT NULL,
        ttft_ms REAL NOT NULL, ttft_known INTEGER NOT NULL, duration_ms REAL NOT NULL,
        PRIMARY KEY (day, consumer, key_id, model_asked, model_served, deployment)
      ) STRICT, WITHOUT ROWID;
      INSERT INTO usage_days
        SELECT accepted_at_ms / 86400000, coalesce(consumer, ''), coalesce(key_id, ''),
          iif(deployment IS NULL, '', coalesce(model_asked, '')), coalesce(model_served, ''),
          coalesce(deployment, ''), count(*), sum(outcome = 'ok'), sum(outcome = 'refused'),
          sum(outcome = 'client_gone'), sum(outcome = 'upstream_error'),
          sum(outcome = 'interrupted'), sum(outcome = 'timeout'), count(spillover),
          sum(replica IS NOT NULL AND prompt_tokens IS NULL), coalesce(sum(prompt_tokens), 0),
          coalesce(sum(cached_tokens), 0), coalesce(sum(completion_tokens), 0),
          coalesce(sum(reasoning_tokens), 0), 0, 0, coalesce(sum(ttft_ms), 0), count(ttft_ms),
          sum(duration_ms)
        FROM requests GROUP BY 1, 2, 3, 4, 5, 6;
      CREATE TABLE counted (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint INTEGER NOT NULL UNIQUE
      ) STRICT;
      CREATE TABLE cost_days (
        day INTEGER NOT NULL, node TEXT NOT NULL, deployment TEXT NOT NULL, state TEXT NOT NULL,
        currency TEXT NOT NULL, amount REAL NOT NULL, gpu_seconds REAL NOT NULL,
        PRIMARY KEY (day, node, deployment, state, currency)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE cost_meter (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;
      CREATE TABLE engine_runs (
        replica TEXT NOT NULL, run INTEGER NOT NULL, opened_at_ms INTEGER NOT NULL,
        read_at_ms INTEGER, base_prompt INTEGER NOT NULL, base_completion INTEGER NOT NULL,
        last_prompt INTEGER NOT NULL, last_completion INTEGER NOT NULL,
        carried_prompt INTEGER NOT NULL, carried_completion INTEGER NOT NULL,
        resets INTEGER NOT NULL, requests INTEGER NOT NULL, cut INTEGER NOT NULL,
        unmetered INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL, probes INTEGER NOT NULL,
        probe_prompt INTEGER NOT NULL, probe_completion INTEGER NOT NULL,
        PRIMARY KEY (replica, run)
      ) STRICT, WITHOUT ROWID;`,
  },
  {
    name: 'runs that outlived a Penstock that was killed',
    sql: 'ALTER TABLE engine_runs ADD COLUMN kills INTEGER NOT NULL DEFAULT 0;',
  },
  {
    name: 'which route a request was found to be for',
    sql: 'ALTER TABLE requests ADD COLUMN route TEXT;',
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
