/**
 * Anthropic's Messages API as each engine speaks it over its own chat: vLLM after the bytes of a
 * real 0.32.0 (test/fixtures/vllm-0.32.0/protocols-messages*), SGLang after
 * srt/entrypoints/anthropic/serving.py. One dialect serves one request.
 */
import { isRecord } from '../rehearsal.ts'
import type { Choice, Dialect, Ending, Head, Piece, Usage } from './dialect.ts'
import type { Body, Refusal, Reply } from './wire.ts'

export type MessagesOptions = {
  readonly engine: 'vllm' | 'sglang'
  /** The engine's own dialect, for the refusals that FastAPI makes before a handler runs. */
  readonly own: Dialect
  /** Cache counts are known: vLLM's --enable-prompt-tokens-details. */
  readonly cacheCounts: boolean
  readonly hex: () => string
}

type Block = 'thinking' | 'text' | 'tool_use'

const event = (type: string, rest: Body): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`

export class MessagesDialect implements Dialect {
  readonly firstOpens: boolean
  readonly done = ''
  readonly #options: MessagesOptions
  #block: Block | null = null
  #index = 0
  #signature = ''
  #ending: Ending | null = null
  #called = false
  #usage: Usage = { prompt: 0, completion: 0, cached: 0, created: 0, reasoning: 0 }

  constructor(options: MessagesOptions) {
    this.#options = options
    this.firstOpens = options.own.firstOpens
  }

  error(refusal: Refusal): Reply {
    return messagesError(this.#options, refusal)
  }

  /** vLLM's converter trips over the error chunk and stops; SGLang's says so and goes on. */
  streamError(refusal: Refusal): string {
    if (this.#options.engine === 'vllm') {
      return event('error', { error: { type: 'internal_error', message: refusal.message } })
    }
    const error = { type: 'api_error', message: 'Stream processing error' }
    return event('error', { error }) + this.#end()
  }

  chunkUsage(_head: Head, usage: Usage): unknown {
    this.#usage = usage
    return usage
  }

  lastUsage(head: Head, usage: Usage): unknown {
    return this.chunkUsage(head, usage)
  }

  chunk(_head: Head, choices: string): string {
    return choices
  }

  /** Without choices it is the chunk with the usage, the last one. */
  lastChunk(_head: Head, choices: string): string {
    return choices === '' ? this.#end() : choices
  }

  opening(head: Head): string {
    const { engine } = this.#options
    const first = { id: this.#id(head), type: 'message', role: 'assistant', content: [] }
    const reason = engine === 'vllm' ? { stop_reason: null, stop_sequence: null } : {}
    const usage =
      engine === 'vllm'
        ? { input_tokens: this.#usage.prompt, output_tokens: 0 }
        : { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 0 }
    return event('message_start', { message: { ...first, model: head.model, ...reason, usage } })
  }

  piece(_kind: Head['kind'], piece: Piece, ending: Ending | null): string {
    let text = ''
    // SGLang's converter does not look at reasoning_content.
    if (piece.reasoning !== '' && this.#options.engine === 'vllm') {
      text += this.#open('thinking', { type: 'thinking', thinking: '' })
      text += this.#delta({ type: 'thinking_delta', thinking: piece.reasoning })
    }
    if (piece.content !== '') {
      text += this.#open('text', { type: 'text', text: '' })
      text += this.#delta({ type: 'text_delta', text: piece.content })
    }
    const { tool } = piece
    if (tool !== null) {
      this.#called = true
      const { id, name } = tool
      text += this.#open('tool_use', { type: 'tool_use', id, name, input: {} })
      if (tool.arguments !== '') {
        text += this.#delta({ type: 'input_json_delta', partial_json: tool.arguments })
      }
    }
    if (ending !== null) this.#ending = ending
    return text
  }

  whole(head: Head, choices: readonly Choice[], usage: Usage): unknown {
    this.#usage = usage
    const [choice] = choices
    const called = choice !== undefined && choice.tool !== null
    return {
      id: this.#id(head),
      type: 'message',
      role: 'assistant',
      content: choice === undefined ? [] : contentOf(choice, this.#options),
      model: head.model,
      ...this.#reason(choice?.ending ?? null, called, false),
      usage: this.#usageOf(),
    }
  }

  #id({ id }: Head): string {
    return this.#options.engine === 'vllm' ? id : `msg_${id}`
  }

  #open(block: Block, content: Body): string {
    if (this.#block === block) return ''
    const closed = this.#close()
    this.#block = block
    this.#signature = this.#options.hex()
    return closed + this.#indexed('content_block_start', { content_block: content })
  }

  #close(): string {
    if (this.#block === null) return ''
    const signed =
      this.#block === 'thinking'
        ? this.#delta({ type: 'signature_delta', signature: this.#signature })
        : ''
    const text = signed + this.#indexed('content_block_stop', {})
    this.#block = null
    this.#index += 1
    return text
  }

  #delta(delta: Body): string {
    return this.#indexed('content_block_delta', { delta })
  }

  /** The engines' models put the index at different places. */
  #indexed(type: string, rest: Body): string {
    const index = { index: this.#index }
    return event(
      type,
      this.#options.engine === 'vllm' ? { ...rest, ...index } : { ...index, ...rest },
    )
  }

  #end(): string {
    const delta = this.#reason(this.#ending, this.#called, true)
    const last = event('message_delta', { delta, usage: this.#usageOf() })
    return this.#close() + last + event('message_stop', {})
  }

  #reason(ending: Ending | null, called: boolean, streamed: boolean): Body {
    const reason = reasonOf(ending, called)
    if (this.#options.engine === 'sglang') {
      return { stop_reason: reason === 'stop_sequence' ? 'end_turn' : reason }
    }
    const sequence = reason === 'stop_sequence' ? (ending?.stopped ?? null) : null
    return {
      stop_reason: reason,
      ...(streamed || sequence !== null ? { stop_sequence: sequence } : {}),
    }
  }

  /** vLLM counts what was read from the cache and written to it apart from the input. */
  #usageOf(): Body {
    const { prompt, completion, cached, created } = this.#usage
    const { engine, cacheCounts } = this.#options
    if (engine === 'sglang') {
      const read = cacheCounts ? cached : 0
      return { input_tokens: prompt, output_tokens: completion, cache_read_input_tokens: read }
    }
    if (!cacheCounts) return { input_tokens: prompt, output_tokens: completion }
    return {
      input_tokens: prompt - cached - created,
      output_tokens: completion,
      cache_creation_input_tokens: created,
      cache_read_input_tokens: cached,
    }
  }
}

const reasonOf = (ending: Ending | null, called: boolean): string | null => {
  if (ending?.reason === 'length') return 'max_tokens'
  if (ending !== null && ending.reason !== 'stop' && ending.reason !== 'tool_calls') return null
  if (called) return 'tool_use'
  return ending !== null && ending.stopped !== null ? 'stop_sequence' : 'end_turn'
}

const contentOf = (choice: Choice, { engine, hex }: MessagesOptions): readonly Body[] => {
  const blocks: Body[] = []
  const { reasoning, content, tool } = choice
  if (reasoning !== null && reasoning !== '') {
    const signature = engine === 'vllm' ? hex() : 'dummy-signature'
    blocks.push({ type: 'thinking', thinking: reasoning, signature })
  }
  if (content !== null && content !== '') blocks.push({ type: 'text', text: content })
  if (tool !== null) {
    blocks.push({ type: 'tool_use', id: tool.id, name: tool.name, input: input(tool.arguments) })
  }
  // Strict clients read content[0]: vLLM gives them an empty text, SGLang does not.
  if (blocks.length === 0 && engine === 'vllm') blocks.push({ type: 'text', text: '' })
  return blocks
}

/** Arguments cut short by max_tokens are no JSON; both engines then show none. */
const input = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) return {}
    throw error
  }
}

/** What pydantic refuses comes in the engine's own shape, all else in Anthropic's. */
export const messagesError = (options: MessagesOptions, refusal: Refusal): Reply => {
  const { engine, own } = options
  const { kind, status } = refusal
  const reply = own.error(refusal)
  if (kind === 'json' || kind === 'field' || kind === 'media') return reply
  const shown = inner(reply.body)
  const message = typeof shown.message === 'string' ? shown.message : refusal.message
  const type =
    engine === 'vllm' ? shown.type : status < 500 ? 'invalid_request_error' : 'internal_error'
  return { status, body: { type: 'error', error: { type, message } } }
}

const inner = (body: unknown): Body => {
  if (!isRecord(body)) return {}
  return isRecord(body.error) ? body.error : body
}
