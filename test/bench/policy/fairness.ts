/**
 * Two consumers of one full model: a small one, and one that sends ten times as much, twice what
 * the model can do. What the small one gets then, against what it gets alone.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { UsageReportSchema } from '../../../src/console/usage-answers.ts'
import type { Finished } from '../../../src/load/run.ts'
import { type BenchFleet, startFleet } from './fleet.ts'
import { openLoad, percentile, ttftSeconds } from './load.ts'
import { LENGTHS, WITH_POLICY, WITHOUT_POLICY } from './overload.ts'

const MODEL = 'deepseek-r1'
const SECONDS = 600
const LARGE = 10

export type Share = {
  readonly requests: number
  /** Answered by R1 itself, to the end or still streaming when the load ended. */
  readonly accepted: number
  /** What R1 made for it, broken off answers included. */
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
    const alone = await load(fleet, keys.small, { ratePerSecond: small, seed: 11 })
    const before = await tokensOf(fleet)
    const [beside, large] = await Promise.all([
      load(fleet, keys.small, { ratePerSecond: small, seed: 11 }),
      load(fleet, keys.large, { ratePerSecond, seed: 12 }),
    ])
    const after = await tokensOf(fleet)
    return {
      alone: shareOf(alone, before.small),
      beside: shareOf(beside, after.small - before.small),
      large: shareOf(large, after.large),
    }
  })
  const besideWithoutPolicy = await withFleet(WITHOUT_POLICY, async (fleet) => {
    const keys = await keysOf(fleet)
    const [beside] = await Promise.all([
      load(fleet, keys.small, { ratePerSecond: small, seed: 11 }),
      load(fleet, keys.large, { ratePerSecond, seed: 12 }),
    ])
    return shareOf(beside, (await tokensOf(fleet)).small)
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

/** Longer than it takes until the books of what was left are closed. */
const BOOKS_MS = 3000

/** What R1 has made for each so far: a slow pace shows in it, and refusals do. */
const tokensOf = async ({ consoleUrl, adminKey }: BenchFleet) => {
  await wait(BOOKS_MS)
  const headers = { authorization: `Bearer ${adminKey}` }
  const url = `${consoleUrl}/admin/v1/usage?by=consumer,deployment`
  const { rows } = UsageReportSchema.parse(await (await fetch(url, { headers })).json())
  const of = (name: string): number =>
    rows
      .filter(({ by }) => by.consumer === name && by.deployment === MODEL)
      .reduce((sum, { completionTokens }) => sum + completionTokens, 0)
  return { small: of('small'), large: of('large') }
}

const shareOf = (finished: readonly Finished[], tokens: number): Share => {
  const own = finished.filter(({ answeredBy, spilled }) => answeredBy === MODEL && !spilled)
  const ttft = ttftSeconds(own)
  return {
    requests: finished.length,
    accepted: ttft.length,
    tokensPerSecond: tokens / SECONDS,
    ttftP50: percentile(ttft, 0.5),
    ttftP95: percentile(ttft, 0.95),
  }
}
