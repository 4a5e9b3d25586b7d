/** The simulator's only clock and timers: simulated milliseconds run `speed` times faster. */
export class SimulatedClock {
  readonly speed: number
  readonly #startMs = performance.now()

  constructor(speed: number) {
    this.speed = speed
  }

  /** Simulated milliseconds since the process began. */
  now(): number {
    return (performance.now() - this.#startMs) * this.speed
  }

  /** The simulated moment of a real one, Unix milliseconds: the same whenever it is asked. */
  at(epochMs: number): number {
    return (epochMs - performance.timeOrigin - this.#startMs) * this.speed
  }

  /** Unix milliseconds, real: the date of a log line, the age of a reading. */
  epochMs(): number {
    return Date.now()
  }

  /** Unix seconds: what `created` carries. */
  epochSeconds(): number {
    return Math.floor(this.epochMs() / 1000)
  }

  /** Real milliseconds for a simulated span, within what setTimeout can hold. */
  realMs(simulatedMs: number): number {
    return Math.min(2 ** 31 - 1, Math.max(0, simulatedMs / this.speed))
  }

  /** Runs once after a simulated span; returns how to cancel. */
  after(simulatedMs: number, run: () => void): () => void {
    const timer = setTimeout(run, this.realMs(simulatedMs))
    return () => clearTimeout(timer)
  }

  /** Runs again and again, so many real milliseconds apart; returns how to stop it. */
  every(realMs: number, run: () => void): () => void {
    const timer = setInterval(run, realMs)
    return () => clearInterval(timer)
  }

  /** Runs once when other work had its turn; returns how to cancel. */
  soon(run: () => void): () => void {
    const turn = setImmediate(run)
    return () => clearImmediate(turn)
  }

  /** Real milliseconds: how long one turn has lasted is measured with it, nothing else. */
  realNow(): number {
    return performance.now()
  }

  sleep(simulatedMs: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, this.realMs(simulatedMs)))
  }
}
