/** An operator's text before and after the system message, wherever the API keeps that. */

import { type Edit, itemsOf, type Member, membersOf, type Range, valueAt } from './body.ts'
import { protocolAt } from './protocol.ts'

export type Refusal = { readonly ok: false; readonly message: string; readonly param: string }

export const refusal = (message: string, param: string): Refusal => ({
  ok: false,
  message,
  param: param.slice(0, 64),
})

export type SystemText = { readonly prepend: readonly string[]; readonly append: readonly string[] }

export type SystemAsk = {
  readonly body: Uint8Array
  /** Of the body. */
  readonly members: readonly Member[]
  readonly path: string
  readonly texts: SystemText
}

export type SystemEdits =
  /** `added`: a new member of the body, as JSON; null: none. */
  { readonly ok: true; readonly edits: readonly Edit[]; readonly added: string | null } | Refusal

/** More messages than a context of a million tokens holds. */
const MESSAGES_MAX = 100_000
const MEMBERS_MAX = 1_000
/** `developer` with every character escaped, and quotes. */
const ROLE_BYTES_MAX = 9 * 6 + 2
const BETWEEN = '\n\n'

export const systemEdits = (ask: SystemAsk): SystemEdits => {
  const place = protocolAt(ask.path)?.system ?? null
  if (place === null) return nothing
  return place === 'messages' ? inMessages(ask) : inField(ask, place)
}

const nothing: SystemEdits = { ok: true, edits: [], added: null }
const edited = (edits: readonly Edit[]): SystemEdits => ({ ok: true, edits, added: null })

const inField = ({ body, members, texts }: SystemAsk, field: string): SystemEdits => {
  const member = members.find(({ name }) => name === field)
  if (member === undefined) return { ok: true, edits: [], added: `"${field}":${whole(texts)}` }
  return inText({ body, range: member.range, texts, param: field, what: field })
}

const inMessages = ({ body, members, texts }: SystemAsk): SystemEdits => {
  const messages = members.find(({ name }) => name === 'messages')
  // Without a list of messages the engine refuses the request, in its own words.
  if (messages === undefined || body[messages.range.start] !== OPEN_LIST) return nothing
  const items = itemsOf(body, messages.range, MESSAGES_MAX)
  if (items === null) return refusal(`more than ${MESSAGES_MAX} messages`, 'messages')
  for (const item of items) {
    if (body[item.start] !== OPEN) continue
    const fields = membersOf(body, item, MEMBERS_MAX)
    if (fields === null) {
      return refusal(`a message has more than ${MEMBERS_MAX} fields`, 'messages')
    }
    const roles = fields.filter(({ name }) => name === 'role')
    if (!roles.some(({ range }) => isSystem(body, range))) continue
    const contents = fields.filter(({ name }) => name === 'content')
    if (roles.length > 1 || contents.length > 1) {
      return refusal('the system message has its role or content more than once', 'messages')
    }
    const [content] = contents
    if (content === undefined) {
      return edited([insertion(item.start + 1, `"content":${whole(texts)},`)])
    }
    const what = "the system message's content"
    return inText({ body, range: content.range, texts, param: 'messages', what })
  }
  const message = `{"role":"system","content":${whole(texts)}}`
  const comma = items.length === 0 ? '' : ','
  return edited([insertion(messages.range.start + 1, message + comma)])
}

type TextAsk = {
  readonly body: Uint8Array
  readonly range: Range
  readonly texts: SystemText
  readonly param: string
  readonly what: string
}

/** Into a string, a list of parts, or the place of a null. */
const inText = ({ body, range, texts, param, what }: TextAsk): SystemEdits => {
  const { start, end } = range
  const [before, after] = [texts.prepend.join(BETWEEN), texts.append.join(BETWEEN)]
  switch (body[start]) {
    case QUOTE: {
      const empty = end - start === 2
      if (empty) return edited([{ range, insert: Buffer.from(whole(texts)) }])
      const head = before === '' ? [] : [insertion(start + 1, escaped(before + BETWEEN))]
      const tail = after === '' ? [] : [insertion(end - 1, escaped(BETWEEN + after))]
      return edited([...head, ...tail])
    }
    case OPEN_LIST: {
      const empty = itemsOf(body, range, 0) !== null
      if (empty) return edited([insertion(start + 1, partOf(joined(texts)))])
      const head = before === '' ? [] : [insertion(start + 1, `${partOf(before)},`)]
      const tail = after === '' ? [] : [insertion(end - 1, `,${partOf(after)}`)]
      return edited([...head, ...tail])
    }
    case NULL:
      return edited([{ range, insert: Buffer.from(whole(texts)) }])
    default:
      return refusal(`${what} must be a string or a list of parts`, param)
  }
}

const [QUOTE, OPEN, OPEN_LIST, NULL] = [0x22, 0x7b, 0x5b, 0x6e]

const isSystem = (body: Uint8Array, range: Range): boolean => {
  if (body[range.start] !== QUOTE || range.end - range.start > ROLE_BYTES_MAX) return false
  const role = valueAt(body, range)
  return role === 'system' || role === 'developer'
}

const insertion = (at: number, text: string): Edit => ({
  range: { start: at, end: at },
  insert: Buffer.from(text),
})

const joined = ({ prepend, append }: SystemText): string => [...prepend, ...append].join(BETWEEN)
const whole = (texts: SystemText): string => JSON.stringify(joined(texts))
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1)
const partOf = (text: string): string => `{"type":"text","text":${JSON.stringify(text)}}`
