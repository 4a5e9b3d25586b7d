/** A clock that stands still until a test moves it. Timers fire in order of their time. */
import type { Clock, Stop } from '../../src/clock.ts'

type Timer = { readonly id: number; atMs: number; fire(): void }

export type ManualClock = Clock & {
  /** Moves time on by `ms`, firing what falls due, with pending promises settled in between. */
  advance(ms: number): Promise<void>
  /** Lets the wall clock jump, as NTP or an operator does; `monotonic` goes on. */
  jump(ms: number): void
  /** How many timers are waiting: 0 after a clean stop. */
  pending(): number
}

/** Real I/O and promise chains get a turn of the event loop, not only the microtask queue. */
const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}

export const manualClock = (startMs = 1_700_000_000_000): ManualClock => {
  const timers = new Map<number, Timer>()
  let elapsedMs = 0
  let jumpedMs = 0
  let ids = 0

  const add = (ms: number, fire: () => void): number => {
    ids += 1
    timers.set(ids, { id: ids, atMs: elapsedMs + Math.max(ms, 0), fire })
    return ids
  }

  const due = (untilMs: number): Timer | undefined =>
    [...timers.values()]
      .filter((timer) => timer.atMs <= untilMs)
      .sort((a, b) => a.atMs - b.atMs || a.id - b.id)[0]

  const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason)
        return
      }
      const abort = (): void => {
        timers.delete(id)
        reject(signal?.reason)
      }
      const id = add(ms, () => {
        timers.delete(id)
        signal?.removeEventListener('abort', abort)
        resolve()
      })
      signal?.addEventListener('abort', abort, { once: true })
    })

  const every = (ms: number, run: () => void | Promise<void>): Stop => {
    let running = false
    const beat = async (): Promise<void> => {
      if (running) return
      running = true
      await run()
      running = false
    }
    const id = add(ms, () => {
      const timer = timers.get(id)
      if (timer !== undefined) timer.atMs += ms
      void beat()
    })
    return () => timers.delete(id)
  }

  return {
    now: () => startMs + jumpedMs + elapsedMs,
    monotonic: () => elapsedMs,
    sleep,
    every,
    jump: (ms) => {
      jumpedMs += ms
    },
    pending: () => timers.size,
    advance: async (ms) => {
      await settle()
      const untilMs = elapsedMs + ms
      for (let timer = due(untilMs); timer !== undefined; timer = due(untilMs)) {
        elapsedMs = Math.max(elapsedMs, timer.atMs)
        timer.fire()
        await settle()
      }
      elapsedMs = untilMs
    },
  }
}
