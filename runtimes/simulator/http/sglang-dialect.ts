/** SGLang's shapes: flat errors, `reasoning_content`, chunks with every field. */
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

/** The token that ended the answer: Qwen's <|im_end|>. */
const END_TOKEN = 151645

const TYPES: Readonly<Record<Refusal['kind'], string>> = {
  json: 'Bad Request',
  field: 'Bad Request',
  value: 'BadRequestError',
  context: 'BadRequestError',
  model: 'NotFoundError',
  queue: 'Service Unavailable',
  dead: 'Service Unavailable',
  unsupported: 'BadRequestError',
}

const flat = ({ kind, status, message, param }: Refusal) => ({
  object: 'error',
  message,
  type: TYPES[kind],
  param,
  code: status,
})

const error = (refusal: Refusal): Reply => ({ status: refusal.status, body: flat(refusal) })

export const sglangDialect = (settings: Settings): Dialect => ({
  error,
  usage: ({ prompt, completion, cached, reasoning }: Usage) => ({
    prompt_tokens: prompt,
    total_tokens: prompt + completion,
    completion_tokens: completion,
    prompt_tokens_details:
      settings.cachedTokensInUsage && cached > 0 ? { cached_tokens: cached } : null,
    reasoning_tokens: reasoning,
  }),
  chunk: (head, choices, usage) =>
    `data: {"id":${quote(head.id)},"object":"${
      head.kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'
    }","created":${head.created},"model":${quote(head.model)},"choices":[${choices}],"usage":${
      usage === undefined ? 'null' : JSON.stringify(usage)
    }}\n\n`,
  role: (index) =>
    `{"index":${index},"delta":{"role":"assistant","content":"","reasoning_content":null},"logprobs":null,"finish_reason":null,"matched_stop":null}`,
  piece: (kind, piece) => {
    const { index, logprobs } = piece
    if (kind === 'completion') {
      return `{"index":${index},"text":${quote(piece.content)},"logprobs":${JSON.stringify(textLogprobs(logprobs))},"finish_reason":null,"matched_stop":null}`
    }
    const shown = logprobs === null ? 'null' : JSON.stringify(chatLogprobs(logprobs))
    return `{"index":${index},"delta":{${deltaOf(piece)}},"logprobs":${shown},"finish_reason":null,"matched_stop":null}`
  },
  ending: (kind, index, { reason, stopped }) => {
    const matched = reason === 'length' ? 'null' : stopped === null ? END_TOKEN : quote(stopped)
    return kind === 'completion'
      ? `{"index":${index},"text":"","logprobs":null,"finish_reason":${quote(reason)},"matched_stop":${matched}}`
      : `{"index":${index},"delta":{"role":null,"content":null,"reasoning_content":null},"logprobs":null,"finish_reason":${quote(reason)},"matched_stop":${matched}}`
  },
  whole,
  streamError: (refusal) => `data: ${JSON.stringify({ error: flat(refusal) })}\n\n`,
})

type PieceOf = Parameters<Dialect['piece']>[1]

const deltaOf = ({ reasoning, content, tool }: PieceOf): string => {
  const text = content === '' ? 'null' : quote(content)
  const thought = reasoning === '' ? 'null' : quote(reasoning)
  const base = `"role":null,"content":${text},"reasoning_content":${thought}`
  if (tool === null) return base
  const call = tool.first
    ? `{"id":${quote(tool.id)},"index":0,"type":"function","function":{"name":${quote(tool.name)},"arguments":${quote(tool.arguments)}}}`
    : `{"id":null,"index":0,"type":"function","function":{"name":null,"arguments":${quote(tool.arguments)}}}`
  return `${base},"tool_calls":[${call}]`
}

const message = ({ content, reasoning, tool }: Choice) => ({
  role: 'assistant',
  content: tool === null ? content : null,
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
    matched_stop: choice.ending.reason === 'length' ? null : (choice.ending.stopped ?? END_TOKEN),
  })),
  usage,
  metadata: { weight_version: 'default' },
})
