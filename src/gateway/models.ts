/** GET /v1/models: what this key may use; and whether this thread can serve at all. */
import type { IncomingHttpHeaders } from 'node:http'
import type { GatewayKey, GatewayRoute } from '../core/snapshot.ts'
import type { GatewayState } from './state.ts'

export type ModelsAsk = {
  readonly key: GatewayKey
  /** A route may be for callers with a header. */
  readonly headers: IncomingHttpHeaders
}

/** Names and aliases; what only a pattern covers cannot be listed. */
export const listModels = ({ table, startedAtSeconds }: GatewayState, ask: ModelsAsk) => {
  const shape = shapeOf(ask)
  const data = table
    .names(ask.key, ask.headers)
    .map(({ name, route }) => shape(name, route, startedAtSeconds))
  if (shape === openAiModel) return { object: 'list', data }
  const [first, last] = [data[0], data.at(-1)]
  return { data, has_more: false, first_id: first?.id ?? null, last_id: last?.id ?? null }
}

/** Throws model_not_found and model_not_allowed, as a request for that model would. */
export const oneModel = (state: GatewayState, ask: ModelsAsk, model: string) => {
  const route = state.table.route(model, ask.key, ask.headers)
  return shapeOf(ask)(model, route, state.startedAtSeconds)
}

/** Anthropic's clients name the version of its API that they speak. */
const shapeOf = ({ headers }: ModelsAsk) =>
  headers['anthropic-version'] === undefined ? openAiModel : anthropicModel

/** `max_model_len` is vLLM's and SGLang's name for the context; clients read it there. */
const openAiModel = (name: string, { context }: GatewayRoute, created: number) => ({
  id: name,
  object: 'model',
  created,
  owned_by: 'penstock',
  max_model_len: context,
})

const anthropicModel = (name: string, { context }: GatewayRoute, created: number) => ({
  type: 'model',
  id: name,
  display_name: name,
  created_at: new Date(created * 1000).toISOString(),
  max_input_tokens: context,
})

export type Readiness = { readonly ready: boolean; readonly why: string }

/** Ready: not draining, and some model can be answered. */
export const readiness = ({ draining, table }: GatewayState): Readiness => {
  if (draining) return { ready: false, why: 'draining' }
  const { routes } = table.snapshot
  if (routes.length === 0) return { ready: false, why: 'no route is declared' }
  const ready = routes.some(({ targets }) => targets.some(({ state }) => state === 'ready'))
  if (ready) return { ready, why: '' }
  return { ready, why: routes.map(({ model, why }) => `${model}: ${why}`).join('; ') }
}
