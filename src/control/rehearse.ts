/**
 * Faults for ranks that the flight simulator plays: which ranks are meant, and the words to their
 * control sockets, through the same `exec` that reads GPUs. Real engines are refused.
 */
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import type { FaultAnswer, FaultAsk, FaultSetting, RankScope } from '../core/admin.ts'
import type { Container } from '../core/observed.ts'
import { errorLine, PenstockError } from '../errors.ts'
import type { Fleet } from '../fleet.ts'
import type { DriverOf } from './operations.ts'

export type RehearseOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly driverOf: DriverOf
}

const PROGRAM = 'simulator-control'
/** A container engine over ssh answers an exec in two seconds. */
const ANSWER_MS = 30_000
/** An argument of a program may be 128 KiB long (MAX_ARG_STRLEN, execve(2)); a fault is 200 B. */
const FAULTS_PER_MESSAGE = 200
/** Ranks asked side by side: a fleet of hundreds must not fork hundreds of programs at once. */
const RANKS_AT_ONCE = 8

/** Throws not_found when nothing that runs is meant, invalid_request when a real engine is. */
export const rehearseFault = async (
  options: RehearseOptions,
  ask: FaultAsk,
  signal: AbortSignal,
): Promise<readonly FaultAnswer[]> => {
  const messages = messagesFor(options, ask)
  const answers = new Map<Container, FaultAnswer>()
  const work = [...messages.entries()]
  const next = async (): Promise<void> => {
    for (let one = work.shift(); one !== undefined; one = work.shift()) {
      answers.set(one[0], await tell(options, one[0], one[1], signal))
    }
  }
  await Promise.all(Array.from({ length: RANKS_AT_ONCE }, next))
  return [...answers].sort(([a], [b]) => byRank(a, b)).map(([, answer]) => answer)
}

/** For the audit log, one line. */
export const auditLine = (ask: FaultAsk): string => {
  if (ask.do !== 'add') return `${ask.do} ${scopeText(ask.scope)}`
  const shown = ask.faults
    .slice(0, 5)
    .map(({ scope, fault }) => `${fault.kind} ${scopeText(scope)}`)
  return `add ${ask.faults.length}: ${shown.join(', ')}`
}

type Message = Readonly<Record<string, unknown>>

const messagesFor = (
  { fleet, clock }: RehearseOptions,
  ask: FaultAsk,
): ReadonlyMap<Container, readonly Message[]> => {
  const running = [...fleet.observations.values()]
    .flatMap(({ containers }) => containers)
    .filter(({ state }) => state === 'running')
    .sort(byRank)
  if (ask.do !== 'add') {
    const message =
      ask.do === 'list' || ask.kind === null ? { do: ask.do } : { do: ask.do, kind: ask.kind }
    return new Map(played(running, ask.scope).map((rank) => [rank, [message, STATUS]]))
  }
  const sentAtMs = ask.sentAtMs ?? clock.now()
  const faults = new Map<Container, FaultSetting[]>()
  for (const { scope, fault } of ask.faults) {
    for (const rank of meant(running, scope)) {
      const list = faults.get(rank) ?? []
      list.push(fault)
      faults.set(rank, list)
    }
  }
  return new Map([...faults].map(([rank, list]) => [rank, [...batches(list, sentAtMs), STATUS]]))
}

const STATUS: Message = { do: 'status' }

const batches = (list: readonly FaultSetting[], sentAtMs: number): readonly Message[] =>
  Array.from({ length: Math.ceil(list.length / FAULTS_PER_MESSAGE) }, (_, index) => {
    const from = index * FAULTS_PER_MESSAGE
    return { do: 'add', faults: list.slice(from, from + FAULTS_PER_MESSAGE), sentAtMs }
  })

const meant = (running: readonly Container[], scope: RankScope): readonly Container[] => {
  const found = running.filter(
    ({ labels }) =>
      (scope.deployment === null || labels.deployment === scope.deployment) &&
      (scope.replica === null || labels.replica === scope.replica) &&
      (scope.rank === null || labels.rank === scope.rank) &&
      (scope.node === null || labels.node === scope.node),
  )
  if (found.length === 0) {
    const there = running.slice(0, 8).map(rankText).join(', ')
    const others = there === '' ? 'no rank runs' : `what runs: ${there}`
    throw new PenstockError('not_found', `no rank runs for ${scopeText(scope)}; ${others}`)
  }
  const real = found.find(({ labels }) => !labels.rehearsal)
  if (real !== undefined) {
    const message =
      `${rankText(real)} is a real engine: faults are played by the flight simulator only, on ` +
      'nodes with `rehearse: true` or after `penstock up --rehearse`'
    throw new PenstockError('invalid_request', message)
  }
  return found
}

/** To look at or to end faults: real engines have none and stand in nobody's way. */
const played = (running: readonly Container[], scope: RankScope): readonly Container[] => {
  const rehearsed = running.filter(({ labels }) => labels.rehearsal)
  return meant(rehearsed.length > 0 ? rehearsed : running, scope)
}

const rankText = ({ labels }: Container): string =>
  `${labels.deployment}/${labels.replica} rank ${labels.rank} on node ${labels.node}`

const scopeText = ({ deployment, replica, rank, node }: RankScope): string => {
  const parts = [
    ...(deployment === null ? [] : [`deployment ${deployment}`]),
    ...(replica === null ? [] : [`replica ${replica}`]),
    ...(rank === null ? [] : [`rank ${rank}`]),
    ...(node === null ? [] : [`node ${node}`]),
  ]
  return parts.length === 0 ? 'any rank' : parts.join(', ')
}

const Setting = z.record(z.string(), z.union([z.string(), z.number(), z.null()]))

const Line = z.object({
  ok: z.boolean(),
  message: z.string().optional(),
  nowMs: z.number().optional(),
  speed: z.number().optional(),
  cleared: z.number().optional(),
  ids: z.array(z.number()).optional(),
  faults: z.array(z.object({ id: z.number(), on: z.boolean(), fault: Setting })).optional(),
})

type Line = z.infer<typeof Line>

/** One rank; what it or its node has against it becomes its `problem`. */
const tell = async (
  { driverOf }: RehearseOptions,
  container: Container,
  messages: readonly Message[],
  signal: AbortSignal,
): Promise<FaultAnswer> => {
  const { labels, name } = container
  const { deployment, replica, rank, node } = labels
  const who = { replica: `${deployment}/${replica}`, rank, node }
  const lines: Line[] = []
  try {
    const driver = driverOf(node)
    if (driver === null) {
      throw new PenstockError('node_unreachable', 'is not in the inventory any more', { node })
    }
    const command = [PROGRAM, ...messages.map((message) => JSON.stringify(message))]
    const either = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)])
    for await (const text of driver.exec(name, command, either)) {
      lines.push(Line.parse(JSON.parse(text)))
      if (lines.length >= messages.length) break
    }
  } catch (error) {
    return { ...who, ...summed(lines), problem: errorLine(error) }
  }
  const silent = lines.length < messages.length ? 'the rank did not answer in time' : null
  const refused = lines.find(({ ok }) => !ok)
  return { ...who, ...summed(lines), problem: refused?.message ?? silent }
}

const summed = (lines: readonly Line[]): Pick<FaultAnswer, 'speed' | 'count' | 'faults'> => ({
  speed: lines.find(({ speed }) => speed !== undefined)?.speed ?? 0,
  count: lines.reduce((sum, { ids, cleared }) => sum + (ids?.length ?? 0) + (cleared ?? 0), 0),
  faults: lines.flatMap(({ faults = [], nowMs = 0 }) =>
    faults.map(({ id, on, fault }) => ({ id, on, fault: fromNow(fault, nowMs) })),
  ),
})

const fromNow = (fault: FaultSetting, nowMs: number): FaultSetting => {
  const { startMs } = fault
  return typeof startMs === 'number' ? { ...fault, startMs: Math.round(startMs - nowMs) } : fault
}

/** Nodes report in no order of their own. */
const byRank = ({ labels: a }: Container, { labels: b }: Container): number =>
  compare(a.deployment, b.deployment) || a.replica - b.replica || a.rank - b.rank

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
