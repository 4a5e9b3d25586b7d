/**
 * Two consumers of one full model: a small one, and one that sends ten times as much, twice what
 * the model can do. What the small one gets then, against what it gets alone.
 */
import type { Finished } from '../../../src/load/run.ts'
import { type BenchFleet, startFleet } from './fleet.ts'
import { openLoad, percentile, ttftSeconds } from './load.ts'
import { LENGTHS, WITH_POLICY, WITHOUT_POLICY } from './overload.ts'

const MODEL = 'deepseek-r1'
const SECONDS = 300
const LARGE = 10

export type Share = {
  readonly requests: number
  readonly answered: number
  readonly tokensPerSecond: number
  readonly ttftP50: number | null
  readonly ttftP95: number | null
}

export type Fairness = {
  readonly alone: Share
  readonly beside: Share
  readonly large: Share
  readonly besideWithoutPolicy: Share
}

/** `ratePerSecond`: what the large one sends. */
export const fairness = async (ratePerSecond: number): Promise<Fairness> => {
  const small = ratePerSecond / LARGE
  const held = await withFleet(WITH_POLICY, async (fleet) => {
    const keys = await keysOf(fleet)
    const alone = shareOf(await load(fleet, keys.small, { ratePerSecond: small, seed: 11 }))
    const [beside, large] = await Promise.all([
      load(fleet, keys.small, { ratePerSecond: small, seed: 11 }),
      load(fleet, keys.large, { ratePerSecond, seed: 12 }),
    ])
    return { alone, beside: shareOf(beside), large: shareOf(large) }
  })
  const besideWithoutPolicy = await withFleet(WITHOUT_POLICY, async (fleet) => {
    const keys = await keysOf(fleet)
    const [beside] = await Promise.all([
      load(fleet, keys.small, { ratePerSecond: small, seed: 11 }),
      load(fleet, keys.large, { ratePerSecond, seed: 12 }),
    ])
    return shareOf(beside)
  })
  return { ...held, besideWithoutPolicy }
}

const withFleet = async <Result>(
  gatewayYaml: string,
  run: (fleet: BenchFleet) => Promise<Result>,
): Promise<Result> => {
  const fleet = await startFleet(gatewayYaml)
  try {
    return await run(fleet)
  } finally {
    await fleet.stop()
  }
}

const keysOf = async (fleet: BenchFleet) => ({
  small: await fleet.newKey('small'),
  large: await fleet.newKey('large'),
})

type Sent = { readonly ratePerSecond: number; readonly seed: number }

const load = ({ baseUrl }: BenchFleet, key: string, sent: Sent): Promise<readonly Finished[]> =>
  openLoad({
    baseUrl,
    keys: [key],
    model: MODEL,
    lengths: LENGTHS,
    seconds: SECONDS,
    ...sent,
  })

/** Of what R1 itself answered. */
const shareOf = (finished: readonly Finished[]): Share => {
  const own = finished.filter(({ answeredBy, spilled }) => answeredBy === MODEL && !spilled)
  const done = own.filter(({ outcome }) => outcome === 'ok')
  const tokens = done.reduce((sum, { completionTokens }) => sum + (completionTokens ?? 0), 0)
  const ttft = ttftSeconds(own)
  return {
    requests: finished.length,
    answered: done.length,
    tokensPerSecond: tokens / SECONDS,
    ttftP50: percentile(ttft, 0.5),
    ttftP95: percentile(ttft, 0.95),
  }
}
