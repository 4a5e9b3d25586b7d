/**
 * SGLang's routes of a model served with `--is-embedding`, and what they say when it is not: read
 * in srt/entrypoints (http_server.py, openai/serving_embedding.py and its kin) of 0.5.23.
 */
import { atLeast } from '../flags/versions.ts'
import type { Pooling } from '../settings.ts'
import {
  bytesOf,
  highest,
  logitsOf,
  relevance,
  shares,
  shortened,
  softmax,
  vectorOf,
} from '../text/vector.ts'
import { sglangInputProblem } from './ask.ts'
import { type Handler, jsonBody } from './generate.ts'
import { pool } from './pool.ts'
import {
  joined,
  missing,
  readInput,
  refused,
  strings,
  tokensOf,
  typeProblem,
} from './pooling-inputs.ts'
import type { Service } from './service.ts'
import { type Body, type Refusal, sendJson } from './wire.ts'

type Plan = { readonly texts: readonly Int32Array[]; readonly made: () => unknown }
type Planned = { readonly ok: true; readonly plan: Plan } | Refused
type Refused = { readonly ok: false; readonly refusal: Refusal }
type Planner = (body: Body, service: Service, pooling: Pooling | undefined) => Planned

const NOT_EMBEDDING =
  'This model does not appear to be an embedding model by default. Please add ' +
  '`--is-embedding` when launching the server or try another model.'

const refuse = (message: string): Refused => ({
  ok: false,
  refusal: { kind: 'value', status: 400, message, param: null },
})

const usageOf = (texts: readonly Int32Array[]) => {
  const prompt = texts.reduce((sum, { length }) => sum + length, 0)
  return {
    prompt_tokens: prompt,
    total_tokens: prompt,
    completion_tokens: 0,
    prompt_tokens_details: null,
    reasoning_tokens: 0,
  }
}

/** In the words of `_validate_request`; null: nothing is wrong. */
const emptiness = (input: unknown): string | null => {
  if (input === '' || (Array.isArray(input) && input.length === 0)) return 'Input cannot be empty'
  if (typeof input === 'string') {
    return input.trim() === '' ? 'Input cannot be empty or whitespace only' : null
  }
  if (!Array.isArray(input)) return null
  const [first] = input
  for (const [index, item] of input.entries()) {
    if (typeof first === 'string') {
      if (typeof item !== 'string') return 'All items in input list must be strings'
      if (item.trim() === '') return `Input at index ${index} cannot be empty or whitespace only`
    } else if (typeof first === 'number') {
      if (!Number.isInteger(item)) return 'All items in input list must be integers'
      if (item < 0) return `Token ID at index ${index} must be non-negative`
    }
  }
  return null
}

const tooLong = (texts: readonly Int32Array[], service: Service): Refused | null => {
  const { settings, memory } = service
  for (const { length } of texts) {
    const said = sglangInputProblem(length, settings.contextTokens, memory.poolTokens)
    if (said !== null) return refuse(said)
  }
  return null
}

const texts = (value: unknown, field: string, body: Body, service: Service): Refused | Plan => {
  if (value === undefined || value === null) return { ok: false, refusal: missing(field, body) }
  const said = emptiness(value)
  if (said !== null) return refuse(said)
  const read = readInput(value, Number.POSITIVE_INFINITY)
  if (read === null) {
    const wrong = refused('Input should be a valid string', `body.${field}`, value)
    if (!wrong.ok) return { ok: false, refusal: { ...wrong.refusal, kind: 'field' } }
    return refuse('Input should be a valid string')
  }
  return tooLong(read, service) ?? { texts: read, made: () => null }
}

const sizeProblem = (body: Body, service: Service, pooling: Pooling): Refused | null => {
  const { dimensions } = body
  if (typeof dimensions !== 'number') return null
  const { settings, rehearsal } = service
  const { hiddenSize } = rehearsal.architecture
  const known = pooling.dimensions
  const name = `Model '${settings.model}'`
  if (known === null) {
    return refuse(
      `${name} does not support matryoshka representation, changing output dimensions will lead ` +
        'to poor results.',
    )
  }
  if (dimensions < 1) return refuse('Requested dimensions must be greater than 0')
  if (known.length > 0 && !known.includes(dimensions)) {
    return refuse(
      `${name} only supports [${known.join(', ')}] matryoshka dimensions, using other output ` +
        'dimensions will lead to poor results.',
    )
  }
  return dimensions <= hiddenSize
    ? null
    : refuse(`Provided dimensions are greater than max embedding dimension: ${hiddenSize}`)
}

/** A head of classes gives its logits where a plain model gives its vector. */
const outputOf = (service: Service, pooling: Pooling, body: Body) => (text: Int32Array) => {
  if (pooling.task === 'classify') return Float32Array.from(logitsOf(text, pooling.classes))
  const whole = vectorOf(text, service.rehearsal.architecture.hiddenSize)
  return typeof body.dimensions === 'number' ? shortened(whole, body.dimensions) : whole
}

const embeddings: Planner = (body, service, pooling) => {
  const odd = typeProblem(body, ['model', 'dimensions'])
  if (odd !== null) return { ok: false, refusal: odd }
  const read = texts(body.input, 'input', body, service)
  if ('ok' in read) return read
  if (pooling === undefined) return refuse(NOT_EMBEDDING)
  const wrong = sizeProblem(body, service, pooling)
  if (wrong !== null) return wrong
  // Before 0.5.20 the field was read and forgotten; since, all but `float` is base64.
  const { encoding_format: format = 'float' } = body
  const packed = format !== 'float' && atLeast(service.settings.version, '0.5.20')
  const made = () => ({
    data: read.texts.map(outputOf(service, pooling, body)).map((vector, index) => ({
      embedding: packed ? bytesOf(vector).toString('base64') : [...vector],
      index,
      object: 'embedding',
    })),
    model: service.settings.model,
    object: 'list',
    usage: usageOf(read.texts),
  })
  return { ok: true, plan: { texts: read.texts, made } }
}

const classify: Planner = (body, service, pooling) => {
  const read = texts(body.input, 'input', body, service)
  if ('ok' in read) return read
  if (pooling === undefined) return refuse(NOT_EMBEDDING)
  const made = () => ({
    id: `classify-${service.hex()}`,
    object: 'list',
    created: service.clock.epochSeconds(),
    model: service.settings.servedNames[0],
    data: read.texts.map((text, index) => {
      // A vector without labels: the handler falls back to one class of its own.
      if (pooling.task === 'embed') return { index, label: 'Default', probs: [1], num_classes: 1 }
      const probs = softmax(logitsOf(text, pooling.classes))
      const best = highest(probs)
      return { index, label: `LABEL_${best}`, probs, num_classes: probs.length }
    }),
    usage: usageOf(read.texts),
  })
  return { ok: true, plan: { texts: read.texts, made } }
}

const metaInfo = (tokens: number, id: string) => ({
  id,
  finish_reason: { type: 'length', length: 0 },
  prompt_tokens: tokens,
  weight_version: 'default',
})

const blank = (text: string): boolean => text.trim() === ''

const rerank: Planner = (body, service, pooling) => {
  const { query } = body
  const documents = strings(body.documents)
  for (const field of ['query', 'documents']) {
    if (body[field] === undefined) return { ok: false, refusal: missing(field, body) }
  }
  if (typeof query !== 'string' || query === '') return refuse('Query cannot be empty')
  if (blank(query)) return refuse('Query cannot be empty or whitespace only')
  if (documents === null || documents.length === 0) return refuse('Documents cannot be empty')
  if (documents.includes('')) return refuse('Each document must be a non-empty string')
  if (documents.some(blank)) return refuse('Each document cannot be empty or whitespace only')
  if (pooling === undefined) return refuse(NOT_EMBEDDING)
  const whole = Number.POSITIVE_INFINITY
  const asked = tokensOf(query, whole)
  const read = documents.map((document) => tokensOf(document, whole))
  const pairs = read.map((document) => joined(asked, document))
  const limited = atLeast(service.settings.version, '0.5.10')
  const most = limited && typeof body.top_n === 'number' ? body.top_n : documents.length
  const hidden = limited && body.return_documents === false
  const made = () =>
    read
      .map((document, index) => ({
        score: relevance(asked, document),
        ...(hidden ? {} : { document: documents[index] }),
        index,
        meta_info: metaInfo(pairs[index]?.length ?? 0, service.hex()),
      }))
      .sort((one, other) => other.score - one.score)
      .slice(0, most)
  return tooLong(pairs, service) ?? { ok: true, plan: { texts: pairs, made } }
}

/** Of a model that generates: how likely each of some tokens is to follow each item. */
const score: Planner = (body, service, pooling) => {
  const { label_token_ids: labels, items } = body
  const count = Array.isArray(labels) ? labels.length : 0
  if (pooling === undefined && labels === undefined) {
    return refuse('label_token_ids is required for generation (CausalLM) models.')
  }
  if (pooling === undefined && count === 0) {
    return refuse('label_token_ids must be a nonempty list')
  }
  if (items === undefined || items === null) return refuse('items must be provided')
  const whole = Number.POSITIVE_INFINITY
  const [query] = readInput(body.query ?? '', whole) ?? []
  const each = Array.isArray(items) && items.length === 0 ? [] : readInput(items, whole)
  if (each === null || query === undefined) return refuse('items must be texts or token ids')
  const first = body.item_first === true
  const rows = each.map((item) => (first ? joined(item, query) : joined(query, item)))
  const made = () => ({
    scores: rows.map((row) => {
      if (pooling !== undefined) return [...outputOf(service, pooling, {})(row)]
      const chances = shares(logitsOf(row, Math.max(2, count))).slice(0, count)
      // Half of the likelihood lies with tokens that nobody asked for.
      return body.apply_softmax === true ? chances : chances.map((chance) => chance / 2)
    }),
    ...(atLeast(service.settings.version, '0.5.10')
      ? { pooled_hidden_states: null, token_logprobs: null }
      : {}),
    model: typeof body.model === 'string' ? body.model : 'default',
    usage: atLeast(service.settings.version, '0.5.10') ? usageOf(rows) : null,
    object: 'scoring',
  })
  return tooLong(rows, service) ?? { ok: true, plan: { texts: rows, made } }
}

/** SGLang's own names: one object for one text, a list for several. */
const encode: Planner = (body, service, pooling) => {
  const odd = typeProblem(body, ['dimensions'])
  if (odd !== null) return { ok: false, refusal: odd }
  const given = body.text ?? body.input_ids
  const read = texts(given, 'text', body, service)
  if ('ok' in read) return read
  if (pooling === undefined) return refuse(NOT_EMBEDDING)
  const wrong = sizeProblem(body, service, pooling)
  if (wrong !== null) return wrong
  const output = outputOf(service, pooling, body)
  const made = () => {
    const all = read.texts.map((text) => ({
      embedding: [...output(text)],
      meta_info: metaInfo(text.length, service.hex()),
    }))
    return typeof given === 'string' ? all[0] : all
  }
  return { ok: true, plan: { texts: read.texts, made } }
}

/** The native routes' errors: `_create_error_response` of http_server.py. */
const nativeError = ({ status, message }: Refusal) => ({ status, body: { error: { message } } })

const handler =
  (planner: Planner, own = false): Handler =>
  async (service, request, response) => {
    const { dialect, settings } = service
    const refuser = own ? { error: nativeError } : dialect
    const body = await jsonBody(request, response, refuser)
    if (body === null) return
    const planned = planner(body, service, settings.pooling)
    if (!planned.ok) return sendJson(response, refuser.error(planned.refusal))
    const priority = typeof body.priority === 'number' ? body.priority : 0
    const answer = () => sendJson(response, { status: 200, body: planned.plan.made() })
    if (planned.plan.texts.length === 0) return answer()
    pool(service, response, { texts: planned.plan.texts, priority, refuser, answer })
  }

/** The handlers of text look for `text` in what came back, and a model that embeds gave none. */
const noText: Handler = async (service, request, response) => {
  const body = await jsonBody(request, response, service.dialect)
  if (body === null) return
  const message = "Internal server error: 'text'"
  sendJson(response, service.dialect.error({ kind: 'internal', status: 500, message, param: null }))
}

type Table = Readonly<Record<string, Handler>>

/** What is there whatever the model is. */
export const sglangPooling: Table = {
  'POST /v1/embeddings': handler(embeddings),
  'POST /v1/classify': handler(classify),
  'POST /v1/rerank': handler(rerank),
  'POST /v1/score': handler(score),
  'POST /encode': handler(encode, true),
  'POST /classify': handler(encode, true),
}

/** Put over the routes that make text, when the model makes none. */
export const sglangWithoutText: Table = {
  'POST /v1/chat/completions': noText,
  'POST /v1/completions': noText,
  'POST /v1/responses': noText,
  'POST /v1/messages': noText,
  'POST /generate': noText,
}
