/** Types and ranges of request fields, refused the way pydantic and the engines' checks do. */
import { isRecord } from '../rehearsal.ts'
import type { Settings } from '../settings.ts'
import type { Refusal } from './wire.ts'

type Body = Readonly<Record<string, unknown>>
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

const WORDS: Readonly<Record<Kind, string>> = {
  integer: 'Input should be a valid integer',
  'integer-or-boolean': 'Input should be a valid integer',
  number: 'Input should be a valid number',
  boolean: 'Input should be a valid boolean',
  string: 'Input should be a valid string',
  object: 'Input should be a valid dictionary',
  array: 'Input should be a valid list',
  stop: 'Input should be a valid string or list',
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
    const shown = JSON.stringify(value)?.slice(0, 100)
    return wrong(field, `${WORDS[type]} (body.${field}: ${shown})`)
  }
  const needed = kind === 'chat' ? 'messages' : 'prompt'
  const given = body[needed]
  if (given === undefined || given === null) return wrong(needed, `Field required (body.${needed})`)
  return (kind === 'chat' ? checkChat(body) : checkPrompt(body)) ?? checkRanges(body, settings)
}

const wrong = (param: string, message: string): Refusal => ({
  kind: 'field',
  status: 400,
  message,
  param,
})

const bad = (param: string, message: string): Refusal => ({
  kind: 'value',
  status: 400,
  message,
  param,
})

const checkChat = (body: Body): Refusal | null => {
  const messages = Array.isArray(body.messages) ? body.messages : []
  if (messages.length === 0) return bad('messages', 'List should have at least 1 item, not 0')
  for (const [index, message] of messages.entries()) {
    if (!isRecord(message) || typeof message.role !== 'string') {
      return wrong('messages', `Field required (body.messages.${index}.role)`)
    }
    const { content } = message
    const plain = content === undefined || content === null || typeof content === 'string'
    if (!plain && !Array.isArray(content)) {
      return wrong('messages', `Input should be a valid string (body.messages.${index}.content)`)
    }
  }
  if (body.continue_final_message === true && body.add_generation_prompt === true) {
    return bad(
      'continue_final_message',
      'Cannot set both `continue_final_message` and `add_generation_prompt` to True.',
    )
  }
  return null
}

const checkPrompt = (body: Body): Refusal | null => {
  const { prompt } = body
  if (typeof prompt === 'string' || Array.isArray(prompt)) return null
  return wrong('prompt', 'Input should be a valid string or list (body.prompt)')
}

const checkRanges = (body: Body, settings: Settings): Refusal | null => {
  const number = (field: string): number | null => {
    const value = body[field]
    return typeof value === 'number' ? value : null
  }
  const [n, temperature, topP] = [number('n'), number('temperature'), number('top_p')]
  if (n !== null && n < 1) return bad('n', `n must be at least 1, got ${n}.`)
  if (n !== null && n > 128) return bad('n', `n must be at most 128, got ${n}.`)
  if (temperature !== null && temperature < 0) {
    return bad('temperature', `temperature must be non-negative, got ${temperature}.`)
  }
  if (topP !== null && (topP <= 0 || topP > 1)) {
    return bad('top_p', `top_p must be in (0, 1], got ${topP}.`)
  }
  for (const field of ['max_tokens', 'max_completion_tokens']) {
    const value = number(field)
    if (value !== null && value < 1) return bad(field, `${field} must be at least 1, got ${value}.`)
  }
  const streams = body.stream === true || settings.engine === 'sglang'
  if (isRecord(body.stream_options) && !streams) {
    return bad('stream_options', 'Stream options can only be defined when `stream=True`.')
  }
  if (
    settings.engine === 'vllm' &&
    settings.priority === 'off' &&
    (number('priority') ?? 0) !== 0
  ) {
    return bad('priority', 'Got priority but Priority scheduling is not enabled.')
  }
  const forced = isRecord(body.tool_choice) || body.tool_choice === 'required'
  if (forced && !Array.isArray(body.tools)) {
    return bad('tool_choice', 'When using `tool_choice`, `tools` must be set.')
  }
  const automatic = Array.isArray(body.tools) && (body.tool_choice ?? 'auto') === 'auto'
  if (settings.engine === 'vllm' && automatic && settings.toolParser === null) {
    return bad(
      'tool_choice',
      '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    )
  }
  return null
}
