/**
 * Does the gateway's policy hold? On rehearsed engines with the H20's timing; prints the tables of
 * docs/policy.md. An hour and a half for all of it; name parts to run only those.
 *
 *   node test/bench/policy.ts [limits] [overload] [fairness] [paced] [aborts]
 */
import {
  cleanUp,
  freePort,
  isReady,
  rehearsal,
  Simulated,
  stopAll,
} from '../runtimes/simulator/support.ts'
import { until as patiently } from '../support/penstock.ts'
import { PASSWORD, REDIS, startRedis } from '../support/redis.ts'
import { abortCase, BATCH, PHASES } from './policy/aborts.ts'
import { besides, type Fairness, fairness } from './policy/fairness.ts'
import { SPEED, startFleet } from './policy/fleet.ts'
import { type LimitCase, limitCase } from './policy/limits.ts'
import {
  capacityOf,
  overload,
  PACE_MS,
  PACED_POLICY,
  WITH_POLICY,
  WITHOUT_POLICY,
} from './policy/overload.ts'
import { abortsTable, fairnessTable, limitsTable, overloadTable } from './policy/report.ts'

const PARTS = ['limits', 'overload', 'fairness', 'paced', 'aborts']
const asked = process.argv.slice(2)
const parts = asked.length === 0 ? PARTS : asked
const unknown = parts.filter((part) => !PARTS.includes(part))
if (unknown.length > 0) {
  console.error(`no part ${unknown.join(', ')}; there are ${PARTS.join(', ')}`)
  process.exit(2)
}

/** Twice as much as R1 can do is asked of it. */
const OVER = 2
/** Of one draw it is not known what of it is luck. */
const SEEDS = [11, 211] as const
/** Callers with which R1's KV cache is nearly full; more only wait. */
const FULL_CALLERS = 280

/** One rehearsed QwQ; at real speed it takes about two minutes until it is ready. */
const engineAt = async (speed: number, more: readonly string[] = []): Promise<string> => {
  const port = await freePort()
  const words =
    'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 32768 ' +
    `--reasoning-parser deepseek_r1 --enable-prompt-tokens-details --host 127.0.0.1 --port ${port}`
  new Simulated('vllm', [...words.split(' '), ...more], rehearsal({ speed }))
  const url = `http://127.0.0.1:${port}`
  await patiently(async () => ((await isReady(url)()) ? true : null), 'the engine', 300_000)
  return url
}

/** An answer of 300 tokens in a tenth of a second: the limit is met, not the engine. */
const LIMITS_SPEED = 50

const limits = async (): Promise<void> => {
  const url = await engineAt(LIMITS_SPEED)
  const redis = REDIS ? await startRedis() : null
  const cases = [100, 60_000].flatMap((tokensPerMinute) =>
    [5, 50, 500].flatMap((callers) =>
      [1, 4].flatMap((threads): LimitCase[] => [
        { tokensPerMinute, callers, threads, gateways: 1 },
        ...(redis === null ? [] : [{ tokensPerMinute, callers, threads, gateways: 2 } as const]),
      ]),
    ),
  )
  const address = redis === null ? null : { url: redis.url, password: PASSWORD }
  const results = []
  for (const one of cases) {
    results.push(await limitCase(url, one, one.gateways === 1 ? null : address))
    console.error(`limits: ${results.length} of ${cases.length}`, JSON.stringify(results.at(-1)))
  }
  console.log(`\n## Token limits\n\n${limitsTable(results)}`)
  await redis?.close()
  await stopAll()
}

const ABORTS = 1000

const aborts = async (): Promise<void> => {
  const url = await engineAt(SPEED, ['--max-num-seqs', `${BATCH}`])
  const results = []
  for (const phase of PHASES) {
    results.push(await abortCase(url, phase, ABORTS))
    console.error('aborts:', results.at(-1))
  }
  console.log(`\n## Callers who leave\n\n${abortsTable(results)}`)
  await stopAll()
}

const known = new Map<number, number>()

/** Answers a second of an R1 that gives so many at once. */
const capacity = async (callers = FULL_CALLERS): Promise<number> => {
  const before = known.get(callers)
  if (before !== undefined) return before
  const fleet = await startFleet(WITHOUT_POLICY)
  try {
    const measured = await capacityOf(fleet, callers)
    known.set(callers, measured)
    console.log(`\nR1 can answer ${measured.toFixed(2)} requests a second, ${callers} at once.`)
    return measured
  } finally {
    await fleet.stop()
  }
}

const overloads = async (): Promise<void> => {
  const rate = (await capacity()) * OVER
  const held = await overload(WITH_POLICY, rate)
  const open = await overload(WITHOUT_POLICY, rate)
  console.log(`\n## ${OVER} times what R1 can do, ${rate.toFixed(2)} requests/s, 10 minutes\n`)
  console.log(overloadTable(held, open))
}

const shares = async (): Promise<void> => {
  const ask = { ratePerSecond: (await capacity()) * OVER, seconds: 600, seed: SEEDS[0] }
  const held = await fairness(WITH_POLICY, ask)
  const { beside: open } = await besides(WITHOUT_POLICY, ask)
  console.log(`\n## Two consumers, one sending ten times as much\n`)
  console.log(fairnessTable({ ...sharesOf(held), 'the small one, without the policy': open }))
}

/** Answers at once at which R1 takes near PACE_MS for a token. */
const PACED_CALLERS = 16

/** The small one sends little: forty minutes, or there is too little to count. */
const paced = async (): Promise<void> => {
  const ask = { ratePerSecond: (await capacity(PACED_CALLERS)) * OVER, seconds: 2400 }
  for (const seed of SEEDS) {
    const held = await fairness(PACED_POLICY, { ...ask, seed })
    console.log(`\n## The same, R1 held to ${PACE_MS} ms a token, seed ${seed}\n`)
    console.log(fairnessTable(sharesOf(held)))
  }
}

const sharesOf = ({ alone, beside, large }: Fairness) => ({
  'the small one, alone': alone,
  'the small one, beside the large one': beside,
  'the large one': large,
})

console.log(`Times are simulated; rehearsed fleets run ${SPEED} times as fast as real ones.`)
if (parts.includes('limits')) await limits()
if (parts.includes('overload')) await overloads()
if (parts.includes('fairness')) await shares()
if (parts.includes('paced')) await paced()
if (parts.includes('aborts')) await aborts()
cleanUp()
