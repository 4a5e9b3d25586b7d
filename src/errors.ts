/**
 * The error table: every failure that Penstock reports, declared once. `status` and `type` are what
 * an API client sees (OpenAI's error body), `retryable` tells our own callers whether trying again
 * can help. Expected outcomes are values from core/; bugs are asserts; only failures live here.
 */
export const ERRORS = {
  // Requests to the gateway and the admin API
  invalid_request: { status: 400, type: 'invalid_request_error', retryable: false },
  invalid_api_key: { status: 401, type: 'invalid_request_error', retryable: false },
  model_not_allowed: { status: 403, type: 'invalid_request_error', retryable: false },
  admin_required: { status: 403, type: 'permission_error', retryable: false },
  host_not_allowed: { status: 403, type: 'permission_error', retryable: false },
  not_found: { status: 404, type: 'invalid_request_error', retryable: false },
  model_not_found: { status: 404, type: 'invalid_request_error', retryable: false },
  method_not_allowed: { status: 405, type: 'invalid_request_error', retryable: false },
  request_timeout: { status: 408, type: 'invalid_request_error', retryable: true },
  conflict: { status: 409, type: 'invalid_request_error', retryable: false },
  body_too_large: { status: 413, type: 'invalid_request_error', retryable: false },
  unsupported_media_type: { status: 415, type: 'invalid_request_error', retryable: false },
  rate_limit_exceeded: { status: 429, type: 'requests', retryable: true },
  model_saturated: { status: 429, type: 'requests', retryable: true },
  internal_error: { status: 500, type: 'server_error', retryable: false },
  upstream_error: { status: 502, type: 'server_error', retryable: true },
  upstream_invalid: { status: 502, type: 'server_error', retryable: true },
  model_unavailable: { status: 503, type: 'server_error', retryable: true },
  server_draining: { status: 503, type: 'server_error', retryable: true },
  upstream_timeout: { status: 504, type: 'server_error', retryable: true },
  stream_interrupted: { status: 502, type: 'server_error', retryable: true },
  stream_stalled: { status: 504, type: 'server_error', retryable: true },
  // Operating machines and engines
  invalid_input: { status: 400, type: 'invalid_request_error', retryable: false },
  port_taken: { status: 500, type: 'server_error', retryable: false },
  already_running: { status: 500, type: 'server_error', retryable: false },
  not_running: { status: 503, type: 'server_error', retryable: true },
  node_unreachable: { status: 503, type: 'server_error', retryable: true },
  node_tls: { status: 503, type: 'server_error', retryable: false },
  image_missing: { status: 500, type: 'server_error', retryable: false },
  container_refused: { status: 500, type: 'server_error', retryable: false },
  engine_exited: { status: 500, type: 'server_error', retryable: true },
  exec_failed: { status: 500, type: 'server_error', retryable: true },
  store_failed: { status: 500, type: 'server_error', retryable: false },
} as const satisfies Record<string, { status: number; type: string; retryable: boolean }>

export type ErrorCode = keyof typeof ERRORS

/** Where a failure happened; every field that is known is shown to the operator. */
export type ErrorPlace = {
  readonly node?: string
  readonly replica?: string
  readonly rank?: number
  readonly param?: string
}

/** The one failure class. `message` says what happened and, where it helps, what to do. */
export class PenstockError extends Error {
  readonly code: ErrorCode
  readonly place: ErrorPlace

  constructor(code: ErrorCode, message: string, place: ErrorPlace = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'PenstockError'
    this.code = code
    this.place = place
  }

  get status(): number {
    return ERRORS[this.code].status
  }
}

/** OpenAI's error body: the four keys are always present (openai-openapi, schema `Error`). */
export type ErrorBody = {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly param: string | null
    readonly code: string | null
  }
}

export const errorBody = (code: ErrorCode, message: string, param?: string): ErrorBody => ({
  error: { message, type: ERRORS[code].type, param: param ?? null, code },
})

/** One line for a log or a terminal: place first, then what happened. */
export const errorLine = (error: unknown): string => {
  if (!(error instanceof PenstockError)) {
    return error instanceof Error ? error.message : String(error)
  }
  const { node, replica, rank } = error.place
  const where = [
    node === undefined ? '' : `node ${node}`,
    replica === undefined ? '' : replica,
    rank === undefined ? '' : `rank ${rank}`,
  ].filter((part) => part !== '')
  return where.length === 0 ? error.message : `${where.join(', ')}: ${error.message}`
}
