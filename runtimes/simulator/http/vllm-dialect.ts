/** vLLM's shapes: nested errors with int codes, `reasoning`, chunks without unset fields. */
import type { Settings } from '../settings.ts'
import {
  type Choice,
  chatLogprobs,
  type Dialect,
  type Head,
  quote,
  textLogprobs,
  type Usage,
} from './dialect.ts'
import type { Refusal, Reply } from './wire.ts'

const TYPES: Readonly<Record<Refusal['kind'], string>> = {
  json: 'Bad Request',
  field: 'Bad Request',
  value: 'BadRequestError',
  context: 'BadRequestError',
  model: 'NotFoundError',
  queue: 'ServiceUnavailableError',
  dead: 'InternalServerError',
  unsupported: 'BadRequestError',
}

const error = ({ kind, status, message, param }: Refusal): Reply => {
  const shown =
    kind === 'json'
      ? `[{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': ${quote(message)}}}]`
      : kind === 'field'
        ? `1 validation error:\n  ${message}`
        : message
  return { status, body: { error: { message: shown, type: TYPES[kind], param, code: status } } }
}

export const vllmDialect = (settings: Settings): Dialect => ({
  error,
  usage: ({ prompt, completion, cached, reasoning }: Usage) => ({
    prompt_tokens: prompt,
    total_tokens: prompt + completion,
    completion_tokens: completion,
    ...(settings.cachedTokensInUsage ? { prompt_tokens_details: { cached_tokens: cached } } : {}),
    ...(settings.reasoningParser === null
      ? {}
      : { completion_tokens_details: { reasoning_tokens: reasoning } }),
  }),
  chunk: (head, choices, usage) =>
    `data: {"id":${quote(head.id)},"object":"${
      head.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
    }","created":${head.created},"model":${quote(head.model)},"choices":[${choices}]${
      usage === undefined || usage === null ? '' : `,"usage":${JSON.stringify(usage)}`
    }}\n\n`,
  role: (index) =>
    `{"index":${index},"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`,
  piece: (kind, piece) => {
    const { index, logprobs } = piece
    if (kind === 'completion') {
      return `{"index":${index},"text":${quote(piece.content)},"logprobs":${JSON.stringify(textLogprobs(logprobs))},"finish_reason":null,"stop_reason":null}`
    }
    const shown = logprobs === null ? 'null' : JSON.stringify(chatLogprobs(logprobs))
    return `{"index":${index},"delta":{${deltaOf(piece)}},"logprobs":${shown},"finish_reason":null}`
  },
  ending: (kind, index, { reason, stopped }) => {
    const stop = stopped === null ? 'null' : quote(stopped)
    return kind === 'completion'
      ? `{"index":${index},"text":"","logprobs":null,"finish_reason":${quote(reason)},"stop_reason":${stop}}`
      : `{"index":${index},"delta":{"content":""},"logprobs":null,"finish_reason":${quote(reason)},"stop_reason":${stop}}`
  },
  whole,
  streamError: (refusal) => `data: ${JSON.stringify(error(refusal).body)}\n\n`,
})

type PieceOf = Parameters<Dialect['piece']>[1]

const deltaOf = ({ reasoning, content, tool }: PieceOf): string => {
  const parts: string[] = []
  if (reasoning !== '') parts.push(`"reasoning":${quote(reasoning)}`)
  if (content !== '') parts.push(`"content":${quote(content)}`)
  if (tool !== null) {
    const name = tool.first
      ? `"id":${quote(tool.id)},"type":"function","index":0,"function":{"name":${quote(tool.name)},"arguments":${quote(tool.arguments)}}`
      : `"index":0,"function":{"arguments":${quote(tool.arguments)}}`
    parts.push(`"tool_calls":[{${name}}]`)
  }
  return parts.length === 0 ? '"content":""' : parts.join(',')
}

const message = ({ content, reasoning, tool }: Choice) => ({
  role: 'assistant',
  content: tool === null ? content : null,
  refusal: null,
  annotations: null,
  audio: null,
  function_call: null,
  tool_calls:
    tool === null
      ? []
      : [
          {
            id: tool.id,
            type: 'function',
            function: { name: tool.name, arguments: tool.arguments },
          },
        ],
  reasoning,
})

const whole = (head: Head, choices: readonly Choice[], usage: unknown): unknown => ({
  id: head.id,
  object: head.kind === 'chat' ? 'chat.completion' : 'text_completion',
  created: head.created,
  model: head.model,
  choices: choices.map((choice) => ({
    index: choice.index,
    ...(head.kind === 'chat'
      ? { message: message(choice), logprobs: chatLogprobs(choice.logprobs) }
      : { text: choice.content ?? '', logprobs: textLogprobs(choice.logprobs) }),
    finish_reason: choice.ending.reason,
    stop_reason: choice.ending.stopped,
    token_ids: null,
  })),
  service_tier: null,
  system_fingerprint: null,
  usage,
  ...(head.kind === 'chat' ? { prompt_logprobs: null, prompt_token_ids: null } : {}),
  kv_transfer_params: null,
})
