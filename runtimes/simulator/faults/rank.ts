/** Plays the faults of one rank that have no need of a served engine: at any moment of its life. */
import type { SimulatedClock } from '../clock.ts'
import type { Published } from '../gpu.ts'
import type { Stall } from '../group.ts'
import type { Fault } from './fault.ts'
import type { FaultSchedule } from './schedule.ts'
import { watchFaults } from './watch.ts'

/** A fault without an end lasts on a GPU until the node was rebooted: ten simulated minutes. */
const REBOOT_MS = 600_000
/** How long a slowed load goes on before it looks again whether the fault still holds. */
const SLICE_MS = 5000

type Hooks = {
  /** The process ends at once. */
  readonly exit: (code: number) => void
  /** The readings changed. */
  readonly publish: () => void
  /** The GPU is gone: the process is to die as the engine does. */
  readonly xid: () => void
  /** The rank's part in the group stops or goes on. */
  readonly stall: (how: Stall) => void
}

export class RankFaults {
  readonly #clock: SimulatedClock
  readonly #faults: FaultSchedule
  readonly #gpus: readonly number[]
  #hooks: Hooks | null = null
  #keep: Fault | null = null
  #xid: Fault | null = null
  #how: Stall = 'none'

  /** `gpus`: those of the node that are this rank's. */
  constructor(clock: SimulatedClock, faults: FaultSchedule, gpus: readonly number[]) {
    this.#clock = clock
    this.#faults = faults
    this.#gpus = gpus
  }

  /** Begins to play; again, with other hooks, when the rank has become something else. */
  play(hooks: Hooks): void {
    this.#hooks = hooks
    this.#how = 'none'
    watchFaults(this.#clock, this.#faults, () => this.#look())
  }

  /** For the publisher of GPU readings; times become real milliseconds. */
  readings(): Pick<Published, 'failure' | 'keepMemoryMs' | 'lost'> {
    const real = (fault: Fault) => (fault.durationMs ?? REBOOT_MS) / this.#clock.speed
    const nvml = this.#faults.active('nvml-lost', this.#clock.now()) !== null
    const failure = nvml ? ('nvml' as const) : this.#xid === null ? null : ('lost' as const)
    return {
      ...(failure === null ? {} : { failure }),
      keepMemoryMs: this.#keep === null ? null : real(this.#keep),
      ...(this.#xid === null ? {} : { lost: { gpu: this.#hit(this.#xid), ms: real(this.#xid) } }),
    }
  }

  /** A simulated span of loading, `factor` times as long where slow-shards is on. */
  async load(spanMs: number): Promise<void> {
    let leftMs = spanMs
    while (leftMs > 0) {
      const began = this.#clock.now()
      const factor = Math.max(1, this.#faults.active('slow-shards', began)?.factor ?? 1)
      const next = this.#faults.changesMs(began)
      if (factor === 1 && next === null) return this.#clock.sleep(leftMs)
      const untilMs = Math.min(leftMs * factor, SLICE_MS, (next ?? Infinity) - began)
      await this.#clock.sleep(untilMs)
      leftMs -= (this.#clock.now() - began) / factor
    }
  }

  /** Returns once neither hang nor partition holds this rank: start stands still as well. */
  async free(): Promise<void> {
    while (this.#stall() !== 'none') await this.#clock.sleep(SLICE_MS)
  }

  #hit({ gpu }: Fault): number | null {
    return gpu ?? this.#gpus[0] ?? null
  }

  #struck(now: number): Fault | null {
    const xid = this.#faults.active('xid', now)
    if (xid === null || xid.gpu === null || this.#gpus.includes(xid.gpu)) return xid
    return null
  }

  #stall(): Stall {
    const now = this.#clock.now()
    if (this.#faults.active('partition', now) !== null) return 'partition'
    return this.#faults.active('hang', now) === null ? 'none' : 'hang'
  }

  #look(): void {
    const now = this.#clock.now()
    const exit = this.#faults.active('exit', now)
    if (exit !== null) this.#hooks?.exit(exit.code)
    this.#keepLook(now)
    const xid = this.#struck(now)
    const struck = xid !== null && this.#xid === null
    this.#xid ??= xid
    this.#hooks?.publish()
    if (struck) this.#hooks?.xid()
    const how = this.#stall()
    if (how === this.#how) return
    this.#how = how
    this.#hooks?.stall(how)
  }

  /** Once begun it holds to the process's end and beyond, unless it is cleared before its time. */
  #keepLook(now: number): void {
    const on = this.#faults.active('keep-memory', now)
    if (on !== null) this.#keep = on
    else if (this.#keep !== null) {
      const { startMs, durationMs } = this.#keep
      if (durationMs === null || now < startMs + durationMs) this.#keep = null
    }
  }
}
