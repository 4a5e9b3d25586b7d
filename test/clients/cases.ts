/**
 * What a program with an official OpenAI SDK goes through, case by case: against OpenAI and against
 * Penstock. play.ts plays each of them to an SDK; docs/sdk-cases.md shows the same table.
 */
import type { GatewayRoute, Target } from '../../src/core/snapshot.ts'
import type { ErrorBody } from '../../src/errors.ts'
import { completion, JSON_TYPE, type Script } from '../support/engine.ts'
import { KEY, type World } from '../support/gateway.ts'
import type { Call, Sdk } from './sdk.ts'

export type Fields = ErrorBody['error']

/** One for both SDKs, or one for each where they have nothing in common. */
export type Each<Value> = Value | { readonly js: Value; readonly python: Value }

/** A class by its Python name; null: nothing is raised. */
export type Class = Each<string | null>

/** What the caller of the SDK sees. */
export type Sight = {
  readonly raised: Class
  readonly status: number | null
  readonly type: string | null
  readonly code: string | null
  readonly param: string | null
  /** Requests that the SDK sends. */
  readonly attempts: Each<number>
  readonly text: string
}

export type Case = {
  readonly name: string
  readonly call: Call
  readonly openai: {
    /** What OpenAI sends, to every request or to the nth, counted from 0. */
    readonly answer: Script | ((nth: number) => Script)
    /** Where that was seen: a GitHub thread, or the SDKs' own code; null: assumed. */
    readonly source: string | null
    readonly sight: Sight
  }
  readonly engine: (nth: number) => Script
  readonly route?: Partial<GatewayRoute>
  readonly target?: Partial<Target>
  /** Needs a gateway of its own; the others take turns at one. */
  readonly alone?: true
  /** Before the call. */
  readonly before?: (world: World, sdk: Sdk) => Promise<void>
  /** The caller aborts once the server has the request; only JavaScript has a way to. */
  readonly cancels?: true
  readonly sight: Sight
  /** Requests that reach the engine; null: not certain. */
  readonly engineSees: number | null
  /** What the retry headers ask for; absent: there are none. */
  readonly asksMs?: number | 'some'
  /** `x-should-retry` of the last answer. */
  readonly shouldRetry?: 'true' | 'false'
  /** In the message of what is raised. */
  readonly says?: string
  /** Every request that the engine saw ends there too. */
  readonly aborts?: true
  /** Statuses in their order, where they are not all the same. */
  readonly statuses?: readonly number[]
  /** Why Penstock's answer is not OpenAI's; needed exactly when the SDK's caller can tell. */
  readonly differs?: string
}

/** Nothing of OpenAI's is needed to know what the SDK makes of it. */
export const SDK_CODE = "the SDKs' own code"

export const MODEL = 'qwq-32b'
export const call = (more: Partial<Call> = {}): Call => ({
  do: 'chat',
  key: KEY,
  model: MODEL,
  ...more,
})
export const stream = (more: Partial<Call> = {}): Call => call({ do: 'stream', ...more })

export const fields = (message: string, more: Partial<Fields> = {}): Fields => ({
  message,
  type: 'invalid_request_error',
  param: null,
  code: null,
  ...more,
})

/** An answer of OpenAI's that is an error. */
export const says = (
  status: number,
  error: Fields,
  headers: Readonly<Record<string, string>> = {},
): Script => ({
  status,
  headers: { ...JSON_TYPE, 'x-request-id': 'req_openai', ...headers },
  steps: [{ send: JSON.stringify({ error }) }],
})

export const page = (status: number, html: string): Script => ({
  status,
  headers: { 'content-type': 'text/html' },
  steps: [{ send: html }],
})

export const json = (status: number, body: string, headers = {}): Script => ({
  status,
  headers: { ...JSON_TYPE, ...headers },
  steps: [{ send: body }],
})

export const HELLO: Script = { headers: JSON_TYPE, steps: [{ send: completion('Hello') }] }
export const HANG: Script = { steps: [{ hang: true }] }

export const sight = (raised: Class, more: Partial<Sight> = {}): Sight => ({
  raised,
  status: null,
  type: null,
  code: null,
  param: null,
  attempts: 1,
  text: '',
  ...more,
})

export const refusal = (
  raised: string,
  status: number,
  { type, code, param }: Omit<Fields, 'message'>,
  attempts = 1,
): Sight => sight(raised, { status, type, code, param, attempts })

/** The names of Python's classes that JavaScript's SDK does not have. */
const JS_NAMES: Readonly<Record<string, string>> = {
  APIStatusError: 'APIError',
  APITimeoutError: 'APIConnectionTimeoutError',
}

/** The sight of one SDK's caller. */
export const sightIn = (sdk: 'js' | 'python', { raised, attempts, ...rest }: Sight) => {
  const name = typeof raised === 'object' && raised !== null ? raised[sdk] : raised
  return {
    ...rest,
    raised: name !== null && sdk === 'js' ? (JS_NAMES[name] ?? name) : name,
    attempts: typeof attempts === 'number' ? attempts : attempts[sdk],
  }
}

/** Reasons that more than one case has. */
export const NO_CODE = 'OpenAI gives no code here; Penstock names the reason in it'
export const HTML = 'OpenAI answers with a page of HTML'

/** OpenAI's 503. */
export const overloaded = fields('That model is currently overloaded with other requests. …', {
  type: 'server_error',
})
/** A 5xx of the gateway's, at the end of its tries. */
export const broken = (status: number, code: string | null, attempts = 3): Sight =>
  refusal('InternalServerError', status, { ...overloaded, code }, attempts)

/** Refused once, and then answered. */
export const ANSWERED = sight(null, { attempts: 2, text: 'Hello' })
