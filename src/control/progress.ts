/**
 * What `apply` tells while it waits: phases of ranks and states of replicas, until all are there.
 */
import type { Clock } from '../clock.ts'
import type { ApplyEvent } from '../core/admin.ts'
import type { ReplicaId } from '../core/plan.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'

const EVERY_MS = 200
/** After so many failed starts an apply gives up waiting; the control loop goes on trying. */
const FAILURES_MAX = 3

export type ProgressAsk = {
  readonly fleet: Fleet
  readonly clock: Clock
  /** Replicas that should become ready, and those that should go away. */
  readonly ready: readonly ReplicaId[]
  readonly gone: readonly ReplicaId[]
  readonly signal: AbortSignal
}

/** Ends with `done` or `failed`; ends silently when aborted. */
export async function* progress(ask: ProgressAsk): AsyncIterable<ApplyEvent> {
  const { fleet, clock, signal } = ask
  const told = new Map<string, string>()
  const failedBefore = new Map(ask.ready.map((id) => [id, fleet.replicas.get(id)?.restarts ?? 0]))
  const fresh = (key: string, event: ApplyEvent): readonly ApplyEvent[] => {
    const text = JSON.stringify(event)
    if (told.get(key) === text) return []
    told.set(key, text)
    return [event]
  }
  while (!signal.aborted) {
    for (const id of [...ask.ready, ...ask.gone]) {
      const record = fleet.replicas.get(id)
      if (record === undefined) continue
      for (const [key, event] of eventsOf(record)) yield* fresh(key, event)
    }
    const end = ending(ask, failedBefore)
    if (end !== null) {
      yield end
      return
    }
    await clock.sleep(EVERY_MS, signal).catch(() => undefined)
  }
}

const eventsOf = (record: ReplicaRecord): readonly (readonly [string, ApplyEvent])[] => {
  const { id, state, reason } = record
  const ranks = (record.want?.ranks ?? []).map(({ node, labels: { rank } }) => {
    const { phase = 'start' as const, ratio = null } = record.phases.get(rank) ?? {}
    const event = { kind: 'rank', replica: id, rank, node, phase, ratio, note: '' } as const
    return [`${id}#${rank}`, event] as const
  })
  const replica = [id, { kind: 'replica', replica: id, state, reason } as const] as const
  return state === 'starting' || state === 'ready' ? [...ranks, replica] : [replica]
}

const ending = (
  { fleet, ready, gone }: ProgressAsk,
  failedBefore: ReadonlyMap<ReplicaId, number>,
): ApplyEvent | null => {
  const waiting = ready.filter((id) => {
    const record = fleet.replicas.get(id)
    return record?.state !== 'ready' || record.runs !== record.want?.specHash
  })
  const leaving = gone.filter((id) => fleet.replicas.has(id))
  if (waiting.length === 0 && leaving.length === 0) {
    const count = (n: number, what: string): string => (n === 0 ? '' : `${n} ${what}`)
    const parts = [count(ready.length, 'ready'), count(gone.length, 'stopped')]
    const message = parts.filter((part) => part !== '').join(', ')
    return { kind: 'done', message: message === '' ? 'nothing to do' : message }
  }
  const broken = waiting.flatMap((id) => {
    const record = fleet.replicas.get(id)
    const failures = (record?.restarts ?? 0) - (failedBefore.get(id) ?? 0)
    return record !== undefined && failures >= FAILURES_MAX ? [record] : []
  })
  const [first] = broken
  if (first === undefined || waiting.length > broken.length) return null
  const message = `${first.id} failed ${FAILURES_MAX} times: ${first.reason}. Penstock keeps trying`
  return { kind: 'failed', message: `${message}; \`penstock logs ${first.id}\` shows the engine` }
}
