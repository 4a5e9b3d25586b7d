/** What the admin API asks of control, done: the one implementation of AdminPort. */
import type { Clock } from '../clock.ts'
import type {
  AdminPort,
  ApplyEvent,
  CreatedKey,
  InputFiles,
  KeyRequest,
  KeyRole,
  KeyView,
  PlanAnswer,
  Series,
} from '../core/admin.ts'
import type { Desired } from '../core/desired.ts'
import { processNodes } from '../core/inventory.ts'
import { patternProblem } from '../core/pattern.ts'
import type { Plan } from '../core/plan.ts'
import { planText } from '../core/plan-text.ts'
import { shownPlan } from '../core/shown-plan.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import type { FleetView } from '../core/view.ts'
import { errorLine, PenstockError } from '../errors.ts'
import type { Fleet, ReplicaRecord } from '../fleet.ts'
import type { DriverOf } from './operations.ts'
import { progress } from './progress.ts'
import { auditLine, rehearseFault } from './rehearse.ts'
import type { Wanted } from './wanted.ts'

const CHANGE_EVERY_MS = 250

/** The durable side, as control needs it. */
export type AdminStore = {
  keys(): readonly KeyView[]
  createKey(ask: KeyRequest): CreatedKey
  revokeKey(id: string): KeyView
  roleOf(key: string): KeyRole | null
  saveDesired(files: InputFiles, rehearsal: boolean): number
  audit(who: string, what: string, detail: string): void
}

export type AdminOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly wanted: Wanted
  readonly store: AdminStore
  readonly rehearse: boolean
  readonly driverOf: DriverOf
  /** Use the nodes of an inventory, and look at them once. */
  readonly useInventory: (desired: Desired) => Promise<void>
  readonly view: () => FleetView
  readonly requests: (limit: number) => readonly FinishedRequest[]
  readonly history: (sinceMs: number) => readonly Series[]
  readonly usage: AdminPort['usage']
  readonly reconcile: AdminPort['reconcile']
  readonly metrics: () => Promise<string>
  /** Log lines kept of a rank that was removed after a failure; null when there are none. */
  readonly postmortemOf: (container: string) => Promise<string | null>
  /** Keys changed: tell the gateways. */
  readonly keysChanged: () => void
  /** Something is wanted from now on: the control loop may act. */
  readonly began: () => void
  readonly ready: () => boolean
}

export const adminPort = (options: AdminOptions): AdminPort => {
  const { fleet, store } = options
  return {
    fleet: options.view,
    subscribe: (listener) => throttled(options, listener),
    requests: options.requests,
    history: options.history,
    usage: options.usage,
    reconcile: options.reconcile,
    plan: async (files) => planAnswer(options, files),
    apply: (files, signal) => apply(options, files, signal),
    restart: async (target) => {
      const records = targets(fleet, target)
      for (const record of records) record.restartAsked = true
      fleet.changed()
      store.audit('admin', 'restart', target)
      return records.map(({ id }) => id)
    },
    destroy: async (target) => destroy(options, target),
    logs: (ask, signal) => logs(options, ask, signal),
    rehearseFault: async (ask, signal) => {
      const answers = await rehearseFault(options, ask, signal)
      if (ask.do !== 'list') store.audit('admin', 'rehearse fault', auditLine(ask))
      return answers
    },
    keys: () => store.keys(),
    createKey: (ask) => {
      refuseBadPatterns(ask.models ?? [])
      const created = store.createKey(ask)
      store.audit('admin', 'create key', `${created.view.id} ${ask.role} ${ask.consumer}`)
      options.keysChanged()
      return created
    },
    revokeKey: (id) => {
      const view = store.revokeKey(id)
      store.audit('admin', 'revoke key', id)
      options.keysChanged()
      return view
    },
    metrics: options.metrics,
    roleOf: (key) => store.roleOf(key),
    ready: options.ready,
  }
}

/** A pattern that cannot be run would be a key that opens nothing. */
const refuseBadPatterns = (models: readonly string[]): void => {
  for (const model of models) {
    const problem = patternProblem(model)
    if (problem === null) continue
    const what = `models: ${JSON.stringify(model.slice(0, 100))}: ${problem}`
    throw new PenstockError('invalid_request', what, { param: 'models' })
  }
}

/** Destroyed deployments stay in the manifests at 0 replicas, also over a restart of Penstock. */
const destroy = (options: AdminOptions, target: string | null): readonly string[] => {
  const { fleet, wanted, store } = options
  if (target?.includes('/') === true) {
    const message = `destroy takes a deployment, not a replica: try \`${target.split('/')[0]}\``
    throw new PenstockError('invalid_request', `${message}, or change \`replicas\``)
  }
  const records = target === null ? [...fleet.replicas.values()] : targets(fleet, target)
  const names = records.map(({ deployment }) => deployment)
  const stopped = [...new Set([...(wanted.files.stopped ?? []), ...names])]
  const files = { ...wanted.files, stopped }
  const checked = wanted.check(files)
  if (!checked.ok) throw new PenstockError('conflict', 'the applied manifests no longer check')
  store.audit('admin', 'destroy', target ?? 'everything')
  fleet.generation = store.saveDesired(files, options.rehearse)
  wanted.use(files, checked.desired)
  return records.map(({ id }) => id)
}

const throttled = ({ fleet, clock }: AdminOptions, listener: () => void): (() => void) => {
  const closed = new AbortController()
  let waiting = false
  const stop = fleet.subscribe(() => {
    if (waiting) return
    waiting = true
    clock.sleep(CHANGE_EVERY_MS, closed.signal).then(
      () => {
        waiting = false
        listener()
      },
      () => undefined,
    )
  })
  return () => {
    closed.abort()
    stop()
  }
}

const planAnswer = (options: AdminOptions, files: InputFiles): PlanAnswer => {
  const checked = options.wanted.check(files)
  if (!checked.ok) return checked
  const { rehearse, wanted } = options
  const plan = wanted.plan(checked.desired, 'empty')
  const text = pageOf(options, plan, checked.desired)
  return { ok: true, plan: shownPlan(plan), text, rehearsal: rehearse }
}

const pageOf = ({ rehearse }: AdminOptions, plan: Plan, { inventory }: Desired): string =>
  planText(plan, { rehearsal: rehearse, color: false, processNodes: processNodes(inventory) })

/** Everything that stands against applying; the operator gets it whole. */
const refusals = (plan: Plan): readonly string[] => {
  const leaving = plan.actions.some(({ kind }) => kind !== 'start')
  return plan.deployments.flatMap((deployment) => [
    ...deployment.refusals.map((reason) => `${deployment.name}: ${reason}`),
    // While replicas leave, their GPUs may be what the new ones wait for.
    ...(leaving ? [] : deployment.unplaced).map(
      ({ replica, reasons }) => `${deployment.name}/${replica}: no place: ${reasons.join('; ')}`,
    ),
  ])
}

/**
 * Containers on nodes that the new inventory leaves out would be lost from sight, still running.
 */
const orphans = ({ fleet }: AdminOptions, desired: Desired): readonly string[] => {
  const kept = new Set(desired.inventory.nodes.map(({ name }) => name))
  return [...fleet.observations.values()]
    .filter(({ node, containers }) => !kept.has(node) && containers.length > 0)
    .map(({ node, containers: [first] }) => {
      const what = first === undefined ? '' : `${first.labels.deployment}/${first.labels.replica}`
      return `node ${node} is not in the inventory any more but runs ${what}: remove that first`
    })
}

async function* apply(
  options: AdminOptions,
  files: InputFiles,
  signal: AbortSignal,
): AsyncIterable<ApplyEvent> {
  const { wanted, fleet, clock, store, rehearse } = options
  const checked = wanted.check(files)
  if (!checked.ok) {
    yield { kind: 'issues', issues: checked.issues }
    yield { kind: 'failed', message: 'nothing was changed' }
    return
  }
  const { desired } = checked
  try {
    const lost = orphans(options, desired)
    if (lost.length > 0) {
      yield { kind: 'failed', message: `nothing was changed: ${lost.join('; ')}` }
      return
    }
    await options.useInventory(desired)
    const plan = wanted.plan(desired)
    const text = pageOf(options, plan, desired)
    yield { kind: 'plan', text, actions: plan.actions.length }
    const against = refusals(plan)
    if (against.length > 0) {
      await options.useInventory(wanted.desired)
      yield { kind: 'failed', message: `nothing was changed: ${against.join('\n')}` }
      return
    }
    fleet.generation = store.saveDesired(files, rehearse)
    store.audit('admin', 'apply', files.manifests.map(({ path }) => path).join(' '))
    wanted.use(files, desired)
    options.began()
    yield* progress({ fleet, clock, signal, ...expected(plan) })
  } catch (error) {
    yield { kind: 'failed', message: errorLine(error) }
  }
}

const expected = ({ deployments, actions }: Plan) => {
  const ready = deployments.flatMap(({ name, replicas, unplaced }) => [
    ...replicas.map(({ id }) => id),
    ...unplaced.map(({ replica }) => `${name}/${replica}`),
  ])
  const gone = actions.filter(({ kind }) => kind === 'stop').map(({ id }) => id)
  return { ready, gone: gone.filter((id) => !ready.includes(id)) }
}

const targets = (fleet: Fleet, target: string): readonly ReplicaRecord[] => {
  const all = [...fleet.replicas.values()]
  const found = all.filter(({ id, deployment }) => id === target || deployment === target)
  if (found.length > 0) return found
  const known = [...new Set(all.map(({ deployment }) => deployment))].join(', ')
  const there = known === '' ? 'nothing is deployed' : `there is ${known}`
  throw new PenstockError('not_found', `no deployment or replica named ${target}; ${there}`)
}

async function* logs(
  options: AdminOptions,
  ask: { target: string; rank: number; lines: number; follow: boolean },
  signal: AbortSignal,
): AsyncIterable<string> {
  const [record] = targets(options.fleet, ask.target)
  const spec = record?.want?.ranks.find(({ labels }) => labels.rank === ask.rank)
  const seen = options.fleet
    .containersOf(record?.id ?? '')
    .find(({ labels }) => labels.rank === ask.rank)
  const name = seen?.name ?? spec?.name
  if (record === undefined || name === undefined) {
    throw new PenstockError('not_found', `${ask.target} has no rank ${ask.rank}`)
  }
  const driver = options.driverOf(seen?.labels.node ?? spec?.node ?? '')
  if (seen === undefined || driver === null) {
    const kept = await options.postmortemOf(name)
    if (kept !== null) yield* kept.split('\n')
    else yield `${name} does not run and left no log`
    return
  }
  if (ask.follow) yield* driver.follow(name, ask.lines, signal)
  else yield* (await driver.logs(name, ask.lines, signal)).replace(/\n$/, '').split('\n')
}
