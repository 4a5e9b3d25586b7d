/**
 * Reads server-sent events from text in any cut (HTML standard, section 9.2.6), for a fetch that
 * carries the admin key in a header: EventSource cannot. Bounded: a frame over `MAX_FRAME` throws.
 */
export type Frame = { readonly event: string; readonly data: string }

/** A fleet of 1,000 nodes of 8 GPUs is about 3 MB of JSON. */
const MAX_FRAME = 64 * 1024 * 1024

export class FrameReader {
  #rest = ''
  /** Where to look for the end of the frame: what was searched is not searched again. */
  #searched = 0

  /** Frames that `text` completes, in order; comments and unnamed events are left out. */
  push(text: string): readonly Frame[] {
    this.#rest += text
    const frames: Frame[] = []
    for (;;) {
      const end = this.#rest.indexOf('\n\n', this.#searched)
      if (end === -1) break
      const frame = parse(this.#rest.slice(0, end))
      if (frame !== null) frames.push(frame)
      this.#rest = this.#rest.slice(end + 2)
      this.#searched = 0
    }
    this.#searched = Math.max(0, this.#rest.length - 1)
    if (this.#rest.length > MAX_FRAME) throw new RangeError('an event is too large to be ours')
    return frames
  }
}

const parse = (block: string): Frame | null => {
  let event = ''
  const data: string[] = []
  for (const line of block.split('\n')) {
    if (line.startsWith('event: ')) event = line.slice(7)
    else if (line.startsWith('data: ')) data.push(line.slice(6))
  }
  return event === '' || data.length === 0 ? null : { event, data: data.join('\n') }
}
