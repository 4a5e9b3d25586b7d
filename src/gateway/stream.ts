/**
 * A streamed answer. Bytes are forwarded untouched, whole events at a time, so that the client
 * always stands between two events: when the engine dies inside one, that half is dropped and the
 * error event follows the last whole one, and no reader ever sees half a JSON document.
 *
 * Until the first event nothing is sent: an engine that answers with an error, or whose first event
 * is one, is a real HTTP status. After a few seconds of silence the answer is committed: 200 and a
 * comment, so that no proxy or client in between gives up; a later failure is then an error event.
 * An error ends the stream without [DONE], even when the engine sends one after it: readers that
 * ignore the event must not take the answer for whole.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { type Continued, continuedBody } from '../core/continuation.ts'
import { engineErrorEvent } from '../core/engine-error.ts'
import { errorEvent } from '../core/error-dialect.ts'
import { KEEP_ALIVE } from '../core/protocol.ts'
import { renamed } from '../core/reasoning.ts'
import { fieldsOf, type SseEvent, SseScanner } from '../core/sse.ts'
import { StreamSplice } from '../core/stream-splice.ts'
import { TextSoFar } from '../core/text-so-far.ts'
import { ABORTED, type Ending, type Watch } from '../core/usage.ts'
import type { UsageStrip } from '../core/usage-strip.ts'
import { watchOf } from '../core/watch.ts'
import { PenstockError } from '../errors.ts'
import { type Answer, answerHeaders, type Line, withReplica } from './answer.ts'
import { type Failure, failureOf, failureOfEngine, sendFailure } from './respond.ts'
import type { Finish, Ticket } from './ticket.ts'
import { outcomeOf, WholeAnswer } from './whole.ts'

/** An event is a few hundred bytes; log probabilities of a long echoed prompt take megabytes. */
const EVENT_BYTES_MAX = 8 * 1024 * 1024
/** Silence after which 200 is committed (gateways.md 5.4: in production elsewhere). */
const COMMIT_AFTER_MS = 5_000
/** An engine that has said [DONE] has this long to end its response. */
const CLOSE_AFTER_DONE_MS = 2_000
const GAVE_UP = 'the engine gave up the answer before it was complete'

export class StreamAnswer implements Answer {
  readonly #line: Line
  /** What the client has of it, for another replica to go on with; null: none may. */
  #told: TextSoFar | null
  /** Set when another replica goes on. */
  #splice: StreamSplice | null = null
  /** An event in which the engine gives up, kept from the client as long as another may go on. */
  #givenUp: Buffer | null = null
  /** Tokens that the client had when another replica took over; null: it has been told. */
  #mark: number | null = null
  #scanner = new SseScanner(EVENT_BYTES_MAX)
  readonly #watch: Watch
  /** Null: the client reads all that the engine says. */
  readonly #strip: UsageStrip | null
  /** Takes over when the engine does not answer with events. */
  #whole: WholeAnswer | null = null
  #committed = false
  /** An event has come, if not passed on: another replica's answer would not be the only one. */
  #seen = false
  #done = false
  /** Of an answer that is whole: its books are closed. */
  #ending: Ending | null = null
  #lastWriteAtMs: number

  constructor(line: Line) {
    this.#line = line
    this.#strip = line.strip
    this.#watch = watchOf(line.ticket.protocol, line.route.engine)
    this.#lastWriteAtMs = line.ticket.startedAtMs
    this.#told = line.continuable ? toldOf(line.ticket) : null
  }

  get standing(): 'unsent' | 'begun' | 'done' {
    if (this.#done) return 'done'
    return this.#committed ? 'begun' : (this.#whole?.standing ?? 'unsent')
  }

  head(status: number, headers: IncomingHttpHeaders): void {
    const type = headers['content-type'] ?? ''
    this.#givenUp = null
    if (status === 200 && type.startsWith('text/event-stream')) return
    if (this.#committed && status === 200) {
      const message = `the engine answered a streamed request with ${type || 'no content type'}`
      this.#line.fail(failureOf(new PenstockError('upstream_invalid', message)))
      return
    }
    this.#whole = new WholeAnswer(this.#line)
    this.#whole.head(status, headers)
  }

  data(chunk: Buffer, nowMs: number): void {
    if (this.#whole !== null) {
      this.#whole.data(chunk)
      return
    }
    if (this.#done) return
    const step = this.#scanner.push(chunk)
    if (step === null) {
      const message = `the engine sent an event of more than ${EVENT_BYTES_MAX} bytes`
      this.#line.fail(failureOf(new PenstockError('upstream_invalid', message)))
      return
    }
    const next = this.#splice === null ? step : this.#splice.rewritten(step)
    if (next === null) {
      // Not a fault of this replica: the next one would think first just the same.
      const { blame: _, ...failure } = interrupted('the rest did not go on where it broke off')
      this.#line.fail(failure)
      return
    }
    const { bytes, events } = next
    for (const event of events) {
      if (this.#told !== null && givesUp(bytes, event)) {
        this.#relay(bytes, { end: event.start, all: false, nowMs })
        this.#givenUp = Buffer.from(bytes.subarray(event.start, event.end))
        this.#line.fail(interrupted(GAVE_UP))
        return
      }
      const kind = this.#watch.see(bytes, event)
      if (kind !== 'error') this.#seen = true
      if (kind === 'error') {
        this.#relay(bytes, { end: event.start, all: true, nowMs })
        const { data } = fieldsOf(bytes, event)
        this.#line.fail(failureOfEngine(engineErrorEvent(data ?? '')))
        return
      }
      if (kind === 'done' && this.#watch.ending().finishReason === ABORTED) {
        this.#relay(bytes, { end: event.start, all: true, nowMs })
        this.#line.fail(interrupted(GAVE_UP))
        return
      }
      // Before the client reads it, who may ask for it at once.
      if (kind === 'other') this.#line.ticket.keptAs(this.#watch.id)
      this.#strip?.add(bytes, event)
      if (kind !== 'done') this.#told?.add(bytes, event)
      if (kind === 'done') {
        this.#done = true
        this.#settle()
        this.#relay(bytes, { end: event.end, all: true, nowMs })
        return
      }
      if (kind === 'token') {
        this.#line.ticket.firstToken(nowMs)
        this.#line.ticket.token(this.#strip?.completion ?? null)
      }
    }
    this.#relay(bytes, { end: bytes.length, all: false, nowMs })
  }

  end(): void {
    if (this.#whole !== null) {
      this.#whole.end()
      return
    }
    const rest = this.#scanner.rest()
    this.#flush()
    // An engine that leaves out the empty line after its last event has still said [DONE].
    const said = !this.#done && this.#isDone(rest)
    if (said && this.#watch.ending().finishReason !== ABORTED) {
      this.#done = true
      this.#settle()
      this.#send(rest, performance.now())
    }
    const { choices } = this.#line.ticket.ask ?? { choices: 1 }
    // Of chat only: where events have names, one of them is the end and nothing else.
    const open = this.#line.ticket.protocol.events === 'chat'
    const { finishReason } = this.#watch.ending()
    if (!this.#done && finishReason === ABORTED) this.#line.fail(interrupted(GAVE_UP))
    else if (this.#done || (open && choices === 1 && finishReason !== null && rest.length === 0))
      this.#finish()
    else this.#line.fail(interrupted('the engine ended the stream before the answer was complete'))
  }

  /**
   * With nothing told yet, all of it is asked again; else the rest, where it is plain text. The
   * client's part keeps its id, and the usage at the end is that of one answer.
   */
  resumed(body: Uint8Array): Uint8Array | null {
    const rest = this.#seen ? this.#rest(body) : body
    if (rest === null) return null
    this.#scanner = new SseScanner(EVENT_BYTES_MAX)
    this.#whole = null
    this.#mark = this.#line.ticket.produced
    return rest
  }

  #rest(body: Uint8Array): Uint8Array | null {
    const told = this.#told
    if (told === null || !told.plain || told.identity === null) return null
    const { said, kind, identity } = told
    const { usage } = this.#watch.ending()
    const tokens = usage?.completionTokens ?? null
    const all: Continued = { body, white: '' }
    const next = said ? continuedBody(body, { kind, text: told.text, tokens }) : all
    if (next === null) return null
    const { produced } = this.#line.ticket
    const before = { identity, white: next.white, tokens: said ? (tokens ?? produced) : 0, usage }
    this.#splice = new StreamSplice(before)
    return next.body
  }

  failed(failure: Failure): void {
    const { res, caller } = this.#line
    if (this.#whole?.standing === 'begun') {
      this.#whole.failed(failure)
      return
    }
    if (this.#done) {
      this.#finish()
      return
    }
    if (!this.#committed) {
      this.#line.settle(outcomeOf(failure), this.ending())
      sendFailure(res, caller, withReplica(failure, this.#line))
      this.#line.finish(outcomeOf(failure), this.ending())
      return
    }
    this.#flush()
    if (this.#givenUp !== null) this.#sendGivenUp(this.#givenUp)
    const { status, body, reason } = failure
    const { sequence } = this.#watch
    const outcome = status === 504 ? 'timeout' : 'interrupted'
    const finish = { status: 200, outcome, reason } as const
    this.#line.settle(finish, this.ending())
    res.end(errorEvent(this.#line.ticket.protocol, { status, body, id: caller.id, sequence }))
    this.#line.finish(finish, this.ending())
  }

  /** The engine's last words, as they would have been read had nobody been asked to go on. */
  #sendGivenUp(bytes: Uint8Array): void {
    const event = { start: 0, end: bytes.length }
    this.#watch.see(bytes, event)
    this.#strip?.add(bytes, event)
    this.#send(this.#strip === null ? bytes : this.#strip.take(true), performance.now())
  }

  tick(nowMs: number): void {
    // An answer in one piece has a head of its own.
    if (this.#whole !== null) return
    if (this.#done && nowMs - this.#lastWriteAtMs > CLOSE_AFTER_DONE_MS) this.#finish()
    if (this.#done) return
    const { keepAliveMs, res } = this.#line
    if (keepAliveMs <= 0) return
    const patience = this.#committed ? keepAliveMs : Math.min(COMMIT_AFTER_MS, keepAliveMs)
    if (nowMs - this.#lastWriteAtMs < patience || res.writableNeedDrain) return
    const { events } = this.#line.ticket.protocol
    this.#send(events === null || events === 'chat' ? KEEP_ALIVE : events.keepAlive, nowMs)
  }

  ending(): Ending {
    return this.#watch.ending()
  }

  /** Sends the events up to `end`; `all`: also one that is held back. */
  #relay(bytes: Uint8Array, { end, all, nowMs }: Relayed): void {
    const out = this.#strip === null ? bytes.subarray(0, end) : this.#strip.take(all)
    if (out.length === 0) return
    if (this.#mark !== null) this.#send(`: penstock-continued ${this.#mark}\n\n`, nowMs)
    this.#mark = null
    this.#send(out, nowMs)
    const told = this.#told
    if (told?.plain === true && this.#line.mayKeep(told.size)) return
    this.#told = null
    this.#line.letGo()
  }

  /** Nothing follows the event that is held back. */
  #flush(): void {
    const held = this.#strip?.take(true)
    if (held !== undefined && held.length > 0) this.#send(held, performance.now())
  }

  #send(bytes: Uint8Array | string, nowMs: number): void {
    if (!this.#committed) {
      this.#committed = true
      const headers = answerHeaders(this.#line)
      headers['content-type'] = 'text/event-stream; charset=utf-8'
      headers['cache-control'] = 'no-cache'
      headers['x-accel-buffering'] = 'no'
      this.#line.res.writeHead(200, headers)
    }
    this.#lastWriteAtMs = nowMs
    const { rename } = this.#line
    this.#line.write(rename === null || typeof bytes === 'string' ? bytes : renamed(bytes, rename))
  }

  #isDone(rest: Uint8Array): boolean {
    const [{ ticket, route }, whole] = [this.#line, { start: 0, end: rest.length }]
    // Half an event must not be remembered: a fresh watch looks first.
    if (rest.length === 0 || watchOf(ticket.protocol, route.engine).see(rest, whole) !== 'done')
      return false
    return this.#watch.see(rest, whole) === 'done'
  }

  #finish(): void {
    const ending = this.#settle()
    this.#line.res.end()
    this.#line.finish(finishOf(ending), ending)
  }

  #settle(): Ending {
    if (this.#ending !== null) return this.#ending
    this.#ending = this.ending()
    this.#line.settle(finishOf(this.#ending), this.#ending)
    return this.#ending
  }
}

type Relayed = { readonly end: number; readonly all: boolean; readonly nowMs: number }

const toldOf = ({ ask, protocol: { continues } }: Ticket): TextSoFar | null =>
  ask === null || continues === null ? null : new TextSoFar(continues)

const GIVES_UP = Buffer.from(`"finish_reason":"${ABORTED}"`)

const givesUp = (bytes: Uint8Array, { start, end }: SseEvent): boolean =>
  Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).includes(GIVES_UP)

const finishOf = ({ finishReason }: Ending): Finish => ({
  status: 200,
  outcome: 'ok',
  reason: finishReason ?? 'stop',
})

const interrupted = (message: string): Failure =>
  failureOf(new PenstockError('stream_interrupted', message))
