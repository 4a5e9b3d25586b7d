/**
 * Signals that end a verb in its own way. A listener stays for the whole turn in which it is
 * called: libraries that restore the cursor (signal-exit, under log-update) kill the process by the
 * same signal when they find themselves the only listener, and engines would be left behind.
 */
const INTERRUPTS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM']

/** Calls back at each of these signals until the returned function is called. */
export const onSignals = (
  signals: readonly NodeJS.Signals[],
  heard: (signal: string) => void,
): (() => void) => {
  for (const signal of signals) process.on(signal, heard)
  return () => {
    setImmediate(() => {
      for (const signal of signals) process.removeListener(signal, heard)
    })
  }
}

/** The next of these signals. */
export const signalled = (signals: readonly NodeJS.Signals[] = INTERRUPTS): Promise<string> =>
  new Promise((resolve) => {
    const stop = onSignals(signals, (signal) => {
      stop()
      resolve(signal)
    })
  })
