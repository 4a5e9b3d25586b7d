/**
 * One try at one replica. Only `dispatch` of undici is used, with this object as its handler: no
 * promise, stream or timer per request (baselines.md 5). Once it is let go it is deaf, so that a
 * late word of it disturbs nobody.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'

export type AttemptListener = {
  onHead(status: number, headers: IncomingHttpHeaders): void
  onBytes(chunk: Buffer): void
  onEnd(): void
  onLost(error: Error): void
}

export class Attempt implements Dispatcher.DispatchHandler {
  #listener: AttemptListener | null
  #controller: Dispatcher.DispatchController | null = null
  #ended = false
  #paused = false
  #headSeen = false

  constructor(listener: AttemptListener) {
    this.#listener = listener
  }

  /** The engine has begun to answer: our request was read. */
  get headSeen(): boolean {
    return this.#headSeen
  }

  pause(): void {
    this.#paused = true
    if (this.#headSeen) this.#controller?.pause()
  }

  resume(): void {
    this.#paused = false
    if (this.#headSeen) this.#controller?.resume()
  }

  /** Ends the engine's side at once, so that it stops generating, and hears no more of it. */
  letGo(): void {
    this.#listener = null
    if (!this.#ended) this.#controller?.abort(new Error('the request is over'))
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // The client may have left while the connection was being made: nothing is sent then.
    if (this.#listener === null) controller.abort(new Error('the client has left'))
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status < 200) return
    this.#headSeen = true
    if (this.#paused) controller.pause()
    this.#listener?.onHead(status, headers)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#listener?.onBytes(chunk)
  }

  onResponseEnd(): void {
    this.#ended = true
    this.#listener?.onEnd()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#ended = true
    this.#listener?.onLost(error)
  }
}
