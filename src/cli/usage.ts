/** `penstock usage`: who used what and what it cost; `--reconcile`: are our books right? */
import type { Command } from 'commander'
import { z } from 'zod'
import type { Settings } from '../config.ts'
import { thousands } from '../core/units.ts'
import { adminClient } from './client.ts'
import { age, bold, dim, EXIT, type ExitCode, print, printJson, table, yellow } from './output.ts'
import type { Flags } from './program.ts'

const Money = z.object({ currency: z.string(), amount: z.number() })
const Sums = z.object({
  requests: z.number(),
  outcomes: z.object({ ok: z.number(), refused: z.number() }),
  unmetered: z.number(),
  spilled: z.number(),
  promptTokens: z.number(),
  cachedTokens: z.number(),
  completionTokens: z.number(),
  reasoningTokens: z.number(),
  queueMs: z.number(),
  queued: z.number(),
  ttftMs: z.number(),
  ttftKnown: z.number(),
  durationMs: z.number(),
  cost: z.array(Money),
})
const Report = z.object({
  from: z.string(),
  to: z.string(),
  by: z.array(z.string()),
  rehearsal: z.boolean(),
  rows: z.array(Sums.extend({ by: z.record(z.string(), z.string().nullable()) })),
  total: Sums,
  unused: z.array(
    Money.extend({
      idle: z.number(),
      free: z.number(),
      away: z.number(),
      unserved: z.number(),
    }),
  ),
  spent: z.array(Money),
})
type Sums = z.output<typeof Sums>
export type Report = z.output<typeof Report>

const Tokens = z.object({ prompt: z.number(), completion: z.number() })
const Reconciliation = z.object({
  runs: z.array(
    z.object({
      replica: z.string(),
      openedAtMs: z.number(),
      current: z.boolean(),
      engine: Tokens,
      ours: Tokens,
      probes: Tokens,
      difference: Tokens,
      requests: z.number(),
      why: z.array(z.string()),
    }),
  ),
})
export type Reconciliation = z.output<typeof Reconciliation>

export const usageOptions = (command: Command): Command =>
  command
    .option('--from <day>', 'first day, UTC, such as 2026-11-01 (default: 29 days before --to)')
    .option('--to <day>', 'last day, UTC (default: today)')
    .option('--by <names>', 'some of day,consumer,key,model,served,deployment', 'consumer,model')
    .option('--reconcile', "compare our tokens with the engines' own counters instead")
    .option('--json', 'print JSON')

export const usage = async (settings: Settings, { json, given }: Flags): Promise<ExitCode> => {
  const client = adminClient(settings)
  if (given.reconcile === true) {
    const answer = await client.json('GET', '/admin/v1/usage/reconcile')
    if (json) printJson(answer)
    else print(reconciliationText(Reconciliation.parse(answer), Date.now()))
    return EXIT.done
  }
  const query = new URLSearchParams()
  for (const name of ['from', 'to', 'by']) {
    const value = given[name]
    if (typeof value === 'string') query.set(name, value.replaceAll(' ', ''))
  }
  const answer = await client.json('GET', `/admin/v1/usage?${query}`)
  if (json) printJson(answer)
  else print(usageText(Report.parse(answer)))
  return EXIT.done
}

const HEAD = [
  'REQUESTS',
  'FAILED',
  'PROMPT',
  'CACHED',
  'OUTPUT',
  'THINKING',
  'TTFT',
  'WAIT',
  'COST',
]

export const usageText = (report: Report): string => {
  const days = report.from === report.to ? report.from : `${report.from} to ${report.to}`
  const title = `${bold('Usage')} ${days}, UTC`
  const rehearsal = yellow('REHEARSAL: no GPU, no model; costs are of simulated seconds')
  const lines = report.rehearsal ? [title, rehearsal] : [title]
  const labels = report.by.map((name) => name.toUpperCase())
  const rows = report.rows.map((row) => [
    ...report.by.map((name) => row.by[name] ?? '–'),
    ...figures(row),
  ])
  const total = [...labels.map((_, at) => (at === 0 ? 'total' : '')), ...figures(report.total)]
  const all = [[...labels, ...HEAD], ...rows, total]
  const sheet = table(rightAligned(all, labels.length)).split('\n')
  return [...lines, '', ...sheet, ...footnotes(report)].join('\n')
}

const figures = (sums: Sums): readonly string[] => [
  thousands(sums.requests),
  thousands(sums.requests - sums.outcomes.ok),
  thousands(sums.promptTokens),
  thousands(sums.cachedTokens),
  thousands(sums.completionTokens),
  thousands(sums.reasoningTokens),
  mean(sums.ttftMs, sums.ttftKnown),
  mean(sums.queueMs, sums.requests),
  moneyText(sums.cost),
]

/** Milliseconds as seconds; `–` when none is known. */
const mean = (sumMs: number, count: number): string =>
  count === 0 ? '–' : `${(sumMs / count / 1000).toFixed(2)} s`

const moneyText = (money: readonly { currency: string; amount: number }[]): string =>
  money.length === 0 ? '–' : money.map(oneMoney).join(' + ')

/** Small shares keep three figures: a cent rounded to 0.00 would look free. */
const oneMoney = ({ currency, amount }: { currency: string; amount: number }): string => {
  const text =
    amount === 0 || amount >= 1
      ? `${thousands(amount)}.${String(Math.floor((amount % 1) * 100)).padStart(2, '0')}`
      : amount.toPrecision(3)
  return `${text} ${currency}`
}

/** Columns from `first` on hold figures: they end in one line. */
const rightAligned = (
  rows: readonly (readonly string[])[],
  first: number,
): readonly (readonly string[])[] => {
  const widths = (rows[0] ?? []).map((_, at) =>
    Math.max(...rows.map((row) => row[at]?.length ?? 0)),
  )
  return rows.map((row) =>
    row.map((cell, at) => (at < first ? cell : cell.padStart(widths[at] ?? 0))),
  )
}

const footnotes = ({ total, unused, spent, rows }: Report): readonly string[] => {
  const notes = unused.map(({ currency, amount, idle, free, away, unserved }) => {
    const parts = Object.entries({ idle, free, 'nobody looked': away, 'no tokens known': unserved })
      .filter(([, part]) => part > 0)
      .map(([why, part]) => `${why} ${oneMoney({ currency, amount: part })}`)
    return `unused  ${oneMoney({ currency, amount })} (${parts.join(', ')})`
  })
  const all = spent.length === 0 ? [] : [`spent   ${moneyText(spent)}: cost and unused together`]
  const refused = total.outcomes.refused
  const said = [
    refused === 0 ? '' : `${thousands(refused)} of those that failed were refused.`,
    total.spilled === 0 ? '' : `${thousands(total.spilled)} were answered by a stand-in.`,
    total.unmetered === 0
      ? ''
      : `Of ${thousands(total.unmetered)} no engine said how many tokens they were.`,
    rows.length === 0 ? 'No request ended in these days.' : '',
    spent.length === 0 ? 'No node of the inventory says what it costs (`cost`).' : '',
  ].filter((text) => text !== '')
  return ['', ...notes, ...all, ...said.map(dim)]
}

export const reconciliationText = ({ runs }: Reconciliation, nowMs: number): string => {
  if (runs.length === 0) return 'No engine was seen yet.'
  const pair = ({ prompt, completion }: z.output<typeof Tokens>): readonly string[] => [
    signed(prompt),
    signed(completion),
  ]
  const rows = runs.map((run) => [
    run.replica,
    `${age(nowMs - run.openedAtMs)}${run.current ? '' : ', ended'}`,
    thousands(run.requests),
    ...pair(run.engine),
    ...pair(run.ours),
    ...pair(run.probes),
    ...pair(run.difference),
  ])
  const head = [
    ...['REPLICA', 'SINCE', 'REQUESTS', 'ENGINE PROMPT', 'OUTPUT', 'OURS PROMPT', 'OUTPUT'],
    ...['PROBES PROMPT', 'OUTPUT', 'DIFFERENCE PROMPT', 'OUTPUT'],
  ]
  const sheet = table(rightAligned([head, ...rows], 2))
  const why = runs.flatMap((run) => run.why.map((text) => dim(`${run.replica}: ${text}`)))
  return why.length === 0 ? sheet : [sheet, '', ...why].join('\n')
}

const signed = (value: number): string => (value < 0 ? `-${thousands(-value)}` : thousands(value))
