/**
 * Sends what was planned when it was planned, whatever the answers do: callers do not wait for each
 * other. Simulated seconds are real seconds times the speed of the rehearsed fleet.
 */
import { Agent } from 'undici'
import type { Clock } from '../clock.ts'
import { type Answered, ask } from './request.ts'
import type { PlannedRequest } from './sessions.ts'

/** Real milliseconds; `lateMs`: sent this long after its time, because too many were open. */
export type Finished = Answered & {
  readonly model: string
  readonly consumer: number
  readonly lateMs: number
}

export type RunAsk = {
  readonly baseUrl: string
  /** Consumer n uses key n, counted round and round; none: no key is sent. */
  readonly keys: readonly string[]
  readonly requests: Iterable<PlannedRequest>
  readonly speed: number
  readonly exact: boolean
  readonly openMax: number
  /** Real milliseconds that one answer may take. */
  readonly timeoutMs: number
  readonly clock: Clock
  /** Aborting ends it early: nothing more is sent, what is open is left. */
  readonly signal: AbortSignal
  readonly onSent: () => void
  readonly onFinished: (finished: Finished) => void
}

/** Resolves when the last answer is in; real milliseconds that it all took. */
export const runLoad = async (run: RunAsk): Promise<number> => {
  const { clock, signal, openMax } = run
  const dispatcher = new Agent({ connections: openMax, pipelining: 1 })
  const startMs = clock.monotonic()
  const open = new Set<Promise<void>>()
  try {
    for (const planned of run.requests) {
      const dueMs = startMs + (planned.atSeconds * 1000) / run.speed
      await dueOrEnd(dueMs, run)
      while (open.size >= openMax && !signal.aborted) await Promise.race(open)
      if (signal.aborted) break
      const lateMs = Math.max(0, clock.monotonic() - dueMs)
      run.onSent()
      const one = answered(run, planned, dispatcher).then((answer) => {
        open.delete(one)
        const { model, consumer } = planned
        run.onFinished({ ...answer, model, consumer, lateMs })
      })
      open.add(one)
    }
    await Promise.all(open)
    return clock.monotonic() - startMs
  } finally {
    await dispatcher.destroy()
  }
}

/** Shorter pauses than a timer can keep are left out: requests then go in small groups. */
const PAUSE_MS_MIN = 1

const dueOrEnd = async (dueMs: number, { clock, signal }: RunAsk): Promise<void> => {
  const waitMs = dueMs - clock.monotonic()
  if (waitMs < PAUSE_MS_MIN || signal.aborted) return
  try {
    await clock.sleep(waitMs, signal)
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

const answered = (run: RunAsk, planned: PlannedRequest, dispatcher: Agent): Promise<Answered> => {
  const { baseUrl, keys, exact, timeoutMs, clock, signal } = run
  const key = keys[planned.consumer % Math.max(1, keys.length)] ?? null
  return ask({ baseUrl, key, planned, exact, timeoutMs, dispatcher, clock, signal })
}
