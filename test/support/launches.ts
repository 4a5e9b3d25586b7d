/** A deployment placed on nodes, as the specs that drivers get: for golden tests of commands. */
import type { NodeSpec } from '../../src/core/inventory.ts'
import type { Deployment } from '../../src/core/manifest.ts'
import type { RankSpec } from '../../src/core/runtime.ts'
import { observe, planOf } from './plans.ts'

export const ranksOf = (
  nodes: readonly NodeSpec[],
  deployment: Deployment,
): readonly RankSpec[] => {
  const [planned] = planOf(nodes, [deployment], observe(nodes)).deployments
  if (planned === undefined || planned.replicas.length !== deployment.replicas) {
    throw new Error(JSON.stringify(planned?.refusals ?? planned?.unplaced))
  }
  return planned.replicas.flatMap(({ ranks }) => ranks)
}

/** One rank of a replica with as many ranks as `count`. */
export const rankOf = (nodes: readonly NodeSpec[], deployment: Deployment, rank = 0): RankSpec => {
  const spec = ranksOf(nodes, deployment)[rank]
  if (spec === undefined) throw new Error(`no rank ${rank}`)
  return spec
}

/** Flags with their values, one a line: as golden text is read. */
export const lines = (command: readonly string[]): string =>
  command.join(' ').replaceAll(/ (--?[a-z])/g, '\n$1')
