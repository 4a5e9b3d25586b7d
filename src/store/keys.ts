/**
 * Keys: made here, shown once, kept as SHA-256 hashes. A key is 238 bits of randomness, so a
 * plain fast hash is enough: nothing can be guessed from it. Answers come from memory, which is
 * loaded once at open; every change is on the disk before the call returns.
 */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto'
import { sql } from 'kysely'
import { z } from 'zod'
import type { CreatedKey, KeyRequest, KeyRole, KeyView } from '../core/admin.ts'
import type { GatewayKey } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import type { Database } from './sqlite.ts'

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const SECRET_LENGTH = 40
const TAG: Readonly<Record<KeyRole, string>> = { consumer: 'sk-ps-', admin: 'sk-ps-admin-' }
/** Characters of the secret that a list shows. */
const SHOWN = 4
/** Ten times the colleagues that we plan for; revoked keys count, they stay in the list. */
const KEYS_MAX = 100_000
const CONSUMER_MAX = 100
/** Longer than any key of ours; what is longer is not even hashed. */
const KEY_LENGTH_MAX = 128

type Row = KeyView & { readonly hash: string }

const random = (length: number): string =>
  Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')

const hashOf = (key: string): string => createHash('sha256').update(key).digest('hex')

const Models = z.array(z.string())

export class Keys {
  readonly #database: Database
  readonly #byId = new Map<string, Row>()
  readonly #byHash = new Map<string, Row>()
  #consumers: readonly GatewayKey[] | null = null

  private constructor(database: Database) {
    this.#database = database
  }

  static async load(database: Database): Promise<Keys> {
    const keys = new Keys(database)
    const rows = await database.query.selectFrom('keys').selectAll().orderBy(sql`rowid`).execute()
    for (const row of rows) {
      keys.#keep({
        id: row.id,
        role: row.role,
        consumer: row.consumer,
        prefix: row.prefix,
        hash: row.hash,
        models: row.models === null ? null : Models.parse(JSON.parse(row.models)),
        createdAtMs: row.created_at_ms,
        revokedAtMs: row.revoked_at_ms,
      })
    }
    return keys
  }

  /** Throws invalid_request, and conflict when there are too many. */
  create(ask: KeyRequest, nowMs: number): CreatedKey {
    check(ask, this.#byId.size)
    const key = TAG[ask.role] + random(SECRET_LENGTH)
    const row: Row = {
      id: `key_${random(12)}`,
      role: ask.role,
      consumer: ask.consumer,
      prefix: key.slice(0, TAG[ask.role].length + SHOWN),
      hash: hashOf(key),
      models: ask.models === null ? null : [...ask.models],
      createdAtMs: nowMs,
      revokedAtMs: null,
    }
    this.#database.run(
      this.#database.query.insertInto('keys').values({
        id: row.id,
        role: row.role,
        consumer: row.consumer,
        prefix: row.prefix,
        hash: row.hash,
        models: row.models === null ? null : JSON.stringify(row.models),
        created_at_ms: row.createdAtMs,
        revoked_at_ms: null,
      }),
    )
    this.#keep(row)
    return { key, view: viewOf(row) }
  }

  /** Oldest first, revoked ones too. */
  list(): readonly KeyView[] {
    return [...this.#byId.values()].map(viewOf)
  }

  /** Revoking twice is once. Throws not_found, and conflict for the last admin key. */
  revoke(id: string, nowMs: number): KeyView {
    const row = this.#byId.get(id)
    if (row === undefined) throw new PenstockError('not_found', `there is no key ${id}`)
    if (row.revokedAtMs !== null) return viewOf(row)
    if (row.role === 'admin' && this.#live('admin').length === 1) {
      const message = `${id} is the last admin key: create another one before revoking it`
      throw new PenstockError('conflict', message)
    }
    this.#database.run(
      this.#database.query.updateTable('keys').set({ revoked_at_ms: nowMs }).where('id', '=', id),
    )
    const revoked = { ...row, revokedAtMs: nowMs }
    this.#keep(revoked)
    return viewOf(revoked)
  }

  /** Null for unknown and revoked keys alike. */
  roleOf(key: string): KeyRole | null {
    if (key.length > KEY_LENGTH_MAX) return null
    const hash = hashOf(key)
    const row = this.#byHash.get(hash)
    if (row === undefined || row.revokedAtMs !== null) return null
    return timingSafeEqual(Buffer.from(hash), Buffer.from(row.hash)) ? row.role : null
  }

  /** What the gateway threads may know: the same list until a key is made or revoked. */
  consumerKeys(): readonly GatewayKey[] {
    this.#consumers ??= this.#live('consumer').map(({ hash, id, consumer, models }) => {
      return { hash, id, consumer, models }
    })
    return this.#consumers
  }

  #live(role: KeyRole): readonly Row[] {
    return [...this.#byId.values()].filter((row) => row.role === role && row.revokedAtMs === null)
  }

  #keep(row: Row): void {
    this.#consumers = null
    this.#byId.set(row.id, row)
    this.#byHash.set(row.hash, row)
  }
}

const viewOf = ({ hash: _, ...view }: Row): KeyView => view

const check = (ask: KeyRequest, count: number): void => {
  if (ask.consumer.trim() === '' || ask.consumer.length > CONSUMER_MAX) {
    const message = `expected a consumer name of 1 to ${CONSUMER_MAX} characters`
    throw new PenstockError('invalid_request', message, { param: 'consumer' })
  }
  if (count >= KEYS_MAX) {
    throw new PenstockError('conflict', `there are ${KEYS_MAX} keys already, revoked ones included`)
  }
}
