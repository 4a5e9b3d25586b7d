/**
 * What the console's admin API asks of control: the one interface between them (`AdminPort`), and
 * the JSON that crosses it. Implemented by control/, called by console/, spoken by the CLI.
 */
import type { Plan } from './plan.ts'
import type { Reconciliation } from './reconcile.ts'
import type { Phase } from './runtime.ts'
import type { FinishedRequest } from './snapshot.ts'
import type { UsageAsk, UsageReport } from './usage-report.ts'
import type { FleetView } from './view.ts'

/** A file as the operator has it: `path` is what messages name. */
export type InputFile = { readonly path: string; readonly text: string }

export type InputFiles = {
  /** Null: keep the inventory that the running Penstock has. */
  readonly inventory: InputFile | null
  readonly manifests: readonly InputFile[]
  /** Deployments that `destroy` stopped since; they are kept at 0 replicas. An apply names none. */
  readonly stopped?: readonly string[]
}

/** One thing wrong in one place. Lines and columns count from 1. */
export type Issue = {
  readonly file: string
  readonly line: number
  readonly column: number
  /** `nodes.h20-1.gpus.profile`; empty for the whole file. */
  readonly path: string
  readonly message: string
}

export type PlanAnswer =
  | { readonly ok: true; readonly plan: Plan; readonly text: string; readonly rehearsal: boolean }
  | { readonly ok: false; readonly issues: readonly Issue[] }

/** Progress of one apply. The last event is `done` or `failed`. */
export type ApplyEvent =
  | { readonly kind: 'plan'; readonly text: string; readonly actions: number }
  | {
      readonly kind: 'rank'
      readonly replica: string
      readonly rank: number
      readonly node: string
      readonly phase: Phase
      readonly ratio: number | null
      readonly note: string
    }
  | {
      readonly kind: 'replica'
      readonly replica: string
      readonly state: string
      readonly reason: string
    }
  | { readonly kind: 'issues'; readonly issues: readonly Issue[] }
  | { readonly kind: 'done'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string }

export type KeyRole = 'consumer' | 'admin'

export type KeyView = {
  readonly id: string
  readonly role: KeyRole
  readonly consumer: string
  /** First characters, to recognise it by. */
  readonly prefix: string
  readonly models: readonly string[] | null
  readonly createdAtMs: number
  readonly revokedAtMs: number | null
}

export type KeyRequest = {
  readonly role: KeyRole
  readonly consumer: string
  readonly models: readonly string[] | null
}

/** `key` is shown once, here; only its hash is kept. */
export type CreatedKey = { readonly key: string; readonly view: KeyView }

/** Series that the console draws, one per replica (label `replica`: `qwq-32b/0`). */
export const DRAWN_SERIES = [
  'kvCacheUsageRatio',
  'requestsRunning',
  'requestsWaiting',
  'promptTokensPerSecond',
  'generationTokensPerSecond',
] as const

/** One series of the last hour: `points` are [epoch ms, value]; a gap is a missing point. */
export type Series = {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly points: readonly (readonly [number, number])[]
}

/** Which ranks are meant; null: any. */
export type RankScope = {
  readonly deployment: string | null
  readonly replica: number | null
  readonly rank: number | null
  readonly node: string | null
}

/** A fault as the flight simulator reads it: `kind` and figures; the simulator is its judge. */
export type FaultSetting = Readonly<Record<string, string | number | null>>

/** What to do with the faults of rehearsed ranks. `startMs` of a fault counts from `sentAtMs`. */
export type FaultAsk =
  | {
      readonly do: 'add'
      readonly faults: readonly { readonly scope: RankScope; readonly fault: FaultSetting }[]
      /** Epoch milliseconds; null: now. */
      readonly sentAtMs: number | null
    }
  | { readonly do: 'clear'; readonly scope: RankScope; readonly kind: string | null }
  | { readonly do: 'list'; readonly scope: RankScope }

/** One rank's answer. */
export type FaultAnswer = {
  readonly replica: string
  readonly rank: number
  readonly node: string
  /** Null: done. */
  readonly problem: string | null
  /** Clock factor of the rank; 0 when it did not say. */
  readonly speed: number
  /** How many faults were added or cleared. */
  readonly count: number
  /** Faults that are on or to come, `startMs` from now: of `list`. */
  readonly faults: readonly {
    readonly id: number
    readonly on: boolean
    readonly fault: FaultSetting
  }[]
}

export type AdminPort = {
  fleet(): FleetView
  /** Calls back after a change, at most every 250 ms; returns the unsubscribe. */
  subscribe(listener: () => void): () => void
  /** Newest first, at most `limit`. */
  requests(limit: number): readonly FinishedRequest[]
  history(sinceMs: number): readonly Series[]
  /** Throws invalid_request: more rows than one question may read. */
  usage(ask: UsageAsk): Promise<UsageReport>
  /** Our books against the engines' own counters, read now. */
  reconcile(): Promise<Reconciliation>
  plan(files: InputFiles, signal: AbortSignal): Promise<PlanAnswer>
  /** Aborting stops the reporting; what was begun goes on and the caller is told so. */
  apply(files: InputFiles, signal: AbortSignal): AsyncIterable<ApplyEvent>
  /** Restart a deployment (`deepseek-r1`) or a replica (`deepseek-r1/0`) as whole groups. */
  restart(target: string): Promise<readonly string[]>
  /** Stop what was deployed: one deployment, or everything when null. Drains first. */
  destroy(target: string | null): Promise<readonly string[]>
  logs(
    ask: { target: string; rank: number; lines: number; follow: boolean },
    signal: AbortSignal,
  ): AsyncIterable<string>
  /** Throws not_found (no such rank runs), invalid_request (a real engine is meant). */
  rehearseFault(ask: FaultAsk, signal: AbortSignal): Promise<readonly FaultAnswer[]>
  keys(): readonly KeyView[]
  createKey(ask: KeyRequest): CreatedKey
  /** Throws not_found. */
  revokeKey(id: string): KeyView
  /** Prometheus text. */
  metrics(): Promise<string>
  /** The role of a presented key, or null. */
  roleOf(key: string): KeyRole | null
  /** True once the store is open, the gateway listens and the first observation was made. */
  ready(): boolean
}
