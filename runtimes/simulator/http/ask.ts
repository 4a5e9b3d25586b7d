/**
 * A request body, read and checked: chat or legacy completion to what the engine has to compute.
 * Pure. Refusals carry what is wrong; their shape on the wire is the dialect's affair.
 */

import { isRecord } from '../rehearsal.ts'
import type { Settings } from '../settings.ts'
import type { AnswerPlan, Said } from '../text/answer.ts'
import { languageOf, topicOf } from '../text/corpus.ts'
import { exampleOf } from '../text/example.ts'
import type { ScriptLine } from '../text/script.ts'
import { pieces, tokenId } from '../text/tokens.ts'
import { checkFields } from './fields.ts'
import { chatPrompt, completionPrompts, type Prompt } from './prompt.ts'
import type { Body, Refusal } from './wire.ts'

export type ToolCall = { readonly name: string }

export type Ask = {
  readonly kind: 'chat' | 'completion'
  readonly model: string
  readonly stream: boolean
  readonly includeUsage: boolean
  readonly continuousUsage: boolean
  readonly prompts: readonly Prompt[]
  readonly n: number
  readonly maxTokens: number
  readonly priority: number
  readonly salt: number
  readonly logprobs: boolean
  readonly topLogprobs: number
  readonly echo: boolean
  /** Set when the answer is a call of this tool. */
  readonly tool: ToolCall | null
  readonly plan: Omit<AnswerPlan, 'seed' | 'language' | 'topic'>
  readonly seed: number
}

export type Asked =
  | { readonly ok: true; readonly ask: Ask }
  | { readonly ok: false; readonly refusal: Refusal }

export const readAsk = (
  kind: Ask['kind'],
  value: Body,
  settings: Settings,
  { poolTokens, script }: { readonly poolTokens: number; readonly script: readonly ScriptLine[] },
): Asked => {
  const wrong = checkFields(kind, value, settings)
  if (wrong !== null) return { ok: false, refusal: wrong }
  const keep = settings.contextTokens + 1
  const prompts = kind === 'chat' ? [chatPrompt(value, keep)] : completionPrompts(value, keep)
  const asked = maxTokensOf(kind, value)
  const longest = Math.max(...prompts.map((prompt) => prompt.tokens.count))
  const over = checkLength(longest, asked, settings, poolTokens)
  if (over !== null) return { ok: false, refusal: over }
  const room = Math.max(1, settings.contextTokens - longest)
  return {
    ok: true,
    ask: scripted(
      build(kind, value, settings, { prompts, maxTokens: Math.min(asked ?? room, room) }),
      script,
      settings,
    ),
  }
}

const maxTokensOf = (kind: Ask['kind'], body: Body): number | null => {
  const { max_completion_tokens: newer, max_tokens: older } = body
  const value = kind === 'chat' && typeof newer === 'number' ? newer : older
  if (typeof value === 'number') return value
  return kind === 'chat' ? null : 16
}

/** Prompt and answer must fit the context; each engine has its own words for it. */
const checkLength = (
  prompt: number,
  asked: number | null,
  settings: Settings,
  poolTokens: number,
): Refusal | null =>
  settings.engine === 'vllm'
    ? vllmLength(prompt, asked, settings.contextTokens)
    : sglangLength(prompt, asked, settings.contextTokens, poolTokens)

const tooLong = (message: string, param: string | null, value?: unknown): Refusal => ({
  kind: 'context',
  status: 400,
  message,
  param,
  value,
})

const vllmLength = (prompt: number, asked: number | null, context: number): Refusal | null => {
  const limit = `This model's maximum context length is ${context} tokens. However, `
  if (asked !== null && asked > context) {
    return tooLong(
      `max_tokens=${asked} cannot be greater than max_model_len=${context}. Please request fewer ` +
        'output tokens.',
      'max_tokens',
      asked,
    )
  }
  // It stops counting at the limit: the figure says nothing about the prompt.
  if (prompt >= context) {
    return tooLong(
      `${limit}your prompt contains at least ${context + 1} input tokens, which exceeds this ` +
        'limit even without any output tokens. Please reduce the length of the input prompt.',
      'input_tokens',
      context + 1,
    )
  }
  if (asked === null || prompt + asked <= context) return null
  return tooLong(
    `${limit}you requested ${asked} output tokens and your prompt contains at least ` +
      `${context - asked + 1} input tokens, for a total of at least ${context + 1} tokens. ` +
      'Please reduce the length of the input prompt or the number of requested output tokens.',
    'input_tokens',
    context - asked + 1,
  )
}

/** What SGLang says of an input that it cannot take, to generate or to pool; null: it can. */
export const sglangInputProblem = (
  prompt: number,
  context: number,
  poolTokens: number,
): string | null => {
  if (prompt >= context) {
    const limit = `the model's context length (${context} tokens)`
    return `The input (${prompt} tokens) is longer than ${limit}.`
  }
  if (prompt < poolTokens) return null
  return (
    `Input length (${prompt} tokens) exceeds the maximum allowed length (${poolTokens} tokens). ` +
    'Use a shorter input or enable --allow-auto-truncate.'
  )
}

const sglangLength = (
  prompt: number,
  asked: number | null,
  context: number,
  poolTokens: number,
): Refusal | null => {
  const over = sglangInputProblem(prompt, context, poolTokens)
  if (over !== null) return tooLong(over, null)
  const total = prompt + (asked ?? 0)
  if (total <= context) return null
  return tooLong(
    `Requested token count exceeds the model's maximum context length of ${context} tokens. ` +
      `You requested a total of ${total} tokens: ${prompt} tokens from the input messages and ` +
      `${asked} tokens for the completion. Please reduce the number of tokens in the input ` +
      'messages or the completion to fit within the limit.',
    null,
  )
}

const build = (
  kind: Ask['kind'],
  body: Body,
  settings: Settings,
  { prompts, maxTokens }: Pick<Ask, 'prompts' | 'maxTokens'>,
): Ask => {
  const options = isRecord(body.stream_options) ? body.stream_options : {}
  const forced = settings.usageAlways
  const text = prompts[0]?.text ?? ''
  const topic = topicOf(text, languageOf(text))
  const tool = kind === 'chat' ? toolOf(body, settings, text) : null
  const structured = isRecord(body.response_format)
    ? structuredText(body.response_format, topic)
    : null
  const script =
    tool === null
      ? structured === null
        ? null
        : [{ channel: 'content', text: structured } as const]
      : [{ channel: 'tool', text: JSON.stringify(exampleOf(tool.schema, topic)) } as const]
  return {
    kind,
    model: typeof body.model === 'string' ? body.model : (settings.servedNames[0] ?? ''),
    stream: body.stream === true,
    includeUsage: forced || options.include_usage === true,
    continuousUsage:
      (forced && settings.engine === 'vllm') ||
      (options.include_usage === true && options.continuous_usage_stats === true),
    prompts,
    n: typeof body.n === 'number' ? body.n : 1,
    maxTokens,
    priority: typeof body.priority === 'number' ? body.priority : 0,
    salt: typeof body.cache_salt === 'string' ? tokenId(body.cache_salt) : 0,
    logprobs: kind === 'chat' ? body.logprobs === true : typeof body.logprobs === 'number',
    topLogprobs: topLogprobs(kind, body),
    echo: kind === 'completion' && body.echo === true,
    tool: tool === null ? null : { name: tool.name },
    seed: typeof body.seed === 'number' ? body.seed : 0,
    plan: {
      thinks: kind === 'chat' && settings.reasoningParser !== null && thinks(body),
      script,
      stop: stops(body.stop),
      minTokens: typeof body.min_tokens === 'number' ? body.min_tokens : 0,
      ignoreEnd: body.ignore_eos === true,
    },
  }
}

/** The engines allow 20 (vLLM's --max-logprobs); more is shown as that many. */
const topLogprobs = (kind: Ask['kind'], body: Body): number => {
  const asked = kind === 'chat' ? body.top_logprobs : body.logprobs
  return typeof asked === 'number' ? Math.max(0, Math.min(20, asked)) : 0
}

/** The answer of the first line of the script that matches, if one does. */
const scripted = (ask: Ask, script: readonly ScriptLine[], settings: Settings): Ask => {
  const text = ask.prompts[0]?.text ?? ''
  const line = script.find(({ match }) => text.includes(match))
  if (line === undefined) return ask
  const content = line.echo ? text : line.content
  // Without a parser the thoughts stay in front of the answer, as the model wrote them.
  const parsed = ask.kind === 'chat' && settings.reasoningParser !== null
  const thinks = parsed && line.reasoning !== ''
  const inside = line.reasoning === '' || parsed ? '' : `${line.reasoning}\n</think>\n\n`
  const parts: Said[] = []
  if (thinks) parts.push({ channel: 'reasoning', text: line.reasoning })
  if (inside + content !== '') parts.push({ channel: 'content', text: inside + content })
  if (line.tool !== null) parts.push({ channel: 'tool', text: line.tool.arguments })
  const tokens = parts.reduce((sum, part) => sum + pieces(part.text).length, thinks ? 1 : 0)
  const cut = line.finish === 'length' ? Math.max(1, tokens) : ask.maxTokens
  return {
    ...ask,
    tool: line.tool === null ? null : { name: line.tool.name },
    maxTokens: Math.min(ask.maxTokens, cut),
    plan: { ...ask.plan, thinks, script: parts },
  }
}

const stops = (stop: unknown): readonly string[] => {
  if (typeof stop === 'string') return stop === '' ? [] : [stop]
  return Array.isArray(stop) ? stop.filter((text) => typeof text === 'string' && text !== '') : []
}

/** Off by `chat_template_kwargs.enable_thinking`, and in a continued answer. */
const thinks = (body: Body): boolean => {
  const template = isRecord(body.chat_template_kwargs) ? body.chat_template_kwargs : {}
  if (template.enable_thinking === false || template.thinking === false) return false
  return body.continue_final_message !== true
}

/** A model decides by itself whether to call; this one does when told so in plain words. */
const toolOf = (
  body: Body,
  settings: Settings,
  text: string,
): { name: string; schema: unknown } | null => {
  const tools = Array.isArray(body.tools) ? body.tools.filter(isRecord) : []
  const functions = tools.flatMap(({ function: f }) => (isRecord(f) ? [f] : []))
  const choice = body.tool_choice
  const named = isRecord(choice) && isRecord(choice.function) ? choice.function.name : null
  const wanted = functions.find((f) => (named === null ? true : f.name === named))
  if (wanted === undefined || typeof wanted.name !== 'string' || choice === 'none') return null
  const forced = named !== null || choice === 'required'
  const said = settings.toolParser !== null && /call the tool|调用工具/i.test(text.slice(-4000))
  return forced || said ? { name: wanted.name, schema: wanted.parameters ?? {} } : null
}

const structuredText = (format: Body, topic: string): string | null => {
  if (format.type === 'json_object') return JSON.stringify({ answer: topic })
  if (format.type !== 'json_schema' || !isRecord(format.json_schema)) return null
  return JSON.stringify(exampleOf(format.json_schema.schema, topic))
}

/** A prompt's own words and the seed decide the answer. */
export const answerPlan = (ask: Ask, prompt: Prompt, index: number): AnswerPlan => {
  const language = languageOf(prompt.text)
  return {
    ...ask.plan,
    seed: (tokenId(prompt.text.slice(-4000)) ^ Math.imul(ask.seed + 1, 0x9e3779b1)) + index * 7919,
    language,
    topic: topicOf(prompt.text, language),
  }
}

export const promptTokens = (ask: Ask): number =>
  ask.prompts.reduce((sum, prompt) => sum + prompt.tokens.count, 0)
