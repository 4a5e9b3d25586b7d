/**
 * vLLM's shapes: nested errors with int codes, `reasoning`, unset fields left out of chunks. Made
 * after the bytes of a real vLLM 0.32.0 (test/fixtures/vllm-0.32.0), field for field.
 */
import type { Settings } from '../settings.ts'
import {
  type Choice,
  chatLogprobs,
  type Dialect,
  DONE,
  type Ending,
  type Head,
  type Piece,
  quote,
  textLogprobs,
  type Usage,
} from './dialect.ts'
import { pythonJson, pythonText } from './python.ts'
import type { Refusal, Reply } from './wire.ts'

const TYPES: Readonly<Record<Refusal['kind'], string>> = {
  json: 'Bad Request',
  field: 'Bad Request',
  media: 'Bad Request',
  value: 'BadRequestError',
  context: 'BadRequestError',
  model: 'NotFoundError',
  response: 'invalid_request_error',
  queue: 'Service Unavailable',
  dead: 'InternalServerError',
  internal: 'InternalServerError',
  limited: 'Too Many Requests',
  unsupported: 'BadRequestError',
}

const BUSY =
  'The engine is currently busy and cannot accept new requests. Please try again later or on a ' +
  'different instance.'

const fieldText = ({ message, param, value, detail, context, least }: Refusal): string => {
  const place = `{'type': '${detail}', 'loc': '${param}', 'msg': '${message}', `
  const cause = context === undefined ? '' : `, 'ctx': {'error': ${context}}`
  const bound = least === undefined ? '' : `, 'ctx': {'ge': ${least}}`
  return `\n  ${place}'input': ${pythonText(value)}${cause}${bound}}`
}

const textOf = (refusal: Refusal): string => {
  const { kind, message, param, value, more = [] } = refusal
  if (kind === 'queue') return BUSY
  if (kind === 'media') return `1 validation error:\n  ${message}`
  if (kind === 'json') {
    return (
      `1 validation error:\n  {'type': 'json_invalid', 'loc': '${param}', 'msg': 'JSON decode ` +
      `error', 'input': '<dict of 0 items>', 'ctx': {'error': '${message}'}}`
    )
  }
  if (kind === 'field') {
    const count = more.length + 1
    const head = `${count} validation error${count === 1 ? '' : 's'}:`
    return head + [refusal, ...more].map(fieldText).join('')
  }
  if (param === null || kind === 'model' || kind === 'response' || kind === 'dead') return message
  const shown = value === undefined ? '' : `, value=${pythonText(value)}`
  return `${message} (parameter=${param}${shown})`
}

const bodyOf = (refusal: Refusal) => ({
  error: {
    message: textOf(refusal),
    type: TYPES[refusal.kind],
    param: refusal.param,
    code: refusal.status,
  },
})

const errorOf = (refusal: Refusal): Reply => ({ status: refusal.status, body: bodyOf(refusal) })

export const vllmDialect = (settings: Settings, fingerprint: string): Dialect => ({
  error: errorOf,
  streamError: (refusal) => `data: ${pythonJson(bodyOf(refusal))}\n\n${DONE}`,
  done: DONE,
  firstOpens: true,
  chunkUsage: (head, usage) => chunkUsage(settings, head, usage),
  lastUsage: (head, usage) => lastUsage(settings, head, usage),
  chunk: (head, choices, usage) => `${open(head)}[${choices}]${usageText(usage)}}\n\n`,
  lastChunk: (head, choices, usage) =>
    `${open(head)}[${choices}]${usageText(usage)},"system_fingerprint":${quote(fingerprint)}}\n\n`,
  opening: (head, index, usage) => {
    if (head.kind === 'completion') return ''
    const choice =
      `{"index":${index},"delta":{"role":"assistant","content":""},` +
      '"logprobs":null,"finish_reason":null}'
    const rest = ',"prompt_token_ids":null,"prompt_text":null'
    return `${open(head)}[${choice}]${usageText(usage)}${rest}}\n\n`
  },
  piece,
  whole: (head, choices, usage) => whole(settings, fingerprint, { head, choices, usage }),
})

const open = (head: Head): string =>
  `data: {"id":${quote(head.id)},"object":"${
    head.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
  }","created":${head.created},"model":${quote(head.model)},"choices":`

const usageText = (usage: unknown): string =>
  usage === null || usage === undefined ? '' : `,"usage":${JSON.stringify(usage)}`

const counts = ({ prompt, completion }: Usage) => ({
  prompt_tokens: prompt,
  total_tokens: prompt + completion,
  completion_tokens: completion,
})

const reasoningDetails = (settings: Settings, { reasoning }: Usage) =>
  settings.reasoningParser === null ? null : { reasoning_tokens: reasoning }

/** Usage in every chunk: no prompt details, reasoning details only for chat. */
const chunkUsage = (settings: Settings, head: Head, usage: Usage) =>
  head.kind === 'chat'
    ? { ...counts(usage), completion_tokens_details: reasoningDetails(settings, usage) }
    : counts(usage)

const lastUsage = (settings: Settings, head: Head, usage: Usage) => {
  const details = reasoningDetails(settings, usage)
  const { cached, created } = usage
  const chat = head.kind === 'chat'
  return {
    ...counts(usage),
    ...(settings.cachedTokensInUsage
      ? {
          prompt_tokens_details: chat
            ? { cached_tokens: cached, created_cache_tokens: created }
            : { cached_tokens: cached },
        }
      : {}),
    ...(chat && details !== null ? { completion_tokens_details: details } : {}),
  }
}

const finishText = (ending: Ending | null): string => {
  if (ending === null) return '"finish_reason":null'
  const stop = ending.stopped === null ? 'null' : quote(ending.stopped)
  return `"finish_reason":${quote(ending.reason)},"stop_reason":${stop}`
}

const piece = (kind: Head['kind'], part: Piece, ending: Ending | null): string => {
  const { index, logprobs } = part
  if (kind === 'completion') {
    const shown = logprobs === null ? 'null' : JSON.stringify(textLogprobs(logprobs))
    const finish = ending === null ? '"finish_reason":null,"stop_reason":null' : finishText(ending)
    const text = `{"index":${index},"text":${quote(part.content)},"logprobs":${shown},`
    return `${text}${finish},"prompt_token_ids":null,"token_ids":null}`
  }
  const shown = logprobs === null ? 'null' : JSON.stringify(chatLogprobs(logprobs))
  const delta = `{"index":${index},"delta":{${deltaOf(part)}},"logprobs":${shown},`
  return `${delta}${finishText(ending)},"token_ids":null}`
}

const deltaOf = ({ reasoning, content, tool }: Piece): string => {
  const parts: string[] = []
  if (reasoning !== '') parts.push(`"reasoning":${quote(reasoning)}`)
  if (content !== '') parts.push(`"content":${quote(content)}`)
  if (tool !== null) {
    const head = tool.first ? `"id":${quote(tool.id)},"type":"function",` : ''
    const name = tool.first ? `"name":${quote(tool.name)},` : ''
    const call = `${head}"index":0,"function":{${name}"arguments":${quote(tool.arguments)}}`
    parts.push(`"tool_calls":[{${call}}]`)
  }
  return parts.length === 0 ? '"content":""' : parts.join(',')
}

const message = ({ content, reasoning, tool }: Choice) => ({
  role: 'assistant',
  content,
  refusal: null,
  annotations: null,
  audio: null,
  function_call: null,
  ...(tool === null
    ? {}
    : {
        tool_calls: [
          {
            id: tool.id,
            type: 'function',
            function: { name: tool.name, arguments: tool.arguments },
          },
        ],
      }),
  reasoning,
})

type Whole = { readonly head: Head; readonly choices: readonly Choice[]; readonly usage: Usage }

const whole = (settings: Settings, fingerprint: string, answer: Whole): unknown => {
  const { head, choices, usage } = answer
  const chat = head.kind === 'chat'
  const cached = {
    cached_tokens: usage.cached,
    created_cache_tokens: chat ? usage.created : null,
    multimodal_tokens: null,
  }
  return {
    id: head.id,
    object: chat ? 'chat.completion' : 'text_completion',
    created: head.created,
    model: head.model,
    choices: choices.map((choice) => wholeChoice(head, choice)),
    service_tier: null,
    system_fingerprint: fingerprint,
    usage: {
      ...counts(usage),
      prompt_tokens_details: settings.cachedTokensInUsage ? cached : null,
      completion_tokens_details: chat ? reasoningDetails(settings, usage) : null,
    },
    ...(chat ? { prompt_logprobs: null, prompt_token_ids: null, prompt_text: null } : {}),
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  }
}

const wholeChoice = (head: Head, choice: Choice) => {
  const chat = head.kind === 'chat'
  return {
    index: choice.index,
    ...(chat
      ? { message: message(choice), logprobs: chatLogprobs(choice.logprobs) }
      : { text: choice.content ?? '', logprobs: textLogprobs(choice.logprobs) }),
    finish_reason: choice.ending.reason,
    stop_reason: choice.ending.stopped,
    token_ids: null,
    ...(chat ? {} : { prompt_logprobs: null, prompt_token_ids: null }),
    routed_experts: null,
  }
}
