/**
 * vLLM's routes of a pooling model: vllm/entrypoints/pooling. Made after what a real vLLM 0.32.0
 * with `--runner pooling` sends, to which test/contract/pooling.test.ts holds it.
 */
import type { Pooling } from '../settings.ts'
import { bytesOf, highest, logitsOf, shares, shortened, vectorOf } from '../text/vector.ts'
import { dead, type Handler, jsonBody } from './generate.ts'
import { pool } from './pool.ts'
import {
  readInput,
  readMessages,
  refused,
  strings,
  type Texts,
  typeProblem,
  unionProblem,
} from './pooling-inputs.ts'
import { rerank, score } from './pooling-pairs.ts'
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
  usageOf,
} from './pooling-plan.ts'
import { pythonJson } from './python.ts'
import type { Service } from './service.ts'
import { type Body, type Refusal, sendJson } from './wire.ts'

const FORMATS = ['float', 'base64', 'bytes', 'bytes_only'] as const
const EMBED_COMMON = ['model', 'user', 'dimensions', 'truncate_prompt_tokens', 'priority'] as const
const INPUT = ['input']
const CHAT = ['messages']

const formatProblem = ({ encoding_format: format }: Body): Refusal | null => {
  if (format === undefined || FORMATS.some((known) => known === format)) return null
  const expected = "'float', 'base64', 'bytes' or 'bytes_only'"
  return {
    kind: 'field',
    status: 400,
    message: `Input should be ${expected}`,
    param: 'body.encoding_format',
    value: format,
    detail: 'literal_error',
  }
}

/** Texts of `input` or `messages`, each within the context or cut to fit it. */
const readTexts = (body: Body, { settings }: Service): Texts => {
  const context = settings.contextTokens
  const texts = readInput(body.input, context + 1) ?? readMessages(body, context + 1)
  if (texts === null) return { ok: false, refusal: notTexts(body.input) }
  if (texts.length === 0) return refused('You must pass at least one prompt')
  return cut(texts, body, context)
}

const sizeProblem = (body: Body, service: Service, { dimensions }: Pooling): Texts | null => {
  const { dimensions: asked } = body
  if (typeof asked !== 'number') return null
  const name = `Model '${service.settings.servedNames[0]}'`
  if (dimensions === null) {
    return refused(
      `${name} does not support Matryoshka embeddings; dimensions must be unset (received ` +
        `dimensions=${asked}).`,
    )
  }
  const { hiddenSize } = service.rehearsal.architecture
  if (asked < 1 || asked > hiddenSize) {
    return refused(`${name} only supports dimensions in range [1, ${hiddenSize}], got ${asked}.`)
  }
  if (dimensions.length === 0 || dimensions.includes(asked)) return null
  const known = `[${dimensions.join(', ')}]`
  return refused(`${name} only supports Matryoshka dimensions ${known}, got ${asked}.`)
}

/** /pooling can be told what it is for; a model pools in one way at a time. */
const taskProblem = ({ task }: Body, own: Pooling['task']): Texts | null =>
  typeof task !== 'string' || task === own
    ? null
    : refused(`Try switching the model's pooling_task via --pooler-config.task ${task}.`, 'task')

/** Of the text, as long as asked; without `use_activation` it is what the layer gave, longer. */
const vectorFor = (body: Body, { rehearsal }: Service, text: Int32Array): Float32Array => {
  const whole = vectorOf(text, rehearsal.architecture.hiddenSize)
  const { dimensions, use_activation: normal } = body
  const vector = typeof dimensions === 'number' ? shortened(whole, dimensions) : whole
  const length = Math.sqrt(rehearsal.architecture.hiddenSize)
  return normal === false ? vector.map((value) => value * length) : vector
}

const listed = (vector: Float32Array, format: unknown): unknown =>
  format === 'base64' ? bytesOf(vector).toString('base64') : [...vector]

/** All vectors in one body; what lies where is said in a header. */
const sendBytes = (
  { id, created, model, response }: Head,
  vectors: readonly Float32Array[],
  { texts, described }: { readonly texts: readonly Int32Array[]; readonly described: boolean },
): void => {
  const body = Buffer.concat(vectors.map(bytesOf))
  let start = 0
  const data = vectors.map((vector, index) => {
    const from = start
    start += 4 * vector.length
    const where = { start: from, end: start, shape: [vector.length] }
    return { index, embed_dtype: 'float32', endianness: 'native', ...where }
  })
  const metadata = pythonJson({ id, created, model, data, usage: shortUsage(texts) })
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': body.length,
    ...(described ? { metadata } : {}),
  })
  response.end(body)
}

/** /v1/embeddings, and /pooling of a model that embeds: they differ in names. */
const embed =
  (key: 'embedding' | 'pooling'): Route['plan'] =>
  (body, service, pooling) => {
    const wrong = typeProblem(body, EMBED_COMMON) ?? formatProblem(body)
    const problem = unionProblem(body, [INPUT, CHAT, CHAT, CHAT, INPUT, CHAT, INPUT], wrong)
    if (problem !== null) return fail(problem)
    const other =
      (key === 'pooling' ? taskProblem(body, 'embed') : null) ??
      cutProblem(body, service.settings.contextTokens)
    const read = other ?? sizeProblem(body, service, pooling) ?? readTexts(body, service)
    if (!read.ok) return read
    const { texts } = read
    const format = body.encoding_format
    const made = (head: Head) => {
      const vectors = texts.map((text) => vectorFor(body, service, text))
      if (format === 'bytes' || format === 'bytes_only') {
        return sendBytes(head, vectors, { texts, described: format === 'bytes' })
      }
      const value = (vector: Float32Array) => listed(vector, format)
      const data = vectors.map((vector, index) =>
        key === 'embedding'
          ? { index, object: 'embedding', embedding: value(vector) }
          : { index, object: 'pooling', data: value(vector) },
      )
      list(head, data, texts)
    }
    return { ok: true, plan: { texts, made } }
  }

const classify =
  (key: 'label' | 'pooling'): Route['plan'] =>
  (body, service, pooling) => {
    const wrong = typeProblem(body, ['model', 'user', 'truncate_prompt_tokens', 'priority'])
    const problem = unionProblem(body, [INPUT, CHAT], wrong)
    if (problem !== null) return fail(problem)
    const other =
      (key === 'pooling' ? taskProblem(body, 'classify') : null) ??
      cutProblem(body, service.settings.contextTokens)
    const read = other ?? readTexts(body, service)
    if (!read.ok) return read
    const { texts } = read
    const made = (head: Head) => {
      const data = texts.map((text, index) => {
        const logits = logitsOf(text, pooling.classes)
        const probs = body.use_activation === false ? logits : shares(logits)
        if (key === 'pooling') return { index, object: 'pooling', data: probs }
        const best = highest(probs)
        return { index, label: `LABEL_${best}`, probs, num_classes: probs.length }
      })
      list(head, data, texts)
    }
    return { ok: true, plan: { texts, made } }
  }

/** Cohere's shape, of which float and base64 are played. */
const cohere: Route['plan'] = (body, service, pooling) => {
  const wrong = typeProblem(body, ['model', 'output_dimension', 'priority'])
  if (wrong !== null) return fail(wrong)
  const texts = strings(body.texts)
  if (texts === null || texts.length === 0) {
    const said =
      'Exactly one of texts, images, or inputs must be provided, and it must be non-empty'
    return fail({
      kind: 'field',
      status: 400,
      message: `Value error, ${said}`,
      param: 'body',
      value: body,
      detail: 'value_error',
      context: `ValueError('${said}')`,
    })
  }
  if (typeof body.input_type === 'string') {
    return fail(
      bare(
        `Unsupported input_type '${body.input_type}'. This model does not define any input_type ` +
          'task instructions.',
      ),
    )
  }
  // Too long a text is cut unless the request says `NONE`.
  const truncate_prompt_tokens = body.truncate === 'NONE' ? null : -1
  const asked = { ...body, input: texts, dimensions: body.output_dimension, truncate_prompt_tokens }
  const read = sizeProblem(asked, service, pooling) ?? readTexts(asked, service)
  if (!read.ok) return read
  const types = strings(body.embedding_types) ?? ['float']
  const made = ({ id, response }: Head) => {
    const vectors = read.texts.map((text) => vectorFor(asked, service, text))
    const shown = ['float', 'base64'].filter((type) => types.includes(type))
    const embeddings = Object.fromEntries(
      shown.map((type) => [type, vectors.map((vector) => listed(vector, type))]),
    )
    const input_tokens = usageOf(read.texts).prompt_tokens
    const billed_units = { input_tokens, image_tokens: 0 }
    const meta = { api_version: { version: '2' }, billed_units }
    const answer = { id, embeddings, texts, meta, response_type: 'embeddings_by_type' }
    sendJson(response, { status: 200, body: answer })
  }
  return { ok: true, plan: { texts: read.texts, made } }
}

const handler =
  ({ prefix, plan }: Route): Handler =>
  async (service, request, response) => {
    const { dialect, settings, clock } = service
    const { pooling, servedNames } = settings
    const body = await jsonBody(request, response, dialect)
    if (body === null || pooling === undefined) return
    const refuse = (why: Refusal) => sendJson(response, dialect.error(why))
    if (service.state === 'dead') return refuse(dead('vllm'))
    const planned = plan(body, service, pooling)
    if (!planned.ok && planned.refusal.kind === 'field') return refuse(planned.refusal)
    const { model = servedNames[0] ?? '' } = body
    if (typeof model === 'string' && !servedNames.includes(model)) {
      const message = `The model \`${model}\` does not exist.`
      return refuse({ kind: 'model', status: 404, message, param: null })
    }
    if (!planned.ok) return refuse(planned.refusal)
    const { texts, made } = planned.plan
    const id = `${prefix}-${service.hex().slice(0, 16)}`
    const head = { id, created: clock.epochSeconds(), model: String(model), response }
    const priority = typeof body.priority === 'number' ? body.priority : 0
    pool(service, response, { texts, priority, refuser: dialect, answer: () => made(head) })
  }

type Table = Readonly<Record<string, Handler>>

const SCORES: Table = {
  'POST /score': handler({ prefix: 'score', plan: score }),
  'POST /v1/score': handler({ prefix: 'score', plan: score }),
  'POST /rerank': handler({ prefix: 'score', plan: rerank }),
  'POST /v1/rerank': handler({ prefix: 'score', plan: rerank }),
  'POST /v2/rerank': handler({ prefix: 'score', plan: rerank }),
}

/** vLLM registers routes by what the model can do (entrypoints/pooling/factories.py). */
export const vllmPoolingRoutes = ({ task, classes }: Pooling): Table =>
  task === 'embed'
    ? {
        'POST /pooling': handler({ prefix: 'pooling', plan: embed('pooling') }),
        'POST /v1/embeddings': handler({ prefix: 'embd', plan: embed('embedding') }),
        'POST /v2/embed': handler({ prefix: 'embd', plan: cohere }),
        ...SCORES,
      }
    : {
        'POST /pooling': handler({ prefix: 'pooling', plan: classify('pooling') }),
        'POST /classify': handler({ prefix: 'classify', plan: classify('label') }),
        ...(classes === 1 ? SCORES : {}),
      }
