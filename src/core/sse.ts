/**
 * Incremental scanner of server-sent events over bytes (WHATWG HTML, 9.2.6). It cuts a byte stream
 * into whole events and changes nothing: what it gives out, joined, is what went in. A part of an
 * event is held until the rest arrives, so that whoever forwards the pieces always stands between
 * two events: a comment or an error event may follow, and half an event is never passed on.
 * Lines end in LF, CRLF or CR. An LF that follows a closing CR in the next chunk is given out with
 * the next event, where it is an empty line, which readers ignore.
 */

/** Offsets into the step's bytes; `end` is after the empty line that closes the event. */
export type SseEvent = { readonly start: number; readonly end: number }
export type SseStep = { readonly bytes: Uint8Array; readonly events: readonly SseEvent[] }

const [LF, CR, COLON, SPACE] = [0x0a, 0x0d, 0x3a, 0x20]
const NOTHING: SseStep = { bytes: new Uint8Array(0), events: [] }
const decoder = new TextDecoder()

export class SseScanner {
  readonly #eventBytesMax: number
  #held: Uint8Array[] = []
  #heldBytes = 0
  #lineBytes = 0
  #afterCr = false

  constructor(eventBytesMax: number) {
    this.#eventBytesMax = eventBytesMax
  }

  /** The events that this chunk completes. Null: an event outgrew the limit; do not push again. */
  push(chunk: Uint8Array): SseStep | null {
    const ends = this.#ends(chunk)
    const last = ends.at(-1)
    if (last === undefined) {
      if (chunk.length === 0) return NOTHING
      this.#held.push(chunk)
      this.#heldBytes += chunk.length
      return this.#heldBytes > this.#eventBytesMax ? null : NOTHING
    }
    const before = this.#heldBytes
    const whole = last === chunk.length ? chunk : chunk.subarray(0, last)
    const bytes = before === 0 ? whole : joined([...this.#held, whole], before + last)
    this.#held = last === chunk.length ? [] : [chunk.subarray(last)]
    this.#heldBytes = chunk.length - last
    if (this.#heldBytes > this.#eventBytesMax) return null
    let start = 0
    const events = ends.map((end) => {
      const event = { start, end: before + end }
      start = event.end
      return event
    })
    return { bytes, events }
  }

  /** The bytes of the event that is not whole yet. */
  rest(): Uint8Array {
    return joined(this.#held, this.#heldBytes)
  }

  /** Positions in the chunk right after each empty line. */
  #ends(chunk: Uint8Array): number[] {
    const ends: number[] = []
    let [lineBytes, afterCr] = [this.#lineBytes, this.#afterCr]
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at]
      if (byte === LF && afterCr) {
        afterCr = false
        if (ends.length > 0 && ends[ends.length - 1] === at) ends[ends.length - 1] = at + 1
      } else if (byte === LF || byte === CR) {
        if (lineBytes === 0) ends.push(at + 1)
        lineBytes = 0
        afterCr = byte === CR
      } else {
        lineBytes += 1
        afterCr = false
      }
    }
    this.#lineBytes = lineBytes
    this.#afterCr = afterCr
    return ends
  }
}

const joined = (parts: readonly Uint8Array[], length: number): Uint8Array => {
  const result = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    result.set(part, at)
    at += part.length
  }
  return result
}

export type SseFields = { readonly name: string; readonly data: string | null }

/** The event's name and its data lines joined; null data: a comment, or an empty event. */
export const fieldsOf = (bytes: Uint8Array, event: SseEvent): SseFields => {
  const data: string[] = []
  let name = ''
  let at = event.start
  if (bytes[at] === 0xef && bytes[at + 1] === 0xbb && bytes[at + 2] === 0xbf) at += 3
  while (at < event.end) {
    let end = at
    while (end < event.end && bytes[end] !== LF && bytes[end] !== CR) end += 1
    const colon = bytes.subarray(at, end).indexOf(COLON)
    const nameEnd = colon === -1 ? end : at + colon
    let valueStart = colon === -1 ? end : nameEnd + 1
    if (valueStart < end && bytes[valueStart] === SPACE) valueStart += 1
    const field = decoder.decode(bytes.subarray(at, Math.min(nameEnd, at + 16)))
    if (field === 'data') data.push(decoder.decode(bytes.subarray(valueStart, end)))
    if (field === 'event') name = decoder.decode(bytes.subarray(valueStart, end))
    at = end + (bytes[end] === CR && bytes[end + 1] === LF ? 2 : 1)
  }
  return { name, data: data.length === 0 ? null : data.join('\n') }
}
