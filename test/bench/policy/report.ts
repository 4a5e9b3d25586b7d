/** The bench's tables, in Markdown. */

import type { Finished } from '../../../src/load/run.ts'
import type { AbortResult } from './aborts.ts'
import type { Share } from './fairness.ts'
import type { LimitResult } from './limits.ts'
import type { Course } from './overload.ts'

const shown = (value: number | null, digits = 1): string =>
  value === null ? '–' : value.toFixed(digits)

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')

export const limitsTable = (results: readonly LimitResult[]): string =>
  table(
    [
      'tokens per minute',
      'callers',
      'threads',
      'gateways',
      'answered',
      'refused',
      'tokens passed',
      'allowed',
      'overshoot',
    ],
    results.map((one) => [
      `${one.tokensPerMinute}`,
      `${one.callers}`,
      `${one.threads}`,
      `${one.gateways}`,
      `${one.answered}`,
      `${one.refused}${one.other === 0 ? '' : `, other ${one.other}`}`,
      `${one.passed}`,
      shown(one.allowed, 0),
      shown(one.overshoot, 0),
    ]),
  )

const count = (finished: readonly Finished[], fits: (one: Finished) => boolean): string =>
  `${finished.filter(fits).length}`

type Line = readonly [string, (course: Course) => string]

const LINES: readonly Line[] = [
  ['requests', ({ finished }) => `${finished.length}`],
  [
    'answered by R1',
    ({ finished }) => count(finished, (one) => one.outcome === 'ok' && one.spilled === null),
  ],
  [
    'answered by QwQ instead',
    ({ finished }) => count(finished, (one) => one.outcome === 'ok' && one.spilled !== null),
  ],
  ['still streaming at the end', ({ finished }) => streaming(finished, true)],
  ['still without a token at the end', ({ finished }) => streaming(finished, false)],
  ['told when to come back (429)', ({ finished }) => count(finished, told)],
  ['refused without a time', ({ finished }) => count(finished, untold)],
  ['5xx, cut or timed out', ({ finished }) => count(finished, broken)],
  ["R1's first token, median, s", ({ ttftP50 }) => shown(ttftP50)],
  ["R1's first token, P95, s", ({ ttftP95 }) => shown(ttftP95)],
  ['R1: most waiting in the engine', ({ r1 }) => `${r1.waitingMax}`],
  ['R1: share of readings above 2 waiting', ({ r1 }) => `${shown(r1.waitingAbove2 * 100)} %`],
  ['R1: most running', ({ r1 }) => `${r1.runningMax}`],
  ['R1: fullest KV cache', ({ r1 }) => `${shown(r1.kvMax * 100, 0)} %`],
  ['R1: preempted or retracted', ({ r1 }) => `${r1.preempted}`],
  ['R1: tokens generated', ({ r1 }) => `${r1.generatedTokens}`],
  ['QwQ: most waiting in the engine', ({ standIn }) => `${standIn.waitingMax}`],
  ['QwQ: fullest KV cache', ({ standIn }) => `${shown(standIn.kvMax * 100, 0)} %`],
  ['QwQ: preempted', ({ standIn }) => `${standIn.preempted}`],
  ['R1 answers by itself again after, s', ({ clearedSeconds }) => shown(clearedSeconds)],
]

const streaming = (finished: readonly Finished[], began: boolean): string =>
  count(finished, ({ outcome, ttftMs }) => outcome === 'left' && (ttftMs !== null) === began)

const told = ({ outcome, retryAfterSeconds }: Finished): boolean =>
  outcome === 'refused' && retryAfterSeconds !== null

const untold = ({ outcome, retryAfterSeconds }: Finished): boolean =>
  outcome === 'refused' && retryAfterSeconds === null

const broken = ({ outcome, detail }: Finished): boolean =>
  ['error', 'cut', 'timeout'].includes(outcome) || detail.startsWith('503')

export const overloadTable = (held: Course, open: Course): string =>
  table(
    ['', 'with the policy', 'without'],
    LINES.map(([name, of]) => [name, of(held), of(open)]),
  )

export const fairnessTable = (shares: Readonly<Record<string, Share>>): string =>
  table(
    ['', 'sent', 'by R1 itself', 'tokens/s', 'first token: mean, s', 'median', 'P95'],
    Object.entries(shares).map(([name, share]) => [
      name,
      `${share.requests}`,
      `${share.accepted}`,
      shown(share.tokensPerSecond),
      ...[share.ttftMean, share.ttftP50, share.ttftP95].map((one) => shown(one, 2)),
    ]),
  )

export const abortsTable = (results: readonly AbortResult[]): string =>
  table(
    [
      'left while',
      'callers',
      'before a token',
      'prompt tokens: engine',
      'our books',
      'answer tokens: engine',
      'our books',
      'engine tokens for nobody, each',
      'still running',
    ],
    results.map(({ phase, aborts, beforeToken, engine, books, stillRunning }) => [
      phase,
      `${aborts}`,
      `${beforeToken}`,
      `${engine.prompt}`,
      `${books.prompt}`,
      `${engine.completion}`,
      `${books.completion}`,
      shown((engine.completion - books.completion) / aborts, 2),
      `${stillRunning}`,
    ]),
  )
