/** Start-up phases from log lines: what vLLM and SGLang have in common. */
import type { Phase, PhaseReading } from '../src/core/runtime.ts'

/** Lines are clipped: what tells a phase stands near the front, and a regex must not roam far. */
const LINE_MAX = 4096

/**
 * The first pattern that matches names the phase. Progress bars (tqdm) rewrite one line with
 * carriage returns, so the last figure on the line is the newest.
 */
export const phaseReader =
  (patterns: readonly (readonly [Phase, ...RegExp[]])[]) =>
  (line: string): PhaseReading | null => {
    const last = line.slice(-LINE_MAX)
    for (const [phase, ...words] of patterns) {
      if (!words.some((pattern) => pattern.test(last))) continue
      const ratio = ratioOf(last)
      return ratio === null ? { phase } : { phase, ratio }
    }
    return null
  }

/** `42% Completed | 68/163` and `42%|####  | 28/67 [`: the counts, which are finer than percent. */
const ratioOf = (line: string): number | null => {
  const bars = [...line.matchAll(/(\d{1,3})%[^%\r]{0,400}?\|\s*(\d{1,7})\/(\d{1,7})/g)]
  const bar = bars.at(-1)
  if (bar === undefined) return null
  const [, percent, done, all] = bar.map(Number)
  if (done !== undefined && all !== undefined && all > 0) return Math.min(1, done / all)
  return percent === undefined ? null : Math.min(1, percent / 100)
}
