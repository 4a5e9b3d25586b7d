/** Routes of both engines, one table each, over node:http. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { routesAt } from '../flags/versions.ts'
import { isRecord } from '../rehearsal.ts'
import { TokenList } from '../text/tokens.ts'
import { type Ask, readAsk } from './ask.ts'
import { Exchange } from './exchange.ts'
import { EngineResponse } from './response.ts'
import type { Service } from './service.ts'
import { sglangInfo } from './sglang-info.ts'
import { type Refusal, readBody, sendEmpty, sendJson, sendText } from './wire.ts'

export type Handler = (
  service: Service,
  request: IncomingMessage,
  response: EngineResponse,
) => void | Promise<void>

type Table = Readonly<Record<string, Handler>>

const generate =
  (kind: Ask['kind']): Handler =>
  async (service, request, response) => {
    const { settings, dialect, memory } = service
    const body = await readBody(request)
    if (body === null) {
      if (!response.destroyed) sendJson(response, { status: 413, body: { detail: 'Too large' } })
      return
    }
    const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase()
    if (type !== 'application/json') return refuse(service, response, NOT_JSON)
    if (service.state === 'dead') return refuse(service, response, dead(settings.engine))
    const asked = readAsk(kind, body, settings, memory.poolTokens)
    if (!asked.ok) return sendJson(response, dialect.error(asked.refusal))
    const { model } = asked.ask
    if (settings.engine === 'vllm' && !settings.servedNames.includes(model)) {
      return refuse(service, response, noModel(model, settings.servedNames))
    }
    new Exchange(service, asked.ask, response).start()
  }

const refuse = (service: Service, response: ServerResponse, why: Refusal): void =>
  sendJson(response, service.dialect.error(why))

const NOT_JSON: Refusal = {
  kind: 'media',
  status: 400,
  message: "Unsupported Media Type: Only 'application/json' is allowed",
  param: null,
}

const noModel = (model: string, names: readonly string[]): Refusal => ({
  kind: 'model',
  status: 404,
  message: `The model \`${model}\` does not exist. Valid aliases: ${names.join(', ')}.`,
  param: 'model',
})

const dead = (engine: string): Refusal => ({
  kind: 'dead',
  status: engine === 'vllm' ? 500 : 503,
  message: 'EngineCore encountered an issue. See stack trace (above) for the root cause.',
  param: null,
})

const models: Handler = ({ settings, created }, _request, response) => {
  const data = settings.servedNames.map((id) => ({
    id,
    object: 'model',
    created,
    owned_by: settings.engine,
    root: settings.engine === 'vllm' ? settings.model : id,
    parent: null,
    max_model_len: settings.contextTokens,
    ...(settings.engine === 'vllm' ? { permission: [permission(created)] } : {}),
  }))
  sendJson(response, { status: 200, body: { object: 'list', data } })
}

const permission = (created: number) => ({
  id: 'modelperm-rehearsal',
  object: 'model_permission',
  created,
  allow_create_engine: false,
  allow_sampling: true,
  allow_logprobs: true,
  allow_search_indices: false,
  allow_view: true,
  allow_fine_tuning: false,
  organization: '*',
  group: null,
  is_blocking: false,
})

const metrics: Handler = (service, _request, response) => {
  if (!service.settings.metrics) return notFound(response)
  sendText(response, 200, service.metrics.text())
}

const notFound = (response: ServerResponse): void =>
  sendJson(response, { status: 404, body: { detail: 'Not Found' } })

const tokenize: Handler = async (service, request, response) => {
  const body = await readBody(request)
  if (body === null) return
  const value = parsed(body)
  const text = isRecord(value)
    ? (value.prompt ?? value.text ?? JSON.stringify(value.messages ?? ''))
    : ''
  const tokens = new TokenList(service.settings.contextTokens)
  tokens.text(String(text))
  sendJson(response, {
    status: 200,
    body: {
      count: tokens.count,
      max_model_len: service.settings.contextTokens,
      tokens: [...tokens.toArray()].map((id) => id % service.rehearsal.architecture.vocabulary),
      token_strs: null,
    },
  })
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

/** Embeddings from a model that generates: vLLM has no such route then, SGLang refuses. */
const embeddings: Handler = async (service, request, response) => {
  await readBody(request)
  if (service.settings.engine === 'vllm') return notFound(response)
  refuse(service, response, {
    kind: 'unsupported',
    status: 400,
    message:
      'This model does not appear to be an embedding model by default. Please add ' +
      '`--is-embedding` when launching the server or try another model.',
    param: null,
  })
}

/** vLLM's health is a flag: 200 until the engine is known to be dead. */
const vllmHealth: Handler = (service, _request, response) =>
  sendEmpty(response, service.state === 'dead' ? 503 : 200)

/** SGLang's health generates a token: a hung engine turns it to 503 after 20 s. */
const HEALTH_TIMEOUT_MS = 20_000
const sglangHealth: Handler = (service, _request, response) => {
  if (service.state !== 'serving') return sendEmpty(response, 503)
  if (!service.runner.frozen) return sendEmpty(response, 200)
  service.probed = true
  const cancel = service.clock.after(HEALTH_TIMEOUT_MS, () => sendEmpty(response, 503))
  response.once('close', cancel)
}

const version: Handler = ({ settings }, _request, response) =>
  sendJson(response, { status: 200, body: { version: settings.version } })

const SHARED: Table = {
  'POST /v1/chat/completions': generate('chat'),
  'POST /v1/completions': generate('completion'),
  'GET /v1/models': models,
  'GET /metrics': metrics,
  'POST /tokenize': tokenize,
  'POST /v1/embeddings': embeddings,
}

const VLLM: Table = {
  ...SHARED,
  'GET /health': vllmHealth,
  'GET /ping': vllmHealth,
  'POST /ping': vllmHealth,
  'GET /version': version,
  'GET /load': (_service, _request, response) =>
    sendJson(response, { status: 200, body: { server_load: 0 } }),
}

const SGLANG: Table = {
  ...SHARED,
  'POST /v1/tokenize': tokenize,
  'GET /health': sglangHealth,
  'GET /health_generate': sglangHealth,
  'GET /ping': (_service, _request, response) => sendEmpty(response, 200),
  ...sglangInfo,
}

/** vLLM's key guards /v1 only; SGLang's guards everything but health and metrics. */
const guarded = ({ settings }: Service, path: string): boolean =>
  settings.engine === 'vllm'
    ? path.startsWith('/v1')
    : !path.startsWith('/health') && !path.startsWith('/metrics')

const authorised = (service: Service, request: IncomingMessage): boolean => {
  const { apiKey } = service.settings
  return apiKey === null || request.headers.authorization === `Bearer ${apiKey}`
}

export const engineServer = (service: Service): Server => {
  const { settings } = service
  const table = routesAt(settings, settings.engine === 'vllm' ? VLLM : SGLANG)
  const paths = new Set(Object.keys(table).map((key) => key.split(' ')[1]))
  const server = createServer({ ServerResponse: EngineResponse }, (request, response) => {
    const began = performance.now()
    const method = request.method ?? 'GET'
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
    const handler = table[`${method} ${path}`]
    response.setHeader('server', 'uvicorn')
    response.once('close', () => {
      const seconds = ((performance.now() - began) / 1000) * service.clock.speed
      const route = handler === undefined ? 'none' : path
      service.metrics.http({ route, method, status: response.statusCode, seconds })
    })
    if (guarded(service, path) && !authorised(service, request)) {
      return sendJson(response, { status: 401, body: { error: 'Unauthorized' } })
    }
    if (path.startsWith('/v1/models/') && method === 'GET') return oneModel(service, path, response)
    if (handler === undefined) {
      if (!paths.has(path)) return notFound(response)
      return sendJson(response, { status: 405, body: { detail: 'Method Not Allowed' } })
    }
    // A handler that throws is a bug in the simulator: let it end the process loudly.
    void handler(service, request, response)
  })
  server.keepAliveTimeout = service.settings.keepAliveMs
  server.requestTimeout = 0
  return server
}

const oneModel = (service: Service, path: string, response: ServerResponse): void => {
  const { settings, created } = service
  const id = path.slice('/v1/models/'.length).replaceAll('%2F', '/')
  const max = settings.contextTokens
  if (settings.engine === 'vllm') notFound(response)
  else if (settings.servedNames.includes(id)) {
    const body = { id, object: 'model', created, owned_by: 'sglang', root: id, max_model_len: max }
    sendJson(response, { status: 200, body })
  } else {
    const message = `The model '${id}' does not exist`
    const type = 'invalid_request_error'
    const error = { message, type, param: 'model', code: 'model_not_found' }
    sendJson(response, { status: 404, body: { error } })
  }
}
