/**
 * Ranks as processes on this machine: for a rehearsal without a GPU or Docker, and for engines
 * that are installed on the machine itself. They outlive Penstock; files say what runs.
 */
import { randomUUID } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { availableParallelism, hostname, totalmem } from 'node:os'
import { resolve } from 'node:path'
import { systemClock } from '../clock.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Container, NodeFacts } from '../core/observed.ts'
import { labelsToRecord, type RankSpec } from '../core/runtime.ts'
import { type ErrorPlace, PenstockError } from '../errors.ts'
import type { Driver, PullProgress } from './driver.ts'
import { EARLY_EXIT_MS, EARLY_POLL_MS, earlyExit } from './early.ts'
import { findProgram, rankEnvironment, type Variables } from './environment.ts'
import { untilAborted } from './lines.ts'
import { locked } from './lock.ts'
import { bound, followFile, readTail, rotate } from './logfile.ts'
import { bootId, listenerOn } from './proc.ts'
import { execLines } from './process-exec.ts'
import { type OwnRun, type Run, RunFiles } from './runfile.ts'
import { environmentOf, launch, placeOf, stateOf, terminate } from './supervise.ts'

export type ProcessDriverOptions = {
  readonly node: NodeSpec
  /** PENSTOCK_HOME; holds run/ and logs/. */
  readonly home: string
  /** Directory of the flight simulator's `vllm`, `python3` and `nvidia-smi`. */
  readonly simulatorBin: string
  /** What ranks inherit from, by default this process. */
  readonly environment?: Variables
}

export const processDriver = (options: ProcessDriverOptions): Driver => new ProcessDriver(options)

class ProcessDriver implements Driver {
  readonly name = 'process'
  readonly node: string
  readonly visibleGpus: 'host' | 'rank'
  readonly #options: ProcessDriverOptions
  readonly #home: string
  readonly #simulatorBin: string
  readonly #files: RunFiles

  constructor(options: ProcessDriverOptions) {
    this.#options = options
    this.node = options.node.name
    // The real nvidia-smi ignores CUDA_VISIBLE_DEVICES; the simulator's shows the rank's own.
    this.visibleGpus = options.node.rehearse ? 'rank' : 'host'
    this.#home = resolve(options.home)
    this.#simulatorBin = resolve(options.simulatorBin)
    this.#files = new RunFiles(this.#home)
  }

  async facts(signal: AbortSignal): Promise<NodeFacts> {
    signal.throwIfAborted()
    if (process.platform !== 'linux') {
      const message = `the process driver needs Linux (/proc), this is ${process.platform}`
      throw new PenstockError('node_unreachable', message, { node: this.node })
    }
    return {
      engine: 'process',
      hostname: hostname(),
      cpus: availableParallelism(),
      memoryBytes: totalmem(),
    }
  }

  async list(signal: AbortSignal): Promise<readonly Container[]> {
    signal.throwIfAborted()
    const runs = (await this.#files.all()).filter((run) => run.own.node === this.node)
    await Promise.all(runs.map((run) => bound(this.#files.logPath(run.name))))
    return await Promise.all(runs.map((run) => stateOf(run, this.#files)))
  }

  async hasImage(spec: RankSpec, signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted()
    return (await this.#program(spec, this.#environment(spec))) !== null
  }

  async start(
    spec: RankSpec,
    signal: AbortSignal,
    progress?: (progress: PullProgress) => void,
  ): Promise<void> {
    signal.throwIfAborted()
    await this.#files.prepare()
    await this.#locked(spec.name, signal, async () => {
      if (await this.#clear(spec, signal)) return
      const environment = this.#environment(spec)
      const program = await this.#program(spec, environment)
      if (program === null) throw this.#missing(spec)
      await this.#requirePort(spec)
      signal.throwIfAborted()
      progress?.({ phase: 'start', ratio: null })
      const run = await this.#begin(spec, program, environment)
      await this.#watch(run, spec, signal)
    })
  }

  async stop(name: string, graceMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#files.prepare()
    await this.#locked(name, signal, async () => {
      const run = await this.#files.read(name)
      if (run === 'foreign') throw this.#foreign(name)
      if (run === null || run.own.node !== this.node) return
      await terminate(run, graceMs, this.#files, signal)
      await this.#files.remove(name)
    })
  }

  async logs(name: string, lines: number, signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    await this.#require(name)
    return (await readTail(this.#files.logPath(name), lines)).text
  }

  async *follow(name: string, lines: number, signal: AbortSignal): AsyncGenerator<string> {
    const run = await this.#require(name)
    const ended = async (): Promise<boolean> => {
      const now = await this.#files.read(name)
      if (now === null || now === 'foreign' || now.run !== run.run) return true
      return (await stateOf(now, this.#files)).state === 'exited'
    }
    const followed = followFile(this.#files.logPath(name), lines, signal, ended)
    yield* untilAborted(followed, signal)
  }

  async *exec(
    name: string,
    command: readonly string[],
    signal: AbortSignal,
  ): AsyncGenerator<string> {
    const run = await this.#require(name)
    const environment = await environmentOf(run)
    if (environment === null) {
      throw new PenstockError('not_running', `${name} does not run`, placeOf(run))
    }
    const [program = ''] = command
    const found = await findProgram(program, environment.PATH ?? '')
    if (found === null) {
      const message = `program ${program} not found on PATH`
      throw new PenstockError('exec_failed', message, placeOf(run))
    }
    const whole = [found, ...command.slice(1)]
    const ask = { command: whole, environment, directory: this.#home, node: this.node }
    yield* execLines(ask, signal)
  }

  async close(): Promise<void> {
    // Nothing is held: no timer, no socket, no child of ours.
  }

  /** True when the very same rank runs already; otherwise nothing of this name is left. */
  async #clear(spec: RankSpec, signal: AbortSignal): Promise<boolean> {
    const run = await this.#files.read(spec.name)
    if (run === null) return false
    if (run === 'foreign') throw this.#foreign(spec.name)
    if (run.own.node !== this.node) {
      const message = `${spec.name} still runs on node ${run.own.node}; stop it there first`
      throw new PenstockError('conflict', message, this.#place(spec))
    }
    const running = (await stateOf(run, this.#files)).state === 'running'
    if (running && run.own.specHash === spec.labels.specHash) return true
    await terminate(run, running ? spec.stopGraceMs : 0, this.#files, signal)
    await this.#files.remove(spec.name)
    return false
  }

  /** The file is written first and completed after: dying in between loses nothing (liveLeader). */
  async #begin(
    spec: RankSpec,
    program: string,
    environment: Record<string, string>,
  ): Promise<OwnRun> {
    const run: Run = {
      version: 1,
      name: spec.name,
      run: randomUUID(),
      labels: labelsToRecord(spec.labels),
      command: [program, ...spec.command.slice(1)],
      environment: Object.keys(environment).sort(),
      bootId: await bootId(),
      leader: null,
      startedAtMs: systemClock.now(),
    }
    await rotate(this.#files.logPath(spec.name))
    await this.#files.write(run)
    const leader = await launch(run, this.#files, environment, this.#home)
    await this.#files.write({ ...run, leader })
    return { ...run, leader, own: spec.labels }
  }

  /** Fails when the engine ends at once; an abort ends it, so that nothing half-started stays. */
  async #watch(run: OwnRun, spec: RankSpec, signal: AbortSignal): Promise<void> {
    const untilMs = systemClock.monotonic() + EARLY_EXIT_MS
    while (systemClock.monotonic() < untilMs) {
      if (signal.aborted) {
        await terminate(run, 0, this.#files, AbortSignal.timeout(EARLY_EXIT_MS))
        await this.#files.remove(run.name)
        signal.throwIfAborted()
      }
      const { state, exitCode } = await stateOf(run, this.#files)
      if (state === 'exited') {
        const { text: log } = await readTail(this.#files.logPath(run.name), 50)
        const program = spec.command[0] ?? ''
        throw earlyExit({ program, exitCode, log, place: this.#place(spec) })
      }
      await systemClock.sleep(EARLY_POLL_MS)
    }
  }

  /** Only rank 0 serves HTTP; the other ranks carry its port as a label. */
  async #requirePort(spec: RankSpec): Promise<void> {
    if (spec.labels.rank !== 0) return
    const { port } = spec.labels
    const name = this.#options.node.listen ?? this.#options.node.address
    const { address } = await lookup(name).catch(() => ({ address: '0.0.0.0' }))
    const taken = await listenerOn(address, port)
    if (taken === null) return
    const { pid, program } = taken
    const who = pid === null ? "another user's process" : `process ${pid} (${program ?? '?'})`
    const hint = "stop it, or change the node's ports"
    const message = `port ${port} at ${name} is taken by ${who}; ${hint}`
    throw new PenstockError('port_taken', message, this.#place(spec))
  }

  async #require(name: string): Promise<OwnRun> {
    const run = await this.#files.read(name)
    if (run === 'foreign') throw this.#foreign(name)
    if (run === null || run.own.node !== this.node) {
      throw new PenstockError('not_found', `nothing named ${name} here`, { node: this.node })
    }
    return run
  }

  #locked(name: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    return locked(this.#files.path(name), signal, work)
  }

  #environment(spec: RankSpec): Record<string, string> {
    return rankEnvironment(spec, this.#options.environment ?? process.env, this.#simulatorBin)
  }

  #program(spec: RankSpec, environment: Record<string, string>): Promise<string | null> {
    return findProgram(spec.command[0] ?? '', environment.PATH ?? '')
  }

  #missing(spec: RankSpec): PenstockError {
    const message =
      `program ${spec.command[0]} not found on PATH; install it on this machine, ` +
      'use the docker driver, or set `rehearse: true` on the node'
    return new PenstockError('image_missing', message, this.#place(spec))
  }

  #foreign(name: string): PenstockError {
    const message = `${this.#files.path(name)} is damaged; see what runs, then remove the file`
    return new PenstockError('conflict', message, { node: this.node })
  }

  #place(spec: RankSpec): ErrorPlace {
    const { deployment, replica, rank } = spec.labels
    return { node: this.node, replica: `${deployment}-${replica}`, rank }
  }
}
