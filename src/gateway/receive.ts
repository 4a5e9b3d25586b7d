/** Reads a request body into one buffer, at most so many bytes, whatever its headers claim. */
import type { IncomingMessage } from 'node:http'
import { PenstockError } from '../errors.ts'

type Done = (error: Error | null, body?: Buffer) => void

/** Calls `done` once: with the body, body_too_large, or request_timeout when the client left. */
export const receive = (req: IncomingMessage, bytesMax: number, done: Done): void => {
  if (!fits(req, bytesMax)) {
    done(tooLarge(bytesMax))
    return
  }
  const chunks: Buffer[] = []
  let size = 0
  const finish = (error: Error | null): void => {
    req.off('data', data)
    req.off('end', end)
    req.off('close', gone)
    req.off('error', gone)
    if (error !== null) done(error)
    else done(null, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size))
  }
  const data = (chunk: Buffer): void => {
    size += chunk.length
    if (size > bytesMax) finish(tooLarge(bytesMax))
    else chunks.push(chunk)
  }
  const end = (): void => finish(null)
  const gone = (): void =>
    finish(new PenstockError('request_timeout', 'the client left before its body had arrived'))
  req.on('data', data)
  req.on('end', end)
  req.on('close', gone)
  req.on('error', gone)
}

/** By the length that it declares; it may still lie. */
export const fits = (req: IncomingMessage, bytesMax: number): boolean =>
  !(Number(req.headers['content-length'] ?? 0) > bytesMax)

const tooLarge = (bytesMax: number): PenstockError =>
  new PenstockError('body_too_large', `the body is larger than ${bytesMax} bytes`)
