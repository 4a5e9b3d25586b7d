/**
 * Docker's multiplexed output (Engine API, ContainerAttach, "Stream format"): frames of one byte
 * stream number, three zero bytes, four bytes length (big endian), then the bytes.
 */
import { LineSplitter, LOG_BYTES_MAX } from './lines.ts'

export type Frame = { readonly stream: 'stdout' | 'stderr'; readonly bytes: Uint8Array }

const HEADER_BYTES = 8

/** Pieces of frames as they come; holds no more than one header, whatever length a frame claims. */
export class Demultiplexer {
  #header = Buffer.alloc(0)
  #left = 0
  #stream: Frame['stream'] = 'stdout'
  #raw = false

  push(chunk: Uint8Array): readonly Frame[] {
    const frames: Frame[] = []
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    while (rest.length > 0) {
      if (this.#raw || this.#left > 0) {
        const bytes = this.#raw ? rest : rest.subarray(0, this.#left)
        frames.push({ stream: this.#stream, bytes })
        this.#left -= this.#raw ? 0 : bytes.length
        rest = rest.subarray(bytes.length)
        continue
      }
      const missing = HEADER_BYTES - this.#header.length
      this.#header = Buffer.concat([this.#header, rest.subarray(0, missing)])
      rest = rest.subarray(missing)
      if (this.#header.length === HEADER_BYTES) frames.push(...this.#open())
    }
    return frames
  }

  /** A header that cannot be one means a terminal's output, which is not multiplexed. */
  #open(): readonly Frame[] {
    const header = this.#header
    this.#header = Buffer.alloc(0)
    const number = header[0] ?? 0
    if (number > 2 || header[1] !== 0 || header[2] !== 0 || header[3] !== 0) {
      this.#raw = true
      this.#stream = 'stdout'
      return [{ stream: 'stdout', bytes: header }]
    }
    this.#stream = number === 2 ? 'stderr' : 'stdout'
    this.#left = header.readUInt32BE(4)
    return []
  }
}

export async function* framesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  const demultiplexer = new Demultiplexer()
  for await (const chunk of chunks) yield* demultiplexer.push(chunk)
}

/** Lines of both streams in the order they came; each stream keeps its own unfinished line. */
export async function* logLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const splitters = { stdout: new LineSplitter(), stderr: new LineSplitter() }
  for await (const frame of framesOf(chunks)) yield* splitters[frame.stream].push(frame.bytes)
  yield* splitters.stdout.end()
  yield* splitters.stderr.end()
}

/** The last lines of a log, at most 1 MiB of them. */
export const lastLines = async (
  chunks: AsyncIterable<Uint8Array>,
  count: number,
): Promise<string> => {
  const lines: string[] = []
  let chars = 0
  for await (const line of logLines(chunks)) {
    lines.push(line)
    chars += line.length + 1
    while (lines.length > count || chars > LOG_BYTES_MAX) chars -= (lines.shift()?.length ?? 0) + 1
  }
  return lines.join('\n')
}
