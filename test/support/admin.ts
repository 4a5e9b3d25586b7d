/** An AdminPort whose answers a test sets; it counts what it was asked. */
import type {
  AdminPort,
  ApplyEvent,
  CreatedKey,
  FaultAnswer,
  FaultAsk,
  InputFiles,
  KeyRequest,
  KeyRole,
  KeyView,
  PlanAnswer,
  Series,
} from '../../src/core/admin.ts'
import type { Reconciliation } from '../../src/core/reconcile.ts'
import type { FinishedRequest } from '../../src/core/snapshot.ts'
import { type UsageAsk, type UsageReport, UsageSheet } from '../../src/core/usage-report.ts'
import type { FleetView } from '../../src/core/view.ts'
import { PenstockError } from '../../src/errors.ts'
import { fleet } from './fleet.ts'

export const ADMIN_KEY = 'sk-ps-admin-0123456789abcdef'
export const CONSUMER_KEY = 'sk-ps-consumer-0123456789abcdef'

type LogAsk = Parameters<AdminPort['logs']>[0]

export class FakeAdmin implements AdminPort {
  view: FleetView
  recent: readonly FinishedRequest[] = []
  series: readonly Series[] = []
  roles = new Map<string, KeyRole>([
    [ADMIN_KEY, 'admin'],
    [CONSUMER_KEY, 'consumer'],
  ])
  planAnswer: PlanAnswer = { ok: false, issues: [] }
  applyEvents: (files: InputFiles, signal: AbortSignal) => AsyncIterable<ApplyEvent> = none
  logLines: (ask: LogAsk, signal: AbortSignal) => AsyncIterable<string> = none
  isReady = true
  fleetReads = 0
  readonly asked: unknown[] = []
  readonly #listeners = new Set<() => void>()
  readonly #keys = new Map<string, KeyView>()

  constructor(nowMs: number) {
    this.view = fleet(nowMs)
  }

  get listeners(): number {
    return this.#listeners.size
  }

  /** Sets a new view and tells subscribers, as control does after a change. */
  change(view: FleetView): void {
    this.view = view
    for (const listener of this.#listeners) listener()
  }

  finish(request: FinishedRequest): void {
    this.recent = [request, ...this.recent]
    for (const listener of this.#listeners) listener()
  }

  fleet(): FleetView {
    this.fleetReads += 1
    return this.view
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  requests(limit: number): readonly FinishedRequest[] {
    return this.recent.slice(0, limit)
  }

  history(sinceMs: number): readonly Series[] {
    return this.series.map((series) => ({
      ...series,
      points: series.points.filter(([atMs]) => atMs >= sinceMs),
    }))
  }

  async usage(ask: UsageAsk): Promise<UsageReport> {
    this.asked.push(ask)
    return new UsageSheet(ask).report(false)
  }

  async reconcile(): Promise<Reconciliation> {
    return { runs: [] }
  }

  async plan(files: InputFiles): Promise<PlanAnswer> {
    this.asked.push(files)
    return this.planAnswer
  }

  apply(files: InputFiles, signal: AbortSignal): AsyncIterable<ApplyEvent> {
    this.asked.push(files)
    return this.applyEvents(files, signal)
  }

  async restart(target: string): Promise<readonly string[]> {
    if (target.startsWith('nope')) throw new PenstockError('not_found', `no ${target} here`)
    this.asked.push({ restart: target })
    return [`${target}/0`]
  }

  async destroy(target: string | null): Promise<readonly string[]> {
    this.asked.push({ destroy: target })
    return ['deepseek-r1/0', 'qwq-32b/0']
  }

  logs(ask: LogAsk, signal: AbortSignal): AsyncIterable<string> {
    this.asked.push(ask)
    return this.logLines(ask, signal)
  }

  async rehearseFault(ask: FaultAsk): Promise<readonly FaultAnswer[]> {
    this.asked.push(ask)
    return []
  }

  keys(): readonly KeyView[] {
    return [...this.#keys.values()]
  }

  createKey(ask: KeyRequest): CreatedKey {
    const id = `key_${this.#keys.size + 1}`
    const view: KeyView = { ...ask, id, prefix: 'sk-ps-ab', createdAtMs: 1, revokedAtMs: null }
    this.#keys.set(id, view)
    return { key: `sk-ps-abcdef-${id}`, view }
  }

  revokeKey(id: string): KeyView {
    const view = this.#keys.get(id)
    if (view === undefined) throw new PenstockError('not_found', `there is no key ${id}`)
    const revoked = { ...view, revokedAtMs: 2 }
    this.#keys.set(id, revoked)
    return revoked
  }

  async metrics(): Promise<string> {
    return '# TYPE penstock_nodes gauge\npenstock_nodes 3\n'
  }

  roleOf(key: string): KeyRole | null {
    return this.roles.get(key) ?? null
  }

  ready(): boolean {
    return this.isReady
  }
}

async function* none(): AsyncGenerator<never> {}
