/** What vLLM's pooling routes share: a plan from a body, and the pieces of their answers. */
import type { Pooling } from '../settings.ts'
import { refused, type Texts } from './pooling-inputs.ts'
import type { EngineResponse } from './response.ts'
import type { Service } from './service.ts'
import { type Body, type Refusal, sendJson } from './wire.ts'

/** What a route makes of its body; `made` runs once all texts are computed. */
export type Plan = {
  readonly texts: readonly Int32Array[]
  readonly made: (head: Head) => void
}
export type Planned =
  | { readonly ok: true; readonly plan: Plan }
  | { readonly ok: false; readonly refusal: Refusal }
export type Head = {
  readonly id: string
  readonly created: number
  readonly model: string
  readonly response: EngineResponse
}
export type Route = {
  readonly prefix: string
  readonly plan: (body: Body, service: Service, pooling: Pooling) => Planned
}

export const usageOf = (texts: readonly Int32Array[]) => {
  const prompt = texts.reduce((sum, { length }) => sum + length, 0)
  return {
    prompt_tokens: prompt,
    total_tokens: prompt,
    completion_tokens: 0,
    prompt_tokens_details: null,
    completion_tokens_details: null,
  }
}

export const shortUsage = (texts: readonly Int32Array[]) => {
  const { prompt_tokens, total_tokens } = usageOf(texts)
  return { prompt_tokens, total_tokens }
}

export const fail = (refusal: Refusal): Planned => ({ ok: false, refusal })

export const bare = (message: string): Refusal => ({
  kind: 'value',
  status: 400,
  message,
  param: null,
})

export const notTexts = (value: unknown, field = 'input'): Refusal => ({
  kind: 'field',
  status: 400,
  message: 'Input should be a valid list',
  param: `body.${field}`,
  value,
  detail: 'list_type',
})

/** `_validate_request` of base/serving.py; null: nothing is wrong. */
export const cutProblem = (body: Body, context: number): Texts | null => {
  const { truncate_prompt_tokens: most } = body
  if (typeof most !== 'number' || most <= context) return null
  return refused(
    'truncate_prompt_tokens value is greater than max_model_len. Please request a smaller ' +
      'truncation size.',
  )
}

/**
 * Texts as they are computed: cut where the request says so, each within the context, none empty.
 * A pooling model's tokenizer keeps the first tokens (tokenizers/registry.py).
 */
export const cut = (texts: readonly Int32Array[], body: Body, context: number): Texts => {
  const { truncate_prompt_tokens: asked } = body
  const most = typeof asked !== 'number' ? null : asked < 0 ? context : asked
  const fit = within(most === null ? texts : texts.map((text) => text.slice(0, most)), context)
  return fit.ok && fit.texts.some(({ length }) => length === 0)
    ? refused('The decoder prompt cannot be empty')
    : fit
}

const within = (texts: readonly Int32Array[], context: number): Texts => {
  if (texts.every(({ length }) => length <= context)) return { ok: true, texts }
  return {
    ok: false,
    refusal: {
      kind: 'context',
      status: 400,
      message:
        `This model's maximum context length is ${context} tokens. However, your prompt contains ` +
        `at least ${context + 1} input tokens, which exceeds this limit even without any output ` +
        'tokens. Please reduce the length of the input prompt.',
      param: 'input_tokens',
      value: context + 1,
    },
  }
}

export const list = (head: Head, data: readonly unknown[], texts: readonly Int32Array[]): void => {
  const { id, created, model, response } = head
  const body = { id, object: 'list', created, model, data, usage: usageOf(texts) }
  sendJson(response, { status: 200, body })
}
