/**
 * The response of every request: node's own, which can also be late or end as a broken engine's
 * or a broken network's does. Whoever answers writes as ever and knows of none of it.
 */
import {
  type IncomingMessage,
  type OutgoingHttpHeader,
  type OutgoingHttpHeaders,
  ServerResponse,
} from 'node:http'
import type { SimulatedClock } from '../clock.ts'
import type { Break, RequestFaults } from '../faults/request-faults.ts'

const EMPTY = new Uint8Array(0)

const bytesOf = (chunk: string | Uint8Array): Uint8Array =>
  typeof chunk === 'string' ? Buffer.from(chunk) : chunk

export class EngineResponse<
  Request extends IncomingMessage = IncomingMessage,
> extends ServerResponse<Request> {
  #faults: RequestFaults | null = null
  #clock: SimulatedClock | null = null
  /** What is to be written once the delay is over; null: nothing is held back. */
  #held: (() => void)[] | null = null
  #streamed = false
  #broken = false

  /** Called once with the status when the answer begins, as uvicorn's access log is. */
  onHead: ((status: number) => void) | null = null

  /** Before the first byte. */
  suffer(faults: RequestFaults, clock: SimulatedClock): void {
    this.#faults = faults
    this.#clock = clock
    if (faults.delayMs === 0) return
    this.#held = []
    const cancel = clock.after(faults.delayMs, () => this.#release())
    this.once('close', cancel)
  }

  /** Held back: the answer gathers with its writer, as with a client that does not read. */
  get full(): boolean {
    return this.#held !== null || this.writableNeedDrain
  }

  /** A token was made for this response. */
  token(): void {
    if (this.#faults?.token() === true) this.reset()
  }

  /** The connection ends with a TCP RST; what the kernel has not sent yet is lost. */
  reset(): void {
    if (this.#broken) return
    this.#broken = true
    this.#held = null
    // node gathers the writes of one turn: those before the reset must reach the kernel.
    const { socket } = this
    this.#clock?.soon(() => socket?.resetAndDestroy())
  }

  override flushHeaders(): void {
    if (this.#held === null) super.flushHeaders()
    else this.#held.push(() => super.flushHeaders())
  }

  /** A body that is cut short is sent without its length: the length would give it away. */
  override writeHead(
    status: number,
    second?: string | OutgoingHttpHeaders | OutgoingHttpHeader[],
    third?: OutgoingHttpHeaders | OutgoingHttpHeader[],
  ): this {
    this.onHead?.(status)
    this.onHead = null
    const headers = typeof second === 'string' ? third : second
    if (this.#faults?.breaks !== 'truncate' || headers === undefined || Array.isArray(headers)) {
      return typeof second === 'string'
        ? super.writeHead(status, second, third)
        : super.writeHead(status, second)
    }
    const { 'content-length': _, ...rest } = headers
    return super.writeHead(status, rest)
  }

  override write(
    chunk: string | Uint8Array,
    second?: BufferEncoding | ((error: Error | null | undefined) => void),
    third?: (error: Error | null | undefined) => void,
  ): boolean {
    if (this.#broken) return false
    if (this.#held !== null) {
      this.#held.push(() => void this.write(chunk, second, third))
      return false
    }
    this.#streamed = true
    const breaks = this.#faults?.due === true ? this.#faults.breaks : null
    if (breaks !== null) {
      this.#break(breaks, bytesOf(chunk))
      return false
    }
    return typeof second === 'string'
      ? super.write(chunk, second, third)
      : super.write(chunk, second)
  }

  override end(
    first?: string | Uint8Array | (() => void),
    second?: BufferEncoding | (() => void),
    third?: () => void,
  ): this {
    if (this.#broken) return this
    if (this.#held !== null) {
      this.#held.push(() => void this.end(first, second, third))
      return this
    }
    const breaks = this.#faults?.breaks ?? null
    if (breaks !== null && this.statusCode === 200) {
      this.#break(breaks, typeof first === 'function' ? EMPTY : bytesOf(first ?? EMPTY))
      return this
    }
    if (typeof first === 'function') return super.end(first)
    return typeof second === 'string' ? super.end(first, second, third) : super.end(first, second)
  }

  #release(): void {
    const held = this.#held ?? []
    this.#held = null
    for (const write of held) write()
  }

  /** `bytes` is what would have come next: an event, or a whole body. */
  #break(how: Break, bytes: Uint8Array): void {
    if (how === 'cut') {
      this.reset()
      return
    }
    this.#broken = true
    const half = bytes.subarray(0, Math.floor(bytes.length / 2))
    if (how === 'half-event' || !this.#streamed) super.write(half)
    const { socket } = this
    super.end()
    // A body shorter than its length: without a close the client would wait for the rest.
    if (how === 'half-event' && !this.#streamed) socket?.destroySoon()
  }
}
