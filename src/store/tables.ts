/** The tables of penstock.db as kysely sees them. The SQL that makes them is in migrations.ts. */
import type { Generated } from 'kysely'
import type { KeyRole } from '../core/admin.ts'
import type { Outcome, SpillCause } from '../core/snapshot.ts'

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
  }
  audit: {
    seq: Generated<number>
    at_ms: number
    who: string
    what: string
    detail: string
  }
}
