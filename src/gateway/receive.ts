/**
 * Reads a request body into one buffer, at most so many bytes, whatever its headers claim. A body
 * that was packed with gzip is unpacked on the way, within the same limit and a ratio that no text
 * reaches: a few kilobytes that unpack to gigabytes are refused after the first megabyte.
 */
import type { IncomingMessage } from 'node:http'
import { createGunzip, type Gunzip } from 'node:zlib'
import { PenstockError } from '../errors.ts'

type Done = (error: Error | null, body?: Buffer) => void

/** JSON of a long chat packs 4 to 20 times; gzip's own limit is 1032 (RFC 1951). */
const RATIO_MAX = 200
/** Below this a high ratio does no harm. */
const RATIO_FROM_BYTES = 1_048_576

/** Of `content-encoding`: which bodies are read. Throws unsupported_media_type. */
export const encodingOf = (header: string | undefined): 'gzip' | null => {
  const name = (header ?? '').trim().toLowerCase()
  if (name === '' || name === 'identity') return null
  // RFC 9110 8.4.1.3: the old name counts as the new one.
  if (name === 'gzip' || name === 'x-gzip') return 'gzip'
  throw new PenstockError(
    'unsupported_media_type',
    `content-encoding ${name.slice(0, 40)} is not supported; send the body as it is, or gzip`,
  )
}

/** Calls `done` once: with the body, or why there is none; request_timeout: the client left. */
export const receive = (req: IncomingMessage, bytesMax: number, done: Done): void => {
  if (!fits(req, bytesMax)) {
    done(tooLarge(bytesMax))
    return
  }
  const gunzip = encodingOf(req.headers['content-encoding']) === null ? null : createGunzip()
  new Receiver(req, { gunzip, bytesMax, done }).begin()
}

type Receiving = {
  /** Null: the body comes as it is. */
  readonly gunzip: Gunzip | null
  readonly bytesMax: number
  readonly done: Done
}

class Receiver {
  readonly #req: IncomingMessage
  readonly #how: Receiving
  readonly #chunks: Buffer[] = []
  #received = 0
  #size = 0
  #over = false

  constructor(req: IncomingMessage, how: Receiving) {
    this.#req = req
    this.#how = how
  }

  begin(): void {
    const { gunzip } = this.#how
    this.#req.on('data', this.#arrived)
    this.#req.on('close', this.#gone)
    this.#req.on('error', this.#gone)
    if (gunzip === null) {
      this.#req.on('end', this.#end)
      return
    }
    gunzip.on('data', this.#unpacked)
    gunzip.on('end', this.#end)
    gunzip.on('error', this.#damaged)
    this.#req.pipe(gunzip)
  }

  readonly #arrived = (chunk: Buffer): void => {
    this.#received += chunk.length
    if (this.#how.gunzip === null) this.#keep(chunk)
    else if (this.#received > this.#how.bytesMax) this.#finish(tooLarge(this.#how.bytesMax))
  }

  readonly #unpacked = (chunk: Buffer): void => {
    if (this.#over) return
    this.#keep(chunk)
    if (this.#size <= RATIO_FROM_BYTES || this.#size <= this.#received * RATIO_MAX) return
    const message = `the body unpacks to more than ${RATIO_MAX} times its size`
    this.#finish(new PenstockError('body_too_large', message))
  }

  #keep(chunk: Buffer): void {
    this.#size += chunk.length
    if (this.#size > this.#how.bytesMax) this.#finish(tooLarge(this.#how.bytesMax))
    else this.#chunks.push(chunk)
  }

  readonly #end = (): void => this.#finish(null)

  readonly #gone = (): void => {
    // All of it was read, and is still being unpacked.
    if (this.#how.gunzip !== null && this.#req.readableEnded) return
    this.#finish(
      new PenstockError('request_timeout', 'the client left before its body had arrived'),
    )
  }

  readonly #damaged = (error: Error): void => {
    this.#finish(new PenstockError('invalid_request', `the gzip body is damaged: ${error.message}`))
    // What is left of it is read and dropped, so that the connection can be used again.
    this.#req.resume()
  }

  #finish(error: Error | null): void {
    if (this.#over) return
    this.#over = true
    const [req, { gunzip, done }, chunks] = [this.#req, this.#how, this.#chunks]
    req.off('data', this.#arrived)
    req.off('end', this.#end)
    req.off('close', this.#gone)
    req.off('error', this.#gone)
    if (gunzip !== null) {
      req.unpipe(gunzip)
      gunzip.destroy()
    }
    if (error !== null) done(error)
    else done(null, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, this.#size))
  }
}

/** By the length that it declares; it may still lie. */
export const fits = (req: IncomingMessage, bytesMax: number): boolean =>
  !(Number(req.headers['content-length'] ?? 0) > bytesMax)

const tooLarge = (bytesMax: number): PenstockError =>
  new PenstockError('body_too_large', `the body is larger than ${bytesMax} bytes`)
