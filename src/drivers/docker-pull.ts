/** Pulling an image: layers' bytes to one ratio, and a pull that stands still is given up. */
import type Docker from 'dockerode'
import { z } from 'zod'
import { PenstockError } from '../errors.ts'
import { type DockerAsk, EngineError, explain } from './docker-errors.ts'
import { linesOf } from './lines.ts'

/** The vLLM image is near 10 GB in 30 layers; extracting one goes by without a word for minutes. */
const STALL_MS = 15 * 60_000
const LAYERS_MAX = 1024

/** One line of the answer of `POST /images/create` (Engine API, ImageCreate). */
const EventSchema = z.object({
  id: z.string().optional(),
  status: z.string().optional(),
  error: z.string().optional(),
  progressDetail: z
    .object({ current: z.number().optional(), total: z.number().optional() })
    .optional(),
})
export type PullEvent = z.output<typeof EventSchema>

type Layer = { readonly total: number; readonly downloaded: number; readonly extracted: number }

/** Downloading and extracting count half each. A ratio never goes back, though layers turn up. */
export class PullRatio {
  readonly #layers = new Map<string, Layer>()
  #ratio: number | null = null

  push(event: PullEvent): number | null {
    const { id, status } = event
    if (id === undefined || status === undefined) return this.#ratio
    if (!this.#layers.has(id) && this.#layers.size >= LAYERS_MAX) return this.#ratio
    const layer = this.#layers.get(id) ?? { total: 0, downloaded: 0, extracted: 0 }
    this.#layers.set(id, advance(layer, status, event.progressDetail ?? {}))
    const all = [...this.#layers.values()]
    const total = all.reduce((sum, it) => sum + it.total, 0)
    if (total === 0) return this.#ratio
    const done = all.reduce((sum, it) => sum + it.downloaded + it.extracted, 0)
    this.#ratio = Math.max(this.#ratio ?? 0, Math.min(1, done / (2 * total)))
    return this.#ratio
  }
}

const advance = (
  layer: Layer,
  status: string,
  detail: { readonly current?: number | undefined; readonly total?: number | undefined },
): Layer => {
  const total = Math.max(layer.total, detail.total ?? 0)
  const current = Math.min(detail.current ?? 0, total)
  if (status === 'Downloading') return { ...layer, total, downloaded: current }
  if (status === 'Extracting') return { total, downloaded: total, extracted: current }
  if (status === 'Download complete') return { ...layer, total, downloaded: total }
  if (status === 'Pull complete') return { total, downloaded: total, extracted: total }
  return layer
}

export type PullAsk = DockerAsk & {
  readonly docker: Docker
  readonly image: string
  readonly signal: AbortSignal
  readonly progress: (ratio: number | null) => void
}

/** Done when the image is there; throws image_missing, node_unreachable. An abort stops it. */
export const pull = async (ask: PullAsk): Promise<void> => {
  const stalled = new AbortController()
  const timer = setTimeout(() => stalled.abort(), STALL_MS)
  const abortSignal = AbortSignal.any([ask.signal, stalled.signal])
  try {
    const stream = await ask.docker.pull(ask.image, { abortSignal })
    const ratio = new PullRatio()
    for await (const line of linesOf(bytesOf(stream, abortSignal))) {
      timer.refresh()
      const event = eventOf(line)
      if (event?.error !== undefined) throw new EngineError(event.error)
      if (event !== null) ask.progress(ratio.push(event))
    }
    ask.signal.throwIfAborted()
  } catch (error) {
    if (ask.signal.aborted) throw ask.signal.reason
    if (stalled.signal.aborted) {
      const message = `image ${ask.image}: nothing arrived for ${STALL_MS / 60_000} minutes`
      throw new PenstockError('image_missing', message, ask.place, error)
    }
    throw explain(error, ask)
  } finally {
    clearTimeout(timer)
  }
}

const eventOf = (line: string): PullEvent | null => {
  if (line.trim() === '') return null
  try {
    const event = EventSchema.safeParse(JSON.parse(line))
    return event.success ? event.data : null
  } catch {
    return null // a line we cannot read is no progress; errors have their own event
  }
}

/** A response as chunks of bytes, destroyed when `signal` aborts or the reader leaves. */
export async function* bytesOf(
  stream: NodeJS.ReadableStream,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const stop = (): void => {
    if ('destroy' in stream && typeof stream.destroy === 'function') stream.destroy()
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    if (signal.aborted) return
    for await (const chunk of stream) yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    signal.removeEventListener('abort', stop)
    stop()
  }
}
