/** Who is calling: the key's SHA-256 is looked up; keys themselves are never kept. */
import { hash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { GatewayKey } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import type { Table } from './table.ts'

/** Longer than any key that we issue; hashing more is work that a stranger asks for. */
const KEY_LENGTH_MAX = 512

/** The key of `Authorization: Bearer …` or `x-api-key`. Throws invalid_api_key. */
export const authenticate = (headers: IncomingHttpHeaders, table: Table): GatewayKey => {
  const secret = secretOf(headers)
  if (secret === null) {
    throw new PenstockError(
      'invalid_api_key',
      'no API key given: send it as "Authorization: Bearer sk-ps-…"',
    )
  }
  const key = secret.length > KEY_LENGTH_MAX ? null : table.key(hash('sha256', secret))
  if (key === null) {
    throw new PenstockError('invalid_api_key', `incorrect API key provided: ${masked(secret)}`)
  }
  return key
}

const secretOf = (headers: IncomingHttpHeaders): string | null => {
  const { authorization, 'x-api-key': apiKey } = headers
  if (authorization !== undefined) return /^bearer +(\S+) *$/i.exec(authorization)?.[1] ?? null
  return typeof apiKey === 'string' && apiKey !== '' ? apiKey : null
}

/** Enough to recognise one's own key, too little to use it. */
const masked = (secret: string): string => (secret.length < 16 ? '****' : `****${secret.slice(-4)}`)
