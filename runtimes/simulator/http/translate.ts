/**
 * Bodies of /v1/messages and /v1/responses as the chat requests that both engines make of them.
 * Pure. What is missing or wrong is refused first, in the words of the models they are read into.
 */
import { isRecord } from '../rehearsal.ts'
import { wrongType } from './fields.ts'
import type { Body, Refusal } from './wire.ts'

export type Translated =
  | { readonly ok: true; readonly body: Body }
  | { readonly ok: false; readonly refusal: Refusal }

const missing = (body: Body, fields: readonly string[]): Refusal | null => {
  const [first, ...more] = fields
    .filter((field) => body[field] === undefined || body[field] === null)
    .map(
      (field): Refusal => ({
        kind: 'field',
        status: 400,
        message: 'Field required',
        param: `body.${field}`,
        value: body,
        detail: 'missing',
      }),
    )
  return first === undefined ? null : { ...first, more }
}

const refused = (refusal: Refusal): Translated => ({ ok: false, refusal })

/** `counting`: for /v1/messages/count_tokens, which knows no `max_tokens`. */
export const messagesToChat = (body: Body, counting = false): Translated => {
  const needed = missing(body, counting ? ['messages'] : ['messages', 'max_tokens'])
  if (needed !== null) return refused(needed)
  const { messages, max_tokens: maxTokens, system, tools } = body
  if (!Array.isArray(messages)) return refused(wrongType('messages', 'array', messages))
  if (!counting && !Number.isInteger(maxTokens)) {
    return refused(wrongType('max_tokens', 'integer', maxTokens))
  }
  if (typeof maxTokens === 'number' && maxTokens < 1) return refused(notPositive(maxTokens))
  for (const [index, message] of messages.entries()) {
    const wrong = wrongMessage(message, `messages.${index}`)
    if (wrong !== null) return refused(wrong)
  }
  if (tools !== undefined && tools !== null && !Array.isArray(tools)) {
    return refused(wrongType('tools', 'array', tools))
  }
  const thinking = isRecord(body.thinking) ? body.thinking.type : null
  const chat: Body = {
    ...chosen(body, ['model', 'temperature', 'top_p', 'top_k', 'cache_salt', 'stream']),
    ...chosen(body, ['chat_template_kwargs', 'priority', 'seed']),
    messages: [...systemMessages(system), ...messages.flatMap(chatMessages)],
    ...(counting ? {} : { max_tokens: maxTokens }),
    ...(Array.isArray(body.stop_sequences) ? { stop: body.stop_sequences } : {}),
    ...(Array.isArray(tools) && tools.length > 0 ? { tools: tools.flatMap(chatTool) } : {}),
    ...toolChoice(body.tool_choice),
    ...(thinking === 'disabled' ? { chat_template_kwargs: { enable_thinking: false } } : {}),
  }
  return { ok: true, body: chat }
}

const chosen = (body: Body, fields: readonly string[]): Body =>
  Object.fromEntries(
    fields.flatMap((field) => (body[field] === undefined ? [] : [[field, body[field]]])),
  )

const notPositive = (value: number): Refusal => ({
  kind: 'field',
  status: 400,
  message: 'Value error, max_tokens must be positive',
  param: 'body.max_tokens',
  value: String(value),
  detail: 'value_error',
  context: "ValueError('max_tokens must be positive')",
})

const wrongMessage = (message: unknown, where: string): Refusal | null => {
  if (!isRecord(message)) return wrongType(where, 'object', message)
  const { role, content } = message
  if (typeof role !== 'string') return wrongType(`${where}.role`, 'string', role)
  if (typeof content === 'string' || Array.isArray(content)) return null
  return wrongType(`${where}.content`, 'string', content)
}

const systemMessages = (system: unknown): readonly Body[] => {
  const text = typeof system === 'string' ? system : partsText(system, '')
  return text === '' ? [] : [{ role: 'system', content: text }]
}

const partsText = (parts: unknown, between: string): string =>
  (Array.isArray(parts) ? parts : [])
    .flatMap((part) => (isRecord(part) && typeof part.text === 'string' ? [part.text] : []))
    .join(between)

/** One message may hold results of tools: each becomes a message of its own. */
const chatMessages = (message: unknown): readonly Body[] => {
  if (!isRecord(message)) return []
  const { role, content } = message
  if (!Array.isArray(content)) return [{ role, content }]
  const blocks = content.filter(isRecord)
  const results = blocks
    .filter(({ type }) => type === 'tool_result')
    .map(({ content: said, tool_use_id: id }) => ({
      role: 'tool',
      tool_call_id: id,
      content: typeof said === 'string' ? said : partsText(said, '\n'),
    }))
  const calls = blocks
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, name, input }) => ({ id, type: 'function', function: { name, arguments: input } }))
  const rest = blocks.filter(({ type }) => type === 'text' || type === 'image')
  const own = { role, content: rest, ...(calls.length > 0 ? { tool_calls: calls } : {}) }
  return rest.length > 0 || calls.length > 0 ? [...results, own] : results
}

const chatTool = (tool: unknown): readonly Body[] =>
  isRecord(tool)
    ? [
        {
          type: 'function',
          function: {
            name: tool.name,
            description: tool.description ?? '',
            parameters: tool.input_schema,
          },
        },
      ]
    : []

const toolChoice = (choice: unknown): Body => {
  if (!isRecord(choice)) return {}
  if (choice.type === 'any') return { tool_choice: 'required' }
  if (choice.type === 'tool') {
    return { tool_choice: { type: 'function', function: { name: choice.name } } }
  }
  return choice.type === 'none' || choice.type === 'auto' ? { tool_choice: choice.type } : {}
}

/** `before`: what earlier responses said, for `previous_response_id`. */
export const responsesToChat = (body: Body, before: readonly unknown[] = []): Translated => {
  // Its model has been given a field by a validator of its own when the rest is looked at.
  const needed = missing({ ...body, request_id: '' }, ['input'])
  if (needed !== null) return refused(needed)
  const { input, instructions, max_output_tokens: max } = body
  if (typeof input !== 'string' && !Array.isArray(input)) {
    return refused(wrongType('input', 'string', input))
  }
  if (max !== undefined && max !== null && !Number.isInteger(max)) {
    return refused(wrongType('max_output_tokens', 'integer', max))
  }
  const items = typeof input === 'string' ? [{ role: 'user', content: input }] : input
  const text = isRecord(body.text) && isRecord(body.text.format) ? body.text.format : {}
  const tools = Array.isArray(body.tools) ? body.tools : []
  const chat: Body = {
    ...chosen(body, ['model', 'temperature', 'top_p', 'top_k', 'cache_salt', 'stream', 'user']),
    ...chosen(body, ['priority', 'seed', 'stop', 'chat_template_kwargs', 'ignore_eos']),
    messages: [
      ...(typeof instructions === 'string' ? [{ role: 'system', content: instructions }] : []),
      ...before,
      ...items.map(responseItem),
    ],
    ...(typeof max === 'number' ? { max_tokens: max } : {}),
    ...(tools.length > 0 ? { tools: tools.flatMap(responseTool) } : {}),
    ...responseToolChoice(body.tool_choice),
    ...(text.type === 'json_schema'
      ? { response_format: { type: 'json_schema', json_schema: { schema: text.schema } } }
      : {}),
    ...(text.type === 'json_object' ? { response_format: { type: 'json_object' } } : {}),
  }
  return { ok: true, body: chat }
}

/** Anything that is no item stays what it is: the check of chat messages refuses it. */
const responseItem = (item: unknown): unknown => {
  if (!isRecord(item)) return item
  if (item.type === 'function_call_output') {
    return { role: 'tool', tool_call_id: item.call_id, content: textOrJson(item.output) }
  }
  if (item.type === 'function_call') {
    const { call_id: id, name, arguments: given } = item
    const call = { id, type: 'function', function: { name, arguments: given } }
    return { role: 'assistant', content: null, tool_calls: [call] }
  }
  if (item.type === 'reasoning') return { role: 'assistant', content: '' }
  return { role: item.role ?? 'user', content: item.content }
}

const textOrJson = (value: unknown): string =>
  typeof value === 'string' ? value : JSON.stringify(value ?? '')

const responseTool = (tool: unknown): readonly Body[] => {
  if (!isRecord(tool) || tool.type !== 'function') return []
  const { name, description, parameters } = tool
  return [{ type: 'function', function: { name, description, parameters } }]
}

const responseToolChoice = (choice: unknown): Body => {
  if (isRecord(choice)) {
    return choice.type === 'function'
      ? { tool_choice: { type: 'function', function: { name: choice.name } } }
      : {}
  }
  return typeof choice === 'string' ? { tool_choice: choice } : {}
}
