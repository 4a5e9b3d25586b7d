/**
 * Time for control and telemetry: the only caller of Date.now, performance.now and timers there.
 * Tests pass their own (test/support/clock.ts), so that no decision waits on a real second.
 */
export type Stop = () => void

export type Clock = {
  /** Wall clock, epoch milliseconds: for showing and storing, never for measuring spans. */
  now(): number
  /** Milliseconds since an arbitrary start, never going back: for ages, deadlines and rates. */
  monotonic(): number
  /** Resolves after `ms`; rejects with `signal.reason` as soon as the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /**
   * Calls `run` each `ms`, first after `ms`; a beat is left out while the last run still goes on.
   * `run` handles its own failures: what it throws is a bug and ends the process.
   */
  every(ms: number, run: () => void | Promise<void>): Stop
}

const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason)
      return
    }
    const abort = (): void => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
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
  const timer = setInterval(beat, ms)
  return () => clearInterval(timer)
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep,
  every,
}
