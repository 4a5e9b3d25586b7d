/**
 * The API's paths, one table: what each takes, where its figures stand, how its stream speaks and
 * ends, in whose shape it is refused, and which engine has it under which path. The gateway has no
 * other knowledge of a path. Engines: engines.md 1.2 and 3.3; shapes: test/fixtures/vllm-0.32.0.
 */
import type { TrackedKey } from './body.ts'

export type ErrorDialect = 'openai' | 'anthropic'

/** Where to look in a parsed event or answer. */
export type FieldPath = readonly string[]

/** A stream whose events have names, other than chat's (`data:` lines that end in [DONE]). */
export type NamedEvents = {
  /** How the name of an event begins and ends that brings a piece of the answer. */
  readonly token: { readonly start: string; readonly end: string }
  /** The events that end a whole answer; what follows one is not for the client. */
  readonly done: readonly string[]
  /** Those that end one that failed. */
  readonly failed: readonly string[]
  /** By event: the object in it that has the answer's id and its usage so far. */
  readonly facts: Readonly<Record<string, FieldPath>>
  /** By event: the object in it that says why the answer ended; its usage is the last word. */
  readonly finish: Readonly<Record<string, FieldPath>>
  /** What goes out in silence; readers of the API pass over it. */
  readonly keepAlive: string
}

export type Events = 'chat' | NamedEvents

/** How an answer in one piece says why it ended. */
export type FinishField = 'choices' | 'stop_reason' | 'status' | 'none'

export type Protocol = {
  readonly path: string
  readonly method: Method
  readonly body: 'json' | 'form' | 'none'
  readonly errors: ErrorDialect
  /** Keys that cap the answer's tokens; the largest counts, the first is the one that we write. */
  readonly caps: readonly TrackedKey[]
  /**
   * What token limits expect of it: prompt and answer, the prompt, `unknown`: nothing, but a GPU
   * works on it, `none`: no GPU does, and it waits for no place on one.
   */
  readonly weighs: 'answer' | 'prompt' | 'unknown' | 'none'
  /** Null: it does not stream. */
  readonly events: Events | null
  readonly finish: FinishField
  /** Where the operator's text goes: a message of that role, or a member of the body. */
  readonly system: 'messages' | 'instructions' | 'system' | null
  /** How its plain text is gone on with by another replica (core/continuation.ts); null: never. */
  readonly continues: 'chat' | 'completion' | null
  /** `stream_options` can ask for the usage so far in every event. */
  readonly continuousUsage: boolean
  /** The engines differ in the name of the thinking (core/reasoning.ts). */
  readonly reasoningField: boolean
  /** The answer's `usage` is this request's own, and not that of one before. */
  readonly metered: boolean
  /** Answers are kept by the replica that made them, under their id. */
  readonly keeps: boolean
  /** What a model must be for the engine to have it. */
  readonly task: Task
  /**
   * The engine's own path; null: it has none; not named: `path`. `external` is a service that we do
   * not run, which has all its paths under /v1.
   */
  readonly engines: Readonly<Record<string, string | null>>
}

export type Method = 'GET' | 'POST' | 'DELETE'
export type Task = 'generate' | 'pool' | 'transcribe' | 'any'

const DEFAULTS = {
  method: 'POST',
  body: 'json',
  errors: 'openai',
  caps: [],
  weighs: 'answer',
  events: null,
  finish: 'none',
  system: null,
  continues: null,
  continuousUsage: false,
  reasoningField: false,
  metered: true,
  keeps: false,
  task: 'generate',
  engines: {},
} as const satisfies Omit<Protocol, 'path'>

/** A comment: no reader of events sees it. */
export const KEEP_ALIVE = ': keep-alive\n\n'

const RESPONSES_EVENTS: NamedEvents = {
  token: { start: 'response.', end: '.delta' },
  done: ['response.completed', 'response.incomplete'],
  failed: ['response.failed', 'response.cancelled', 'error'],
  facts: {
    'response.created': ['response'],
    'response.completed': ['response'],
    'response.incomplete': ['response'],
  },
  finish: {
    'response.completed': ['response'],
    'response.incomplete': ['response'],
  },
  keepAlive: KEEP_ALIVE,
}

const MESSAGES_EVENTS: NamedEvents = {
  token: { start: 'content_block_delta', end: '' },
  done: ['message_stop'],
  failed: ['error'],
  facts: { message_start: ['message'], message_delta: [] },
  finish: { message_delta: ['delta'] },
  keepAlive: 'event: ping\ndata: {"type": "ping"}\n\n',
}

const pooled = (path: string, engines: Protocol['engines'] = {}): Protocol => ({
  ...DEFAULTS,
  path,
  weighs: 'prompt',
  task: 'pool',
  engines,
})

/** A tokenizer's work: no GPU sees it. */
const counted = (path: string, engines: Protocol['engines'] = {}): Protocol => ({
  ...DEFAULTS,
  path,
  weighs: 'none',
  task: 'any',
  engines,
})

/** Audio's bytes say nothing about tokens; only what the engine reports counts. */
const heard = (path: string): Protocol => ({
  ...DEFAULTS,
  path,
  body: 'form',
  weighs: 'unknown',
  events: 'chat',
  task: 'transcribe',
  engines: { sglang: null },
})

const stored = (path: string, method: Method, more: Partial<Protocol> = {}): Protocol => ({
  ...DEFAULTS,
  path,
  method,
  body: 'none',
  weighs: 'none',
  events: method === 'GET' ? RESPONSES_EVENTS : null,
  metered: false,
  ...more,
})

export const CHAT: Protocol = {
  ...DEFAULTS,
  path: '/v1/chat/completions',
  caps: ['max_tokens', 'max_completion_tokens'],
  events: 'chat',
  finish: 'choices',
  system: 'messages',
  continues: 'chat',
  continuousUsage: true,
  reasoningField: true,
}

export const PROTOCOLS: readonly Protocol[] = [
  CHAT,
  {
    ...CHAT,
    path: '/v1/completions',
    caps: ['max_tokens'],
    system: null,
    continues: 'completion',
  },
  {
    ...DEFAULTS,
    path: '/v1/responses',
    caps: ['max_output_tokens'],
    events: RESPONSES_EVENTS,
    finish: 'status',
    system: 'instructions',
    keeps: true,
  },
  {
    ...DEFAULTS,
    path: '/v1/messages',
    errors: 'anthropic',
    caps: ['max_tokens'],
    events: MESSAGES_EVENTS,
    finish: 'stop_reason',
    system: 'system',
  },
  {
    ...counted('/v1/messages/count_tokens'),
    errors: 'anthropic',
    system: 'system',
    task: 'generate',
  },
  pooled('/v1/embeddings'),
  pooled('/v1/rerank'),
  pooled('/rerank', { sglang: '/v1/rerank', external: '/v1/rerank' }),
  pooled('/v2/rerank', { sglang: null, external: null }),
  pooled('/v1/score'),
  pooled('/score', { sglang: '/v1/score', external: '/v1/score' }),
  counted('/v1/tokenize', { vllm: '/tokenize' }),
  counted('/tokenize', { external: '/v1/tokenize' }),
  counted('/v1/detokenize', { vllm: '/detokenize' }),
  counted('/detokenize', { external: '/v1/detokenize' }),
  heard('/v1/audio/transcriptions'),
  heard('/v1/audio/translations'),
  stored('/v1/responses/:id', 'GET'),
  stored('/v1/responses/:id', 'DELETE', { engines: { vllm: null, sglang: null } }),
  stored('/v1/responses/:id/cancel', 'POST'),
]

const BY_PATH = new Map(PROTOCOLS.map((protocol) => [protocol.path, protocol]))

/** What the table has for a path of requests with a body; undefined: nothing. */
export const protocolAt = (path: string): Protocol | undefined => BY_PATH.get(path)

/** What an engine calls the path; null: it has no such path. */
export const enginePath = ({ path, engines }: Protocol, engine: string): string | null => {
  const own = engines[engine]
  return own === undefined ? path : own
}

/** For a caller who asked a model at a path that its engine does not have for it. */
export const notOffered = (protocol: Protocol, model: string, engine: string): string => {
  const { path, task, method } = protocol
  const others = PROTOCOLS.filter(
    (other) =>
      other.body !== 'none' &&
      other.task !== 'any' &&
      (other.task === 'generate') !== (task === 'generate') &&
      enginePath(other, engine) !== null,
  ).map((other) => other.path)
  const instead =
    task === 'any' || protocol.body === 'none' ? '' : `; its kind is asked at ${others.join(', ')}`
  const what = method === 'POST' ? path : `${method} ${path}`
  return `the model '${model}' (${engine}) has no ${what}${instead}`
}

const withHead = (method: Method): readonly string[] =>
  method === 'GET' ? ['GET', 'HEAD'] : [method]

/** By path, the methods of its requests as an `Allow` header has them (RFC 9110 10.2.1). */
export const METHODS: Readonly<Record<string, string>> = Object.fromEntries(
  PROTOCOLS.map(({ path }) => {
    const own = PROTOCOLS.filter((other) => other.path === path).map(({ method }) => method)
    return [path, [...own.flatMap(withHead), 'OPTIONS'].join(', ')]
  }),
)

/**
 * In whose shape a path speaks, also one that we do not have. The models are listed for clients of
 * both, and Anthropic's say which version of it they speak.
 */
export const dialectAt = (path: string, anthropicVersion: boolean): ErrorDialect => {
  const within = (root: string) => path === root || path.startsWith(`${root}/`)
  const anthropic = within('/v1/messages') || (within('/v1/models') && anthropicVersion)
  return anthropic ? 'anthropic' : 'openai'
}
