/**
 * What can be asked of a running rank, and its answers: one JSON object a line each. Pure but for
 * the schedule that it changes.
 */
import { isRecord } from '../rehearsal.ts'
import { type Fault, isFaultKind, readFault } from './fault.ts'
import type { FaultSchedule } from './schedule.ts'

/** A batch of a few hundred faults. */
export const MESSAGE_BYTES_MAX = 256 * 1024

export type Answer =
  | { readonly ok: false; readonly message: string }
  | ({ readonly ok: true } & Readonly<Record<string, unknown>>)

export type Rank = {
  readonly schedule: FaultSchedule
  /** Simulated milliseconds since the process began. */
  readonly now: () => number
  /** The simulated moment of a real one, Unix milliseconds. */
  readonly at: (epochMs: number) => number
  /** Unix milliseconds. */
  readonly epochMs: () => number
  readonly status: () => Readonly<Record<string, unknown>>
}

const refuse = (message: string): Answer => ({ ok: false, message })

/** A timeline of a month that is still sent; beyond that two clocks disagree. */
const SENT_AGO_MS_MAX = 31 * 86_400_000

/** Never throws; a message that is wrong in any part changes nothing. */
export const answerTo = (text: string, rank: Rank): Answer => {
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch (error) {
    return refuse(`not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (!isRecord(message)) return refuse('a message is an object with a `do`')
  const { schedule, now } = rank
  switch (message.do) {
    case 'add':
      return add(message, rank)
    case 'clear':
      return clear(message, rank)
    case 'list':
      return { ok: true, nowMs: now(), faults: schedule.list(now()) }
    case 'status':
      return { ok: true, nowMs: now(), ...rank.status() }
    default:
      return refuse(`do: one of add, clear, list, status, not ${JSON.stringify(message.do)}`)
  }
}

type Message = Readonly<Record<string, unknown>>

/** `sentAtMs` (Unix): starts count from that moment, so that many ranks agree on one. */
const add = (message: Message, { schedule, now, at, epochMs }: Rank): Answer => {
  const { fault, faults, sentAtMs } = message
  const given: unknown = fault === undefined ? faults : [fault]
  if (!Array.isArray(given) || given.length === 0) {
    return refuse('add: expected `fault`, or `faults` with at least one')
  }
  if (sentAtMs !== undefined && typeof sentAtMs !== 'number') {
    return refuse('add: sentAtMs: Unix milliseconds')
  }
  const agoMs = sentAtMs === undefined ? 0 : epochMs() - sentAtMs
  if (Math.abs(agoMs) > SENT_AGO_MS_MAX) {
    return refuse(`add: sentAtMs is ${Math.round(agoMs / 1000)} s from this machine's clock`)
  }
  // Not counted back from two readings of two clocks: a pause between them would shift the times.
  const zeroMs = sentAtMs === undefined ? now() : at(sentAtMs)
  const read: Fault[] = []
  for (const [index, value] of given.entries()) {
    const one = readFault(value)
    if (!one.ok)
      return refuse(given.length === 1 ? one.message : `faults[${index}]: ${one.message}`)
    read.push({ ...one.fault, startMs: one.fault.startMs + zeroMs })
  }
  const ids = schedule.addAll(read)
  if (ids === null) return refuse('the list of faults is full: clear it first')
  return { ok: true, nowMs: now(), ids }
}

const clear = (message: Message, { schedule }: Rank): Answer => {
  const { kind, id } = message
  if (kind !== undefined && !isFaultKind(kind)) return refuse('clear: kind: not a kind of fault')
  if (id !== undefined && typeof id !== 'number') return refuse('clear: id: expected a number')
  const cleared = schedule.clear({
    ...(kind === undefined ? {} : { kind }),
    ...(id === undefined ? {} : { id }),
  })
  return { ok: true, cleared }
}
