/**
 * Twice what R1 can do, for ten simulated minutes, with the policy and without it, on fleets that
 * are alike otherwise. Callers who are refused do not come back: each is counted once.
 */
import type { Lengths } from '../../../src/load/lengths.ts'
import type { Finished } from '../../../src/load/run.ts'
import { type BenchFleet, SPEED, startFleet } from './fleet.ts'
import { closedLoad, openLoad, percentile, ttftSeconds } from './load.ts'
import { Watch, type Watched } from './watch.ts'

/** Simulated seconds within which R1's first token is to come. */
export const TTFT_TARGET_SECONDS = 10
const MODEL = 'deepseek-r1'
const STAND_IN = 'qwq-32b'
const SECONDS = 600
const [RAMP_SECONDS, MEASURED_SECONDS] = [240, 240]

export const WITH_POLICY = `kind: Gateway
routes:
  - { model: ${STAND_IN}, to: ${STAND_IN} }
  - model: ${MODEL}
    to: ${MODEL}
    firstTokenTarget: ${(TTFT_TARGET_SECONDS * 1000) / SPEED}ms
    queue: { wait: 12s }
    spillover: { to: ${STAND_IN}, on: [tokens, saturation, latency, unavailable] }
`

/** Time per output token that streams are to keep where R1 is held to a pace. */
export const PACE_MS = 125
export const PACED_POLICY = WITH_POLICY.replace(
  'queue: {',
  `perTokenTarget: ${PACE_MS / SPEED}ms\n    queue: {`,
)

export const WITHOUT_POLICY = `kind: Gateway
routes:
  - { model: ${STAND_IN}, to: ${STAND_IN}, queue: { ceiling: none } }
  - { model: ${MODEL}, to: ${MODEL}, queue: { ceiling: none } }
`

/**
 * Questions about a page of text to a thinking model. Shorter answers than the published lengths of
 * reasoning: those run for longer than the ten minutes, so that nothing would be over in time.
 */
export const LENGTHS: Lengths = {
  name: 'a page and a question',
  first: { mean: 1500, sigma: 0.8, min: 100, max: 8192 },
  later: { mean: 200, sigma: 0.8, min: 4, max: 2048 },
  answer: { mean: 600, sigma: 0.9, min: 32, max: 4096 },
  keptRatio: 0.2,
  turns: 2,
  prefixTokens: 300,
  contextTokens: 32_000,
}

/**
 * Answers a second of a full R1, by tokens: what it generates a second with a batch that its KV
 * cache just holds, over the mean length of an answer.
 */
export const capacityOf = async (fleet: BenchFleet, callers: number): Promise<number> => {
  const engine = fleet.engines.get(`${MODEL}/0`) ?? ''
  // Straight to the engine: the policy under test must not say what the engine can do.
  const load = {
    baseUrl: `${engine}/v1`,
    keys: [''],
    model: MODEL,
    lengths: LENGTHS,
    callers,
  }
  const seconds = RAMP_SECONDS + MEASURED_SECONDS
  const loading = closedLoad({ ...load, seconds, rampSeconds: RAMP_SECONDS, seed: 1 })
  await new Promise((resolve) => setTimeout(resolve, (RAMP_SECONDS / SPEED) * 1000))
  const watch = new Watch(engine)
  await loading
  const watched = await watch.stop()
  console.error('capacity:', watched)
  return watched.generatedTokens / MEASURED_SECONDS / LENGTHS.answer.mean
}

export type Course = {
  readonly finished: readonly Finished[]
  readonly r1: Watched
  readonly standIn: Watched
  readonly ttftP50: number | null
  readonly ttftP95: number | null
  /** Simulated seconds until a request to R1 is answered by R1 again; null: it was not. */
  readonly clearedSeconds: number | null
}

export const overload = async (
  gatewayYaml: string,
  ratePerSecond: number,
  seconds = SECONDS,
): Promise<Course> => {
  const fleet = await startFleet(gatewayYaml)
  try {
    const watchOf = (model: string): Watch => new Watch(fleet.engines.get(`${model}/0`) ?? '')
    const [r1, standIn] = [watchOf(MODEL), watchOf(STAND_IN)]
    const { baseUrl, key } = fleet
    const load = { baseUrl, keys: [key], model: MODEL, lengths: LENGTHS, seed: 7 }
    const finished = await openLoad({ ...load, ratePerSecond, seconds })
    const own = finished.filter(({ answeredBy, spilled }) => answeredBy === MODEL && !spilled)
    const ttft = ttftSeconds(own)
    return {
      finished,
      r1: await r1.stop(),
      standIn: await standIn.stop(),
      ttftP50: percentile(ttft, 0.5),
      ttftP95: percentile(ttft, 0.95),
      clearedSeconds: await cleared(fleet),
    }
  } finally {
    await fleet.stop()
  }
}

/** The callers are gone; how long until R1 answers as if nothing had been? */
const cleared = async (fleet: BenchFleet): Promise<number | null> => {
  const startMs = performance.now()
  const { baseUrl, key } = fleet
  for (let tries = 0; tries < 60; tries += 1) {
    const answer = await fetch(`${baseUrl}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        model: MODEL,
        max_tokens: 4,
        messages: [{ role: 'user', content: 'Are you there?' }],
      }),
      signal: AbortSignal.timeout(120_000),
    })
    await answer.text()
    if (answer.status === 200 && answer.headers.get('x-penstock-spillover') === null) {
      return ((performance.now() - startMs) / 1000) * SPEED
    }
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  return null
}
