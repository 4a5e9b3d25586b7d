/**
 * Responses kept for GET, cancel and `previous_response_id`. vLLM keeps none unless
 * VLLM_ENABLE_RESPONSES_API_STORE is set; SGLang always does. The real ones forget nothing;
 * this one forgets the oldest.
 */
import { isRecord } from '../rehearsal.ts'
import { wrongType } from './fields.ts'
import type { Service } from './service.ts'
import type { Body, Refusal } from './wire.ts'

const KEPT_MAX = 1000

export type Stored = {
  readonly response: Body
  /** The whole conversation that led to it, as chat messages. */
  readonly messages: readonly unknown[]
  /** Null once it is finished. */
  readonly cancel: (() => void) | null
}

type Before =
  | { readonly ok: true; readonly messages: readonly unknown[] }
  | { readonly ok: false; readonly refusal: Refusal }

export class ResponsesStore {
  readonly enabled: boolean
  readonly #kept = new Map<string, Stored>()

  constructor(enabled: boolean) {
    this.enabled = enabled
  }

  put(stored: Stored): void {
    const { id } = stored.response
    if (typeof id !== 'string') return
    if (this.#kept.size >= KEPT_MAX && !this.#kept.has(id)) {
      const [oldest] = this.#kept.keys()
      if (oldest !== undefined) this.#kept.delete(oldest)
    }
    this.#kept.set(id, stored)
  }

  get(id: string): Stored | null {
    return this.#kept.get(id) ?? null
  }

  /** What was said before, for a request that goes on from an earlier response. */
  before(id: unknown): Before {
    if (id === undefined || id === null) return { ok: true, messages: [] }
    if (typeof id !== 'string') {
      return { ok: false, refusal: wrongType('previous_response_id', 'string', id) }
    }
    const found = this.get(id)
    if (found === null) return { ok: false, refusal: unknownResponse(id) }
    return { ok: true, messages: found.messages }
  }
}

export const unknownResponse = (id: string): Refusal => ({
  kind: 'response',
  status: 404,
  message: `Response with id '${id}' not found.`,
  param: 'response_id',
})

/** Keeps a finished response with its conversation; one cancelled meanwhile stays cancelled. */
export const remember = (
  store: ResponsesStore,
  response: Body,
  asked: readonly unknown[],
): void => {
  const known = typeof response.id === 'string' ? store.get(response.id) : null
  if (known?.response.status === 'cancelled') return
  const output = Array.isArray(response.output) ? response.output.filter(isRecord) : []
  const said = output
    .filter(({ type }) => type === 'message')
    .map(({ content }) => ({ role: 'assistant', content }))
  store.put({ response, messages: [...asked, ...said], cancel: null })
}

const stores = new WeakMap<Service, ResponsesStore>()

export const responsesOf = (service: Service): ResponsesStore => {
  const known = stores.get(service)
  if (known !== undefined) return known
  const told = process.env.VLLM_ENABLE_RESPONSES_API_STORE ?? '0'
  const fresh = new ResponsesStore(service.settings.engine === 'sglang' || Number(told) > 0)
  stores.set(service, fresh)
  return fresh
}
