/**
 * The Responses API as each engine speaks it: vLLM after the bytes of a real 0.32.0
 * (test/fixtures/vllm-0.32.0/protocols-responses*), SGLang, whose handler was made from vLLM's,
 * after srt/entrypoints/openai/serving_responses.py. One dialect serves one request.
 */
import { isRecord } from '../rehearsal.ts'
import type { Choice, Dialect, Ending, Head, Piece, ToolText, Usage } from './dialect.ts'
import type { Body, Refusal, Reply } from './wire.ts'

type Kind = 'reasoning' | 'message' | 'function_call'

/** An item of `output` that is being written. */
type Item = {
  readonly kind: Kind
  readonly id: string
  readonly name: string
  readonly callId: string
  text: string
}

export type ResponsesOptions = {
  readonly engine: 'vllm' | 'sglang'
  readonly own: Dialect
  /** The request as it came, of which much is said again in the answer. */
  readonly request: Body
  readonly id: string
  readonly cacheCounts: boolean
  readonly hex: () => string
  /** Called with the whole answer once it is there. */
  readonly finished: (response: Body) => void
}

/** vLLM's ids are half as long. */
export const idHex = ({ engine, hex }: { engine: string; hex: () => string }): string =>
  engine === 'vllm' ? hex().slice(0, 16) : hex()

const PREFIX: Readonly<Record<Kind, string>> = {
  reasoning: 'rs_',
  message: 'msg_',
  function_call: 'fc_',
}

export class ResponsesDialect implements Dialect {
  readonly firstOpens: boolean
  readonly done = ''
  readonly #options: ResponsesOptions
  readonly #items: Item[] = []
  #sequence = 0
  #ending: Ending | null = null
  #usage: Usage | null = null

  constructor(options: ResponsesOptions) {
    this.#options = options
    this.firstOpens = options.own.firstOpens
  }

  error(refusal: Refusal): Reply {
    return responsesError(this.#options, refusal)
  }

  streamError(refusal: Refusal): string {
    const { body } = this.error(refusal)
    return `data: ${JSON.stringify(body)}\n\n`
  }

  chunkUsage(_head: Head, usage: Usage): unknown {
    return usage
  }

  lastUsage(_head: Head, usage: Usage): unknown {
    this.#usage = usage
    return usage
  }

  chunk(_head: Head, choices: string): string {
    return choices
  }

  lastChunk(head: Head, choices: string): string {
    if (choices !== '') return choices
    const text = this.#close()
    const response = responseOf(this.#options, head, this.#state('completed'))
    this.#options.finished(response)
    return text + this.#event('response.completed', { response })
  }

  opening(head: Head): string {
    const response = responseOf(this.#options, head, this.#state('in_progress'))
    return (
      this.#event('response.created', { response }) +
      this.#event('response.in_progress', { response })
    )
  }

  piece(_kind: Head['kind'], piece: Piece, ending: Ending | null): string {
    let text = ''
    if (piece.reasoning !== '') text += this.#write('reasoning', piece.reasoning, null)
    if (piece.content !== '') text += this.#write('message', piece.content, null)
    if (piece.tool !== null) text += this.#write('function_call', piece.tool.arguments, piece.tool)
    if (ending !== null) this.#ending = ending
    return text
  }

  whole(head: Head, choices: readonly Choice[], usage: Usage): unknown {
    const [choice] = choices
    this.#usage = usage
    this.#ending = choice?.ending ?? null
    const { reasoning, content, tool } = choice ?? { reasoning: null, content: null, tool: null }
    if (reasoning !== null && reasoning !== '') this.#item('reasoning', null).text = reasoning
    if (content !== null && content !== '') this.#item('message', null).text = content
    if (tool !== null) this.#item('function_call', tool).text = tool.arguments
    const response = responseOf(this.#options, head, this.#state('completed'))
    this.#options.finished(response)
    return response
  }

  /** What a background request is answered with at once. */
  queued(model: string, created: number): Body {
    const head: Head = { kind: 'chat', id: '', created, model }
    return responseOf(this.#options, head, {
      output: [],
      usage: null,
      status: 'queued',
      cut: false,
    })
  }

  #state(status: 'in_progress' | 'completed'): State {
    const output = status === 'in_progress' ? [] : this.#items.map(finishedItem)
    const cut = status === 'completed' && this.#ending?.reason === 'length'
    return { output, usage: this.#usage, status: cut ? 'incomplete' : status, cut }
  }

  #event(type: string, rest: Body): string {
    const sequence_number = this.#sequence
    this.#sequence += 1
    const all: Body = { ...rest, sequence_number, type }
    // Keys in the order of the engine's models, which is that of the alphabet.
    const sorted = Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)))
    return `event: ${type}\ndata: ${JSON.stringify(sorted)}\n\n`
  }

  #item(kind: Kind, tool: Pick<ToolText, 'name'> | null): Item {
    const item: Item = {
      kind,
      id: PREFIX[kind] + idHex(this.#options),
      name: tool?.name ?? '',
      callId: `call_${idHex(this.#options)}`,
      text: '',
    }
    this.#items.push(item)
    return item
  }

  #write(kind: Kind, delta: string, tool: ToolText | null): string {
    let item = this.#items.at(-1)
    let text = ''
    if (item === undefined || item.kind !== kind) {
      text += this.#close()
      item = this.#item(kind, tool)
      text += this.#begin(item)
    }
    item.text += delta
    return text + this.#event(DELTA[kind], this.#place(item, { delta }))
  }

  #place({ id, kind }: Item, rest: Body): Body {
    const call = kind === 'function_call'
    return {
      ...(call ? {} : { content_index: 0 }),
      ...rest,
      item_id: id,
      ...(kind === 'message' && rest.part === undefined ? { logprobs: [] } : {}),
      output_index: this.#items.length - 1,
    }
  }

  #begin(item: Item): string {
    const output_index = this.#items.length - 1
    const added = this.#event('response.output_item.added', { item: begunItem(item), output_index })
    if (item.kind === 'function_call') return added
    const part =
      item.kind === 'reasoning'
        ? { text: '', type: 'reasoning_text' }
        : { annotations: [], text: '', type: 'output_text', logprobs: [] }
    return added + this.#event('response.content_part.added', this.#place(item, { part }))
  }

  /** Events that end the item written last. */
  #close(): string {
    const item = this.#items.at(-1)
    if (item === undefined) return ''
    const { kind, text, name } = item
    const output_index = this.#items.length - 1
    const whole =
      kind === 'function_call'
        ? this.#event(DONE[kind], this.#place(item, { arguments: text, name }))
        : this.#event(DONE[kind], this.#place(item, { text })) +
          this.#event('response.content_part.done', this.#place(item, { part: partOf(item) }))
    const done = { item: finishedItem(item), output_index }
    return whole + this.#event('response.output_item.done', done)
  }
}

const DELTA: Readonly<Record<Kind, string>> = {
  reasoning: 'response.reasoning_text.delta',
  message: 'response.output_text.delta',
  function_call: 'response.function_call_arguments.delta',
}

const DONE: Readonly<Record<Kind, string>> = {
  reasoning: 'response.reasoning_text.done',
  message: 'response.output_text.done',
  function_call: 'response.function_call_arguments.done',
}

const partOf = ({ kind, text }: Item): Body =>
  kind === 'reasoning'
    ? { text, type: 'reasoning_text' }
    : { annotations: [], text, type: 'output_text', logprobs: null }

const begunItem = (item: Item): Body => {
  const { id, kind, name, callId } = item
  if (kind === 'message') {
    return {
      id,
      content: [],
      role: 'assistant',
      status: 'in_progress',
      type: 'message',
      phase: null,
    }
  }
  if (kind === 'reasoning') {
    const type = 'reasoning'
    const content = null
    return { id, summary: [], type, content, encrypted_content: null, status: 'in_progress' }
  }
  const type = 'function_call'
  return { arguments: '', call_id: callId, name, type, id, status: 'in_progress' }
}

const finishedItem = (item: Item): Body => {
  const { kind, text } = item
  const begun = begunItem(item)
  if (kind === 'function_call') return { ...begun, arguments: text, status: 'completed' }
  return { ...begun, content: [partOf(item)], status: 'completed' }
}

type State = {
  readonly output: readonly Body[]
  readonly usage: Usage | null
  readonly status: string
  readonly cut: boolean
}

/** The whole object: what was asked said again, and what came of it. */
export const responseOf = (options: ResponsesOptions, head: Head, state: State): Body => {
  const { request, engine, id } = options
  const tools = Array.isArray(request.tools) ? request.tools : []
  const asked = (field: string, fallback: unknown = null): unknown => request[field] ?? fallback
  const common = {
    id,
    created_at: head.created,
    incomplete_details: state.cut ? { reason: 'max_output_tokens' } : null,
    instructions: asked('instructions'),
    metadata: asked('metadata'),
    model: head.model,
    object: 'response',
    output: state.output,
    parallel_tool_calls: asked('parallel_tool_calls', true),
    temperature: asked('temperature', 0.7),
    tool_choice: tools.length === 0 ? 'none' : asked('tool_choice', 'auto'),
    tools,
    top_p: asked('top_p', 0.95),
    background: asked('background', false),
    max_output_tokens: asked('max_output_tokens'),
    max_tool_calls: asked('max_tool_calls'),
    previous_response_id: asked('previous_response_id'),
    prompt: null,
    reasoning: asked('reasoning'),
    service_tier: asked('service_tier', 'auto'),
    status: state.status,
    text: asked('text'),
    top_logprobs: asked('top_logprobs'),
    truncation: asked('truncation', 'disabled'),
    usage: state.usage === null ? null : usageOf(options, state.usage),
    user: asked('user'),
  }
  if (engine === 'sglang') return { ...common, error: null, store: asked('store', true) }
  return {
    ...common,
    presence_penalty: asked('presence_penalty', 0),
    frequency_penalty: asked('frequency_penalty', 0),
    kv_transfer_params: null,
    ec_transfer_params: null,
    input_messages: null,
    output_messages: null,
  }
}

const usageOf = ({ engine, cacheCounts }: ResponsesOptions, usage: Usage): Body => {
  const { prompt, completion, reasoning } = usage
  const cached = engine === 'sglang' && !cacheCounts ? 0 : usage.cached
  const turns = { input_tokens_per_turn: [], cached_tokens_per_turn: [] }
  const outputs = { output_tokens_per_turn: [], tool_output_tokens_per_turn: [] }
  const vllm = engine === 'vllm'
  return {
    input_tokens: prompt,
    input_tokens_details: {
      cached_tokens: cached,
      ...(vllm ? { cache_write_tokens: 0, ...turns } : {}),
    },
    output_tokens: completion,
    output_tokens_details: {
      reasoning_tokens: reasoning,
      ...(vllm ? { tool_output_tokens: 0, ...outputs } : {}),
    },
    total_tokens: prompt + completion,
  }
}

/** SGLang nests the errors of this route only. */
export const responsesError = (
  { own, engine }: Pick<ResponsesOptions, 'own' | 'engine'>,
  refusal: Refusal,
): Reply => {
  const reply = own.error(refusal)
  const pydantic = refusal.kind === 'json' || refusal.kind === 'field'
  if (engine === 'vllm' || pydantic || !isRecord(reply.body)) return reply
  const { message, type, param, code } = reply.body
  return { status: reply.status, body: { error: { message, type, param, code } } }
}
