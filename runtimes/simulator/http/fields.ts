/** Types and ranges of request fields, refused the way pydantic and the engines' checks do. */
import { isRecord } from '../rehearsal.ts'
import type { Settings } from '../settings.ts'
import { PythonFloat } from './python.ts'
import type { Body, Refusal } from './wire.ts'

type Kind =
  | 'integer'
  | 'number'
  | 'boolean'
  | 'string'
  | 'object'
  | 'array'
  | 'stop'
  | 'integer-or-boolean'

const COMMON: Readonly<Record<string, Kind>> = {
  model: 'string',
  stream: 'boolean',
  stream_options: 'object',
  max_tokens: 'integer',
  n: 'integer',
  seed: 'integer',
  temperature: 'number',
  top_p: 'number',
  top_k: 'integer',
  min_p: 'number',
  presence_penalty: 'number',
  frequency_penalty: 'number',
  repetition_penalty: 'number',
  stop: 'stop',
  min_tokens: 'integer',
  ignore_eos: 'boolean',
  priority: 'integer',
  user: 'string',
}

const FIELDS: Readonly<Record<'chat' | 'completion', Readonly<Record<string, Kind>>>> = {
  chat: {
    ...COMMON,
    messages: 'array',
    max_completion_tokens: 'integer',
    tools: 'array',
    logprobs: 'boolean',
    top_logprobs: 'integer',
    response_format: 'object',
    chat_template_kwargs: 'object',
    continue_final_message: 'boolean',
    add_generation_prompt: 'boolean',
  },
  completion: { ...COMMON, echo: 'boolean', logprobs: 'integer-or-boolean' },
}

/** pydantic's names and words for a value of a wrong type, and for a string that will not do. */
const WORDS: Readonly<
  Record<Kind, readonly [type: string, message: string, parse: string | null]>
> = {
  integer: ['int', 'a valid integer', 'an integer'],
  'integer-or-boolean': ['int', 'a valid integer', 'an integer'],
  number: ['float', 'a valid number', 'a number'],
  boolean: ['bool', 'a valid boolean', null],
  string: ['string', 'a valid string', null],
  object: ['dict', 'a valid dictionary', null],
  array: ['list', 'a valid list', null],
  stop: ['string', 'a valid string', null],
}

const fits = (kind: Kind, value: unknown): boolean => {
  if (kind === 'integer') return Number.isInteger(value)
  if (kind === 'integer-or-boolean') return Number.isInteger(value) || typeof value === 'boolean'
  if (kind === 'object') return isRecord(value)
  if (kind === 'array') return Array.isArray(value)
  if (kind === 'stop') return typeof value === 'string' || Array.isArray(value)
  return typeof value === kind
}

/** Null: nothing is wrong. */
export const checkFields = (
  kind: 'chat' | 'completion',
  body: Body,
  settings: Settings,
): Refusal | null => {
  for (const [field, type] of Object.entries(FIELDS[kind])) {
    const value = body[field]
    if (value === undefined || value === null || fits(type, value)) continue
    return wrongType(field, type, value)
  }
  const needed = kind === 'chat' ? 'messages' : 'prompt'
  const given = body[needed]
  if (given === undefined || given === null) return missing(needed, body)
  return (
    (kind === 'chat' ? checkChat(body, settings) : checkPrompt(body)) ?? checkRanges(body, settings)
  )
}

export const wrongType = (field: string, type: Kind, value: unknown): Refusal => {
  const [name, valid, parse] = WORDS[type]
  const parsing = typeof value === 'string' && parse !== null
  const message = `Input should be ${valid}`
  return {
    kind: 'field',
    status: 400,
    message: parsing ? `${message}, unable to parse string as ${parse}` : message,
    param: `body.${field}`,
    value,
    detail: `${name}_${parsing ? 'parsing' : 'type'}`,
  }
}

const missing = (field: string, body: Body): Refusal => ({
  kind: 'field',
  status: 400,
  message: 'Field required',
  param: `body.${field}`,
  value: body,
  detail: 'missing',
})

export const bad = (param: string | null, message: string, value?: unknown): Refusal => ({
  kind: 'value',
  status: 400,
  message,
  param,
  value,
})

const checkChat = (body: Body, settings: Settings): Refusal | null => {
  const messages = Array.isArray(body.messages) ? body.messages : []
  if (messages.length === 0) {
    return bad(
      null,
      'Cannot apply chat template to an empty conversation. Provide at least one message.',
    )
  }
  for (const [index, message] of messages.entries()) {
    const where = `messages.${index}`
    if (!isRecord(message)) return wrongType(where, 'object', message)
    if (message.role === undefined) return missing(`${where}.role`, message)
    if (typeof message.role !== 'string') return wrongType(`${where}.role`, 'string', message.role)
    const { content } = message
    const plain = content === undefined || content === null || typeof content === 'string'
    if (!plain && !Array.isArray(content)) return wrongType(`${where}.content`, 'string', content)
  }
  // The header is added unless the request says no; SGLang has no such field.
  const header = settings.engine === 'vllm' && body.add_generation_prompt !== false
  if (body.continue_final_message === true && header) {
    return bad(
      null,
      'continue_final_message and add_generation_prompt are not compatible. Use ' +
        'continue_final_message when you want the model to continue the final message, and ' +
        'add_generation_prompt when you want to add a header that will prompt it to start a new ' +
        'assistant message instead.',
    )
  }
  return null
}

const checkPrompt = (body: Body): Refusal | null => {
  const { prompt } = body
  if (typeof prompt === 'string' || Array.isArray(prompt)) return null
  return wrongType('prompt', 'stop', prompt)
}

const checkRanges = (body: Body, settings: Settings): Refusal | null => {
  const number = (field: string): number | null => {
    const value = body[field]
    return typeof value === 'number' ? value : null
  }
  const [n, temperature, topP] = [number('n'), number('temperature'), number('top_p')]
  if (n !== null && n < 1) return bad('n', `n must be at least 1, got ${n}.`, n)
  // vLLM's VLLM_MAX_N_SEQUENCES is 16384; a simulator need not let one request fill it.
  if (n !== null && n > 128) return bad('n', `n must be at most 128, got ${n}.`, n)
  if (temperature !== null && temperature < 0) {
    const shown = new PythonFloat(temperature)
    return bad('temperature', `temperature must be non-negative, got ${shown}.`, shown)
  }
  if (topP !== null && (topP <= 0 || topP > 1)) {
    const shown = new PythonFloat(topP)
    return bad('top_p', `top_p must be in (0, 1], got ${shown}.`, shown)
  }
  for (const field of ['max_tokens', 'max_completion_tokens']) {
    const value = number(field)
    if (value === null || value >= 1) continue
    return bad('max_tokens', `max_tokens must be at least 1, got ${value}.`, value)
  }
  return checkOptions(body, settings)
}

const checkOptions = (body: Body, settings: Settings): Refusal | null => {
  const { top_logprobs: top, logprobs } = body
  if (settings.engine === 'vllm' && typeof top === 'number' && top !== 0 && logprobs !== true) {
    return bad('top_logprobs', 'when using `top_logprobs`, `logprobs` must be set to true.')
  }
  if (isRecord(body.stream_options) && body.stream !== true && settings.engine === 'vllm') {
    return bad('stream_options', 'Stream options can only be defined when `stream=True`.')
  }
  const forced = isRecord(body.tool_choice) || body.tool_choice === 'required'
  if (forced && !Array.isArray(body.tools)) {
    return bad('tool_choice', 'When using `tool_choice`, `tools` must be set.')
  }
  const automatic = Array.isArray(body.tools) && (body.tool_choice ?? 'auto') === 'auto'
  if (settings.engine === 'vllm' && automatic && settings.toolParser === null) {
    return bad(
      null,
      '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    )
  }
  return null
}
