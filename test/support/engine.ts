/** A fake engine on a real socket, whose every answer is a script: pieces, pauses and disasters. */
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'

export type Step =
  | { readonly send: string | Uint8Array }
  | { readonly waitMs: number }
  /** Resets the connection. */
  | { readonly reset: true }
  /** Waits until the client goes away. */
  | { readonly hang: true }
  /** Waits for something outside the engine. */
  | { readonly until: () => Promise<void> }

export type Script = {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Without it the head goes out with the first piece. */
  readonly headFirst?: boolean
  readonly steps: readonly Step[]
}

export type Seen = {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
}

export type Engine = {
  readonly url: string
  readonly seen: readonly Seen[]
  /** Requests whose client left before the answer was complete. */
  readonly aborted: number
  readonly connections: number
  close(): Promise<void>
}

export const SSE = { 'content-type': 'text/event-stream; charset=utf-8' }
export const JSON_TYPE = { 'content-type': 'application/json' }

/** One chunk of a chat stream as vLLM sends it. */
export const chunk = (content: string, finish: string | null = null): string =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'qwq-32b',
    choices: [{ index: 0, delta: { content }, finish_reason: finish }],
  })}\n\n`

export const usageChunk = (prompt: number, completion: number): string =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'qwq-32b',
    choices: [],
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: 3 },
    },
  })}\n\n`

export const DONE = 'data: [DONE]\n\n'

export const completion = (content: string): string =>
  JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: 'qwq-32b',
    choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, reasoning_tokens: 1 },
  })

/** Starts on a free port; `scriptOf` decides each answer from the request. */
export const startEngine = async (scriptOf: (seen: Seen) => Script): Promise<Engine> => {
  const seen: Seen[] = []
  const books = { aborted: 0, connections: 0 }
  const server = createServer(async (req, res) => {
    const pieces: Buffer[] = []
    req.on('error', () => {})
    for await (const piece of req) pieces.push(piece)
    const entry = {
      path: req.url ?? '',
      headers: req.headers,
      rawHeaders: req.rawHeaders,
      body: Buffer.concat(pieces),
    }
    seen.push(entry)
    res.on('close', () => {
      if (!res.writableFinished) books.aborted += 1
    })
    await play(res, scriptOf(entry))
  })
  server.on('connection', () => {
    books.connections += 1
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    url: urlOf(address),
    seen,
    get aborted() {
      return books.aborted
    },
    get connections() {
      return books.connections
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const urlOf = ({ port }: AddressInfo): string => `http://127.0.0.1:${port}`

const play = async (res: ServerResponse, script: Script): Promise<void> => {
  res.writeHead(script.status ?? 200, { server: 'uvicorn', ...script.headers })
  if (script.headFirst === true) res.flushHeaders()
  for (const step of script.steps) {
    if (res.destroyed) return
    if ('send' in step) await written(res, step.send)
    else if ('waitMs' in step) await wait(step.waitMs)
    else if ('until' in step) await step.until()
    else if ('reset' in step) {
      res.socket?.resetAndDestroy()
      return
    } else {
      await new Promise((resolve) => res.once('close', resolve))
    }
  }
  res.end()
}

/** One write, one chunk: resolved when it has left for the socket. */
const written = (res: ServerResponse, bytes: string | Uint8Array): Promise<void> =>
  new Promise((resolve) => {
    res.write(bytes, () => resolve())
  })
