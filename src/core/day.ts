/** Days of UTC as whole numbers since 1970-01-01, and their names: core reads no calendar. */

export const DAY_MS = 86_400_000

/** The day that a moment (epoch milliseconds) lies in. */
export const dayOf = (atMs: number): number => Math.floor(atMs / DAY_MS)

/** Days of 400 years, and from 0000-03-01 to 1970-01-01, in the Gregorian calendar. */
const ERA_DAYS = 146_097
const EPOCH_DAYS = 719_468

/**
 * `2026-11-24`. Years are counted from March, so that the leap day is the last of its year
 * (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
 */
export const dayName = (day: number): string => {
  const shifted = Math.floor(day) + EPOCH_DAYS
  const era = Math.floor(shifted / ERA_DAYS)
  const ofEra = shifted - era * ERA_DAYS
  const leaps = Math.floor(ofEra / 1460) - Math.floor(ofEra / 36_524) + Math.floor(ofEra / 146_096)
  const yearOfEra = Math.floor((ofEra - leaps) / 365)
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const fromMarch = Math.floor((5 * ofYear + 2) / 153)
  const date = ofYear - Math.floor((153 * fromMarch + 2) / 5) + 1
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  return [String(year).padStart(4, '0'), pad(month), pad(date)].join('-')
}

const pad = (value: number): string => String(value).padStart(2, '0')

/** The day of `2026-11-24`; null when there is no such day. */
export const parseDay = (text: string): number | null => {
  const parts = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text)?.slice(1).map(Number)
  if (parts === undefined) return null
  const [year = 0, month = 0, date = 0] = parts
  const marchYear = month <= 2 ? year - 1 : year
  const era = Math.floor(marchYear / 400)
  const yearOfEra = marchYear - era * 400
  const fromMarch = month > 2 ? month - 3 : month + 9
  const ofYear = Math.floor((153 * fromMarch + 2) / 5) + date - 1
  const leaps = Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100)
  const day = era * ERA_DAYS + yearOfEra * 365 + leaps + ofYear - EPOCH_DAYS
  return dayName(day) === text ? day : null
}
