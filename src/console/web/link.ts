/**
 * The line to the server: one event stream that opens itself again. What it cannot do is decide
 * what a lost line means; it says since when, and the page shows it.
 */
import type { Series } from '../../core/admin.ts'
import type { FinishedRequest } from '../../core/snapshot.ts'
import type { FleetView } from '../../core/view.ts'
import { FrameReader } from './frames.ts'

export type LinkNews =
  | { readonly kind: 'fleet'; readonly fleet: FleetView; readonly atMs: number }
  | { readonly kind: 'requests'; readonly requests: readonly FinishedRequest[] }
  | { readonly kind: 'history'; readonly series: readonly Series[] }
  | { readonly kind: 'lost'; readonly reason: string; readonly atMs: number }
  | { readonly kind: 'refused'; readonly message: string }

/** The server sends a picture at least every two seconds; a big fleet's may take longer. */
const SILENT_MS = 20_000
const RETRY_MS = 500
const RETRY_MS_MAX = 5000

class Refused extends Error {}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null

const messageOf = (body: unknown): string =>
  isRecord(body) && isRecord(body.error) && typeof body.error.message === 'string'
    ? body.error.message
    : 'the console refused this key'

/** What the server sends is the server's word: it has the type that the admin API declares. */
const isFleet = (value: unknown): value is FleetView =>
  isRecord(value) && Array.isArray(value.nodes) && Array.isArray(value.deployments)

const isRequests = (value: unknown): value is { requests: readonly FinishedRequest[] } =>
  isRecord(value) && Array.isArray(value.requests)

const isHistory = (value: unknown): value is { series: readonly Series[] } =>
  isRecord(value) && Array.isArray(value.series)

const ask = async (path: string, key: string, signal: AbortSignal): Promise<Response> => {
  const headers = { authorization: `Bearer ${key}` }
  const answer = await fetch(`/admin/v1/${path}`, { headers, signal, cache: 'no-store' })
  if (answer.ok) return answer
  if (answer.status === 401 || answer.status === 403) {
    throw new Refused(messageOf(await answer.json()))
  }
  throw new Error(`the console answered ${answer.status}`)
}

/** Runs until `signal` aborts or the key is refused. */
export const keepLink = async (
  key: string,
  tell: (news: LinkNews) => void,
  signal: AbortSignal,
): Promise<void> => {
  let waitMs = RETRY_MS
  while (!signal.aborted) {
    const begunMs = Date.now()
    const reason = await readOnce(key, tell, signal)
    if (reason instanceof Refused) {
      tell({ kind: 'refused', message: reason.message })
      return
    }
    if (signal.aborted) return
    tell({ kind: 'lost', reason: reason.message, atMs: Date.now() })
    // A line that held for a while was good: begin again with a short wait.
    waitMs = Date.now() - begunMs > RETRY_MS_MAX ? RETRY_MS : Math.min(waitMs * 2, RETRY_MS_MAX)
    await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}

/** One stream to its end; the answer says why it ended. */
const readOnce = async (
  key: string,
  tell: (news: LinkNews) => void,
  signal: AbortSignal,
): Promise<Error> => {
  const silence = new AbortController()
  const both = AbortSignal.any([signal, silence.signal])
  let timer: ReturnType<typeof setTimeout> | undefined
  const heard = (): void => {
    clearTimeout(timer)
    timer = setTimeout(() => silence.abort(new Error('the console fell silent')), SILENT_MS)
  }
  try {
    heard()
    const answer = await ask('events', key, both)
    const history: unknown = await (await ask('history', key, both)).json()
    if (isHistory(history)) tell({ kind: 'history', series: history.series })
    const frames = new FrameReader()
    const decoder = new TextDecoder()
    const body = answer.body?.getReader()
    for (let part = await body?.read(); part?.done === false; part = await body?.read()) {
      heard()
      for (const frame of frames.push(decoder.decode(part.value, { stream: true }))) {
        tellFrame(frame.event, JSON.parse(frame.data), tell)
      }
    }
    return new Error('the console closed the line')
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  } finally {
    clearTimeout(timer)
    // Also ends a stream whose history could not be had.
    silence.abort()
  }
}

const tellFrame = (event: string, data: unknown, tell: (news: LinkNews) => void): void => {
  if (event === 'fleet' && isFleet(data)) tell({ kind: 'fleet', fleet: data, atMs: Date.now() })
  if (event === 'requests' && isRequests(data)) tell({ kind: 'requests', requests: data.requests })
}
