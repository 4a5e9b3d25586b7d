/**
 * Keeps each deployment's spill state: one step per new reading of its engines, however often the
 * snapshot is made, so that two readings are two readings.
 */
import type { EngineSignal } from '../core/runtime.ts'
import { STALE_MS } from '../core/signals.ts'
import { CALM, nextSpill, type SpillState, saturation } from '../core/spillover.ts'
import type { Fleet } from '../fleet.ts'

type Kept = {
  readonly state: SpillState
  readonly ratio: number | null
  readonly readAtMs: number
}

/** How full a model is, 1 is full; null: unknown. */
export type PressureOf = (deployment: string, nowMs: number) => number | null

const NONE: Kept = { state: CALM, ratio: null, readAtMs: -1 }

export class Spillovers {
  readonly #fleet: Fleet
  /** By deployment; bounded by the manifests, see `keep`. */
  readonly #kept = new Map<string, Kept>()

  #pressure: PressureOf | null = null

  constructor(fleet: Fleet) {
    this.#fleet = fleet
  }

  /** From now on the gateway's own queues count: they keep the engines' short. */
  watch(pressure: PressureOf): void {
    this.#pressure = pressure
  }

  /** The state as of now, and how full the model is (null: unknown). */
  of(deployment: string, nowMs: number): { readonly state: SpillState; ratio: number | null } {
    const before = this.#kept.get(deployment) ?? NONE
    const { loads, readAtMs } = this.#loads(deployment, nowMs)
    const engines = saturation(loads)
    // Where engines cannot be seen, nobody is moved, whatever waits.
    const ratio = engines === null ? null : (this.#pressure?.(deployment, nowMs) ?? engines)
    if (ratio !== null && readAtMs === before.readAtMs) return before
    const kept = { state: nextSpill(before.state, ratio, nowMs), ratio, readAtMs }
    this.#kept.set(deployment, kept)
    return kept
  }

  /** Forgets deployments that are gone. */
  keep(deployments: ReadonlySet<string>): void {
    for (const name of this.#kept.keys()) if (!deployments.has(name)) this.#kept.delete(name)
  }

  #loads(deployment: string, nowMs: number) {
    let readAtMs = -1
    const ready = [...this.#fleet.replicas.values()].filter(
      (record) => record.deployment === deployment && record.state === 'ready',
    )
    const loads = ready.map((record) => {
      const signal = (name: EngineSignal): number | null => {
        const reading = this.#fleet.signals.get(record.id)?.get(name)
        if (reading === undefined || nowMs - reading.readAtMs > STALE_MS) return null
        readAtMs = Math.max(readAtMs, reading.readAtMs)
        return reading.value
      }
      return {
        requestsWaiting: signal('requestsWaiting'),
        kvCacheUsageRatio: signal('kvCacheUsageRatio'),
      }
    })
    return { loads, readAtMs }
  }
}
