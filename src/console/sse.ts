/**
 * A server-sent event stream to one reader (HTML standard, section 9.2), bounded: what the reader
 * has not taken stays in one socket buffer, `ready` says when there is room for more, and a reader
 * that takes nothing for `STUCK_MS` is cut off.
 */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import type { Clock } from '../clock.ts'

/** A comment this often keeps proxies and NATs from closing a quiet stream. */
const HEARTBEAT_MS = 15_000
/** A reader that took nothing for this long is gone, whatever TCP says. */
const STUCK_MS = 60_000

export type EventStream = {
  /** Room for another frame; false: skip it, `onDrain` calls when there is. */
  readonly ready: boolean
  /** Aborts when the reader is gone or the stream was ended. */
  readonly closed: AbortSignal
  send(event: string, data: string): void
  /** Resolves when there is room, at once when there is, or when the reader is gone. */
  drained(): Promise<void>
  onDrain(listener: () => void): void
  end(): void
}

/** `data` must be one line: JSON never holds a raw line feed. */
const frame = (event: string, data: string): string => `event: ${event}\ndata: ${data}\n\n`

export const openEventStream = (reply: FastifyReply, clock: Clock): EventStream => {
  reply.hijack()
  const response = reply.raw
  for (const [name, value] of Object.entries(reply.getHeaders())) {
    if (value !== undefined) response.setHeader(name, value)
  }
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  })
  response.write(': penstock\n\n')
  return stream(response, clock)
}

const stream = (response: ServerResponse, clock: Clock): EventStream => {
  const controller = new AbortController()
  let blockedBeats = 0
  const stop = clock.every(HEARTBEAT_MS, () => {
    blockedBeats = response.writableNeedDrain ? blockedBeats + 1 : 0
    if (blockedBeats * HEARTBEAT_MS >= STUCK_MS) response.destroy()
    else if (!response.writableNeedDrain) response.write(': beat\n\n')
  })
  const close = (): void => {
    stop()
    controller.abort()
  }
  response.once('close', close)
  response.on('error', close)
  const open = (): boolean => !controller.signal.aborted && !response.writableEnded
  return {
    get ready() {
      return open() && !response.writableNeedDrain
    },
    closed: controller.signal,
    send: (event, data) => {
      if (open()) response.write(frame(event, data))
    },
    drained: () => drained(response, controller.signal),
    onDrain: (listener) => response.on('drain', listener),
    end: () => {
      if (open()) response.end()
    },
  }
}

const drained = (response: ServerResponse, closed: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (!response.writableNeedDrain || closed.aborted) {
      resolve()
      return
    }
    const done = (): void => {
      response.off('drain', done)
      closed.removeEventListener('abort', done)
      resolve()
    }
    response.on('drain', done)
    closed.addEventListener('abort', done)
  })
