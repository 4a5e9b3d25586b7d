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
export const listModels = ({ table, startedAtSeconds }: GatewayState, ask: ModelsAsk) => ({
  object: 'list',
  data: table
    .names(ask.key, ask.headers)
    .map(({ name, route }) => modelOf(name, route, startedAtSeconds)),
})

/** Throws model_not_found and model_not_allowed, as a request for that model would. */
export const oneModel = (state: GatewayState, ask: ModelsAsk, model: string) =>
  modelOf(model, state.table.route(model, ask.key, ask.headers), state.startedAtSeconds)

/** `max_model_len` is vLLM's and SGLang's name for the context; clients read it there. */
const modelOf = (name: string, { context }: GatewayRoute, created: number) => ({
  id: name,
  object: 'model',
  created,
  owned_by: 'penstock',
  max_model_len: context,
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
