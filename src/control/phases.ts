/** Start-up progress: the last log lines of each starting rank, read through its runtime. */
import type { Clock } from '../clock.ts'
import type { PhaseReading, Runtimes } from '../core/runtime.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import type { DriverOf } from './operations.ts'

const EVERY_MS = 1000
const LINES = 100
const TIMEOUT_MS = 5000

export type PhasesOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly driverOf: DriverOf
  readonly runtimes: Runtimes
  readonly log: (line: string) => void
}

/** Watches until stopped; each rank is read at most once at a time. */
export const watchPhases = (options: PhasesOptions): (() => void) => {
  const reading = new Set<string>()
  const read = async (record: ReplicaRecord, rank: number): Promise<void> => {
    const spec = record.want?.ranks.find(({ labels }) => labels.rank === rank)
    const driver = spec === undefined ? null : options.driverOf(spec.node)
    const runtime = Object.values(options.runtimes).find(({ name }) => name === spec?.labels.engine)
    if (spec === undefined || driver === null || runtime === undefined) return
    const text = await driver.logs(spec.name, LINES, AbortSignal.timeout(TIMEOUT_MS))
    const last = lastPhase(text, runtime.phase)
    if (last !== null && record.state === 'starting') options.fleet.phase(record.id, rank, last)
  }
  return options.clock.every(EVERY_MS, () => {
    for (const record of options.fleet.replicas.values()) {
      if (record.state !== 'starting') continue
      for (const { name, labels } of options.fleet.containersOf(record.id)) {
        if (reading.has(name)) continue
        reading.add(name)
        void read(record, labels.rank)
          .catch((error: unknown) => options.log(`${name}: log not read: ${String(error)}`))
          .finally(() => reading.delete(name))
      }
    }
  })
}

/** The reading of the last line that says anything about start-up. */
const lastPhase = (
  text: string,
  phase: (line: string) => PhaseReading | null,
): PhaseReading | null => {
  const lines = text.split('\n')
  for (let index = lines.length - 1; index >= 0; index -= 1) {
    const reading = phase(lines[index] ?? '')
    if (reading !== null) return reading
  }
  return null
}
