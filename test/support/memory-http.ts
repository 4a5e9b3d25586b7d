/**
 * HTTP without a kernel: a server of node:http answers on a pair of streams in this process. No
 * socket buffer, no scheduler: the same bytes in the same order each time.
 */
import type { Server } from 'node:http'
import { type Duplex, duplexPair } from 'node:stream'

/** What a broken engine calls on its socket. */
const asSocket = (side: Duplex): Duplex =>
  Object.assign(side, {
    resetAndDestroy: () => side.destroy(),
    destroySoon: () => side.end(),
    setTimeout: () => side,
    setNoDelay: () => side,
    setKeepAlive: () => side,
    remoteAddress: '127.0.0.1',
  })

export type Call = { readonly method: string; readonly path: string; readonly body?: unknown }

/** The raw response up to the end of the connection, and how to leave before. */
export const call = (
  server: Server,
  { method, path, body }: Call,
  ended: (raw: string, cut: boolean) => void,
): (() => void) => {
  const [mine, theirs] = duplexPair()
  const socket = asSocket(theirs)
  const parts: Buffer[] = []
  let over = false
  const end = (cut: boolean) => {
    if (over) return
    over = true
    ended(Buffer.concat(parts).toString(), cut)
  }
  mine.on('data', (part: Buffer) => parts.push(part))
  mine.once('end', () => end(false))
  mine.once('close', () => end(true))
  socket.on('error', () => end(true))
  // The other end of a pair outlives its peer: a real one does not.
  socket.once('close', () => mine.destroy())
  server.emit('connection', socket)
  const text = body === undefined ? '' : JSON.stringify(body)
  const head =
    `${method} ${path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n` +
    `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n`
  mine.write(head + text)
  return () => {
    over = true
    mine.destroy()
    socket.destroy()
  }
}
