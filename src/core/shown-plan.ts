/** A plan for people and programs outside: what its secret variables hold stays inside. */
import { isSecret } from './command-line.ts'
import type { Plan } from './plan.ts'
import type { RankSpec } from './runtime.ts'

const HIDDEN = '***'

export const shownPlan = (plan: Plan): Plan => ({
  ...plan,
  deployments: plan.deployments.map((deployment) => ({
    ...deployment,
    replicas: deployment.replicas.map((replica) => ({
      ...replica,
      ranks: replica.ranks.map(shownRank),
    })),
  })),
})

const shownRank = (rank: RankSpec): RankSpec => ({
  ...rank,
  environment: Object.fromEntries(
    Object.entries(rank.environment).map(([name, value]) => [
      name,
      isSecret(name) ? HIDDEN : value,
    ]),
  ),
})
