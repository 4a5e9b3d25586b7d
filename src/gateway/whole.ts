/**
 * An answer in one piece. It is held until the engine has sent all of it, so that an engine that
 * dies half way becomes a 502 and not half a JSON document; very large ones flow through.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { engineError } from '../core/engine-error.ts'
import { renamed } from '../core/reasoning.ts'
import { ABORTED, type Ending, endingOfBody, idOfBody } from '../core/usage.ts'
import { PenstockError } from '../errors.ts'
import { type Answer, answerHeaders, type Line, withReplica } from './answer.ts'
import { isBareNotFound, noSuchPath } from './offer.ts'
import { type Failure, failureOf, failureOfEngine, sendFailure } from './respond.ts'
import { type Backoff, backoffOf } from './retry-after.ts'

/** A batch of embeddings takes a few MiB; more is passed on as it comes. */
const HELD_BYTES_MAX = 16 * 1024 * 1024
/** An error's text is short; the rest of a long one is dropped. */
const ERROR_BYTES_MAX = 65_536

const NO_ENDING: Ending = { finishReason: null, usage: null }

export class WholeAnswer implements Answer {
  readonly #line: Line
  #status = 0
  #contentType = 'application/json'
  #contentLength: string | undefined
  #backoff: Backoff | null = null
  #chunks: Buffer[] = []
  #size = 0
  #flowing = false

  constructor(line: Line) {
    this.#line = line
  }

  get standing(): 'unsent' | 'begun' {
    return this.#flowing ? 'begun' : 'unsent'
  }

  head(status: number, headers: IncomingHttpHeaders): void {
    this.#status = status
    this.#contentType = headers['content-type'] ?? this.#contentType
    this.#contentLength = headers['content-length']
    if (status !== 200) this.#backoff = backoffOf(headers, Date.now())
  }

  data(chunk: Buffer): void {
    if (this.#flowing) {
      this.#line.write(chunk)
      return
    }
    if (this.#status !== 200 && this.#size >= ERROR_BYTES_MAX) return
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#size > HELD_BYTES_MAX) this.#flow()
  }

  end(): void {
    const { res } = this.#line
    if (this.#status !== 200) {
      this.#line.fail(this.#refusal(this.#body().toString()))
      return
    }
    if (this.#flowing) {
      this.#line.settle({ status: 200, outcome: 'ok', reason: 'stop' }, NO_ENDING)
      res.end()
      this.#line.finish({ status: 200, outcome: 'ok', reason: 'stop' }, NO_ENDING)
      return
    }
    const body = this.#body()
    const { ticket, route } = this.#line
    const ending = endingOfBody(body, ticket.protocol, route.engine)
    if (ending.finishReason === ABORTED) {
      const message = 'the engine gave up the answer before it was complete; try again'
      this.#line.fail(failureOf(new PenstockError('upstream_error', message)))
      return
    }
    if (ticket.protocol.keeps) ticket.keptAs(idOfBody(body))
    const { rename } = this.#line
    const sent = rename === null ? body : renamed(body, rename)
    const headers = answerHeaders(this.#line)
    headers['content-type'] = this.#contentType
    headers['content-length'] = sent.length
    const reason = ending.finishReason ?? 'stop'
    const finish = { status: 200, outcome: 'ok', reason } as const
    this.#line.settle(finish, ending)
    res.writeHead(200, headers)
    res.end(sent)
    this.#line.finish(finish, ending)
  }

  failed(failure: Failure): void {
    const { res, caller } = this.#line
    if (this.#flowing) {
      // Part of it is sent: only a cut connection says that it is not whole.
      res.destroy()
      this.#line.finish({ status: 200, outcome: 'interrupted', reason: failure.reason }, NO_ENDING)
      return
    }
    this.#line.settle(outcomeOf(failure), NO_ENDING)
    sendFailure(res, caller, withReplica(failure, this.#line))
    this.#line.finish(outcomeOf(failure), NO_ENDING)
  }

  resumed(): null {
    return null
  }

  tick(): void {}

  ending(): Ending {
    return NO_ENDING
  }

  #refusal(text: string): Failure {
    const { ticket, route } = this.#line
    const backend = ticket.target?.backend?.name
    const key = backend === undefined ? null : keyRefused(backend, this.#status)
    if (key !== null) return key
    if (!isBareNotFound(this.#status, text)) {
      return failureOfEngine(engineError(this.#status, text), this.#backoff)
    }
    return failureOf(noSuchPath(ticket.protocol, ticket.ask?.model ?? route.model, route.engine))
  }

  #flow(): void {
    const headers = answerHeaders(this.#line)
    headers['content-type'] = this.#contentType
    if (this.#contentLength !== undefined) headers['content-length'] = this.#contentLength
    this.#line.res.writeHead(200, headers)
    this.#flowing = true
    this.#line.letGo()
    const body = this.#body()
    this.#chunks = []
    this.#line.write(body)
  }

  #body(): Buffer {
    const [first] = this.#chunks
    return this.#chunks.length === 1 && first !== undefined
      ? first
      : Buffer.concat(this.#chunks, this.#size)
  }
}

/**
 * A backend does not take our key: the operator's to mend, not the client's, whose key was good.
 * What the backend says may hold a part of the key.
 */
const keyRefused = (backend: string, status: number): Failure | null => {
  if (status !== 401 && status !== 403) return null
  const message =
    `backend ${backend} refused the gateway's own key (${status}): ` +
    `the operator must look at backends.${backend}.key in gateway.yaml`
  const failure = failureOf(new PenstockError('upstream_error', message))
  return { ...failure, headers: { ...failure.headers, 'x-should-retry': 'false' } }
}

/** A failure before any byte of answer, for the books. */
export const outcomeOf = ({ status, reason }: Failure) =>
  ({
    status,
    reason,
    outcome: status === 504 ? 'timeout' : status < 500 ? 'refused' : 'upstream_error',
  }) as const
