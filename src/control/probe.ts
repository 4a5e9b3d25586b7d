/**
 * Is the engine ready, and does it really answer? Two questions on rank 0: the runtime's readiness
 * path, then one short completion, because a port that answers is not a model that does
 * (facts: vLLM's /health is a flag, not a probe).
 */
import type { TokenPair } from '../core/reconcile.ts'
import type { Runtime } from '../core/runtime.ts'

/** A first completion may wait for kernels to be compiled (DeepGEMM: minutes). */
const SMOKE_TIMEOUT_MS = 300_000
const ANSWER_BYTES_MAX = 1_048_576

export type ProbeAnswer =
  | {
      readonly ready: true
      /** What the completion took; absent: the engine did not say. */
      readonly usage?: TokenPair
    }
  | { readonly ready: false; readonly reason: string }

export type ProbeAsk = {
  readonly endpoint: string
  readonly model: string
  readonly ready: Runtime['ready']
  readonly signal: AbortSignal
  /** Called when the engine says that it is ready, before it is given its first tokens to do. */
  readonly beforeSmoke?: () => Promise<void>
}

const words = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return 'timed out'
  return error.cause instanceof Error && error.cause.message !== ''
    ? error.cause.message
    : error.message
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null

/** What a completion with at least one generated token took; null: the body is no such thing. */
const completed = (text: string): { readonly usage?: TokenPair } | null => {
  const body: unknown = JSON.parse(text)
  if (!isRecord(body) || !Array.isArray(body.choices) || body.choices.length === 0) return null
  if (!isRecord(body.usage)) return {}
  const { prompt_tokens: prompt, completion_tokens: completion = 1 } = body.usage
  if (Number(completion) < 1) return null
  const known = typeof prompt === 'number' && typeof completion === 'number'
  return known ? { usage: { prompt, completion } } : {}
}

export const probe = async (ask: ProbeAsk): Promise<ProbeAnswer> => {
  const { endpoint, ready, signal } = ask
  try {
    const answer = await fetch(`${endpoint}${ready.path}`, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(ready.probeTimeoutMs)]),
    })
    await answer.body?.cancel()
    if (answer.status !== 200) return { ready: false, reason: `${ready.path}: ${answer.status}` }
  } catch (error) {
    return { ready: false, reason: `${ready.path}: ${words(error)}` }
  }
  await ask.beforeSmoke?.()
  return smoke(ask)
}

const smoke = async (ask: Omit<ProbeAsk, 'ready' | 'beforeSmoke'>): Promise<ProbeAnswer> => {
  try {
    const answer = await fetch(`${ask.endpoint}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: ask.model, prompt: '1 + 1 =', max_tokens: 4, temperature: 0 }),
      signal: AbortSignal.any([ask.signal, AbortSignal.timeout(SMOKE_TIMEOUT_MS)]),
    })
    const text = (await answer.text()).slice(0, ANSWER_BYTES_MAX)
    const done = answer.status === 200 ? completed(text) : null
    if (done !== null) return { ready: true, ...done }
    const reason = `the smoke completion was answered ${answer.status}: ${text.slice(0, 200)}`
    return { ready: false, reason }
  } catch (error) {
    return { ready: false, reason: `the smoke completion failed: ${words(error)}` }
  }
}
