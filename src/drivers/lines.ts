/** Bytes to lines, bounded: an engine that prints no newline must not fill our memory. */

/** Longer lines are cut and the rest dropped; vLLM's longest (its settings dump) is near 8 KiB. */
export const LINE_CHARS_MAX = 64 * 1024
/** The interface's bound for one read of a log. */
export const LOG_BYTES_MAX = 1024 * 1024

/** Feed chunks, get whole lines; `\r\n` and `\n` both end one. */
export class LineSplitter {
  #rest = ''
  #cut = false
  readonly #decoder = new TextDecoder()

  push(chunk: Uint8Array): readonly string[] {
    return this.#take(this.#decoder.decode(chunk, { stream: true }))
  }

  /** The last line when it has no newline; empty otherwise. */
  end(): readonly string[] {
    const lines = this.#take(this.#decoder.decode())
    const rest = this.#rest
    this.#rest = ''
    return rest === '' ? lines : [...lines, rest.replace(/\r$/, '')]
  }

  #take(text: string): readonly string[] {
    const parts = text.split('\n')
    const lines: string[] = []
    for (const [index, part] of parts.entries()) {
      if (!this.#cut) this.#rest += part
      if (this.#rest.length > LINE_CHARS_MAX) {
        this.#rest = this.#rest.slice(0, LINE_CHARS_MAX)
        this.#cut = true
      }
      if (index === parts.length - 1) break
      lines.push(this.#rest.replace(/\r$/, ''))
      this.#rest = ''
      this.#cut = false
    }
    return lines
  }
}

/** Lines of a byte stream until it ends. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const splitter = new LineSplitter()
  for await (const chunk of chunks) yield* splitter.push(chunk)
  yield* splitter.end()
}

/** The last `count` lines of a text, without the newline at its end. */
export const tail = (text: string, count: number): string => {
  const lines = text.replace(/\n$/, '').split('\n')
  return count <= 0 ? '' : lines.slice(-count).join('\n')
}

/** The last line that says something, for an error message; at most 300 characters. */
export const lastLine = (text: string): string => {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return (lines.at(-1) ?? '').trim().slice(0, 300)
}

/** Lines that came in one piece with the one at which the reader left are not for him any more. */
export async function* untilAborted(
  lines: AsyncIterable<string>,
  signal: AbortSignal,
): AsyncGenerator<string> {
  for await (const line of lines) {
    if (signal.aborted) return
    yield line
  }
}
