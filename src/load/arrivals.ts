/** When requests come: arrival processes over simulated time. Pure. */
import type { Random } from './random.ts'

export const PATTERNS = ['poisson', 'diurnal', 'burst'] as const
export type Pattern = (typeof PATTERNS)[number]

export type ArrivalsAsk = {
  readonly pattern: Pattern
  /** Requests a second on average over a whole day, or a whole burst cycle. */
  readonly ratePerSecond: number
  /** How long the day of `diurnal` lasts: 86,400, or shorter to see all of it in one run. */
  readonly daySeconds: number
}

/**
 * Load by the hour, midnight first, of users in one time zone: working hours with a dip at noon, a
 * smaller evening, a quiet night. Published traces of language models show this shape (Azure:
 * Stojkovic et al., DynamoLLM, HPCA 2025; BurstGPT: Wang et al., KDD 2025); the numbers are ours.
 */
export const HOURS: readonly number[] = [
  0.25, 0.18, 0.14, 0.12, 0.12, 0.16, 0.3, 0.6, 1.2, 1.9, 2.2, 2.0, 1.2, 1.6, 2.1, 2.2, 2.0, 1.6,
  1.0, 0.85, 0.8, 0.7, 0.5, 0.35,
]
const HOURS_MEAN = HOURS.reduce((sum, hour) => sum + hour, 0) / HOURS.length

/** One burst in each cycle, somewhere in it: a class starts, a batch job wakes. */
export const BURST = { cycleSeconds: 300, burstSeconds: 30, factor: 5 } as const
const BURST_SHARE = BURST.burstSeconds / BURST.cycleSeconds
const BURST_MEAN = 1 + (BURST.factor - 1) * BURST_SHARE

/** Times in simulated seconds, rising, without end: the reader stops. */
export function* arrivals(ask: ArrivalsAsk, random: Random): Generator<number, never> {
  const factorAt = factorOf(ask, random)
  const peak = ask.ratePerSecond * factorAt.max
  let at = 0
  // Thinning (Lewis and Shedler 1979): draw at the highest rate, keep each with its hour's share.
  for (;;) {
    at += random.exponential(1 / peak)
    if (random.next() * factorAt.max < factorAt.at(at)) yield at
  }
}

type Factor = { readonly max: number; at(seconds: number): number }

const factorOf = ({ pattern, daySeconds }: ArrivalsAsk, random: Random): Factor => {
  if (pattern === 'poisson') return { max: 1, at: () => 1 }
  if (pattern === 'burst') return bursts(random.fork(1))
  const max = Math.max(...HOURS) / HOURS_MEAN
  return { max, at: (seconds) => dayFactor(((seconds / daySeconds) % 1) * HOURS.length) }
}

/** Between the middles of two hours the load moves in a straight line. */
const dayFactor = (hour: number): number => {
  const from = Math.floor(hour - 0.5 + HOURS.length) % HOURS.length
  const share = (hour - 0.5 + HOURS.length) % 1
  const [before, after] = [HOURS[from] ?? 0, HOURS[(from + 1) % HOURS.length] ?? 0]
  return (before + (after - before) * share) / HOURS_MEAN
}

const bursts = (random: Random): Factor => {
  const room = BURST.cycleSeconds - BURST.burstSeconds
  let [cycle, startsAt] = [-1, 0]
  return {
    max: BURST.factor / BURST_MEAN,
    at: (seconds) => {
      const now = Math.floor(seconds / BURST.cycleSeconds)
      if (now !== cycle) {
        cycle = now
        startsAt = now * BURST.cycleSeconds + random.fork(now).next() * room
      }
      const inside = seconds >= startsAt && seconds < startsAt + BURST.burstSeconds
      return (inside ? BURST.factor : 1) / BURST_MEAN
    },
  }
}
