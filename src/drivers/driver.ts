/**
 * Where ranks run. One driver object serves one node. Every verb is idempotent and safe to run
 * twice; failures are PenstockErrors that name node and rank in one readable line.
 */
import type { Container, NodeFacts } from '../core/observed.ts'
import type { RankSpec } from '../core/runtime.ts'

export type PullProgress = { readonly phase: 'pull' | 'start'; readonly ratio: number | null }

export type Driver = {
  readonly name: string
  readonly node: string
  /** Is the node there, and what is it? Throws node_unreachable, node_tls. */
  facts(signal: AbortSignal): Promise<NodeFacts>
  /** Our ranks on this node, by label only, running or not. */
  list(signal: AbortSignal): Promise<readonly Container[]>
  /** Is this image on the node (`process`: is the program on the PATH)? */
  hasImage(spec: RankSpec, signal: AbortSignal): Promise<boolean>
  /**
   * Start the rank; does nothing if one with this name and spec hash runs, removes a dead or
   * different one first. Throws image_missing, container_refused, port_taken, node_unreachable.
   */
  start(
    spec: RankSpec,
    signal: AbortSignal,
    progress?: (progress: PullProgress) => void,
  ): Promise<void>
  /** SIGTERM, after `graceMs` SIGKILL, then remove. Done when it is gone; absent is done. */
  stop(name: string, graceMs: number, signal: AbortSignal): Promise<void>
  /** The last `lines` of stdout and stderr together, oldest first; bounded to 1 MiB. */
  logs(name: string, lines: number, signal: AbortSignal): Promise<string>
  /** New lines as they come, until aborted or the rank ends. */
  follow(name: string, lines: number, signal: AbortSignal): AsyncIterable<string>
  /**
   * Run a program in the rank's place (its container, its environment) and yield stdout by lines
   * until it ends or `signal` aborts; the program is killed with it.
   */
  exec(name: string, command: readonly string[], signal: AbortSignal): AsyncIterable<string>
  /** Whether `exec` of nvidia-smi sees all GPUs of the machine or only those of the rank. */
  readonly visibleGpus: 'host' | 'rank'
  /** Ports of `candidates` that something listens on at `address`; unknown to drivers: empty. */
  close(): Promise<void>
}
