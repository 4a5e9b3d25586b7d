/**
 * What to do next with one replica as a group: a decision tree over what is wanted, what was
 * observed and the time. Asked at each tick of control/loop.ts; performs nothing, remembers
 * nothing. Numbers in the comments are those of the steps in `decide`.
 */
import type { Container } from './observed.ts'
import type { PlannedReplica } from './plan.ts'
import type { ReplicaState } from './view.ts'

export type GroupInput = {
  /** Null: not wanted any more. */
  readonly want: PlannedReplica | null
  readonly state: ReplicaState
  /** Every container that carries this replica's labels. */
  readonly containers: readonly Container[]
  /** Nodes of wanted and observed ranks that cannot be reached now, with the reason. */
  readonly unreachable: readonly { readonly node: string; readonly reason: string }[]
  /** The operation under way, and the spec hash it works towards. */
  readonly busy: { readonly kind: 'start' | 'stop'; readonly specHash: string } | null
  readonly restartAsked: boolean
  readonly nowMs: number
  /** Not before this time is a failed replica started again. */
  readonly retryAtMs: number
  /** Requests in flight on this replica, over all gateway threads. */
  readonly inFlight: number
  /** When draining must end; null when it has not begun. */
  readonly drainUntilMs: number | null
  /** When a starting replica counts as failed. */
  readonly readyUntilMs: number
}

export type Step =
  | { readonly do: 'wait'; readonly reason: string }
  | { readonly do: 'start'; readonly reason: string }
  | { readonly do: 'adopt'; readonly reason: string }
  | { readonly do: 'probe'; readonly reason: string }
  | { readonly do: 'drain'; readonly reason: string }
  | {
      readonly do: 'stop'
      readonly reason: string
      /** False: the group is broken, nothing it still does is worth waiting for. */
      readonly graceful: boolean
      readonly next: 'stopped' | 'failed' | 'pending'
    }
  | { readonly do: 'cancel'; readonly reason: string }
  | { readonly do: 'forget'; readonly reason: string }

const wait = (reason: string): Step => ({ do: 'wait', reason })

export const decide = (input: GroupInput): Step => {
  const { want, busy, unreachable, containers } = input
  // 1. One operation at a time; a start towards something nobody wants now is called off.
  if (busy !== null) {
    const outdated = busy.kind === 'start' && want?.specHash !== busy.specHash
    return outdated
      ? { do: 'cancel', reason: 'no longer wanted as it was begun' }
      : wait(`${busy.kind} under way`)
  }
  // 2. Unknown is not dead: without sight of a node its ranks are neither started nor stopped,
  //    because a second copy of a rank on the same GPUs is worse than a late restart.
  const [away] = unreachable
  if (away !== undefined) return wait(`node ${away.node} unreachable: ${away.reason}`)
  // 3. Not wanted.
  if (want === null) {
    return containers.length === 0
      ? { do: 'forget', reason: 'removed' }
      : leave(input, 'no longer in the manifests', 'stopped')
  }
  // 4. Wanted otherwise than it runs.
  if (containers.some(({ labels }) => labels.specHash !== want.specHash)) {
    return leave(input, 'spec changed', 'pending')
  }
  if (input.restartAsked) {
    return containers.length === 0
      ? { do: 'start', reason: 'restart asked for' }
      : leave(input, 'restart asked for', 'pending')
  }
  // 5. Wanted, and nothing is there.
  if (containers.length === 0) {
    return input.nowMs < input.retryAtMs
      ? wait(`next try in ${Math.ceil((input.retryAtMs - input.nowMs) / 1000)} s`)
      : { do: 'start', reason: input.state === 'failed' ? 'trying again' : 'not running' }
  }
  // 6. A group lives or dies as a whole: one rank gone means all ranks start anew.
  const broken = brokenRank(want, containers)
  if (broken !== null) return { do: 'stop', reason: broken, graceful: false, next: 'failed' }
  return whole(input)
}

/** 7. All ranks run as wanted. */
const whole = (input: GroupInput): Step => {
  switch (input.state) {
    case 'ready':
      return wait('ready')
    case 'starting':
      return input.nowMs < input.readyUntilMs
        ? { do: 'probe', reason: 'all ranks run' }
        : {
            do: 'stop',
            reason: 'not ready within readyTimeout; see penstock logs',
            graceful: false,
            next: 'failed',
          }
    default:
      return { do: 'adopt', reason: 'found running' }
  }
}

const leave = (input: GroupInput, reason: string, next: 'stopped' | 'pending'): Step => {
  if (input.state === 'ready') return { do: 'drain', reason }
  if (input.state !== 'draining') return { do: 'stop', reason, graceful: true, next }
  if (input.inFlight === 0) return { do: 'stop', reason, graceful: true, next }
  if (input.drainUntilMs !== null && input.nowMs >= input.drainUntilMs) {
    return { do: 'stop', reason: `${reason}; drain deadline passed`, graceful: true, next }
  }
  return wait(`${reason}: ${input.inFlight} requests still in flight`)
}

const brokenRank = (want: PlannedReplica, containers: readonly Container[]): string | null => {
  for (const rank of want.ranks) {
    const found = containers.find(({ name }) => name === rank.name)
    const where = `rank ${rank.labels.rank} on node ${rank.node}`
    if (found === undefined) return `${where} is gone`
    if (found.state !== 'running') return `${where} ${exitWords(found)}`
  }
  const extra = containers.find(({ name }) => !want.ranks.some((rank) => rank.name === name))
  return extra === undefined ? null : `${extra.name} does not belong to this group`
}

/** `exited with code 137 (SIGKILL: killed, or out of memory)`: shell convention, 128 + signal. */
export const exitWords = ({ state, exitCode, error }: Container): string => {
  const signals: Readonly<Record<number, string>> = {
    130: 'SIGINT',
    134: 'SIGABRT',
    137: 'SIGKILL: killed, or out of memory',
    139: 'SIGSEGV',
    143: 'SIGTERM',
  }
  if (state === 'created') return `was created but never ran${error === null ? '' : `: ${error}`}`
  const meaning = exitCode === null ? undefined : signals[exitCode]
  const code = exitCode === null ? 'exited' : `exited with code ${exitCode}`
  const why = error === null ? '' : `: ${error}`
  return `${code}${meaning === undefined ? '' : ` (${meaning})`}${why}`
}
