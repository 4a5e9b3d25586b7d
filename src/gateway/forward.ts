/**
 * One request on its way to a replica and back: attempts, time-outs, back-pressure, and the end,
 * whichever side brings it. Nothing of an attempt that failed is seen by the client, as long as
 * another may take its place (core/retry.ts, fallback.ts).
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { type Rename, reasoningRename } from '../core/reasoning.ts'
import type { Blame } from '../core/retry.ts'
import type { GatewayRoute, Target } from '../core/snapshot.ts'
import type { Ending } from '../core/usage.ts'
import type { UsageStrip } from '../core/usage-strip.ts'
import { PenstockError } from '../errors.ts'
import type { Answer, Line } from './answer.ts'
import { Attempt, type AttemptListener } from './attempt.ts'
import type { Fallen } from './fallback.ts'
import { diedAfterReuse, notConnected } from './pools.ts'
import { mayContinue, type Prepared } from './prepare.ts'
import type { Asker } from './reserve.ts'
import { type Caller, type Failure, failureOf } from './respond.ts'
import type { Running } from './running.ts'
import type { GatewayState } from './state.ts'
import { StreamAnswer } from './stream.ts'
import { Succession } from './succession.ts'
import type { Finish, Ticket } from './ticket.ts'
import { upstreamOf } from './upstream.ts'
import { Verdict } from './verdict.ts'
import { WholeAnswer } from './whole.ts'

/**
 * A client that has not read for this long, with unsent bytes waiting, is dropped: sooner where
 * the route has the engine stall for less.
 */
const CLIENT_STALL_MS = 60_000
/** So is one with more than this waiting: twice the largest that is ever written at once. */
const CLIENT_BYTES_MAX = 32 * 1024 * 1024
/** A longer prompt is not kept for as long as its answer takes. */
const KEPT_BODY_BYTES_MAX = 1024 * 1024
const UNREACHABLE: Blame = { kind: 'unreachable', status: null }

export type ExchangeStart = {
  readonly state: GatewayState
  readonly ticket: Ticket
  readonly route: GatewayRoute
  /** The route that was chosen before a fallback took over; `route` if none did. */
  readonly from: GatewayRoute
  readonly res: ServerResponse
  readonly caller: Caller
  readonly headers: string[]
  readonly stream: boolean
  readonly asker: Asker
  /** The request as a route's engine gets it. */
  readonly prepare: (route: GatewayRoute) => Prepared
}

export class Exchange implements Line, Running, AttemptListener {
  place = -1
  readonly res: ServerResponse
  readonly caller: Caller
  readonly ticket: Ticket
  readonly keepAliveMs: number
  route: GatewayRoute
  strip: UsageStrip | null
  rename: Rename | null
  readonly #state: GatewayState
  readonly #start: Omit<ExchangeStart, 'prepare'>
  #answer: Answer
  /** Fixed by the table of paths; nothing a request brings is in it. */
  #path: string
  /** What the replica is sent; null: nobody else can be asked any more. */
  #body: Uint8Array | null
  #prepare: ExchangeStart['prepare'] | null
  #attempt: Attempt | null = null
  readonly #succession: Succession
  /** What the replica that works on it was sent: `#body`, or what asks for the rest. */
  #sent: Uint8Array | null = null
  #verdict: Verdict | null = null
  /** Why the answer first broke off, when another went on with it. */
  #broken: Failure | null = null
  /** Of the thread's memory for what may be asked again. */
  #keptBytes = 0
  /** It may have been sent twice to one replica, once: the idle connection had died. */
  #resent = false
  #answering = false
  /** Somebody else is being sought: nobody works on the request. */
  #seeking = false
  #over = false
  /** Since when the engine, for which we wait, is silent. */
  #waitingSinceMs = 0
  #clientBlocked = false

  constructor(start: ExchangeStart) {
    this.res = start.res
    this.caller = start.caller
    this.ticket = start.ticket
    this.route = start.route
    this.keepAliveMs = start.state.table.snapshot.keepAliveMs
    this.rename = renameFor(start.ticket, start.route)
    this.#state = start.state
    const { prepare, ...rest } = start
    // Not `start` itself: it holds the body, which is let go before the answer ends.
    this.#succession = new Succession(rest)
    this.#start = rest
    this.#prepare = prepare
    const { path, body, strip } = prepare(start.route)
    this.#path = path
    this.#body = body
    this.strip = strip
    this.#answer = start.stream ? new StreamAnswer(this) : new WholeAnswer(this)
  }

  get continuable(): boolean {
    return mayContinue(this.route) && this.#succession.exists(this.route)
  }

  begin(target: Target): void {
    this.#state.running.add(this)
    this.#state.retries.began(this.route.model)
    this.res.once('close', () => this.#clientClosed())
    this.res.on('timeout', () => this.#clientSilent())
    this.#send(target)
  }

  write(bytes: Uint8Array | string): void {
    const fits = this.res.write(bytes)
    if (this.res.writableLength > CLIENT_BYTES_MAX) {
      this.#clientBlocked = true
      this.res.destroy()
    }
    if (fits || this.#clientBlocked) return
    this.#clientBlocked = true
    this.#watchClient()
    this.#attempt?.pause()
    this.res.once('drain', () => {
      this.#clientBlocked = false
      this.res.setTimeout(0)
      this.#touch()
      this.#attempt?.resume()
    })
  }

  settle(finish: Finish, ending: Ending): void {
    if (finish.outcome === 'ok') this.#verdict?.succeeded()
    this.ticket.finish(finish, ending)
  }

  finish(finish: Finish, ending: Ending): void {
    if (this.#over) return
    this.settle(finish, ending)
    this.#end()
    // After the end we only wait for the client to read what is left.
    this.#watchClient()
  }

  mayKeep(textBytes: number): boolean {
    if (this.#body === null || this.#body.length > KEPT_BODY_BYTES_MAX) return false
    const bytes = this.#body.length + textBytes
    if (!this.#state.kept.change(bytes - this.#keptBytes)) return false
    this.#keptBytes = bytes
    this.#prepare = null
    return true
  }

  letGo(): void {
    this.#body = null
    this.#sent = null
    this.#prepare = null
    this.#state.kept.change(-this.#keptBytes)
    this.#keptBytes = 0
  }

  fail(failure: Failure): void {
    if (this.#over) return
    const { blame } = failure
    if (this.#answer.standing !== 'done') this.#verdict?.failed(blame)
    if (blame !== undefined && this.#again(blame, failure)) return
    // Who was to go on has failed, too: the client hears what went wrong with the answer.
    this.#answer.failed(this.#broken ?? failure)
  }

  interrupt(): void {
    const message = 'the gateway is shutting down and the answer was cut off'
    if (!this.#over) this.#answer.failed(failureOf(new PenstockError('server_draining', message)))
  }

  tick(nowMs: number): void {
    if (this.#over || this.#clientBlocked) return
    if (this.#seeking) {
      // A client who has nothing yet is to hear of a failure by its status.
      if (this.#answer.standing === 'begun') this.#answer.tick(nowMs)
      return
    }
    const waitedMs = nowMs - this.#waitingSinceMs
    const { firstTokenTimeoutMs, stallTimeoutMs } = this.route
    if (!this.#answering && waitedMs > firstTokenTimeoutMs) {
      const message = `no answer began within ${seconds(firstTokenTimeoutMs)}`
      this.#fail(new PenstockError('upstream_timeout', this.#at(message)))
    } else if (this.#answering && waitedMs > stallTimeoutMs) {
      const message = `nothing arrived for ${seconds(stallTimeoutMs)}`
      const code = this.#start.stream ? 'stream_stalled' : 'upstream_timeout'
      this.#fail(new PenstockError(code, this.#at(message)))
    } else {
      this.#answer.tick(nowMs)
    }
  }

  onHead(status: number, headers: IncomingHttpHeaders): void {
    this.#touch()
    if (!this.#succession.exists(this.route)) this.letGo()
    // A stream answers with its first event: vLLM sends its head before it generates anything.
    if (!this.#start.stream) this.#answering = true
    if (!this.#start.stream) this.#verdict?.began()
    this.#answer.head(status, headers)
  }

  onBytes(chunk: Buffer): void {
    const nowMs = performance.now()
    if (!this.#answering) this.#verdict?.began()
    this.#answering = true
    if (!this.#clientBlocked) this.#waitingSinceMs = nowMs
    this.#answer.data(chunk, nowMs)
  }

  onEnd(): void {
    this.#answer.end()
  }

  onLost(error: Error): void {
    const { target } = this.ticket
    const idle = diedAfterReuse(error) && this.#attempt?.headSeen === false && !this.#resent
    const same = idle && target !== null ? this.#current(target) : null
    if (same !== null) {
      this.#resent = true
      this.#send(same, this.#sent)
      return
    }
    const failure = failureOf(this.#errorOf(error))
    this.fail(notConnected(error) ? { ...failure, blame: UNREACHABLE } : failure)
  }

  #send(target: Target, body = this.#body): void {
    this.#attempt?.letGo()
    const attempt = new Attempt(this)
    this.#attempt = attempt
    this.#answering = false
    this.#sent = body
    this.#verdict?.leave()
    this.#verdict = new Verdict(this.#state.breakers, target.slot)
    this.ticket.take(target)
    this.#touch()
    if (this.#clientBlocked) attempt.pause()
    const { headers } = this.#start
    const upstream = upstreamOf(target, { path: this.#path, headers })
    const { method } = this.ticket.protocol
    const ask = { ...upstream, method, body }
    this.#state.pools.of(target.url).dispatch(ask, attempt)
  }

  /** Another replica or another route is to take over; false: there is none, or it is too late. */
  #again(blame: Blame, failure: Failure): boolean {
    const { target } = this.ticket
    if (this.#body === null) return false
    if (target !== null) this.#succession.failed(target)
    switch (this.#answer.standing) {
      case 'done':
        return false
      case 'begun':
        return this.#goOn(this.#body, failure)
      case 'unsent':
        return this.#seek(this.#succession.next(this.route, blame), failure, (next) => {
          if (next.route === this.route) this.ticket.retries += 1
          else this.#fallen(next.route)
          this.#startOver()
          this.#send(next.target)
        })
    }
  }

  /** Another replica goes on with an answer of which the client has a part. */
  #goOn(body: Uint8Array, failure: Failure): boolean {
    this.#broken ??= failure
    const heir = this.#succession.heir(this.route)
    const rest = heir === null ? null : this.#answer.resumed(body)
    if (heir === null || rest === null) return false
    const finding = this.#succession.inherit(this.route, heir)
    return this.#seek(finding, this.#broken, ({ target }) => this.#send(target, rest))
  }

  /** Nobody works on it until one is found; the client hears of `failure` when none is. */
  #seek(
    finding: Promise<Fallen | null> | null,
    failure: Failure,
    found: (next: Fallen) => void,
  ): boolean {
    if (finding === null) return false
    this.#attempt?.letGo()
    this.#attempt = null
    this.#seeking = true
    const end = (next: Fallen | null, why: Failure): void => {
      this.#seeking = false
      if (this.#over) return
      if (next === null) this.#answer.failed(why)
      else found(next)
    }
    finding
      .then((next) => end(next, failure))
      .catch((error: unknown) => end(null, failureOf(error)))
    return true
  }

  #fallen(route: GatewayRoute): void {
    this.route = route
    this.rename = renameFor(this.ticket, route)
    this.ticket.retries += 1
  }

  #startOver(): void {
    const prepared = this.#prepare?.(this.route)
    this.#path = prepared?.path ?? this.#path
    this.#body = prepared?.body ?? null
    this.strip = prepared?.strip ?? null
    this.#answer = this.#start.stream ? new StreamAnswer(this) : new WholeAnswer(this)
  }

  #current(target: Target): Target | null {
    const current = this.#state.table.targetsOf(this.route.deployment)
    return current.find(({ id, url }) => id === target.id && url === target.url) ?? null
  }

  #errorOf(error: Error): PenstockError {
    const code = codeOf(error)
    // The code without the message: callers need not learn the replica's address.
    const what = code === '' ? error.message : code
    if (notConnected(error)) {
      return new PenstockError('upstream_error', this.#at(`cannot be reached: ${what}`))
    }
    if (this.#answering && this.#start.stream) {
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
    const reason = this.#clientBlocked ? 'client_stalled' : 'client_gone'
    this.ticket.finish({ status: 499, outcome: 'client_gone', reason }, this.#answer.ending())
    this.#end()
  }

  /** Nothing follows: the engine stops generating, and what we kept is let go. */
  #end(): void {
    this.#over = true
    this.letGo()
    this.#verdict?.leave()
    this.#attempt?.letGo()
  }

  /** The kernel takes a large answer in parts: one who reads any of it in time is not dropped. */
  #watchClient(): void {
    this.res.setTimeout(Math.min(CLIENT_STALL_MS, this.route.stallTimeoutMs))
  }

  /** A time-out may be left of the answer before, where requests follow each other unasked. */
  #clientSilent(): void {
    if (this.#over || this.#clientBlocked) this.res.destroy()
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

const renameFor = ({ asked, protocol }: Ticket, route: GatewayRoute): Rename | null =>
  protocol.reasoningField && asked !== null ? reasoningRename(asked.engine, route.engine) : null
