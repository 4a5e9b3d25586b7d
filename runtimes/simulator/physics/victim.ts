/** Who gives its blocks back when they are short. */
import type { Sequence } from './sequence.ts'

/** vLLM: the last admitted, or by priority the least urgent of the last. */
export const preemptionVictim = (
  running: readonly Sequence[],
  priority: 'off' | 'low-first' | 'high-first',
): Sequence => {
  const sign = priority === 'high-first' ? -1 : 1
  let victim = running.at(-1)
  if (priority !== 'off') {
    for (const sequence of running) {
      if (victim === undefined || sign * sequence.priority > sign * victim.priority) {
        victim = sequence
      }
    }
  }
  if (victim === undefined) throw new Error('nothing runs, yet blocks are short')
  return victim
}

/** SGLang: the least done, of these the longest prompt. */
export const retractionVictim = (running: readonly Sequence[]): Sequence => {
  let victim: Sequence | null = null
  for (const sequence of running) {
    if (victim === null || sequence.produced < victim.produced) victim = sequence
    else if (sequence.produced === victim.produced && sequence.promptTokens > victim.promptTokens) {
      victim = sequence
    }
  }
  if (victim === null) throw new Error('nothing runs, yet blocks are short')
  return victim
}
