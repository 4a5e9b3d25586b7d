/**
 * node:sqlite under kysely. Reads are kysely's (`await database.query.selectFrom…execute()`);
 * writes are built by kysely and run at once, so that a transaction holds no `await`: nothing can
 * slip in between its statements, and what returned is on the disk.
 */
import assert from 'node:assert'
import { chmodSync, closeSync, openSync } from 'node:fs'
import {
  DatabaseSync,
  type SQLInputValue,
  type SQLOutputValue,
  type StatementSync,
} from 'node:sqlite'
import { type CompiledQuery, Kysely, SqliteDialect, type SqliteStatement } from 'kysely'
import { PenstockError } from '../errors.ts'
import { guarded } from './failure.ts'
import type { Tables } from './tables.ts'

/** Another program may hold the file for a moment: a backup, the sqlite3 shell. */
const BUSY_TIMEOUT_MS = 5000
const STATEMENTS_MAX = 64

export type Written = { readonly lastRowId: number; readonly changes: number }

type Compilable = { compile(): CompiledQuery<unknown> }

const input = (value: unknown): SQLInputValue => {
  if (value === null || value === undefined) return null
  if (typeof value === 'boolean') return value ? 1 : 0
  if (typeof value === 'string' || typeof value === 'bigint') return value
  assert(typeof value === 'number', `no SQL value: ${typeof value}`)
  return value
}

export class Database {
  readonly path: string
  readonly query: Kysely<Tables>
  readonly #connection: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  /** Opens or creates the file (mode 0600) and checks it. Throws store_failed. */
  constructor(path: string) {
    this.path = path
    this.#connection = guarded(path, () => open(path))
    this.query = new Kysely<Tables>({
      dialect: new SqliteDialect({
        database: { prepare: (sql) => this.#statement(sql), close: () => undefined },
      }),
    })
  }

  exec(sql: string): void {
    guarded(this.path, () => this.#connection.exec(sql))
  }

  /** A pure function for use in SQL. */
  define(name: string, work: (...values: readonly SQLOutputValue[]) => SQLInputValue): void {
    this.#connection.function(name, { deterministic: true, varargs: true }, work)
  }

  /** The one number that a query yields. */
  number(sql: string, parameters: readonly unknown[] = []): number {
    const row = guarded(this.path, () => this.#prepared(sql).get(...parameters.map(input)))
    const value = Object.values(row ?? {})[0]
    assert(typeof value === 'number', `no number: ${sql}`)
    return value
  }

  write(sql: string, parameters: readonly unknown[]): Written {
    const done = guarded(this.path, () => this.#prepared(sql).run(...parameters.map(input)))
    return { lastRowId: Number(done.lastInsertRowid), changes: Number(done.changes) }
  }

  /** Statements that are written again and again are prepared once. */
  #prepared(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear()
    const statement = this.#connection.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  /** Runs an insert, update or delete that kysely built. */
  run(query: Compilable): Written {
    const { sql, parameters } = query.compile()
    return this.write(sql, parameters)
  }

  /** All of `work` or nothing of it. On the disk when this returns. */
  transaction<T>(work: () => T): T {
    this.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.exec('COMMIT')
      return result
    } catch (error) {
      // A full disk may have rolled back by itself: then there is nothing left to undo.
      if (this.#connection.isTransaction) this.exec('ROLLBACK')
      throw error
    }
  }

  async close(): Promise<void> {
    this.#statements.clear()
    await this.query.destroy()
    guarded(this.path, () => this.#connection.close())
  }

  #statement(sql: string): SqliteStatement {
    const statement = guarded(this.path, () => this.#connection.prepare(sql))
    const run = <T>(work: () => T): T => guarded(this.path, work)
    return {
      reader: statement.columns().length > 0,
      all: (parameters) => run(() => statement.all(...parameters.map(input))),
      run: (parameters) => run(() => statement.run(...parameters.map(input))),
      iterate: (parameters) => run(() => statement.iterate(...parameters.map(input))),
    }
  }
}

const open = (path: string): DatabaseSync => {
  // SQLite would create it by the umask; -wal and -shm take the mode of the main file.
  closeSync(openSync(path, 'a', 0o600))
  chmodSync(path, 0o600)
  const connection = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    // FULL: a key that was shown to its owner must survive the power going, not only kill -9.
    connection.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    const verdict = Object.values(connection.prepare('PRAGMA quick_check(1)').get() ?? {})[0]
    if (verdict !== 'ok') {
      throw new PenstockError(
        'store_failed',
        `${path} is damaged: restore it from a backup, or move it away and start again with ` +
          `new keys (${String(verdict).replaceAll(/\s+/g, ' ').slice(0, 200)})`,
      )
    }
    return connection
  } catch (error) {
    connection.close()
    throw error
  }
}
