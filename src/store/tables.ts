/** The tables of penstock.db as kysely sees them. The SQL that makes them is in migrations.ts. */
import type { Generated } from 'kysely'
import type { KeyRole } from '../core/admin.ts'
import type { CostState } from '../core/cost.ts'
import type { Outcome, SpillCause } from '../core/snapshot.ts'

/** Columns of usage_days that add up; counts and tokens are whole, milliseconds are not. */
export const USAGE_SUMS = [
  'requests',
  'ok',
  'refused',
  'client_gone',
  'upstream_error',
  'interrupted',
  'timeout',
  'spilled',
  'unmetered',
  'prompt_tokens',
  'cached_tokens',
  'completion_tokens',
  'reasoning_tokens',
  'queue_ms',
  'queued',
  'ttft_ms',
  'ttft_known',
  'duration_ms',
] as const
type UsageSum = (typeof USAGE_SUMS)[number]

export type Tables = {
  keys: {
    id: string
    role: KeyRole
    consumer: string
    prefix: string
    /** SHA-256 of the key, hex. */
    hash: string
    /** JSON array of model names; null: every model. */
    models: string | null
    created_at_ms: number
    revoked_at_ms: number | null
  }
  desired: {
    generation: Generated<number>
    saved_at_ms: number
    rehearsal: number
    /** JSON of core/admin InputFiles. */
    files: string
  }
  requests: {
    seq: Generated<number>
    id: string
    accepted_at_ms: number
    path: string
    consumer: string | null
    key_id: string | null
    model_asked: string | null
    model_served: string | null
    deployment: string | null
    replica: string | null
    stream: number
    status: number
    outcome: Outcome
    reason: string
    prompt_tokens: number | null
    completion_tokens: number | null
    cached_tokens: number | null
    reasoning_tokens: number | null
    ttft_ms: number | null
    duration_ms: number
    spillover: SpillCause | null
    queue_ms: number | null
    retries: number | null
    continuations: number | null
    decision: string | null
    route: string | null
  }
  /** Requests of a day that share who asked and who answered, summed. Empty text: none. */
  usage_days: {
    day: number
    consumer: string
    key_id: string
    model_asked: string
    model_served: string
    deployment: string
  } & Record<UsageSum, number>
  /** Requests that `requests` no longer has: what they are recognised by if they come again. */
  counted: { seq: Generated<number>; fingerprint: number }
  cost_days: {
    day: number
    node: string
    deployment: string
    state: CostState
    currency: string
    amount: number
    gpu_seconds: number
  }
  /** One row: until when the cost is written down. */
  cost_meter: { id: number; at_ms: number }
  /** One engine from its start to its end, by our books and by its own counters. */
  engine_runs: {
    replica: string
    /** The container's start as its node says, only ever compared for equality. */
    run: number
    opened_at_ms: number
    read_at_ms: number | null
    base_prompt: number
    base_completion: number
    last_prompt: number
    last_completion: number
    /** Counted before the counters began at 0 again within this run. */
    carried_prompt: number
    carried_completion: number
    resets: number
    kills: number
    requests: number
    cut: number
    unmetered: number
    prompt_tokens: number
    completion_tokens: number
    probes: number
    probe_prompt: number
    probe_completion: number
  }
  audit: {
    seq: Generated<number>
    at_ms: number
    who: string
    what: string
    detail: string
  }
}
