/** Wakes whoever plays the faults whenever one begins, ends, or the list changes. */
import type { SimulatedClock } from '../clock.ts'
import type { FaultSchedule } from './schedule.ts'

/** Calls `look` now and at every change, on the simulated clock; `look` must bear extra calls. */
export const watchFaults = (
  clock: SimulatedClock,
  faults: FaultSchedule,
  look: () => void,
): void => {
  let cancel: () => void = () => undefined
  const wake = () => {
    cancel()
    look()
    const now = clock.now()
    const next = faults.changesMs(now)
    // A timer may fire a little early; then it is set again, at least a millisecond ahead.
    cancel = next === null ? () => undefined : clock.after(Math.max(clock.speed, next - now), wake)
  }
  faults.onChange(wake)
  wake()
}
