/**
 * What the machines cost, and who used them. Two steps, both of which add up:
 *
 * 1. `accrue` writes down what each node cost over a short span, GPU by GPU:
 *      node cost per second x seconds x (GPUs held / GPUs of the node)
 *    goes to the deployment that holds them, as `busy` while it answers at least one request and
 *    as `idle` while it answers none; GPUs that nothing holds are `free`; a span in which no
 *    Penstock looked is `away`. The sum over a node is its cost in the inventory, always.
 * 2. `charge` spreads the busy cost of a deployment's day over the tokens that it served that day:
 *      price = busy cost / weighted tokens, cost of a row = price x its weighted tokens.
 *    Only busy time is charged: who asks little on a quiet day must not pay for the night. What
 *    is left (idle, free, away, and busy days without a known token) is `unused`, never hidden:
 *    charged + unused = what the inventory says the machines cost.
 *
 * A generated token costs a whole step of the engine, a prompt token a share of a prefill that
 * reads the weights once for thousands, a cached one hardly anything. The weights are the ratio of
 * DeepSeek's own price list for R1 (deepseek-reasoner, 2025: 16, 4 and 1 CNY a million).
 *
 * Amounts of different currencies are never added.
 */
import { DAY_MS, dayOf } from './day.ts'
import type { NodeSettings } from './inventory.ts'

export type NodeCost = NonNullable<NodeSettings['cost']>

export type Money = { readonly currency: string; readonly amount: number }

/** Milliseconds; a year is the Gregorian mean of 365.2425 days, a month its twelfth. */
const PERIOD_MS: Readonly<Record<NodeCost['per'], number>> = {
  hour: 3_600_000,
  month: (365.2425 / 12) * DAY_MS,
  year: 365.2425 * DAY_MS,
}

export const costPerMs = ({ amount, per }: NodeCost): number => amount / PERIOD_MS[per]

/** Part of a node that a replica holds. */
export type Holder = {
  readonly deployment: string
  /** GPUs; on a node without GPUs, 1. */
  readonly parts: number
  /** It answers at least one request. */
  readonly busy: boolean
}

export type CostedNode = {
  readonly name: string
  readonly cost: NodeCost
  readonly gpuCount: number
  readonly holders: readonly Holder[]
  /** Simulated seconds a second on a rehearsed node; 1 on a real one. */
  readonly speed: number
}

export const COST_STATES = ['busy', 'idle', 'free', 'away'] as const
export type CostState = (typeof COST_STATES)[number]

export type CostRow = {
  readonly day: number
  readonly node: string
  /** Empty for `free` and `away`. */
  readonly deployment: string
  readonly state: CostState
  readonly currency: string
  readonly amount: number
  /** GPU seconds; on a node without GPUs, node seconds. */
  readonly gpuSeconds: number
}

export type Span = { readonly fromMs: number; readonly toMs: number }

/** What the nodes cost over a span (epoch milliseconds), split at midnight UTC. */
export const accrue = (
  nodes: readonly CostedNode[],
  span: Span,
  away: boolean,
): readonly CostRow[] =>
  days(span).flatMap(({ day, ms }) =>
    nodes.flatMap((node) => {
      const parts = away ? [awayOf(node)] : partsOf(node)
      const all = parts.reduce((sum, part) => sum + part.parts, 0)
      const cost = costPerMs(node.cost) * ms * node.speed
      return parts
        .filter((part) => part.parts > 0 && cost > 0)
        .map(({ deployment, state, parts: held }) => ({
          day,
          node: node.name,
          deployment,
          state,
          currency: node.cost.currency,
          amount: (cost * held) / all,
          gpuSeconds: (held * ms * node.speed) / 1000,
        }))
    }),
  )

type Part = {
  readonly deployment: string
  readonly state: CostState
  readonly parts: number
}

const awayOf = ({ gpuCount }: CostedNode): Part => ({
  deployment: '',
  state: 'away',
  parts: Math.max(1, gpuCount),
})

/** While a replica is replaced, two may name the same GPU: then they share what the node costs. */
const partsOf = ({ gpuCount, holders }: CostedNode): readonly Part[] => {
  const held = holders.reduce((sum, { parts }) => sum + parts, 0)
  const free = Math.max(gpuCount, held, 1) - held
  return [
    ...holders.map(({ deployment, parts, busy }): Part => {
      return { deployment, parts, state: busy ? 'busy' : 'idle' }
    }),
    { deployment: '', state: 'free', parts: free },
  ]
}

const days = ({ fromMs, toMs }: Span): readonly { day: number; ms: number }[] => {
  const found: { day: number; ms: number }[] = []
  for (let atMs = fromMs; atMs < toMs; ) {
    const endMs = Math.min(toMs, (dayOf(atMs) + 1) * DAY_MS)
    found.push({ day: dayOf(atMs), ms: endMs - atMs })
    atMs = endMs
  }
  return found
}

/** Adds rows of the same day, node, deployment, state and currency. */
export const mergeCosts = (rows: readonly CostRow[]): readonly CostRow[] => {
  const merged = new Map<string, CostRow>()
  for (const row of rows) {
    const { day, node, deployment, state, currency } = row
    const key = JSON.stringify([day, node, deployment, state, currency])
    const old = merged.get(key)
    merged.set(key, {
      ...row,
      amount: row.amount + (old?.amount ?? 0),
      gpuSeconds: row.gpuSeconds + (old?.gpuSeconds ?? 0),
    })
  }
  return [...merged.values()]
}

type Tokens = {
  readonly promptTokens: number
  /** Of `promptTokens`. */
  readonly cachedTokens: number
  readonly completionTokens: number
}

const WEIGHT = { uncached: 4 / 16, cached: 1 / 16, completion: 1 } as const

const weightOf = ({ promptTokens, cachedTokens, completionTokens }: Tokens): number => {
  const cached = Math.min(cachedTokens, promptTokens)
  const prompt = WEIGHT.uncached * (promptTokens - cached) + WEIGHT.cached * cached
  return prompt + WEIGHT.completion * completionTokens
}

export type Served = Tokens & { readonly day: number; readonly deployment: string | null }

/** Cost that no token carries, by why. */
export type Unused = Money & {
  /** Held by a replica that answered nobody. */
  readonly idle: number
  /** Held by nothing. */
  readonly free: number
  /** While no Penstock ran. */
  readonly away: number
  /** Busy, but no answer of that day said how many tokens it had. */
  readonly unserved: number
}

export type Charge = {
  /** What these tokens cost, one entry a currency. */
  costOf(row: Served): readonly Money[]
  /** By currency; `amount` is the sum of its parts. */
  readonly unused: readonly Unused[]
}

/** Spreads `costs` over `served`: both whole, of the same days. */
export const charge = (costs: readonly CostRow[], served: readonly Served[]): Charge => {
  const weights = new Map<string, number>()
  for (const row of served) {
    if (row.deployment === null) continue
    const key = keyOf(row.day, row.deployment)
    weights.set(key, (weights.get(key) ?? 0) + weightOf(row))
  }
  const prices = new Map<string, Map<string, number>>()
  const unused = new Map<string, Unused>()
  for (const row of costs) {
    const key = keyOf(row.day, row.deployment)
    const weight = weights.get(key) ?? 0
    if (row.state === 'busy' && weight > 0) {
      const price = prices.get(key) ?? new Map<string, number>()
      price.set(row.currency, (price.get(row.currency) ?? 0) + row.amount / weight)
      prices.set(key, price)
    } else unused.set(row.currency, withUnused(unused.get(row.currency), row))
  }
  return {
    costOf: (row) => {
      if (row.deployment === null) return []
      const price = prices.get(keyOf(row.day, row.deployment)) ?? []
      const weight = weightOf(row)
      return [...price].map(([currency, each]) => ({ currency, amount: each * weight }))
    },
    unused: [...unused.values()].toSorted(byCurrency),
  }
}

const keyOf = (day: number, deployment: string): string => `${day} ${deployment}`

const withUnused = (old: Unused | undefined, { state, currency, amount }: CostRow): Unused => {
  const sums = old ?? { currency, amount: 0, idle: 0, free: 0, away: 0, unserved: 0 }
  const why = state === 'busy' ? 'unserved' : state
  return { ...sums, amount: sums.amount + amount, [why]: sums[why] + amount }
}

/** One entry a currency, in the order of their codes. */
export const addUnused = (all: readonly Unused[]): readonly Unused[] => {
  const sums = new Map<string, Unused>()
  for (const one of all) {
    const old = sums.get(one.currency)
    sums.set(one.currency, old === undefined ? one : plusUnused(old, one))
  }
  return [...sums.values()].toSorted(byCurrency)
}

const plusUnused = (a: Unused, b: Unused): Unused => ({
  currency: a.currency,
  amount: a.amount + b.amount,
  idle: a.idle + b.idle,
  free: a.free + b.free,
  away: a.away + b.away,
  unserved: a.unserved + b.unserved,
})

const byCurrency = (a: Money, b: Money): number => (a.currency < b.currency ? -1 : 1)

/** One entry a currency, in the order of their codes. */
export const addMoney = (...amounts: readonly (readonly Money[])[]): readonly Money[] => {
  const sums = new Map<string, number>()
  for (const { currency, amount } of amounts.flat()) {
    sums.set(currency, (sums.get(currency) ?? 0) + amount)
  }
  return [...sums].map(([currency, amount]) => ({ currency, amount })).toSorted(byCurrency)
}
