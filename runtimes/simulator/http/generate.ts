/** Routes that make text: chat, completions, messages and responses, all through one Exchange. */
import type { IncomingMessage } from 'node:http'
import { type Ask, readAsk } from './ask.ts'
import type { Dialect } from './dialect.ts'
import { Exchange } from './exchange.ts'
import { MessagesDialect, messagesError } from './messages-dialect.ts'
import { NativeDialect, nativeToCompletion } from './native-dialect.ts'
import { parseBody } from './parse.ts'
import { chatPrompt } from './prompt.ts'
import { EngineResponse } from './response.ts'
import { idHex, ResponsesDialect } from './responses-dialect.ts'
import { remember, responsesOf } from './responses-store.ts'
import type { Service } from './service.ts'
import { messagesToChat, responsesToChat, type Translated } from './translate.ts'
import { type Body, type Refusal, readBody, sendJson } from './wire.ts'

export type Handler = (
  service: Service,
  request: IncomingMessage,
  response: EngineResponse,
  path: string,
) => void | Promise<void>

export const NOT_JSON: Refusal = {
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

export const dead = (engine: string): Refusal => ({
  kind: 'dead',
  status: engine === 'vllm' ? 500 : 503,
  message: 'EngineCore encountered an issue. See stack trace (above) for the root cause.',
  param: null,
})

type Refuser = Pick<Dialect, 'error'>

/** A JSON object from the request; null when an answer has been sent. */
export const jsonBody = async (
  request: IncomingMessage,
  response: EngineResponse,
  refuser: Refuser,
): Promise<Body | null> => {
  const text = await readBody(request)
  if (text === null) {
    if (!response.destroyed) sendJson(response, { status: 413, body: { detail: 'Too large' } })
    return null
  }
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase()
  if (type !== 'application/json') {
    sendJson(response, refuser.error(NOT_JSON))
    return null
  }
  const parsed = parseBody(text)
  if (parsed.ok) return parsed.value
  sendJson(response, refuser.error(parsed.refusal))
  return null
}

/** Null: refused, and the answer sent. */
export const askOf = (
  service: Service,
  response: EngineResponse,
  refuser: Refuser,
  { kind, body }: { readonly kind: Ask['kind']; readonly body: Translated },
): Ask | null => {
  const { settings, memory, script } = service
  const refuse = (why: Refusal): null => {
    sendJson(response, refuser.error(why))
    return null
  }
  if (service.state === 'dead') return refuse(dead(settings.engine))
  if (!body.ok) return refuse(body.refusal)
  const asked = readAsk(kind, body.body, settings, { poolTokens: memory.poolTokens, script })
  if (!asked.ok) return refuse(asked.refusal)
  const { model } = asked.ask
  // SGLang only says the name again.
  if (settings.engine === 'vllm' && !settings.servedNames.includes(model)) {
    return refuse(noModel(model, settings.servedNames))
  }
  return asked.ask
}

export const generate =
  (kind: Ask['kind']): Handler =>
  async (service, request, response) => {
    const { dialect } = service
    const value = await jsonBody(request, response, dialect)
    if (value === null) return
    const body = { ok: true, body: value } as const
    const ask = askOf(service, response, dialect, { kind, body })
    if (ask !== null) new Exchange(service, ask, response).start()
  }

const messagesOptions = ({ settings, dialect, hex }: Service) => ({
  engine: settings.engine,
  own: dialect,
  cacheCounts: settings.cachedTokensInUsage,
  hex,
})

export const messages: Handler = async (service, request, response) => {
  const dialect = new MessagesDialect(messagesOptions(service))
  const value = await jsonBody(request, response, dialect)
  if (value === null) return
  const ask = askOf(service, response, dialect, { kind: 'chat', body: messagesToChat(value) })
  if (ask === null) return
  const told = { ...ask, includeUsage: true, continuousUsage: true }
  new Exchange(service, told, response, dialect).start()
}

export const countTokens: Handler = async (service, request, response) => {
  const options = messagesOptions(service)
  const refuser = { error: (why: Refusal) => messagesError(options, why) }
  const value = await jsonBody(request, response, refuser)
  if (value === null) return
  const body = messagesToChat({ ...value, stream: false }, true)
  const ask = askOf(service, response, refuser, { kind: 'chat', body })
  if (ask === null || !body.ok) return
  const { count } = chatPrompt(body.body, service.settings.contextTokens).tokens
  const managed = { context_management: { original_input_tokens: count } }
  sendJson(response, {
    status: 200,
    body: { input_tokens: count, ...(service.settings.engine === 'vllm' ? managed : {}) },
  })
}

/** SGLang's own route; vLLM has none of this name. */
export const native: Handler = async (service, request, response) => {
  const { clock } = service
  const dialect = new NativeDialect(service.dialect, () => clock.now())
  const value = await jsonBody(request, response, dialect)
  if (value === null) return
  const body = { ok: true, body: nativeToCompletion(value) } as const
  const ask = askOf(service, response, dialect, { kind: 'completion', body })
  if (ask === null) return
  const told = { ...ask, includeUsage: false, continuousUsage: true }
  new Exchange(service, told, response, dialect).start()
}

const NO_BACKGROUND: Refusal = {
  kind: 'value',
  status: 400,
  message:
    'This vLLM engine does not support `store=True` and therefore does not support the ' +
    'background mode. To enable these features, set the environment variable ' +
    '`VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.',
  param: 'background',
}

export const responses: Handler = async (service, request, response) => {
  const { settings, hex } = service
  const { engine } = settings
  const store = responsesOf(service)
  const id = `resp_${idHex({ engine, hex })}`
  const make = (body: Body, finished: (whole: Body) => void) =>
    new ResponsesDialect({
      engine,
      own: service.dialect,
      request: body,
      id,
      cacheCounts: settings.cachedTokensInUsage,
      hex,
      finished,
    })
  const early = make({}, () => {})
  const value = await jsonBody(request, response, early)
  if (value === null) return
  const before = store.before(value.previous_response_id)
  if (!before.ok) return sendJson(response, early.error(before.refusal))
  if (value.background === true && !store.enabled) {
    return sendJson(response, early.error(NO_BACKGROUND))
  }
  const body = responsesToChat(value, before.messages)
  const ask = askOf(service, response, early, { kind: 'chat', body })
  if (ask === null || !body.ok) return
  const keep = store.enabled && value.store !== false
  const turns = body.body.messages
  const dialect = make(value, (whole) => {
    if (keep) remember(store, whole, Array.isArray(turns) ? turns : [])
  })
  const told = { ...ask, includeUsage: true, continuousUsage: false }
  if (value.background !== true || !keep) {
    new Exchange(service, told, response, dialect).start()
    return
  }
  // Nobody reads it: the answer goes to the store, and closing it is how it is cancelled.
  const detached = new EngineResponse(request)
  const queued = dialect.queued(ask.model, service.clock.epochSeconds())
  store.put({ response: queued, messages: [], cancel: () => detached.emit('close') })
  new Exchange(service, { ...told, stream: false }, detached, dialect).start()
  sendJson(response, { status: 200, body: queued })
}
