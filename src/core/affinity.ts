/**
 * What ties a request to a replica: the conversation it belongs to, and the beginning of its
 * prompt, which a replica that has seen it need not read again.
 */
import { type Ask, itemsOf, type Range, scanObject, valueAt } from './body.ts'
import { hashBytes, hashText } from './hash.ts'

export type Affinity = {
  /** Of the conversation that the request names; null: it names none. */
  readonly conversation: number | null
  /** The conversation's, else the key's. */
  readonly session: number
  /** Of the prompt's beginning; null: it was not asked, or there is none. */
  readonly prefix: number | null
}

export type AffinityAsk = {
  readonly body: Uint8Array
  readonly ask: Pick<Ask, 'fields'>
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly keyId: string
  readonly wantsPrefix: boolean
}

/** A session's name may be long; what tells it from others is not. */
const SESSION_MAX = 256
/** A few thousand tokens: longer than what chats begin with, short enough to hash in 10 µs. */
const PREFIX_BYTES = 8 * 1024
/** Of a prompt in one text, which has no turns: what is the same as it grows. */
const TEXT_PREFIX_BYTES = 1024
/** Messages that are looked through for the first of the user. */
const MESSAGES_MAX = 10_000
/** OpenAI's names for who asks; the first that the body has counts. */
const SESSION_FIELDS = ['user', 'prompt_cache_key', 'safety_identifier'] as const

export const affinityOf = (given: AffinityAsk): Affinity => {
  const { headers, keyId } = given
  const own = hashText(keyId)
  const header = headers['x-session-id']
  const named = typeof header === 'string' && header !== '' ? header : sessionOf(given)
  // Seeded by the key: two callers' `user: "1"` are two.
  const conversation = named === null ? null : hashText(named.slice(0, SESSION_MAX), own)
  const prefix = given.wantsPrefix ? prefixOf(given) : null
  return { conversation, session: conversation ?? own, prefix }
}

const sessionOf = ({ body, ask: { fields } }: AffinityAsk): string | null => {
  for (const name of SESSION_FIELDS) {
    const range = fields[name]
    const value = range === undefined ? null : valueAt(body, range)
    if (typeof value === 'string' && value !== '') return value
  }
  return null
}

/**
 * The bytes up to the end of the user's first message: the same in every turn of a conversation,
 * and for all conversations that begin alike.
 */
const prefixOf = ({ body, ask: { fields } }: AffinityAsk): number | null => {
  const range = fields.messages ?? fields.prompt ?? fields.input
  if (range === undefined) return null
  const list = body[range.start] === 0x5b
  const end = list ? firstTurnEnd(body, range) : range.start + TEXT_PREFIX_BYTES
  const until = Math.min(end, range.end, range.start + PREFIX_BYTES)
  return hashBytes(body.subarray(range.start, until))
}

const firstTurnEnd = (body: Uint8Array, range: Range): number => {
  const items = itemsOf(body, range, MESSAGES_MAX) ?? []
  for (const { start, end } of items) {
    if (start - range.start > PREFIX_BYTES) break
    const message = body.subarray(start, end)
    const scan = scanObject(message, ['role'])
    if (!scan.ok || scan.fields.role === undefined) continue
    if (valueAt(message, scan.fields.role) === 'user') return end
  }
  return range.end
}
