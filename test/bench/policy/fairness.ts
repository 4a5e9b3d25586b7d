/**
 * Two consumers of one full model: a small one, and one that sends ten times as much, twice what
 * the model can do. What the small one gets then, against what it gets alone.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { UsageReportSchema } from '../../../src/console/usage-answers.ts'
import type { Finished } from '../../../src/load/run.ts'
import { type BenchFleet, startFleet } from './fleet.ts'
import { openLoad, percentile, ttftSeconds } from './load.ts'
import { LENGTHS } from './overload.ts'

const MODEL = 'deepseek-r1'
const LARGE = 10

export type Share = {
  readonly requests: number
  /** Answered by R1 itself, to the end or still streaming when the load ended. */
  readonly accepted: number
  /** What R1 made for it, broken off answers included. */
  readonly tokensPerSecond: number
  readonly ttftMean: number | null
  readonly ttftP50: number | null
  readonly ttftP95: number | null
}

export type Fairness = {
  readonly alone: Share
  readonly beside: Share
  readonly large: Share
}

export type FairnessAsk = {
  /** What the large one sends, and for how long; simulated. */
  readonly ratePerSecond: number
  readonly seconds: number
  /** Of the small one's requests; the large one's is the next. */
  readonly seed: number
}

/** The small one alone and beside the large one, each on a fleet that has cached none of it. */
export const fairness = async (gatewayYaml: string, ask: FairnessAsk): Promise<Fairness> => {
  const alone = await withFleet(gatewayYaml, async (fleet) => {
    const finished = await load(fleet, (await keysOf(fleet)).small, smallOf(ask))
    return shareOf(finished, (await tokensOf(fleet)).small, ask)
  })
  return { alone, ...(await besides(gatewayYaml, ask)) }
}

/** Both together. */
export const besides = (gatewayYaml: string, ask: FairnessAsk): Promise<Omit<Fairness, 'alone'>> =>
  withFleet(gatewayYaml, async (fleet) => {
    const keys = await keysOf(fleet)
    const [small, large] = await Promise.all([
      load(fleet, keys.small, smallOf(ask)),
      load(fleet, keys.large, { ...ask, seed: ask.seed + 1 }),
    ])
    const tokens = await tokensOf(fleet)
    return {
      beside: shareOf(small, tokens.small, ask),
      large: shareOf(large, tokens.large, ask),
    }
  })

type Keys = { readonly small: string; readonly large: string }

const smallOf = (ask: FairnessAsk): FairnessAsk => ({
  ...ask,
  ratePerSecond: ask.ratePerSecond / LARGE,
})

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

const keysOf = async (fleet: BenchFleet): Promise<Keys> => ({
  small: await fleet.newKey('small'),
  large: await fleet.newKey('large'),
})

const load = (
  { baseUrl }: BenchFleet,
  key: string,
  sent: FairnessAsk,
): Promise<readonly Finished[]> =>
  openLoad({
    baseUrl,
    keys: [key],
    model: MODEL,
    lengths: LENGTHS,
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

const shareOf = (
  finished: readonly Finished[],
  tokens: number,
  { seconds }: FairnessAsk,
): Share => {
  const own = finished.filter(({ answeredBy, spilled }) => answeredBy === MODEL && !spilled)
  const ttft = ttftSeconds(own)
  return {
    requests: finished.length,
    accepted: ttft.length,
    tokensPerSecond: tokens / seconds,
    ttftMean: ttft.length === 0 ? null : ttft.reduce((sum, one) => sum + one, 0) / ttft.length,
    ttftP50: percentile(ttft, 0.5),
    ttftP95: percentile(ttft, 0.95),
  }
}
