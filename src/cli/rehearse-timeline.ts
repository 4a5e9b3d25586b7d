/**
 * A timeline of faults: its file (a YAML list, or JSON lines) and its playing. Each fault is sent
 * a little ahead with its exact simulated time, so that neither the network nor this process's
 * timers shift it; not all at once, because a rank that restarts forgets what it was told.
 */
import type { Clock } from '../clock.ts'
import { issueAt, sortedIssues } from '../control/load.ts'
import type { Located } from '../control/located.ts'
import { readYaml, type YamlText } from '../control/yaml.ts'
import type { FaultAnswer, FaultAsk, InputFile, Issue, RankScope } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import { type FaultEntry, readEntry, spanText } from './rehearse-entry.ts'

export type TimelineEntry = FaultEntry & { readonly issue: (message: string) => Issue }

export type TimelineAnswer =
  | { readonly ok: true; readonly entries: readonly TimelineEntry[] }
  | { readonly ok: false; readonly issues: readonly Issue[] }

/** Every issue of the file, or its entries in the order of their times. */
export const readTimeline = ({ path, text }: InputFile): TimelineAnswer => {
  const reading: Reading = { path, issues: [], entries: [] }
  if (/^\s*\{/.test(text)) readLines(text, reading)
  else readList(text, reading)
  if (reading.entries.length === 0 && reading.issues.length === 0) {
    const at = { file: path, line: 1, column: 1, path: '' }
    reading.issues.push({ ...at, message: 'no fault in it: expected a list such as `- at: 10m`' })
  }
  if (reading.issues.length > 0) return { ok: false, issues: sortedIssues(reading.issues) }
  return { ok: true, entries: reading.entries.toSorted((a, b) => a.startMs - b.startMs) }
}

type Reading = {
  readonly path: string
  readonly issues: Issue[]
  readonly entries: TimelineEntry[]
}

/** JSON is YAML: one reader for both, and for their places. */
const readLines = (text: string, reading: Reading): void => {
  for (const [index, line] of text.split('\n').entries()) {
    const yaml = readYaml(line)
    const shifted: YamlText = {
      ...yaml,
      place: (offset) => ({ ...yaml.place(offset), line: index + 1 }),
    }
    for (const problem of yaml.problems)
      reading.issues.push(issueAt(reading.path, shifted, problem))
    for (const root of yaml.documents) readItem(root, shifted, reading)
  }
}

const readList = (text: string, reading: Reading): void => {
  const yaml = readYaml(text)
  for (const problem of yaml.problems) reading.issues.push(issueAt(reading.path, yaml, problem))
  for (const root of yaml.documents) {
    if (root.kind === 'list') for (const item of root.items) readItem(item, yaml, reading)
    else {
      const message = 'expected a list of faults: `- at: 10m`, `  kind: hang`'
      reading.issues.push(issueAt(reading.path, yaml, { at: root.at, path: [], message }))
    }
  }
}

const readItem = (item: Located, yaml: YamlText, reading: Reading): void => {
  const problem = (at: number, field: string, message: string): Issue =>
    issueAt(reading.path, yaml, { at, path: field === '' ? [] : [field], message })
  if (item.kind !== 'map') {
    reading.issues.push(problem(item.at, '', 'expected a fault with `at` and `kind`'))
    return
  }
  const named = [...item.entries].map(([key, entry]) => [dashed(key), { ...entry, key }] as const)
  const places = new Map(named)
  const answer = readEntry(new Map(named.map(([key, { node }]) => [key, node.value])))
  if (!places.has('at')) reading.issues.push(problem(item.at, 'at', 'missing: when it begins'))
  if (answer.ok) {
    const issue = (message: string) => problem(item.at, '', message)
    reading.entries.push({ ...answer.entry, issue })
    return
  }
  for (const { field, message } of answer.problems) {
    const { keyAt = item.at, key = field } = places.get(field) ?? {}
    reading.issues.push(problem(keyAt, key, message))
  }
}

/** `afterTokens`, as the rest of our YAML is written, is `--after-tokens`. */
const dashed = (key: string): string =>
  key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

export type Play = {
  readonly entries: readonly TimelineEntry[]
  readonly send: (ask: FaultAsk) => Promise<readonly FaultAnswer[]>
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly say: (line: string) => void
}

/** How long before its time a fault is sent, and how often a missing rank is looked for, real. */
const LEAD_MS = 3000
const RETRY_MS = 1000
/** For a fault without an end: a restart of a large model takes minutes. */
const PATIENCE_MS = 600_000
const BATCH_MAX = 500

/** Entries whose ranks are not there; asked before anything is sent. */
export const strangers = (
  entries: readonly TimelineEntry[],
  ranks: readonly FaultAnswer[],
): readonly Issue[] => {
  const there = [...new Set(ranks.map(({ replica, rank }) => `${replica} rank ${rank}`))]
  return entries
    .filter(({ scope }) => !ranks.some((rank) => within(scope, rank)))
    .map((entry) => entry.issue(`no such rank runs; there is ${there.slice(0, 8).join(', ')}`))
}

const within = (scope: RankScope, { replica, rank, node }: FaultAnswer): boolean => {
  const [deployment = '', index = ''] = replica.split('/')
  return (
    (scope.deployment === null || scope.deployment === deployment) &&
    (scope.replica === null || scope.replica === Number(index)) &&
    (scope.rank === null || scope.rank === rank) &&
    (scope.node === null || scope.node === node)
  )
}

/** Until all is sent or the signal aborts. Returns how many faults found no rank. */
export const playTimeline = async (play: Play, speed: number): Promise<number> => {
  const { clock, signal, say } = play
  const beganMs = clock.now()
  const realMs = (simulatedMs: number): number => beganMs + simulatedMs / speed
  let pending = play.entries
  let missed = 0
  while (pending.length > 0 && !signal.aborted) {
    const now = clock.now()
    const due = pending
      .filter(({ startMs }) => realMs(startMs) - LEAD_MS <= now)
      .slice(0, BATCH_MAX)
    const left = due.length === 0 ? [] : await sendAll(play, due, beganMs)
    const late = left.filter(
      ({ startMs, durationMs }) =>
        clock.now() > realMs(startMs + (durationMs ?? PATIENCE_MS * speed)),
    )
    for (const entry of late) say(`${entryText(entry)}: missed, no such rank came up in its time`)
    missed += late.length
    pending = pending.filter(
      (entry) => !due.includes(entry) || (left.includes(entry) && !late.includes(entry)),
    )
    const [first] = pending.filter((entry) => !left.includes(entry))
    const nextMs = first === undefined ? Infinity : realMs(first.startMs) - LEAD_MS - clock.now()
    const waitMs = Math.min(nextMs, left.length > late.length ? RETRY_MS : Infinity)
    if (pending.length > 0 && waitMs > 0) await pause(clock, Math.min(waitMs, 60_000), signal)
  }
  return missed
}

/** Ends early, without an error, when the signal aborts. */
const pause = async (clock: Clock, ms: number, signal: AbortSignal): Promise<void> => {
  try {
    await clock.sleep(ms, signal)
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** Together; one by one when not all of them find their ranks. Returns those to try again. */
const sendAll = async (
  play: Play,
  due: readonly TimelineEntry[],
  sentAtMs: number,
): Promise<readonly TimelineEntry[]> => {
  if (await sent(play, due, sentAtMs)) return []
  if (due.length === 1) return due
  const left: TimelineEntry[] = []
  for (const entry of due) {
    if (play.signal.aborted || !(await sent(play, [entry], sentAtMs))) left.push(entry)
  }
  return left
}

const sent = async (
  { send, say }: Play,
  entries: readonly TimelineEntry[],
  sentAtMs: number,
): Promise<boolean> => {
  let answers: readonly FaultAnswer[]
  try {
    const faults = entries.map(({ scope, fault }) => ({ scope, fault }))
    answers = await send({ do: 'add', faults, sentAtMs })
  } catch (error) {
    // The ranks meant do not run now; whoever is not let in or finds no Penstock must know.
    if (error instanceof PenstockError && error.code === 'invalid_request') return false
    throw error
  }
  const failed = answers.filter(({ problem }) => problem !== null)
  for (const { replica, rank, node, problem } of failed) {
    say(`${replica} rank ${rank} on node ${node}: ${problem}`)
  }
  if (failed.length === answers.length) return false
  for (const entry of entries) say(entryText(entry))
  return true
}

const entryText = ({ startMs, durationMs, kind, scope }: TimelineEntry): string => {
  const { deployment, replica, rank, node } = scope
  const where = [
    ...(deployment === null ? [] : [replica === null ? deployment : `${deployment}/${replica}`]),
    ...(deployment === null && replica !== null ? [`replica ${replica}`] : []),
    ...(rank === null ? [] : [`rank ${rank}`]),
    ...(node === null ? [] : [`on node ${node}`]),
  ]
  const last = durationMs === null ? spanText(null) : `for ${spanText(durationMs)}`
  return `${spanText(startMs)}: ${kind} ${where.join(' ') || 'everywhere'}, ${last}`
}
