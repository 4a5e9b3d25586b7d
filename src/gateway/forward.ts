/**
 * One request on its way to a replica and back: attempts, time-outs, back-pressure, and the end,
 * whichever side brings it. Only `dispatch` of undici is used, with this object as its handler:
 * no promise, stream or timer per request (baselines.md 5).
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import { pickTarget } from '../core/balance.ts'
import { type Rename, reasoningRename } from '../core/reasoning.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import type { Ending } from '../core/usage.ts'
import type { UsageStrip } from '../core/usage-strip.ts'
import { PenstockError } from '../errors.ts'
import type { Answer, Line } from './answer.ts'
import { diedAfterReuse } from './pools.ts'
import { type Caller, type Failure, failureOf } from './respond.ts'
import type { Running } from './running.ts'
import type { GatewayState } from './state.ts'
import { StreamAnswer } from './stream.ts'
import type { Finish, Ticket } from './ticket.ts'
import { WholeAnswer } from './whole.ts'

/** A second attempt is made only when the first cannot have reached the engine. */
const ATTEMPTS_MAX = 2
/** A client that has not read for this long, with unsent bytes waiting, is dropped. */
const CLIENT_STALL_MS = 60_000
const CONNECT_CODES = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
])

export type ExchangeStart = {
  readonly state: GatewayState
  readonly ticket: Ticket
  readonly route: GatewayRoute
  readonly res: ServerResponse
  readonly caller: Caller
  /** Fixed by our route table; nothing a request brings is in it. */
  readonly path: string
  readonly headers: string[]
  readonly body: Uint8Array
  readonly stream: boolean
  readonly strip: UsageStrip | null
}

export class Exchange implements Line, Running, Dispatcher.DispatchHandler {
  place = -1
  readonly res: ServerResponse
  readonly caller: Caller
  readonly ticket: Ticket
  readonly route: GatewayRoute
  readonly keepAliveMs: number
  readonly strip: UsageStrip | null
  readonly rename: Rename | null
  readonly #state: GatewayState
  readonly #path: string
  readonly #headers: string[]
  readonly #answer: Answer
  readonly #stream: boolean
  /** Dropped once the engine answers: a long prompt need not be kept for a long answer. */
  #body: Uint8Array | null
  #controller: Dispatcher.DispatchController | null = null
  #attempts = 0
  #answering = false
  #upstreamEnded = false
  #over = false
  /** Since when the side we wait for is silent: the engine, or a client that does not read. */
  #waitingSinceMs = 0
  #clientBlocked = false

  constructor(start: ExchangeStart) {
    this.res = start.res
    this.caller = start.caller
    this.ticket = start.ticket
    this.route = start.route
    this.keepAliveMs = start.state.table.snapshot.keepAliveMs
    this.rename = renameFor(start)
    this.#state = start.state
    this.#path = start.path
    this.#headers = start.headers
    this.#body = start.body
    this.#stream = start.stream
    this.strip = start.strip
    this.#answer = start.stream ? new StreamAnswer(this) : new WholeAnswer(this)
  }

  begin(target: Target): void {
    this.#state.running.add(this)
    this.res.once('close', () => this.#clientClosed())
    this.#attempt(target)
  }

  write(bytes: Uint8Array | string): void {
    if (this.res.write(bytes) || this.#clientBlocked) return
    this.#clientBlocked = true
    this.#waitingSinceMs = performance.now()
    this.#controller?.pause()
    this.res.once('drain', () => {
      this.#clientBlocked = false
      this.#waitingSinceMs = performance.now()
      this.#controller?.resume()
    })
  }

  finish(finish: Finish, ending: Ending): void {
    if (this.#over) return
    this.#over = true
    this.#body = null
    this.#waitingSinceMs = performance.now()
    this.ticket.finish(finish, ending)
    if (!this.#upstreamEnded) this.#cut()
  }

  fail(failure: Failure): void {
    if (!this.#over) this.#answer.failed(failure)
  }

  interrupt(): void {
    const message = 'the gateway is shutting down and the answer was cut off'
    this.#fail(new PenstockError('server_draining', message))
  }

  tick(nowMs: number): void {
    const waitedMs = nowMs - this.#waitingSinceMs
    // After the end we only wait for the client to read what is left.
    if (this.#over || this.#clientBlocked) {
      if (waitedMs > CLIENT_STALL_MS) this.res.destroy()
      return
    }
    const { firstTokenTimeoutMs, stallTimeoutMs } = this.route
    if (!this.#answering && waitedMs > firstTokenTimeoutMs) {
      const message = `no answer began within ${seconds(firstTokenTimeoutMs)}`
      this.#fail(new PenstockError('upstream_timeout', this.#at(message)))
    } else if (this.#answering && waitedMs > stallTimeoutMs) {
      const message = `nothing arrived for ${seconds(stallTimeoutMs)}`
      const code = this.#stream ? 'stream_stalled' : 'upstream_timeout'
      this.#fail(new PenstockError(code, this.#at(message)))
    } else {
      this.#answer.tick(nowMs)
    }
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // The client may have left while the connection was being made: nothing is sent then.
    if (this.#over || this.res.destroyed) controller.abort(new Error('the client has left'))
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (this.#over || status < 200) return
    this.#body = null
    this.#touch()
    // A stream answers with its first event: vLLM sends its head before it generates anything.
    if (!this.#stream) this.#answering = true
    this.#answer.head(status, headers)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return
    this.#answering = true
    const nowMs = performance.now()
    if (!this.#clientBlocked) this.#waitingSinceMs = nowMs
    this.#answer.data(chunk, nowMs)
  }

  onResponseEnd(): void {
    this.#upstreamEnded = true
    if (!this.#over) this.#answer.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#upstreamEnded = true
    if (this.#over) return
    const next = this.#nextTarget(error)
    if (next !== null) this.#attempt(next)
    else this.#fail(this.#failureOf(error))
  }

  #attempt(target: Target): void {
    this.#attempts += 1
    this.#upstreamEnded = false
    this.#controller = null
    this.ticket.take(target)
    this.#touch()
    this.#state.pools
      .of(target.url)
      .dispatch(
        { path: this.#path, method: 'POST', headers: this.#headers, body: this.#body },
        this,
      )
  }

  /** Another replica when ours cannot be reached; the same when its idle connection had died. */
  #nextTarget(error: Error): Target | null {
    const { target } = this.ticket
    if (target === null || this.#body === null || this.#attempts >= ATTEMPTS_MAX) return null
    const current = this.#state.table.targetsOf(this.route.deployment)
    const same = current.find(({ id, url }) => id === target.id && url === target.url) ?? null
    if (diedAfterReuse(error)) return same
    if (!CONNECT_CODES.has(codeOf(error))) return null
    const { counts } = this.#state
    return pickTarget({
      targets: current,
      policy: this.route.policy,
      inFlightOf: (slot) => counts.inFlight(slot),
      random: Math.random(),
      nowMs: Date.now(),
      exclude: new Set([target.id]),
    })
  }

  #failureOf(error: Error): PenstockError {
    const code = codeOf(error)
    // The code without the message: callers need not learn the replica's address.
    const what = code === '' ? error.message : code
    if (CONNECT_CODES.has(code)) {
      return new PenstockError('upstream_error', this.#at(`cannot be reached: ${what}`))
    }
    if (this.#answering && this.#stream) {
      return new PenstockError('stream_interrupted', this.#at(`died while answering: ${what}`))
    }
    return new PenstockError('upstream_error', this.#at(`did not answer: ${what}`))
  }

  #fail(error: PenstockError): void {
    this.fail(failureOf(error))
  }

  #clientClosed(): void {
    this.#state.running.remove(this)
    if (this.#over) return
    this.#over = true
    this.#body = null
    const reason = this.#clientBlocked ? 'client_stalled' : 'client_gone'
    this.ticket.finish({ status: 499, outcome: 'client_gone', reason }, this.#answer.ending())
    this.#cut()
  }

  /** Ends the engine's side at once, so that it stops generating. */
  #cut(): void {
    this.#controller?.abort(new Error('the request is over'))
  }

  #touch(): void {
    this.#waitingSinceMs = performance.now()
  }

  #at(what: string): string {
    return `replica ${this.ticket.target?.id ?? 'none'}: ${what}`
  }
}

const codeOf = (error: Error): string =>
  'code' in error && typeof error.code === 'string' ? error.code : ''

const seconds = (ms: number): string => `${Math.round(ms / 100) / 10} s`

const renameFor = ({ state, ticket, route }: ExchangeStart): Rename | null => {
  if (ticket.spillover === null || ticket.ask === null) return null
  if (!ticket.protocol.reasoningField) return null
  return reasoningRename(state.table.engineOf(ticket.ask.model) ?? '', route.engine)
}
