/** What the HTTP surface needs to know of the engine behind it. */

import type { Rehearsal } from '../../../src/core/runtime.ts'
import type { SimulatedClock } from '../clock.ts'
import type { FaultSchedule } from '../faults/schedule.ts'
import type { Memory } from '../memory.ts'
import type { EngineMetrics } from '../metrics/engine-metrics.ts'
import type { Runner } from '../runner.ts'
import type { Settings } from '../settings.ts'
import type { ScriptLine } from '../text/script.ts'
import type { Dialect } from './dialect.ts'

export type Service = {
  readonly settings: Settings
  readonly rehearsal: Rehearsal
  readonly clock: SimulatedClock
  readonly runner: Runner
  readonly memory: Memory
  readonly faults: FaultSchedule
  readonly metrics: EngineMetrics
  readonly dialect: Dialect
  /** 32 hexadecimal digits, never the same: what ids are made of. */
  readonly hex: () => string
  /** Where the access log goes. */
  readonly stdout: (text: string) => void
  /** What to answer to whom, in place of the corpus; empty without a script. */
  readonly script: readonly ScriptLine[]
  /**
   * `starting`: the port is open, SGLang's warm-up request still runs.
   * `dead`: the engine failed, the process is about to end; `draining`: SIGTERM came.
   */
  state: 'starting' | 'serving' | 'draining' | 'dead'
  /** Unix seconds at which the engine became ready. */
  readonly created: number
  /** Requests at work, where the engine counts them (--enable-server-load-tracking). */
  inFlight: number
  /** A health probe waits for the engine (SGLang's generates a token). */
  probed: boolean
  /** Simulated milliseconds of GPU work so far. */
  readonly busyMs: () => number
}
