/**
 * Operations on a group: start all ranks or none, stop all ranks. Ranks are handled side by side,
 * because they wait for each other while they start.
 */
import type { Container } from '../core/observed.ts'
import type { PlannedReplica } from '../core/plan.ts'
import type { RankSpec } from '../core/runtime.ts'
import type { Driver, PullProgress } from '../drivers/driver.ts'
import { PenstockError } from '../errors.ts'

export type DriverOf = (node: string) => Driver | null

const driverOr = (driverOf: DriverOf, node: string, rank: number): Driver => {
  const driver = driverOf(node)
  if (driver !== null) return driver
  throw new PenstockError('node_unreachable', 'is not in the inventory any more', { node, rank })
}

export type StartAsk = {
  readonly want: PlannedReplica
  readonly driverOf: DriverOf
  readonly signal: AbortSignal
  readonly progress: (rank: number, progress: PullProgress) => void
}

/**
 * Start every rank. If one cannot start, the others are called off and whatever was started is
 * stopped again, so that no half group holds GPUs; then the first failure is thrown.
 */
export const startGroup = async ({ want, driverOf, signal, progress }: StartAsk): Promise<void> => {
  const giveUp = new AbortController()
  const either = AbortSignal.any([signal, giveUp.signal])
  const startRank = async (spec: RankSpec): Promise<void> => {
    const { rank } = spec.labels
    try {
      const driver = driverOr(driverOf, spec.node, rank)
      await driver.start(spec, either, (reading) => progress(rank, reading))
    } catch (error) {
      giveUp.abort()
      throw error
    }
  }
  const results = await Promise.allSettled(want.ranks.map(startRank))
  const failures: unknown[] = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason] : [],
  )
  if (failures.length === 0) return
  await stopGroup({
    ranks: want.ranks,
    graceMs: 1000,
    driverOf,
    signal: AbortSignal.timeout(60_000),
  })
  throw failures.find((failure) => failure instanceof PenstockError) ?? failures[0]
}

export type StopAsk = {
  readonly ranks: readonly Pick<RankSpec | Container, 'name' | 'labels'>[]
  /** From SIGTERM to SIGKILL, milliseconds. */
  readonly graceMs: number
  readonly driverOf: DriverOf
  readonly signal: AbortSignal
}

/** Stop and remove every rank; throws the first failure after all were tried. */
export const stopGroup = async ({ ranks, graceMs, driverOf, signal }: StopAsk): Promise<void> => {
  const results = await Promise.allSettled(
    ranks.map(async ({ name, labels }) =>
      driverOr(driverOf, labels.node, labels.rank).stop(name, graceMs, signal),
    ),
  )
  for (const result of results) if (result.status === 'rejected') throw result.reason
}
