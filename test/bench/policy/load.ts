/** Load for the bench: open loop at a rate, closed loop to find what a model can do. */
import { Agent } from 'undici'
import { systemClock as clock } from '../../../src/clock.ts'
import { arrivals } from '../../../src/load/arrivals.ts'
import type { Lengths } from '../../../src/load/lengths.ts'
import { Random } from '../../../src/load/random.ts'
import { type Answered, ask } from '../../../src/load/request.ts'
import { type Finished, runLoad } from '../../../src/load/run.ts'
import { type PlannedRequest, plan } from '../../../src/load/sessions.ts'
import { SPEED } from './fleet.ts'

export type OpenLoad = {
  readonly baseUrl: string
  readonly keys: readonly string[]
  readonly model: string
  readonly ratePerSecond: number
  /** Simulated; what is open at the end is left. */
  readonly seconds: number
  readonly lengths: Lengths
  readonly seed: number
  readonly consumers?: number
}

const realMs = (seconds: number): number => (seconds * 1000) / SPEED

/** Rate, times and lengths in simulated seconds. */
export const openLoad = async (load: OpenLoad): Promise<readonly Finished[]> => {
  const { baseUrl, keys, model, ratePerSecond, seconds, lengths, seed, consumers = 20 } = load
  const random = new Random(seed)
  const times = arrivals({ pattern: 'poisson', ratePerSecond, daySeconds: seconds }, random.fork(1))
  const who = { models: [{ model, weight: 1 }], consumers, lengths }
  const finished: Finished[] = []
  await runLoad({
    baseUrl,
    keys,
    requests: plan(who, times, random.fork(2)),
    speed: SPEED,
    exact: true,
    openMax: 5000,
    timeoutMs: realMs(3600),
    clock,
    signal: AbortSignal.timeout(realMs(seconds)),
    onSent: () => undefined,
    onFinished: (one) => finished.push(one),
  })
  return finished
}

export type ClosedLoad = Omit<OpenLoad, 'ratePerSecond'> & {
  readonly callers: number
  /** Simulated; callers begin one by one over it, or all their prompts would come at once. */
  readonly rampSeconds: number
}

/** Requests after each other by each of `callers`, for `seconds` (simulated). */
export const closedLoad = async (load: ClosedLoad): Promise<readonly Answered[]> => {
  const { baseUrl, keys, model, seconds, lengths, seed, callers, rampSeconds } = load
  const who = {
    models: [{ model, weight: 1 }],
    consumers: callers,
    lengths: { ...lengths, turns: 1 },
  }
  const requests = plan(who, always(), new Random(seed))
  const dispatcher = new Agent({ connections: callers, pipelining: 1 })
  const signal = AbortSignal.timeout(realMs(seconds))
  const answers: Answered[] = []
  const timeoutMs = realMs(3600)
  const caller = async (index: number): Promise<void> => {
    const key = keys[index % keys.length] ?? null
    await clock.sleep(realMs((rampSeconds * index) / callers))
    while (!signal.aborted) {
      const planned: PlannedRequest | undefined = requests.next().value
      if (planned === undefined) return
      answers.push(
        await ask({ baseUrl, key, planned, exact: true, timeoutMs, dispatcher, clock, signal }),
      )
    }
  }
  await Promise.all(Array.from({ length: callers }, (_, index) => caller(index)))
  await dispatcher.destroy()
  return answers
}

function* always(): Generator<number> {
  for (let at = 0; ; at += 1) yield at
}

export const percentile = (values: readonly number[], share: number): number | null => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null
}

/** Simulated seconds to the first token. */
export const ttftSeconds = (answers: readonly Answered[]): readonly number[] =>
  answers.flatMap(({ ttftMs }) => (ttftMs === null ? [] : [(ttftMs / 1000) * SPEED]))
