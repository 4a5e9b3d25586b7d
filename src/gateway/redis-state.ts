/** What the main thread and the gateway threads tell each other of the shared limits. */
import { MAX_THREADS } from '../core/snapshot.ts'
import type { LimitsView } from '../core/view.ts'

const [GATEWAYS, DECISIONS, FLAGS] = [0, 1, 2]
/** Before Redis has ever said how many there are: whoever shares limits has at least two. */
const GATEWAYS_UNKNOWN = 2

export class RedisState {
  readonly buffer: SharedArrayBuffer
  readonly #cells: Int32Array

  /** Wraps the buffer that another thread made, or makes one. */
  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer((FLAGS + MAX_THREADS) * 4)
    this.#cells = new Int32Array(this.buffer)
  }

  /** Redis has said how many gateways there are. */
  get known(): boolean {
    return Atomics.load(this.#cells, GATEWAYS) > 0
  }

  get gateways(): number {
    return this.known ? Atomics.load(this.#cells, GATEWAYS) : GATEWAYS_UNKNOWN
  }

  counted(gateways: number): void {
    Atomics.store(this.#cells, GATEWAYS, gateways)
  }

  /** `shared`: this thread can ask Redis. */
  set(thread: number, shared: boolean): void {
    Atomics.store(this.#cells, FLAGS + thread, shared ? 1 : 0)
  }

  decidedLocally(): void {
    Atomics.add(this.#cells, DECISIONS, 1)
  }

  standing(threads: number): NonNullable<LimitsView['redis']> {
    let shared = 0
    for (let thread = 0; thread < threads; thread += 1) {
      shared += Atomics.load(this.#cells, FLAGS + thread)
    }
    const localDecisions = Atomics.load(this.#cells, DECISIONS) >>> 0
    return { shared, local: threads - shared, gateways: this.gateways, localDecisions }
  }
}
