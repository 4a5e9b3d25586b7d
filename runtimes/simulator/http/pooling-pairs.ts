/** vLLM's /score and /rerank: a text against others (entrypoints/pooling/scoring). */
import type { Pooling } from '../settings.ts'
import { cosine, relevance, vectorOf } from '../text/vector.ts'
import { joined, strings, tokensOf, typeProblem, unionProblem } from './pooling-inputs.ts'
import {
  bare,
  cut,
  cutProblem,
  fail,
  type Head,
  list,
  notTexts,
  type Route,
  shortUsage,
} from './pooling-plan.ts'
import { type Body, type Refusal, sendJson } from './wire.ts'

/** A query or a text against others; each pair's nearness. */
type Pairs = {
  readonly texts: readonly Int32Array[]
  readonly scores: () => readonly number[]
}

/** A model that embeds reads every text once, a cross-encoder every pair. */
const pairsOf = (
  left: readonly Int32Array[],
  right: readonly Int32Array[],
  { task }: Pooling,
): Pairs => {
  const first = (index: number) => left[left.length === 1 ? 0 : index] ?? new Int32Array(0)
  if (task === 'classify') {
    return {
      texts: right.map((text, index) => joined(first(index), text)),
      scores: () => right.map((text, index) => relevance(first(index), text)),
    }
  }
  return {
    texts: [...left, ...right],
    scores: () =>
      right.map((text, index) => cosine(vectorOf(first(index), SIZE), vectorOf(text, SIZE))),
  }
}

/** Enough coordinates for nearness; the vectors themselves are not shown. */
const SIZE = 1024

const readPairs = (
  left: readonly string[],
  right: readonly string[],
  body: Body,
  { context, pooling }: { readonly context: number; readonly pooling: Pooling },
): Pairs | Refusal => {
  const over = cutProblem(body, context)
  if (over !== null && !over.ok) return over.refusal
  if (left.length === 0 || right.length === 0) {
    return bare('At least one text_pair element must be given')
  }
  if (left.length > 1 && left.length !== right.length) {
    return bare('Input lengths must be either 1:1, 1:N or N:N')
  }
  const tokens = (texts: readonly string[]) => texts.map((text) => tokensOf(text, context + 1))
  const pairs = pairsOf(tokens(left), tokens(right), pooling)
  const read = cut(pairs.texts, body, context)
  return read.ok ? { ...pairs, texts: read.texts } : read.refusal
}

const SCORE_FIELDS = [
  ['queries', 'documents'],
  ['queries', 'items'],
  ['data_1', 'data_2'],
  ['text_1', 'text_2'],
] as const

export const score: Route['plan'] = (body, { settings: { contextTokens: context } }, pooling) => {
  const wrong = typeProblem(body, ['model', 'user', 'truncate_prompt_tokens', 'priority'])
  const problem = unionProblem(body, SCORE_FIELDS, wrong)
  if (problem !== null) return fail(problem)
  const names = SCORE_FIELDS.find(([a, b]) => body[a] != null && body[b] != null)
  const [a, b] = names ?? ['text_1', 'text_2']
  const [left, right] = [strings(body[a]), strings(body[b])]
  if (left === null || right === null) {
    return fail(left === null ? notTexts(body[a], a) : notTexts(body[b], b))
  }
  const pairs = readPairs(left, right, body, { context, pooling })
  if ('kind' in pairs) return fail(pairs)
  const { texts, scores } = pairs
  const made = (head: Head) =>
    list(
      head,
      scores().map((value, index) => ({ index, object: 'score', score: value })),
      texts,
    )
  return { ok: true, plan: { texts, made } }
}

export const rerank: Route['plan'] = (body, { settings: { contextTokens: context } }, pooling) => {
  const common = ['model', 'truncate_prompt_tokens', 'priority'] as const
  const wrong = typeProblem(body, [...common, 'query', 'documents', 'top_n'])
  const problem = unionProblem(body, [['query', 'documents']], wrong)
  if (problem !== null) return fail(problem)
  const [query, documents] = [strings(body.query), strings(body.documents)]
  if (query === null || documents === null) {
    return fail(notTexts(body.documents, 'documents'))
  }
  const pairs = readPairs(query, documents, body, { context, pooling })
  if ('kind' in pairs) return fail(pairs)
  const { texts, scores } = pairs
  const most = typeof body.top_n === 'number' && body.top_n > 0 ? body.top_n : documents.length
  const made = ({ id, model, response }: Head) => {
    const results = scores()
      .map((relevance_score, index) => {
        const document = { text: documents[index] ?? '', multi_modal: null }
        return { index, document, relevance_score }
      })
      .sort((one, other) => other.relevance_score - one.relevance_score)
      .slice(0, most)
    sendJson(response, { status: 200, body: { id, model, usage: shortUsage(texts), results } })
  }
  return { ok: true, plan: { texts, made } }
}
