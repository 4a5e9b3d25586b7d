/** What a pooling route is asked: texts or token ids to read, and what is wrong with them. Pure. */
import { isRecord } from '../rehearsal.ts'
import { TokenList } from '../text/tokens.ts'
import { wrongType } from './fields.ts'
import { chatPrompt } from './prompt.ts'
import type { Body, Refusal } from './wire.ts'

export type Texts =
  | { readonly ok: true; readonly texts: readonly Int32Array[] }
  | { readonly ok: false; readonly refusal: Refusal }

export const refused = (message: string, param: string | null = null, value?: unknown): Texts => ({
  ok: false,
  refusal: { kind: 'value', status: 400, message, param, value },
})

export const missing = (field: string, body: Body): Refusal => ({
  kind: 'field',
  status: 400,
  message: 'Field required',
  param: `body.${field}`,
  value: body,
  detail: 'missing',
})

/** At most `keep` tokens of a text are kept; more than fit the context are refused by count. */
export const tokensOf = (text: string, keep: number): Int32Array => {
  const tokens = new TokenList(keep)
  tokens.text(text)
  return tokens.toArray()
}

const idsOf = (value: unknown, keep: number): Int32Array | null => {
  if (!Array.isArray(value)) return null
  const ids = value.filter((id) => Number.isInteger(id) && id >= 0)
  return ids.length < value.length ? null : Int32Array.from(ids.slice(0, keep))
}

/** A string, several strings, one list of token ids, or several; null: none of these. */
export const readInput = (input: unknown, keep: number): readonly Int32Array[] | null => {
  if (typeof input === 'string') return [tokensOf(input, keep)]
  if (!Array.isArray(input)) return null
  if (input.length === 0) return []
  const ids = idsOf(input, keep)
  if (ids !== null) return [ids]
  const each = input.map((one) =>
    typeof one === 'string' ? tokensOf(one, keep) : idsOf(one, keep),
  )
  return each.every((one) => one !== null) ? each : null
}

/** vLLM also takes a conversation, through the chat template and without an assistant's header. */
export const readMessages = (body: Body, keep: number): readonly Int32Array[] | null => {
  const { messages } = body
  if (!Array.isArray(messages) || messages.length === 0 || !messages.every(isRecord)) return null
  return [chatPrompt({ ...body, continue_final_message: true }, keep).tokens.toArray()]
}

export const joined = (one: Int32Array, other: Int32Array): Int32Array => {
  const both = new Int32Array(one.length + other.length)
  both.set(one)
  both.set(other, one.length)
  return both
}

/** A list of strings where one may stand for a list. */
export const strings = (value: unknown): readonly string[] | null => {
  if (typeof value === 'string') return [value]
  if (!Array.isArray(value)) return null
  return value.every((one) => typeof one === 'string') ? value : null
}

const KINDS = {
  model: 'string',
  user: 'string',
  priority: 'integer',
  dimensions: 'integer',
  output_dimension: 'integer',
  truncate_prompt_tokens: 'integer',
  top_n: 'integer',
  query: 'string',
  return_documents: 'boolean',
  use_activation: 'boolean',
  documents: 'array',
} as const

/** The first field whose value is of a wrong type; null: none. */
export const typeProblem = (
  body: Body,
  fields: readonly (keyof typeof KINDS)[],
): Refusal | null => {
  for (const field of fields) {
    const value = body[field]
    if (value === undefined || value === null) continue
    const kind = KINDS[field]
    const fits =
      kind === 'integer'
        ? Number.isInteger(value)
        : kind === 'array'
          ? Array.isArray(value)
          : typeof value === kind
    if (!fits) return wrongType(field, kind, value)
    if (field === 'truncate_prompt_tokens' && Number(value) < -1) return tooSmall(field, value)
  }
  return null
}

const tooSmall = (field: string, value: unknown): Refusal => ({
  kind: 'field',
  status: 400,
  message: 'Input should be greater than or equal to -1',
  param: `body.${field}`,
  value,
  detail: 'greater_than_equal',
  least: -1,
})

/** The errors that pydantic finds in a union of models: of each what is wrong with it. */
export const unionProblem = (
  body: Body,
  variants: readonly (readonly string[])[],
  wrong: Refusal | null,
): Refusal | null => {
  const lacks = (fields: readonly string[]) =>
    fields.filter((field) => body[field] === undefined || body[field] === null)
  if (wrong === null && variants.some((fields) => lacks(fields).length === 0)) return null
  const [first, ...more] = variants.flatMap((fields) => [
    ...(wrong === null ? [] : [wrong]),
    ...lacks(fields).map((field) => missing(field, body)),
  ])
  return first === undefined ? null : { ...first, more }
}
