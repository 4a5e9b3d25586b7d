/**
 * The events of the replica that goes on, made to follow those of the one that died: the same id,
 * time and model, no second beginning, and the usage of both as that of one answer.
 */
import { fieldsOf, type SseEvent, type SseStep } from './sse.ts'
import type { Identity } from './text-so-far.ts'
import { hasToken, parsed, record, type Usage } from './usage.ts'

export type Before = {
  readonly identity: Identity
  /** White space that the rest may repeat, and then does not show again. */
  readonly white: string
  /** Tokens that the client has. */
  readonly tokens: number
  /** What the first part said of its usage; null: nothing. */
  readonly usage: Usage | null
}

type Body = Readonly<Record<string, unknown>>

export class StreamSplice {
  readonly #before: Before
  #white: string
  #begun = false
  /** Tokens that repeated what the client had. */
  #repeated = 0

  constructor(before: Before) {
    this.#before = before
    this.#white = before.white
  }

  /** Null: the rest does not go on where the answer stood, because it thinks first. */
  rewritten({ bytes, events }: SseStep): SseStep | null {
    const parts: Buffer[] = []
    for (const event of events) {
      const part = this.#event(bytes, event)
      if (part === null) return null
      parts.push(part)
    }
    let end = 0
    const places = parts
      .map(({ length }) => {
        const start = end
        end += length
        return { start, end }
      })
      .filter(({ start, end: after }) => after > start)
    return { bytes: Buffer.concat(parts), events: places }
  }

  #event(bytes: Uint8Array, event: SseEvent): Buffer | null {
    const { name, data } = fieldsOf(bytes, event)
    const chunk = data === null ? null : record(parsed(data))
    if (chunk === null || name !== '' || !Array.isArray(chunk.choices)) {
      return Buffer.from(bytes.subarray(event.start, event.end))
    }
    if (this.#before.tokens > 0 && thinks(chunk.choices)) return null
    const choices = chunk.choices.map((choice) => this.#choice(choice))
    const next: Body = {
      ...chunk,
      ...this.#before.identity,
      choices,
      ...(record(chunk.usage) === null ? {} : { usage: this.#usage(record(chunk.usage) ?? {}) }),
    }
    if (!this.#begun && !tells(next)) {
      this.#repeated = numberOf(record(chunk.usage)?.completion_tokens)
      return Buffer.alloc(0)
    }
    this.#begun = true
    return Buffer.from(`data: ${JSON.stringify(next)}\n\n`)
  }

  #choice(value: unknown): unknown {
    const choice = record(value)
    if (choice === null) return value
    const delta = record(choice.delta)
    if (delta === null) return choice
    const { role: _, ...rest } = delta
    const { content } = rest
    return {
      ...choice,
      delta: typeof content === 'string' ? { ...rest, content: this.#unrepeated(content) } : rest,
    }
  }

  #unrepeated(content: string): string {
    let same = 0
    while (same < this.#white.length && content[same] === this.#white[same]) same += 1
    if (same < content.length) this.#white = ''
    else this.#white = this.#white.slice(same)
    return content.slice(same)
  }

  #usage(usage: Body): Body {
    const { tokens, usage: first } = this.#before
    const completion = Math.max(0, numberOf(usage.completion_tokens) - this.#repeated) + tokens
    const prompt = first?.promptTokens ?? Math.max(0, numberOf(usage.prompt_tokens) - tokens)
    const details = record(usage.prompt_tokens_details)
    const cached = Math.min(prompt, numberOf(details?.cached_tokens))
    return {
      ...usage,
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      ...(details === null ? {} : { prompt_tokens_details: { ...details, cached_tokens: cached } }),
    }
  }
}

/** Text, an end, or the usage of the whole answer: not just the opening of a choice. */
const tells = (chunk: Body): boolean => {
  const choices = Array.isArray(chunk.choices) ? chunk.choices : []
  const ended = choices.some((choice) => typeof record(choice)?.finish_reason === 'string')
  return hasToken(chunk) || ended || choices.length === 0
}

const thinks = (choices: readonly unknown[]): boolean =>
  choices.some((choice) => {
    const delta = record(record(choice)?.delta)
    return [delta?.reasoning, delta?.reasoning_content].some(
      (thought) => typeof thought === 'string' && thought !== '',
    )
  })

const numberOf = (value: unknown): number => (typeof value === 'number' ? value : 0)
