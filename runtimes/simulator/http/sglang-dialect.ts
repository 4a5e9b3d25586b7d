/** SGLang's shapes: flat errors, `reasoning_content`, chunks with every field. */
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
import type { Refusal, Reply } from './wire.ts'

/** The token that ended the answer: Qwen's <|im_end|>. */
const END_TOKEN = 151645

const TYPES: Readonly<Record<Refusal['kind'], string>> = {
  json: 'Bad Request',
  field: 'Bad Request',
  media: 'Bad Request',
  value: 'BadRequestError',
  context: 'BadRequestError',
  model: 'NotFoundError',
  response: 'invalid_request_error',
  queue: 'Service Unavailable',
  dead: 'Service Unavailable',
  internal: 'InternalServerError',
  limited: 'Too Many Requests',
  unsupported: 'BadRequestError',
}

const flat = ({ kind, status, message, param }: Refusal) => ({
  object: 'error',
  message: textOf(kind, message, param),
  type: TYPES[kind],
  param: kind === 'json' || kind === 'field' ? null : param,
  code: status,
})

/** FastAPI's list of errors as text; SGLang adds where. */
const textOf = (kind: Refusal['kind'], message: string, param: string | null): string =>
  kind === 'field' || kind === 'json' ? `${message} (${param ?? 'body'})` : message

const errorOf = (refusal: Refusal): Reply => ({ status: refusal.status, body: flat(refusal) })

const usageOf = (settings: Settings, usage: Usage) => ({
  prompt_tokens: usage.prompt,
  total_tokens: usage.prompt + usage.completion,
  completion_tokens: usage.completion,
  prompt_tokens_details:
    settings.cachedTokensInUsage && usage.cached > 0 ? { cached_tokens: usage.cached } : null,
  reasoning_tokens: usage.reasoning,
})

const chunk = (head: Head, choices: string, usage: unknown): string =>
  `data: {"id":${quote(head.id)},"object":"${
    head.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
  }","created":${head.created},"model":${quote(head.model)},"choices":[${choices}],"usage":${
    usage === null ? 'null' : JSON.stringify(usage)
  }}\n\n`

export const sglangDialect = (settings: Settings): Dialect => ({
  error: errorOf,
  streamError: (refusal) => `data: ${JSON.stringify({ error: flat(refusal) })}\n\n${DONE}`,
  done: DONE,
  firstOpens: false,
  chunkUsage: (_head, usage) => usageOf(settings, usage),
  lastUsage: (_head, usage) => usageOf(settings, usage),
  chunk,
  lastChunk: chunk,
  opening: (head, index, usage) =>
    head.kind === 'completion'
      ? ''
      : chunk(
          head,
          `{"index":${index},"delta":{"role":"assistant","content":"","reasoning_content":null},` +
            '"logprobs":null,"finish_reason":null,"matched_stop":null}',
          usage,
        ),
  piece,
  whole: (head, choices, usage) => whole(head, choices, usageOf(settings, usage)),
})

const matched = (ending: Ending): string => {
  if (ending.reason !== 'stop' && ending.reason !== 'tool_calls') return 'null'
  return ending.stopped === null ? String(END_TOKEN) : quote(ending.stopped)
}

const piece = (kind: Head['kind'], part: Piece, ending: Ending | null): string => {
  const { index, logprobs } = part
  const finish =
    ending === null
      ? '"finish_reason":null,"matched_stop":null'
      : `"finish_reason":${quote(ending.reason)},"matched_stop":${matched(ending)}`
  if (kind === 'completion') {
    const shown = logprobs === null ? 'null' : JSON.stringify(textLogprobs(logprobs))
    return `{"index":${index},"text":${quote(part.content)},"logprobs":${shown},${finish}}`
  }
  const shown = logprobs === null ? 'null' : JSON.stringify(chatLogprobs(logprobs))
  return `{"index":${index},"delta":{${deltaOf(part)}},"logprobs":${shown},${finish}}`
}

const deltaOf = ({ reasoning, content, tool }: Piece): string => {
  const text = content === '' ? 'null' : quote(content)
  const thought = reasoning === '' ? 'null' : quote(reasoning)
  const base = `"role":null,"content":${text},"reasoning_content":${thought}`
  if (tool === null) return base
  const id = tool.first ? quote(tool.id) : 'null'
  const name = tool.first ? quote(tool.name) : 'null'
  const call = `{"name":${name},"arguments":${quote(tool.arguments)}}`
  return `${base},"tool_calls":[{"id":${id},"index":0,"type":"function","function":${call}}]`
}

const message = ({ content, reasoning, tool }: Choice) => ({
  role: 'assistant',
  content,
  reasoning_content: reasoning,
  tool_calls:
    tool === null
      ? null
      : [
          {
            id: tool.id,
            index: 0,
            type: 'function',
            function: { name: tool.name, arguments: tool.arguments },
          },
        ],
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
    matched_stop: JSON.parse(matched(choice.ending)),
  })),
  usage,
  metadata: { weight_version: 'default' },
})
