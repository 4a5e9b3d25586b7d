/** Routes of both engines, one table each, over node:http. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { routesAt } from '../flags/versions.ts'
import type { Settings } from '../settings.ts'
import { logAccess } from './access-log.ts'
import { countTokens, generate, type Handler, messages, native, responses } from './generate.ts'
import { sglangPooling, sglangWithoutText } from './pooling-sglang.ts'
import { vllmPoolingRoutes } from './pooling-vllm.ts'
import { EngineResponse } from './response.ts'
import type { Service } from './service.ts'
import { sglangInfo } from './sglang-info.ts'
import { cancelResponse, storedResponse } from './stored-responses.ts'
import { detokenize, tokenize } from './tokenize.ts'
import { sendEmpty, sendJson, sendText } from './wire.ts'

type Table = Readonly<Record<string, Handler>>

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

/** vLLM counts what it is at work on only when told to. */
const load: Handler = (service, _request, response) =>
  sendJson(response, { status: 200, body: { server_load: service.inFlight } })

const TEXT: Table = {
  'POST /v1/chat/completions': generate('chat'),
  'POST /v1/completions': generate('completion'),
  'POST /v1/responses': responses,
  'POST /v1/messages': messages,
  'POST /v1/messages/count_tokens': countTokens,
}

const SHARED: Table = {
  'GET /v1/models': models,
  'GET /metrics': metrics,
  'POST /tokenize': tokenize,
  'POST /detokenize': detokenize,
}

const VLLM: Table = {
  ...SHARED,
  'GET /health': vllmHealth,
  'GET /ping': vllmHealth,
  'POST /ping': vllmHealth,
  'GET /version': version,
  'GET /load': load,
}

const SGLANG: Table = {
  ...SHARED,
  ...TEXT,
  'POST /v1/tokenize': tokenize,
  'POST /v1/detokenize': detokenize,
  'GET /health': sglangHealth,
  'POST /generate': native,
  'GET /health_generate': sglangHealth,
  'GET /ping': (_service, _request, response) => sendEmpty(response, 200),
  ...sglangInfo,
  ...sglangPooling,
}

/** vLLM has the routes of what its model can do; SGLang has them all, and they fail. */
const tableOf = ({ engine, pooling }: Settings): Table => {
  if (engine === 'sglang')
    return pooling === undefined ? SGLANG : { ...SGLANG, ...sglangWithoutText }
  return { ...VLLM, ...(pooling === undefined ? TEXT : vllmPoolingRoutes(pooling)) }
}

/** vLLM's key guards /v1 and /v2; SGLang's guards everything but health and metrics. */
const guarded = ({ settings }: Service, path: string): boolean =>
  settings.engine === 'vllm'
    ? path.startsWith('/v1') || path.startsWith('/v2')
    : !path.startsWith('/health') && !path.startsWith('/metrics')

const authorised = (service: Service, request: IncomingMessage): boolean => {
  const { apiKey } = service.settings
  return apiKey === null || request.headers.authorization === `Bearer ${apiKey}`
}

export const engineServer = (service: Service): Server => {
  const { settings } = service
  const table = routesAt(settings, tableOf(settings))
  const takesResponses = table['POST /v1/responses'] !== undefined
  const paths = new Set(Object.keys(table).map((key) => key.split(' ')[1]))
  const server = createServer({ ServerResponse: EngineResponse }, (request, response) => {
    const began = service.clock.now()
    const method = request.method ?? 'GET'
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
    const handler =
      table[`${method} ${path}`] ?? (takesResponses ? ofResponse(method, path) : undefined)
    response.setHeader('server', 'uvicorn')
    response.setHeader('date', new Date(service.clock.epochMs()).toUTCString())
    logAccess(service, request, response)
    response.once('close', () => {
      const seconds = (service.clock.now() - began) / 1000
      const route = handler === undefined ? 'none' : routeOf(path)
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
    if (settings.loadTracking === true && handler !== load && method === 'POST') {
      service.inFlight += 1
      response.once('close', () => {
        service.inFlight -= 1
      })
    }
    // A handler that throws is a bug in the simulator: let it end the process loudly.
    void handler(service, request, response, path)
  })
  server.keepAliveTimeout = service.settings.keepAliveMs
  server.requestTimeout = 0
  return server
}

/** Routes with an id in their path. */
const ofResponse = (method: string, path: string): Handler | undefined => {
  if (method === 'GET' && /^\/v1\/responses\/[^/]+$/.test(path)) return storedResponse
  if (method === 'POST' && /^\/v1\/responses\/[^/]+\/cancel$/.test(path)) return cancelResponse
  return undefined
}

/** The route as FastAPI names it, which is how the metrics label it. */
const routeOf = (path: string): string =>
  path.replace(/^(\/v1\/responses\/)[^/]+/, '$1{response_id}')

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
