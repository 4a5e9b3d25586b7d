/** The CLI's side of the admin API of the Penstock that runs on this machine. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Settings } from '../config.ts'
import { PenstockError } from '../errors.ts'

export const ADMIN_KEY_FILE = 'admin.key'

export type AdminClient = {
  json(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<unknown>
  /** Data of each SSE event of an answer, parsed. */
  events(path: string, body: unknown, signal: AbortSignal): AsyncIterable<unknown>
  text(path: string, signal: AbortSignal): AsyncIterable<string>
  /** Whether a Penstock answers at all. */
  running(): Promise<boolean>
}

const adminKey = (home: string): string => {
  const given = process.env.PENSTOCK_ADMIN_KEY
  if (given !== undefined && given !== '') return given
  const file = join(home, ADMIN_KEY_FILE)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (cause) {
    const advice = 'start Penstock with this PENSTOCK_HOME, or set PENSTOCK_ADMIN_KEY'
    throw new PenstockError(
      'admin_required',
      `no admin key: ${file} not readable; ${advice}`,
      {},
      cause,
    )
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null

/** Our own errors come back as OpenAI bodies; show their message, not their wrapping. */
const messageOf = (text: string, status: number): string => {
  try {
    const body: unknown = JSON.parse(text)
    if (isRecord(body) && isRecord(body.error) && typeof body.error.message === 'string') {
      return body.error.message
    }
  } catch {
    return `answered ${status}: ${text.slice(0, 300)}`
  }
  return `answered ${status}: ${text.slice(0, 300)}`
}

export const adminClient = (settings: Settings): AdminClient => {
  const host = settings.consoleHost === '0.0.0.0' ? '127.0.0.1' : settings.consoleHost
  const base = `http://${host}:${settings.consolePort}`
  const call = async (path: string, init: RequestInit): Promise<Response> => {
    let answer: Response
    try {
      answer = await fetch(`${base}${path}`, init)
    } catch (cause) {
      const advice = 'start it with `make up` or `penstock serve`'
      const message = `no Penstock answers at ${base}; ${advice}`
      throw new PenstockError('not_running', message, {}, cause)
    }
    if (answer.ok) return answer
    const code =
      answer.status === 401 || answer.status === 403 ? 'admin_required' : 'invalid_request'
    throw new PenstockError(code, messageOf(await answer.text(), answer.status))
  }
  const init = (method: string, body: unknown, signal?: AbortSignal): RequestInit => ({
    method,
    headers: {
      authorization: `Bearer ${adminKey(settings.home)}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  })
  return {
    json: async (method, path, body) => {
      const answer = await call(path, init(method, body))
      const text = await answer.text()
      return text === '' ? null : JSON.parse(text)
    },
    events: async function* (path, body, signal) {
      const answer = await call(path, init('POST', body, signal))
      yield* sseData(linesOf(answer))
    },
    text: async function* (path, signal) {
      yield* linesOf(await call(path, init('GET', undefined, signal)))
    },
    running: async () => {
      try {
        const answer = await fetch(`${base}/healthz`, { signal: AbortSignal.timeout(2000) })
        return answer.ok
      } catch {
        return false
      }
    },
  }
}

async function* linesOf(answer: Response): AsyncIterable<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of answer.body ?? []) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  if (rest !== '') yield rest
}

/** Our own console writes one `data:` line per event, so a line is enough to read. */
async function* sseData(lines: AsyncIterable<string>): AsyncIterable<unknown> {
  for await (const line of lines) if (line.startsWith('data: ')) yield JSON.parse(line.slice(6))
}
