/** The end of a gateway thread: running answers finish, late ones are told that they are cut. */
import { type GatewayState, TICK_MS } from './state.ts'

/** After the deadline, how long clients have to read their error event. */
const LAST_WORDS_MS = 2_000

/** New requests are refused from now on; `drained` is called once, when none runs any more. */
export const drain = (state: GatewayState, deadlineMs: number, drained: () => void): void => {
  if (state.draining) return
  state.draining = true
  state.queue.drain()
  const deadlineAtMs = performance.now() + deadlineMs
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
}
