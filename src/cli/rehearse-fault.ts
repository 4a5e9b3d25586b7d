/** `penstock rehearse fault`: what goes wrong with the flight simulator's ranks, now or later. */
import type { Command } from 'commander'
import { z } from 'zod'
import { FAULTS } from '../../runtimes/simulator/faults/fault.ts'
import { systemClock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { readText } from '../control/file.ts'
import type { FaultAnswer, FaultAsk, RankScope } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import { adminClient } from './client.ts'
import { refuse } from './inputs.ts'
import { EXIT, type ExitCode, print, printJson, say, table } from './output.ts'
import { readEntry, spanText } from './rehearse-entry.ts'
import { playTimeline, readTimeline, strangers } from './rehearse-timeline.ts'
import { onSignals } from './signals.ts'

type Given = Readonly<Record<string, unknown>>

/** Options of the verb and the word that rehearse-entry.ts reads each by. */
const WORDS = {
  in: 'at',
  for: 'for',
  share: 'share',
  delay: 'delay',
  afterTokens: 'after-tokens',
  factor: 'factor',
  code: 'code',
  gpu: 'gpu',
} as const
const SCOPE_WORDS = {
  deployment: 'deployment',
  replica: 'replica',
  rank: 'rank',
  node: 'node',
} as const

export const faultOptions = (command: Command): Command =>
  command
    .argument('[kind]', 'what goes wrong, or list, or clear')
    .argument('[which]', 'with clear: only faults of this kind')
    .option('--deployment <name>', 'only ranks of this deployment')
    .option('--replica <n>', 'only this replica')
    .option('--rank <n>', 'only this rank; 0 leads')
    .option('--node <name>', 'only ranks on this node')
    .option('--in <time>', 'when it begins, simulated time (default: now)')
    .option('--for <time>', 'how long it lasts, simulated time (default: until cleared)')
    .option('--share <0..1>', 'share of the requests that it hits (default: 1)')
    .option('--delay <time>', 'slow-first-byte: how late (default: 30s)')
    .option('--after-tokens <n>', 'cut, half-event, truncate: after so many (default: 20)')
    .option('--factor <n>', 'slow-shards: how many times slower (default: 10)')
    .option('--code <n>', 'exit: its status; xid: its number (default: 137, 79)')
    .option('--gpu <n>', 'xid: which GPU of the node (default: the first of the rank)')
    .option('--timeline <file>', 'play the faults of a file: YAML list or JSON lines')
    .option('--json', 'print JSON')
    .addHelpText('after', `\nKinds:\n${kindsText()}`)

const kindsText = (): string =>
  table(Object.entries(FAULTS).map(([kind, { what }]) => [`  ${kind}`, what]))

export const rehearseFault = async (
  settings: Settings,
  given: Given,
  [kind, which]: readonly string[],
): Promise<ExitCode> => {
  const json = given.json === true
  if (typeof given.timeline === 'string') {
    const extra = [...Object.keys(WORDS), ...Object.keys(SCOPE_WORDS)].filter((key) => key in given)
    if (kind !== undefined || extra.length > 0) {
      throw new PenstockError('invalid_input', '--timeline: its file says what, when and where')
    }
    return play(settings, given.timeline)
  }
  if (kind === undefined) {
    const message = `expected a kind of fault, list, clear or --timeline; kinds:\n${kindsText()}`
    throw new PenstockError('invalid_input', message)
  }
  if (kind === 'list') return list(settings, scopeOf(given), json)
  if (kind === 'clear') return clear(settings, given, which ?? null)
  if (which !== undefined) throw new PenstockError('invalid_input', `what is ${which}?`)
  return add(settings, given, kind)
}

const add = async (settings: Settings, given: Given, kind: string): Promise<ExitCode> => {
  const answer = readEntry(
    new Map([['kind', kind], ...wordsOf(given, { ...WORDS, ...SCOPE_WORDS })]),
  )
  if (!answer.ok) throw problemsOf(answer.problems)
  const { scope, fault, startMs, durationMs } = answer.entry
  const ranks = await ask(settings, { do: 'add', faults: [{ scope, fault }], sentAtMs: null })
  const when = startMs === 0 ? 'now' : `in ${spanText(startMs)}`
  const last = durationMs === null ? spanText(null) : `for ${spanText(durationMs)}`
  return report(ranks, given.json === true, () => `${kind} ${when}, ${last}`)
}

const list = async (settings: Settings, scope: RankScope, json: boolean): Promise<ExitCode> => {
  const ranks = await ask(settings, { do: 'list', scope })
  if (json) return report(ranks, json, () => '')
  const rows = ranks.flatMap((rank) =>
    rank.faults.map(({ id, on, fault }) => [
      rank.replica,
      String(rank.rank),
      rank.node,
      String(id),
      String(fault.kind),
      on ? 'on' : `in ${spanText(Number(fault.startMs))}`,
      leftText(fault, on),
    ]),
  )
  if (rows.length === 0) say('no fault is on or to come')
  else print(table([['REPLICA', 'RANK', 'NODE', 'ID', 'KIND', 'WHEN', 'LASTS'], ...rows]))
  return ranks.some(({ problem }) => problem !== null) ? report(ranks, false, () => '') : EXIT.done
}

const leftText = (fault: FaultAnswer['faults'][number]['fault'], on: boolean): string => {
  if (typeof fault.durationMs !== 'number') return spanText(null)
  const left = on ? fault.durationMs + Number(fault.startMs) : fault.durationMs
  return on ? `${spanText(left)} more` : spanText(left)
}

const clear = async (settings: Settings, given: Given, kind: string | null): Promise<ExitCode> => {
  if (kind !== null && !(kind in FAULTS)) {
    throw new PenstockError('invalid_input', `clear: ${kind} is no kind of fault:\n${kindsText()}`)
  }
  const ranks = await ask(settings, { do: 'clear', scope: scopeOf(given), kind })
  return report(ranks, given.json === true, ({ count }) => `${count} cleared`)
}

/** A line a rank, problems to stderr. */
const report = (
  ranks: readonly FaultAnswer[],
  json: boolean,
  text: (rank: FaultAnswer) => string,
): ExitCode => {
  if (json) printJson({ ranks })
  for (const rank of ranks) {
    const who = `${rank.replica} rank ${rank.rank} on node ${rank.node}`
    if (rank.problem !== null) say(`${who}: ${rank.problem}`)
    else if (!json && text(rank) !== '') print(`${who}: ${text(rank)}`)
  }
  return ranks.some(({ problem }) => problem !== null) ? EXIT.failed : EXIT.done
}

const play = async (settings: Settings, path: string): Promise<ExitCode> => {
  const file = await readText(path)
  if (!('text' in file)) return refuse([file])
  const read = readTimeline(file)
  if (!read.ok) return refuse(read.issues)
  const { entries } = read
  const ranks = await ask(settings, { do: 'list', scope: scopeOf({}) })
  const unknown = strangers(entries, ranks)
  if (unknown.length > 0) return refuse(unknown)
  const speed = Math.max(0, ...ranks.map((rank) => rank.speed)) || 1
  const ended = new AbortController()
  const stopListening = onSignals(['SIGINT', 'SIGTERM'], () => ended.abort())
  const send = (one: FaultAsk) => ask(settings, one)
  say(`${entries.length} faults; simulated time runs ${speed} times as fast; Ctrl-C stops`)
  try {
    const clock = systemClock
    const missed = await playTimeline({ entries, send, clock, signal: ended.signal, say }, speed)
    if (ended.signal.aborted) say('stopped; what was sent goes on: `penstock rehearse fault clear`')
    return missed > 0 || ended.signal.aborted ? EXIT.failed : EXIT.done
  } finally {
    stopListening()
  }
}

const wordsOf = (
  given: Given,
  words: Readonly<Record<string, string>>,
): readonly (readonly [string, unknown])[] =>
  Object.entries(words).flatMap(([key, word]) =>
    given[key] === undefined ? [] : [[word, given[key]] as const],
  )

/** Any kind of fault serves to read a scope. */
const scopeOf = (given: Given): RankScope => {
  const answer = readEntry(new Map([['kind', 'hang'], ...wordsOf(given, SCOPE_WORDS)]))
  if (answer.ok) return answer.entry.scope
  throw problemsOf(answer.problems)
}

const problemsOf = (problems: readonly { field: string; message: string }[]): PenstockError => {
  const lines = problems.map(({ field, message }) =>
    field === 'kind' ? message : `--${field === 'at' ? 'in' : field}: ${message}`,
  )
  return new PenstockError('invalid_input', lines.join('\n'))
}

const Setting = z.record(z.string(), z.union([z.string(), z.number(), z.null()]))

const Answers = z.object({
  ranks: z.array(
    z.object({
      replica: z.string(),
      rank: z.number(),
      node: z.string(),
      problem: z.string().nullable(),
      speed: z.number(),
      count: z.number(),
      faults: z.array(z.object({ id: z.number(), on: z.boolean(), fault: Setting })),
    }),
  ),
})

const ask = async (settings: Settings, body: FaultAsk): Promise<readonly FaultAnswer[]> =>
  Answers.parse(await adminClient(settings).json('POST', '/admin/v1/rehearse/fault', body)).ranks
