/**
 * Going on with an answer that a replica left unfinished, at another replica of the same model:
 * what was said so far becomes the beginning of the answer (`continue_final_message` of vLLM and
 * SGLang, or a longer prompt), as far as that says the same as if nothing had happened
 * (engines.md 5.3). What is not known to be harmless is refused.
 */
import { scanObject } from './body.ts'
import { splice } from './edits.ts'
import { parsed, record } from './usage.ts'

export type TextKind = 'chat' | 'completion'

export type Unfinished = {
  readonly kind: TextKind
  readonly text: string
  /** Tokens so far; null: not known exactly. */
  readonly tokens: number | null
}

export type Continued = {
  readonly body: Uint8Array
  /** White space at the end of the text, which templates may drop: the rest may repeat it. */
  readonly white: string
}

/** What an engine takes for a completion's `max_tokens` when there is none (OpenAI's API). */
const COMPLETION_TOKENS = 16

/** Parameters that mean the same for the rest of an answer as for all of it. */
const HARMLESS = new Set([
  'model',
  'messages',
  'prompt',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'seed',
  'stop',
  'stop_token_ids',
  'user',
  'metadata',
  'store',
  'priority',
  'repetition_penalty',
  'logit_bias',
  'skip_special_tokens',
  'spaces_between_special_tokens',
  'ignore_eos',
  'chat_template_kwargs',
  'reasoning_effort',
  'include_reasoning',
  'separate_reasoning',
  'cache_salt',
  'request_id',
  'service_tier',
  'safety_identifier',
  'prompt_cache_key',
  'mm_processor_kwargs',
  'parallel_tool_calls',
  'top_logprobs',
])

/** Those that do so with some values only: penalties count the tokens of the answer itself. */
const HARMLESS_VALUES: Readonly<Record<string, readonly unknown[]>> = {
  n: [1],
  best_of: [1],
  logprobs: [false],
  presence_penalty: [0],
  frequency_penalty: [0],
  min_tokens: [0],
  echo: [false],
  tool_choice: ['none', 'auto'],
}

/** The body that asks for the rest; null: the rest would not be what it would have been. */
export const continuedBody = (body: Uint8Array, unfinished: Unfinished): Continued | null => {
  const { kind, text } = unfinished
  const asked = record(parsed(body))
  if (asked === null || !Object.entries(asked).every(isHarmless)) return null
  if (straddles(text, asked.stop)) return null
  // A template drops what it takes for thoughts.
  if (kind === 'chat' && /<\/?think>/.test(text)) return null
  const scan = scanObject(body, ['messages', 'prompt', 'max_tokens', 'max_completion_tokens'])
  if (!scan.ok) return null
  const { messages, prompt, ...capped } = scan.fields
  const caps = cappedEdits(asked, capped, unfinished)
  if (caps === null) return null
  const said = kind === 'chat' ? text.trimEnd() : text
  const white = text.slice(said.length)
  const edits: Insert[] = [...caps.edits]
  const first = scan.start + 1
  if (kind === 'completion') {
    if (prompt === undefined || typeof asked.prompt !== 'string') return null
    edits.push({ at: prompt.end - 1, until: prompt.end - 1, text: quoted(said) })
    if (caps.missing !== null) {
      edits.push({ at: first, until: first, text: `"max_tokens":${caps.missing},` })
    }
  } else if (said !== '') {
    const list = asked.messages
    if (messages === undefined || !Array.isArray(list) || list.length === 0) return null
    const message = `,{"role":"assistant","content":"${quoted(said)}"}`
    edits.push({ at: messages.end - 1, until: messages.end - 1, text: message })
    const keys = '"continue_final_message":true,"add_generation_prompt":false,'
    edits.push({ at: first, until: first, text: keys })
  }
  return { body: edited(body, edits), white }
}

type Insert = { readonly at: number; readonly until: number; readonly text: string }

const edited = (body: Uint8Array, edits: readonly Insert[]): Uint8Array =>
  // From the end, so that the places of the earlier ones stay right.
  edits
    .toSorted((a, b) => b.at - a.at)
    .reduce(
      (bytes, { at, until, text }) => splice(bytes, { start: at, end: until }, Buffer.from(text)),
      body,
    )

const quoted = (text: string): string => JSON.stringify(text).slice(1, -1)

type Caps = { readonly edits: readonly Insert[]; readonly missing: number | null }
type Ranges = Readonly<Record<string, { readonly start: number; readonly end: number }>>

/** Each cap lowered by what was produced; null: that is not known, or nothing is left. */
const cappedEdits = (
  asked: Readonly<Record<string, unknown>>,
  ranges: Ranges,
  { kind, tokens }: Unfinished,
): Caps | null => {
  const edits: Insert[] = []
  for (const [key, { start, end }] of Object.entries(ranges)) {
    const cap = asked[key]
    if (cap === null) continue
    const left = typeof cap === 'number' && tokens !== null ? cap - tokens : 0
    if (left < 1) return null
    edits.push({ at: start, until: end, text: String(left) })
  }
  if (kind === 'chat' || edits.length > 0) return { edits, missing: null }
  const missing = tokens === null ? 0 : COMPLETION_TOKENS - tokens
  if (missing < 1 || asked.max_tokens === null) return null
  return { edits, missing }
}

const isHarmless = ([key, value]: readonly [string, unknown]): boolean => {
  // Ours to set; twice the same key would be read by each engine as it likes.
  if (key === 'continue_final_message' || key === 'add_generation_prompt') return false
  if (HARMLESS.has(key) || value === null) return true
  const allowed = HARMLESS_VALUES[key]
  if (allowed !== undefined) return allowed.includes(value)
  if (key === 'tools') return Array.isArray(value) && value.length === 0
  return key === 'response_format' && record(value)?.type === 'text'
}

/** Could a stop string begin in the text and end in the rest? The rest's engine would miss it. */
const straddles = (text: string, stop: unknown): boolean => {
  const stops = Array.isArray(stop) ? stop : [stop]
  return stops.some((one) => {
    if (typeof one !== 'string') return false
    for (let length = Math.min(one.length - 1, text.length); length > 0; length -= 1) {
      if (text.endsWith(one.slice(0, length))) return true
    }
    return false
  })
}
