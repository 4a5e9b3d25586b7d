/**
 * SGLang's own POST /generate (srt/managers/io_struct.py: GenerateReqInput): the text so far in
 * every event, and what there is to know in `meta_info`.
 */
import { isRecord } from '../rehearsal.ts'
import type { Choice, Dialect, Ending, Head, Piece, Usage } from './dialect.ts'
import { DONE } from './dialect.ts'
import type { Body, Refusal, Reply } from './wire.ts'

/** io_struct's body as the completion it asks for; 128 is max_new_tokens' default. */
export const nativeToCompletion = (body: Body): Body => {
  const sampling = isRecord(body.sampling_params) ? body.sampling_params : {}
  const { max_new_tokens: max, min_new_tokens: min, temperature, top_p, top_k } = sampling
  const { stop, ignore_eos, n } = sampling
  return {
    prompt: body.text ?? body.input_ids,
    max_tokens: max ?? 128,
    min_tokens: min,
    temperature,
    top_p,
    top_k,
    stop,
    ignore_eos,
    n,
    stream: body.stream,
    priority: body.priority,
  }
}

export class NativeDialect implements Dialect {
  readonly firstOpens = false
  readonly done = DONE
  readonly #own: Dialect
  readonly #startedMs: number
  readonly #nowMs: () => number
  #piece: { index: number; text: string; ending: Ending | null } = {
    index: 0,
    text: '',
    ending: null,
  }
  readonly #said = new Map<number, string>()
  #usage: Usage = { prompt: 0, completion: 0, cached: 0, created: 0, reasoning: 0 }

  constructor(own: Dialect, nowMs: () => number) {
    this.#own = own
    this.#nowMs = nowMs
    this.#startedMs = nowMs()
  }

  error(refusal: Refusal): Reply {
    const { status } = this.#own.error(refusal)
    return { status, body: { error: { message: refusal.message } } }
  }

  streamError(refusal: Refusal): string {
    return `data: ${JSON.stringify(this.error(refusal).body)}\n\n${DONE}`
  }

  chunkUsage(_head: Head, usage: Usage): unknown {
    this.#usage = usage
    return usage
  }

  lastUsage(head: Head, usage: Usage): unknown {
    return this.chunkUsage(head, usage)
  }

  opening(): string {
    return ''
  }

  /** The piece was kept when it came, just before; the usage after it. */
  chunk(head: Head): string {
    const { index, text, ending } = this.#piece
    const event = { text, ...this.#rest(head, ending), index }
    return `data: ${JSON.stringify(event)}\n\n`
  }

  /** Never one of its own: usage is in every event. */
  lastChunk(head: Head): string {
    return this.chunk(head)
  }

  piece(_kind: Head['kind'], { index, content }: Piece, ending: Ending | null): string {
    const text = (this.#said.get(index) ?? '') + content
    this.#said.set(index, text)
    this.#piece = { index, text, ending }
    return text
  }

  whole(head: Head, choices: readonly Choice[], usage: Usage): unknown {
    this.#usage = usage
    const all = choices.map(({ content, ending }) => ({
      text: content ?? '',
      ...this.#rest(head, ending),
    }))
    return all.length === 1 ? all[0] : all
  }

  #rest(head: Head, ending: Ending | null): Body {
    const { prompt, completion, cached } = this.#usage
    const stopped = ending?.stopped ?? null
    const reason =
      ending === null
        ? null
        : ending.reason === 'length'
          ? { type: 'length', length: completion }
          : { type: ending.reason, ...(stopped === null ? {} : { matched: stopped }) }
    return {
      meta_info: {
        id: head.id,
        finish_reason: reason,
        prompt_tokens: prompt,
        weight_version: 'default',
        completion_tokens: completion,
        cached_tokens: cached,
        e2e_latency: (this.#nowMs() - this.#startedMs) / 1000,
      },
    }
  }
}
