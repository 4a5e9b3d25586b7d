/**
 * Who goes to the stand-in first: those who begin a conversation. One that goes on has its prompt
 * in its engine's prefix cache, and a change of model in the middle is felt.
 */
import type { Ask } from './body.ts'

/** What only a turn after the first has. */
const ANSWER = Buffer.from('"assistant"')

/** Whether the request carries an earlier answer, or names one. */
export const continues = (
  body: Uint8Array,
  { fields, previous }: Pick<Ask, 'fields' | 'previous'>,
): boolean => {
  if (previous !== null) return true
  const range = fields.messages ?? fields.input
  return range !== undefined && includes(body.subarray(range.start, range.end), ANSWER)
}

const includes = (bytes: Uint8Array, part: Buffer): boolean =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes(part)

/**
 * The chance of a request to be sent away when `fraction` of all are to be, and `newShare` of all
 * begin a conversation: those first, the others only for what is left. All in 0..1.
 */
export const spillChance = (
  fraction: number,
  { later, newShare }: { readonly later: boolean; readonly newShare: number },
): number => {
  if (!later) return newShare <= 0 ? fraction : Math.min(1, fraction / newShare)
  return newShare >= 1 ? fraction : Math.max(0, (fraction - newShare) / (1 - newShare))
}

/** Requests over which the share is taken, about. */
const MEMORY = 200

/** The share of requests that begin a conversation, after one more. */
export const nextNewShare = (share: number, later: boolean): number =>
  share + ((later ? 0 : 1) - share) / MEMORY
