/** The limits of a route, as the manifest states them and as the gateway counts them. */
import type { Route } from './gateway-manifest.ts'

export type Measure = 'requests' | 'tokens' | 'input tokens' | 'output tokens' | 'concurrent'

export type GatewayLimit = {
  /** The same for the same limit after a reload, whatever its amount: what was used stays used. */
  readonly id: string
  /** `consumer`, `key`, `route`, `ip`, or `header:NAME`, `query:NAME`, `cookie:NAME`. */
  readonly per: string
  readonly measure: Measure
  readonly amount: number
  /** 0 for `concurrent`. */
  readonly windowMs: number
  readonly burst: number
  /** `60000 tokens per minute per consumer` */
  readonly text: string
}

const WINDOWS = [
  ['Second', 1_000],
  ['Minute', 60_000],
  ['Hour', 3_600_000],
  ['Day', 86_400_000],
] as const
const MEASURES = [
  ['requests', 'requests'],
  ['tokens', 'tokens'],
  ['inputTokens', 'input tokens'],
  ['outputTokens', 'output tokens'],
] as const

type Stated = Pick<Route, 'model' | 'limits'>
type StatedLimit = Stated['limits'][number]

/** Every amount of every entry as one limit. */
export const limitsOf = ({ model, limits }: Stated): readonly GatewayLimit[] => {
  const seen = new Map<string, number>()
  return limits.flatMap(eachOf).map((limit) => {
    const kind = [model, limit.per, limit.measure, limit.windowMs].join('\n')
    const nth = seen.get(kind) ?? 0
    seen.set(kind, nth + 1)
    return { ...limit, id: `${kind}\n${nth}` }
  })
}

const eachOf = (stated: StatedLimit): Omit<GatewayLimit, 'id'>[] => {
  const { per, concurrent } = stated
  const result: Omit<GatewayLimit, 'id'>[] = []
  for (const [field, measure] of MEASURES) {
    for (const [name, windowMs] of WINDOWS) {
      const amount = stated[`${field}Per${name}`]
      if (amount === undefined) continue
      const text = `${amount} ${measure} per ${name.toLowerCase()} per ${per}`
      const given = measure === 'requests' ? stated.requestBurst : stated.burst
      result.push({ per, measure, amount, windowMs, burst: given ?? amount, text })
    }
  }
  if (concurrent !== undefined) {
    const text = `${concurrent} requests at a time per ${per}`
    const counted = { amount: concurrent, windowMs: 0, burst: concurrent }
    result.push({ per, measure: 'concurrent', ...counted, text })
  }
  return result
}
