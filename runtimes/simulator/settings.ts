/** What a command line asks for, in words that both engines share. */
import type { Flags } from './flags/argparse.ts'

export type Engine = 'vllm' | 'sglang'

/** What a model that makes no text makes of one: a vector, or class scores. */
export type Pooling = {
  readonly task: 'embed' | 'classify'
  /** `num_labels` of the model's configuration. */
  readonly classes: number
  /** Null: the model takes no `dimensions`; empty: any up to its hidden size. */
  readonly dimensions: readonly number[] | null
}

export type Settings = {
  readonly engine: Engine
  /** Version that /version and the log name. */
  readonly version: string
  readonly model: string
  readonly servedNames: readonly string[]
  readonly host: string
  readonly port: number
  readonly apiKey: string | null
  readonly tensor: number
  readonly pipeline: number
  readonly nodes: number
  readonly nodeRank: number
  /** Where the ranks meet; null for one node. */
  readonly rendezvous: { readonly host: string; readonly port: number } | null
  readonly headless: boolean
  readonly contextTokens: number
  /** vLLM: share of VRAM for everything; SGLang: share for weights and KV. Null: the default. */
  readonly memoryFraction: number | null
  readonly kvType: 'auto' | 'fp8'
  readonly blockTokens: number
  /** Prompt tokens computed in one step; null: no chunking. */
  readonly batchTokensMax: number | null
  readonly runningMax: number
  readonly queuedMax: number | null
  readonly poolTokensMax: number | null
  /** SGLang: share of an answer's limit that a running request is reserved at first. */
  readonly newTokenRatio?: number
  readonly prefixCache: boolean
  readonly priority: 'off' | 'low-first' | 'high-first'
  readonly eager: boolean
  /** Set when the model is served as a pooling model. */
  readonly pooling?: Pooling
  /** vLLM's --enable-server-load-tracking: /load counts. */
  readonly loadTracking?: boolean
  readonly reasoningParser: string | null
  readonly toolParser: string | null
  readonly cachedTokensInUsage: boolean
  readonly usageAlways: boolean
  readonly metrics: boolean
  /** vLLM's --show-hidden-metrics-for-version named the minor version before this one. */
  readonly hiddenMetrics: boolean
  /** Paths that uvicorn's access log leaves out; null: there is none. */
  readonly unlogged: {
    readonly paths: readonly string[]
    readonly prefixes: readonly string[]
  } | null
  readonly decodeLogInterval: number
  /** Seconds, by histogram, where the command line sets other edges than the engine's own. */
  readonly buckets: Readonly<Record<'ttft' | 'itl' | 'e2e', readonly number[] | null>>
  readonly streamInterval: number
  readonly shutdownTimeoutMs: number
  readonly rendezvousTimeoutMs: number
  readonly readyTimeoutMs: number
  readonly keepAliveMs: number
  readonly watchdogMs: number
}

/** Null text: accepted; else how the engine dies, and with which exit code. */
export type Command =
  | { readonly ok: true; readonly settings: Settings }
  | { readonly ok: false; readonly code: number; readonly message: string }

export type Facts = {
  readonly maxContext: number
  readonly attentionHeads: number
  readonly memoryBytes: number
  readonly localGpus: number
  /** The version to play; `--as-version` on the command line outdoes it. Default: the newest. */
  readonly asVersion?: string | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
}

export const usageError = (program: string, usage: string, message: string): Command => ({
  ok: false,
  code: 2,
  message: `usage: ${usage}\n${program}: error: ${message}`,
})

/** What Python says of a port that no socket takes; null when it is one. */
export const portProblem = (port: number | null): string | null =>
  port === null || (port >= 0 && port <= 65_535)
    ? null
    : 'OverflowError: bind(): port must be 0-65535.'

/** Seconds in the environment; a value that is not a number counts as absent. */
export const environmentSeconds = (text: string | undefined, fallback: number): number => {
  const value = Number(text)
  return text === undefined || text === '' || !Number.isFinite(value) ? fallback : value
}

export const positive = (flags: Flags, name: string, fallback: number): number => {
  const value = flags.number(name)
  return value !== null && value > 0 ? value : fallback
}

/** `host:port` or `tcp://host:port`, also `[::1]:29500`. */
export const readAddress = (text: string): { host: string; port: number } | null => {
  const [, host = '', port = ''] = /^(?:tcp:\/\/)?(.+):(\d{1,5})$/.exec(text) ?? []
  if (host === '' || Number(port) > 65535 || port === '') return null
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}
