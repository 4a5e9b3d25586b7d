/** The end of a gateway thread: running answers finish, late ones are told that they are cut. */
import { type GatewayState, TICK_MS } from './state.ts'

/** After the deadline, how long clients have to read their error event. */
const LAST_WORDS_MS = 2_000

/**
 * New requests are refused from now on; `drained` is called once, when none runs any more. The
 * result brings the end forward: a second signal of the operator cuts answers, not their reports.
 */
export const drain = (
  state: GatewayState,
  deadlineMs: number,
  drained: () => void,
): ((deadlineMs: number) => void) => {
  state.draining = true
  state.queue.drain()
  let deadlineAtMs = performance.now() + deadlineMs
  let interrupted = false
  const check = (): void => {
    const nowMs = performance.now()
    if (!interrupted && nowMs >= deadlineAtMs) {
      interrupted = true
      state.running.each((running) => running.interrupt())
    }
    if (state.running.size > 0 && nowMs < deadlineAtMs + LAST_WORDS_MS) return
    clearInterval(timer)
    drained()
  }
  const timer = setInterval(check, TICK_MS)
  check()
  return (earlierMs) => {
    deadlineAtMs = Math.min(deadlineAtMs, performance.now() + earlierMs)
  }
}
