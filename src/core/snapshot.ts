/**
 * The two messages between control and the gateway threads. Plain data: it crosses threads by
 * structured clone. A snapshot is immutable and whole; a newer one replaces it.
 */

import type { Parameters, Priority, Route, RouteCause } from './gateway-manifest.ts'
import type { GatewayLimit } from './limits.ts'

/** Replicas are counted in shared memory; a slot is a replica's row there. */
export const MAX_SLOTS = 4096
export const MAX_THREADS = 64

export type TargetState = 'ready' | 'draining'

export type Target = {
  readonly id: string
  /** `http://host:port`, from the placement; never from a request. */
  readonly url: string
  readonly slot: number
  readonly state: TargetState
  /** Signals for balancing; null is unknown, which is not zero. */
  readonly requestsRunning: number | null
  readonly requestsWaiting: number | null
  readonly kvCacheUsageRatio: number | null
  /** Size of the KV cache, and how many requests one batch takes; absent or null: unknown. */
  readonly kvCapacityTokens?: number | null
  readonly maxRunning?: number | null
  /** Preempted or retracted requests between the last two readings. */
  readonly preemptions?: number | null
  /** Tokens that it has made since it started. */
  readonly generationTokensTotal?: number | null
  /** When the signals were read and when the replica became ready, epoch milliseconds. */
  readonly readAtMs?: number
  readonly readySinceMs?: number
  /** Absent: our own engine. */
  readonly backend?: GatewayBackend
}

/** A service that Penstock does not run: `url` of its target is the origin. */
export type GatewayBackend = {
  readonly name: string
  /** Before `/chat/completions`, such as `/v1`. */
  readonly basePath: string
  /** `Bearer …`; null: none. Never logged. */
  readonly authorization: string | null
}

/** For whom a route is, beside the name that was asked for. */
export type RouteMatch = {
  readonly kind: 'exact' | 'prefix' | 'regex'
  /** The exact name, the prefix without its star, or the source of the regex. */
  readonly pattern: string
  readonly aliases: readonly string[]
  readonly when: NonNullable<Route['when']> | null
}

/** How the gateway treats the route's requests, as the manifest says. */
export type RoutePolicy = Pick<
  Route,
  'balance' | 'slowStart' | 'retry' | 'queue' | 'continueStreams'
> & {
  readonly firstTokenTargetMs: number | null
  readonly perTokenTargetMs: number | null
  readonly parameters: Parameters | null
}

export type Fallback = {
  readonly on: readonly RouteCause[]
  /** In the order in which they are tried; none has fallbacks or a stand-in of its own. */
  readonly routes: readonly GatewayRoute[]
}

/** One model name and one deployment (or backend) that answers it. */
export type GatewayRoute = {
  /** As the manifest writes it: a name, or a pattern. */
  readonly model: string
  readonly deployment: string
  readonly engine: string
  /** The kind of its model, where the command line says it; absent: the engine knows. */
  readonly task?: 'pool'
  /** The engine's `--served-model-name`: the body's `model` is spliced when it differs. */
  readonly servedModel: string
  /** Present: a backend answers, which knows these models of ours by other names. */
  readonly models?: Readonly<Record<string, string>>
  readonly context: number
  readonly firstTokenTimeoutMs: number
  readonly stallTimeoutMs: number
  /** Ready and draining replicas. Empty: 503 with `why`. */
  readonly targets: readonly Target[]
  /** What is going on when no target is ready, for the 503 body: `rank 1 is loading weights`. */
  readonly why: string
  /** Absent: none. */
  readonly limits?: readonly GatewayLimit[]
  /** Absent: this route has no stand-in. */
  readonly standIn?: StandIn
  /** Absent: the exact name `model`, for everybody. */
  readonly match?: RouteMatch
  /** Absent: the usual policy (core/gateway-manifest.ts's defaults). */
  readonly policy?: RoutePolicy
  /** Others that answer a share of the callers, percent; this route answers the rest. */
  readonly split?: readonly { readonly percent: number; readonly route: GatewayRoute }[]
  readonly fallback?: Fallback
}

export type SpillCause = 'tokens' | 'saturation' | 'latency' | 'unavailable'

/** Who answers in a route's place, and when. */
export type StandIn = {
  readonly on: readonly SpillCause[]
  /** Share of callers that saturation sends there, 0..1; decided over all readings by control. */
  readonly fraction: number
  /** The figures behind `fraction`, in words. */
  readonly reason: string
  /** The stand-in is nearly full itself, and is left alone. */
  readonly saturated: boolean
  /** The stand-in as a route; it has no stand-in of its own. */
  readonly route: GatewayRoute
}

export type GatewayKey = {
  /** SHA-256 of the key, hex. */
  readonly hash: string
  readonly id: string
  readonly consumer: string
  /** Null: every model. */
  readonly models: readonly string[] | null
}

/** What gateway.yaml says of a consumer; one that it does not name has the usual settings. */
export type GatewayConsumer = {
  readonly name: string
  readonly group: string | null
  readonly weight: number
  readonly priority: Priority
  readonly maxPriority: Priority
  readonly spillover: 'allow' | 'deny'
  readonly parameters: Parameters | null
}

export type GatewaySnapshot = {
  readonly version: number
  readonly routes: readonly GatewayRoute[]
  readonly keys: readonly GatewayKey[]
  /** Absent: none is named. */
  readonly consumers?: readonly GatewayConsumer[]
  readonly maxBodyBytes: number
  readonly keepAliveMs: number
  readonly rehearsal: boolean
}

export type Outcome =
  | 'ok'
  | 'refused'
  | 'client_gone'
  | 'upstream_error'
  | 'interrupted'
  | 'timeout'

/** One request, ended: reported exactly once on every way out. */
export type FinishedRequest = {
  readonly id: string
  /** Epoch milliseconds of acceptance. */
  readonly acceptedAtMs: number
  readonly path: string
  readonly consumer: string | null
  readonly key: string | null
  readonly modelAsked: string | null
  /** The route of that name, as the manifest writes it; absent: the name itself, or none. */
  readonly route?: string
  readonly modelServed: string | null
  readonly deployment: string | null
  readonly replica: string | null
  readonly stream: boolean
  readonly status: number
  readonly outcome: Outcome
  /** Error code or finish reason: why it ended as it did. */
  readonly reason: string
  readonly promptTokens: number | null
  readonly completionTokens: number | null
  readonly cachedTokens: number | null
  readonly reasoningTokens: number | null
  readonly ttftMs: number | null
  readonly durationMs: number
  /** Why a stand-in answered; absent: none did. */
  readonly spillover?: SpillCause
  /** Milliseconds in the gateway's queue; absent: it did not wait. */
  readonly queueMs?: number
  /** Attempts that failed before this one, on other replicas or routes; absent: none. */
  readonly retries?: number
  /** How often another replica went on with the answer of one that died; absent: never. */
  readonly continuations?: number
  /** What decided, in words: for `GET requests` and the console; absent: nothing to explain. */
  readonly decision?: string
}

export type ToGateway =
  | { readonly kind: 'snapshot'; readonly snapshot: GatewaySnapshot }
  | { readonly kind: 'drain'; readonly deadlineMs: number }

export type FromGateway =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'failed'; readonly code: string; readonly message: string }
  | { readonly kind: 'finished'; readonly requests: readonly FinishedRequest[] }
  | { readonly kind: 'drained' }
  /** For the log. */
  | { readonly kind: 'note'; readonly message: string }
