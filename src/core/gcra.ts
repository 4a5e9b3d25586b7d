/**
 * The generic cell rate algorithm (ITU-T I.371, Annex A) with weights. A bucket is one number: the
 * time at which it owes nothing any more. A charge moves that time forward by what it weighs, and
 * is refused when the time would lie further ahead than the burst allows. Whatever is lost (a
 * settlement of a crashed thread) heals by itself, because debt drains with time.
 *
 * All times are integers, nanoseconds of one monotonic clock. A charge is rounded up, so that
 * rounding never lets more through.
 */

export type Rate = {
  /** Units that come back in one window. */
  readonly amount: number
  readonly windowNs: bigint
  /** Units that may go at once after a rest. */
  readonly burst: number
}

/** Where a bucket's time is kept: memory that other threads write too. */
export type Cell = {
  load(): bigint
  /** Writes `next` if the cell still holds `expected`; gives what it held. */
  swap(expected: bigint, next: bigint): bigint
}

export type Charge = { readonly cell: Cell; readonly rate: Rate; readonly units: number }

export type Taken =
  | { readonly ok: true }
  /** The charge that has to wait longest, and for how long. */
  | { readonly ok: false; readonly at: number; readonly waitNs: bigint }

export type Level = { readonly remaining: number; readonly resetNs: bigint }

/** What `units` weigh, rounded up. `units` is a whole number, not negative. */
export const weigh = ({ amount, windowNs }: Rate, units: number): bigint => {
  const weight = BigInt(units) * windowNs
  const per = BigInt(amount)
  return (weight + per - 1n) / per
}

/**
 * How long until this charge fits; 0: now. A charge larger than the whole burst fits when nothing
 * is owed: it goes alone, and who comes after waits for it.
 */
export const waitFor = (tat: bigint, { rate, units }: Omit<Charge, 'cell'>, now: bigint) => {
  const owed = tat > now ? tat - now : 0n
  if (units === 0 || owed === 0n) return 0n
  const over = owed + weigh(rate, units) - weigh(rate, rate.burst)
  if (over <= 0n) return 0n
  return over < owed ? over : owed
}

/** What is left and how long until nothing is owed. */
export const peek = (tat: bigint, rate: Rate, now: bigint): Level => {
  const owed = tat > now ? tat - now : 0n
  const free = weigh(rate, rate.burst) - owed
  const remaining = free > 0n ? (free * BigInt(rate.amount)) / rate.windowNs : 0n
  return { remaining: Number(remaining), resetNs: owed }
}

/**
 * Charges all or none. Between threads the only step is compare-and-swap; a refusal takes back
 * what it has charged. In that instant another thread may be refused for nothing, and is told to
 * wait for as long as the other request weighs: never is more let through.
 */
export const takeAll = (charges: readonly Charge[], now: bigint): Taken => {
  let worst: Taken = { ok: true }
  for (const [at, { cell, rate, units }] of charges.entries()) {
    const waitNs = waitFor(cell.load(), { rate, units }, now)
    if (waitNs > 0n && (worst.ok || waitNs > worst.waitNs)) worst = { ok: false, at, waitNs }
  }
  if (!worst.ok) return worst
  for (const [at, charge] of charges.entries()) {
    const waitNs = takeOne(charge, now)
    if (waitNs === 0n) continue
    for (const { cell, rate, units } of charges.slice(0, at)) shift(cell, -weigh(rate, units))
    return { ok: false, at, waitNs }
  }
  return worst
}

/** Charges without asking: what was used is used, and may leave the bucket in debt. */
export const charge = ({ cell, rate, units }: Charge, now: bigint): void => {
  const weight = weigh(rate, units)
  if (weight > 0n) update(cell, (tat) => (tat > now ? tat : now) + weight)
}

/** Gives back what was charged and not used. */
export const refund = ({ cell, rate, units }: Charge): void => shift(cell, -weigh(rate, units))

/** Forgives what is owed beyond one burst. Whether anything was. */
export const forgive = ({ cell, rate }: Omit<Charge, 'units'>, now: bigint): boolean => {
  const most = now + weigh(rate, rate.burst)
  if (cell.load() <= most) return false
  update(cell, (tat) => lesser(tat, most))
  return true
}

/** Math.min is for numbers only. */
export const lesser = (a: bigint, b: bigint): bigint => {
  if (a < b) return a
  return b
}

/** 0n: charged. Otherwise how long to wait. */
const takeOne = ({ cell, rate, units }: Charge, now: bigint): bigint => {
  const weight = weigh(rate, units)
  for (;;) {
    const tat = cell.load()
    const waitNs = waitFor(tat, { rate, units }, now)
    if (waitNs > 0n) return waitNs
    if (weight === 0n || cell.swap(tat, (tat > now ? tat : now) + weight) === tat) return 0n
  }
}

const shift = (cell: Cell, by: bigint): void => {
  if (by !== 0n) update(cell, (tat) => tat + by)
}

const update = (cell: Cell, next: (tat: bigint) => bigint): void => {
  for (;;) {
    const tat = cell.load()
    if (cell.swap(tat, next(tat)) === tat) return
  }
}
