/**
 * An engine that always tells the same text, in vLLM's events, and goes on with it where a request
 * says (`continue_final_message`, or a prompt that ends in a part of it): what a client reads in
 * the end can be compared byte for byte. Its answers can be cut anywhere.
 */
import type { Script, Seen, Step } from './engine.ts'
import { SSE } from './engine.ts'

export type Death = 'reset' | 'end' | 'hang' | 'error' | 'abort'

export type Telling = {
  /** The answer, one token each. */
  readonly words: readonly string[]
  readonly id: string
  /** After so many bytes of the answer; absent: it lives. */
  readonly cut?: { readonly at: number; readonly how: Death }
  /** Sizes of the pieces, taken in turn; absent: an event each. */
  readonly pieces?: readonly number[]
}

export const PROMPT_TOKENS = 11

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const bodyOf = (seen: Seen): Readonly<Record<string, unknown>> => {
  const body: unknown = JSON.parse(seen.body.toString())
  return isRecord(body) ? body : {}
}

/** What the request says was told already. */
export const toldBefore = (seen: Seen, words: readonly string[]): string => {
  const body = bodyOf(seen)
  if (typeof body.prompt === 'string') {
    const whole = words.join('')
    for (let length = whole.length; length > 0; length -= 1) {
      if (body.prompt.endsWith(whole.slice(0, length))) return whole.slice(0, length)
    }
    return ''
  }
  if (body.continue_final_message !== true) return ''
  if (body.add_generation_prompt !== false) throw new Error('vLLM refuses both')
  const last: unknown = Array.isArray(body.messages) ? body.messages.at(-1) : null
  return isRecord(last) && typeof last.content === 'string' ? last.content : ''
}

/** The words that are left, the first of them perhaps in part. */
const rest = (words: readonly string[], told: string): readonly string[] => {
  let skip = told.length
  return words.flatMap((word) => {
    const left = word.slice(Math.min(skip, word.length))
    skip = Math.max(0, skip - word.length)
    return left === '' ? [] : [left]
  })
}

export const eventsOf = (seen: Seen, { words, id }: Telling): readonly string[] => {
  const body = bodyOf(seen)
  const chat = seen.path.endsWith('/chat/completions')
  const options = isRecord(body.stream_options) ? body.stream_options : {}
  const left = rest(words, toldBefore(seen, words))
  const told = words.length - left.length
  const prompt = PROMPT_TOKENS + told
  const usage = (completion: number) => ({
    prompt_tokens: prompt,
    total_tokens: prompt + completion,
    completion_tokens: completion,
  })
  const chunk = (choices: readonly unknown[], completion: number, last = false): string =>
    `data: ${JSON.stringify({
      id,
      object: chat ? 'chat.completion.chunk' : 'text_completion',
      created: id.length,
      model: body.model,
      choices,
      ...(last || options.continuous_usage_stats === true ? { usage: usage(completion) } : {}),
    })}\n\n`
  const choice = (text: string, finish: string | null) => ({
    index: 0,
    ...(chat ? { delta: { content: text } } : { text }),
    logprobs: null,
    finish_reason: finish,
  })
  const opening = { index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }
  const cap = Number(body.max_tokens ?? Number.POSITIVE_INFINITY)
  const shown = left.slice(0, cap)
  const finish = shown.length < left.length ? 'length' : 'stop'
  return [
    ...(chat ? [chunk([opening], 0)] : []),
    ...shown.map((word, at) => chunk([choice(word, null)], at + 1)),
    chunk([choice('', finish)], shown.length),
    ...(options.include_usage === true ? [chunk([], shown.length, true)] : []),
    'data: [DONE]\n\n',
  ]
}

export const scriptOf = (seen: Seen, telling: Telling): Script => {
  const events = eventsOf(seen, telling)
  const whole = Buffer.from(events.join(''))
  const { cut } = telling
  const bytes = cut === undefined ? whole : whole.subarray(0, endAt(whole, cut))
  const sizes = telling.pieces ?? events.map((event) => Buffer.byteLength(event))
  const steps: Step[] = []
  let at = 0
  for (let turn = 0; at < bytes.length; turn += 1) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1)
    steps.push({ send: bytes.subarray(at, at + size) })
    at += size
  }
  return { headers: SSE, headFirst: true, steps: [...steps, ...endOf(cut?.how, telling.id)] }
}

/** Who still speaks has finished its event; who dies may not have. */
const endAt = (whole: Buffer, { at, how }: NonNullable<Telling['cut']>): number => {
  if (how !== 'error' && how !== 'abort') return at
  const last = whole.subarray(0, at).lastIndexOf('\n\n')
  return last === -1 ? 0 : last + 2
}

const endOf = (how: Death | undefined, id: string): readonly Step[] => {
  switch (how) {
    case 'reset':
      return [{ waitMs: 5 }, { reset: true }]
    case 'hang':
      return [{ hang: true }]
    case 'error':
      return [{ send: 'data: {"error":{"message":"EngineCore died","code":500}}\n\n' }]
    case 'abort':
      return [
        {
          send:
            `data: {"id":"${id}","choices":[{"index":0,"delta":{"content":""},` +
            '"finish_reason":"abort"}]}\n\ndata: [DONE]\n\n',
        },
      ]
    default:
      return []
  }
}

/** What a reader of the stream makes of it. */
export type Heard = {
  readonly text: string
  readonly ids: ReadonlySet<unknown>
  readonly roles: number
  readonly errors: readonly string[]
  readonly finish: string | null
  readonly done: boolean
  readonly usages: readonly Readonly<Record<string, unknown>>[]
  readonly continued: readonly number[]
}

export const heard = (stream: string): Heard => {
  const [ids, errors, usages] = [
    new Set<unknown>(),
    [] as string[],
    [] as Heard['usages'][number][],
  ]
  const continued: number[] = []
  let [text, roles, done] = ['', 0, false]
  let finish: string | null = null
  // Readers take what stands before the end for a whole event, and so does the gateway.
  for (const event of stream.replace(/(?<=(?:^|\n)data: \[DONE\])\n$/, '').split(/\n\n+/)) {
    const mark = /^: penstock-continued (\d+)$/.exec(event)
    if (mark !== null) continued.push(Number(mark[1]))
    if (!event.startsWith('data: ')) continue
    if (event === 'data: [DONE]') {
      done = true
      continue
    }
    const chunk: unknown = JSON.parse(event.slice('data: '.length))
    if (!isRecord(chunk)) throw new Error(`not an object: ${event}`)
    if (isRecord(chunk.error)) {
      errors.push(String(chunk.error.code))
      continue
    }
    ids.add(chunk.id)
    if (isRecord(chunk.usage)) usages.push(chunk.usage)
    for (const choice of Array.isArray(chunk.choices) ? chunk.choices : []) {
      const delta = isRecord(choice.delta) ? choice.delta : choice
      if (delta.role !== undefined && delta.role !== null) roles += 1
      text += String(delta.content ?? delta.text ?? '')
      if (typeof choice.finish_reason === 'string') finish = choice.finish_reason
    }
  }
  return { text, ids, roles, errors, finish, done, usages, continued }
}
