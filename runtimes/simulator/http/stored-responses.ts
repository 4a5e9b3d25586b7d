/** GET /v1/responses/{id} and POST /v1/responses/{id}/cancel. */
import type { Handler } from './generate.ts'
import { responsesError } from './responses-dialect.ts'
import { responsesOf, unknownResponse } from './responses-store.ts'
import type { Refusal } from './wire.ts'
import { sendJson } from './wire.ts'

/** As it stands in the path: what needs escaping is no id of ours. */
const idOf = (path: string): string => path.split('/')[3] ?? ''

const options = ({ settings, dialect }: Parameters<Handler>[0]) => ({
  engine: settings.engine,
  own: dialect,
})

export const storedResponse: Handler = (service, _request, response, path) => {
  const id = idOf(path)
  const found = responsesOf(service).get(id)
  if (found !== null) return sendJson(response, { status: 200, body: found.response })
  sendJson(response, responsesError(options(service), unknownResponse(id)))
}

const NOT_RUNNING: Refusal = {
  kind: 'response',
  status: 400,
  message: 'Cannot cancel a synchronous response.',
  param: 'response_id',
}

export const cancelResponse: Handler = (service, _request, response, path) => {
  const id = idOf(path)
  const store = responsesOf(service)
  const found = store.get(id)
  const refuse = (why: Refusal) => sendJson(response, responsesError(options(service), why))
  if (found === null) return refuse(unknownResponse(id))
  if (found.cancel === null) return refuse(NOT_RUNNING)
  const cancelled = { ...found.response, status: 'cancelled' }
  store.put({ response: cancelled, messages: found.messages, cancel: null })
  found.cancel()
  sendJson(response, { status: 200, body: cancelled })
}
