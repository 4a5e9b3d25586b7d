/** Texts that are only read: each goes through the step loop, one answer leaves when all have. */
import { RequestFaults } from '../faults/request-faults.ts'
import type { Sequence } from '../physics/sequence.ts'
import type { Dialect } from './dialect.ts'
import { DEAD, FAILED, SGLANG_ABORT_MS } from './exchange.ts'
import type { EngineResponse } from './response.ts'
import type { Service } from './service.ts'
import { type Refusal, sendJson } from './wire.ts'

export type Pooled = {
  readonly texts: readonly Int32Array[]
  readonly priority: number
  readonly refuser: Pick<Dialect, 'error'>
  /** Sends the answer; called once, when every text has been computed. */
  readonly answer: () => void
}

/** Nothing is ever drawn of it. */
const SILENT = { next: () => 0, ended: true }

const FULL: Refusal = {
  kind: 'queue',
  status: 503,
  message: 'The request queue is full.',
  param: null,
}

export const pool = (service: Service, response: EngineResponse, work: Pooled): void => {
  const { runner, clock, metrics, settings } = service
  const { texts, refuser, priority, answer } = work
  const faults = new RequestFaults(service.faults, clock.now(), 1)
  response.suffer(faults, clock)
  const refuse = (why: Refusal) => {
    if (why === FULL) metrics.rejected()
    sendJson(response, refuser.error(why))
  }
  const early = faults.status !== null ? FAILED[faults.status] : runner.engine.full ? FULL : null
  if (early !== null) {
    refuse(early)
    return
  }
  const sequences: Sequence[] = []
  let open = texts.length
  let failed = false
  const finished = (sequence: Sequence) => {
    open -= 1
    if (sequence.finish !== 'stop') failed = true
    if (open > 0 || response.writableEnded || response.destroyed) return
    if (failed) refuse(DEAD)
    else {
      response.token()
      answer()
    }
  }
  const listener = { token: () => {}, flush: () => {}, finished }
  response.once('close', () => {
    const abort = () => {
      for (const sequence of sequences) runner.abort(sequence)
    }
    if (settings.engine === 'vllm') abort()
    else if (open > 0) clock.after(SGLANG_ABORT_MS, abort)
  })
  const input = { maxTokens: 0, salt: 0, source: SILENT, siblings: 1, pooling: true, priority }
  for (const prompt of texts) {
    const sequence = runner.submit({ ...input, prompt }, listener)
    if (sequence !== null) sequences.push(sequence)
    else open -= 1
  }
  // The queue filled up in the middle of the list: what was taken goes back.
  if (sequences.length === texts.length) return
  for (const sequence of sequences) runner.abort(sequence)
  refuse(FULL)
}
