/**
 * Ranks as containers of one Docker engine. What runs is learned from labels; containers without
 * ours, or with damaged ones, are never touched.
 */
import { z } from 'zod'
import { systemClock } from '../clock.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Container, NodeFacts } from '../core/observed.ts'
import { LABEL, type RankSpec } from '../core/runtime.ts'
import { type ErrorPlace, PenstockError } from '../errors.ts'
import { containerOf, createOptions, labelsOf } from './docker-container.ts'
import { CALL_MS, DockerEngine, type Info, ignore, logBytes } from './docker-engine.ts'
import { type DockerAsk, explain, lacksGpuRuntime, statusOf } from './docker-errors.ts'
import { execLines } from './docker-exec.ts'
import { pull } from './docker-pull.ts'
import { logLines } from './docker-stream.ts'
import type { Driver, PullProgress } from './driver.ts'
import { EARLY_EXIT_MS, EARLY_POLL_MS, earlyExit } from './early.ts'
import { untilAborted } from './lines.ts'
import { answers } from './port.ts'

export type DockerDriverOptions = {
  /** Paths in `tls` are absolute by now. */
  readonly node: NodeSpec
  /** The flight simulator's image, `penstock/simulator:<version>`. */
  readonly simulatorImage: string
  /** Passed into containers for gated models; by default what Penstock itself was given. */
  readonly hfToken?: string | undefined
  /** How `ssh://` endpoints are reached: program and leading options, by default `ssh`. */
  readonly sshCommand?: readonly string[]
  /** A line worth logging that is no failure. */
  readonly note?: (line: string) => void
}

/** Mount, hook and runc of a busy machine; the NVIDIA hook alone can take 20 s. */
const START_MS = 120_000
/** Another Penstock that starts the same name wins each of these at most once. */
const TRIES_MAX = 5

/** The part of `GET /info` (Engine API, SystemInfo) that we show. */
const InfoSchema = z.object({
  ServerVersion: z.string(),
  Name: z.string(),
  NCPU: z.number(),
  MemTotal: z.number(),
})

export const dockerDriver = (options: DockerDriverOptions): Driver => new DockerDriver(options)

type StartAsk = {
  readonly spec: RankSpec
  readonly signal: AbortSignal
  readonly progress: (progress: PullProgress) => void
}

class DockerDriver implements Driver {
  readonly name = 'docker'
  readonly node: string
  readonly visibleGpus: 'host' | 'rank'
  readonly #options: DockerDriverOptions
  readonly #engine: DockerEngine
  #gpuRequests = true

  constructor(options: DockerDriverOptions) {
    this.#options = options
    this.#engine = new DockerEngine(options.node, options.sshCommand ?? ['ssh'])
    this.node = options.node.name
    // A privileged container sees every device of the machine, whatever it asked for.
    const { privileged } = options.node.container
    this.visibleGpus = privileged && !options.node.rehearse ? 'host' : 'rank'
  }

  async facts(signal: AbortSignal): Promise<NodeFacts> {
    const info = InfoSchema.safeParse(await this.#engine.get('/info', signal))
    if (!info.success) {
      const message = `what answers at ${this.#options.node.docker} is not a Docker engine`
      throw new PenstockError('node_unreachable', message, { node: this.node })
    }
    const { ServerVersion, Name: hostname, NCPU: cpus, MemTotal: memoryBytes } = info.data
    return { engine: `Docker Engine ${ServerVersion}`, hostname, cpus, memoryBytes }
  }

  async list(signal: AbortSignal): Promise<readonly Container[]> {
    const label = [`${LABEL.managed}=true`, `${LABEL.node}=${this.node}`]
    const found = await this.#engine.call(signal, CALL_MS, (docker, abortSignal) =>
      docker.listContainers({ all: true, filters: { label }, abortSignal }),
    )
    // The listing has no exit code and no start time. A handful a node, so all at once.
    const infos = await Promise.all(found.map((it) => this.#engine.inspect(it.Id, signal)))
    return infos
      .map((info) => (info === null ? null : containerOf(info)))
      .filter((container) => container !== null)
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  async hasImage(spec: RankSpec, signal: AbortSignal): Promise<boolean> {
    return await this.#engine.hasImage(this.#image(spec), signal)
  }

  async start(
    spec: RankSpec,
    signal: AbortSignal,
    progress?: (progress: PullProgress) => void,
  ): Promise<void> {
    const ask = { spec, signal, progress: progress ?? (() => undefined) }
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      if (await this.#tryStart(ask)) return
    }
    const message = `another Penstock keeps changing ${spec.name}; stop one of them`
    throw new PenstockError('conflict', message, this.#place(spec))
  }

  async stop(name: string, graceMs: number, signal: AbortSignal): Promise<void> {
    const info = await this.#engine.inspect(name, signal)
    if (info === null || info.Name !== `/${name}`) return
    this.#requireOwn(info, name)
    await this.#engine.end(info, graceMs, signal)
  }

  async logs(name: string, lines: number, signal: AbortSignal): Promise<string> {
    const info = await this.#require(name, signal)
    return await this.#engine.tail(info.Id, lines, signal)
  }

  async *follow(name: string, lines: number, signal: AbortSignal): AsyncGenerator<string> {
    const info = await this.#require(name, signal)
    try {
      const docker = await this.#engine.connect()
      const bytes = await logBytes(docker, { id: info.Id, lines, follow: true }, signal)
      yield* untilAborted(logLines(bytes), signal)
    } catch (error) {
      if (!signal.aborted) throw explain(error, this.#engine.ask)
    }
  }

  async *exec(
    name: string,
    command: readonly string[],
    signal: AbortSignal,
  ): AsyncGenerator<string> {
    const info = await this.#require(name, signal)
    if (!info.State.Running) {
      throw new PenstockError('not_running', `${name} does not run`, { node: this.node })
    }
    const docker = await this.#engine.connect()
    yield* execLines(
      { ...this.#engine.ask, container: docker.getContainer(info.Id), command },
      signal,
    )
  }

  async close(): Promise<void> {
    await this.#engine.close()
  }

  /** False: somebody else changed the name under us; look again. */
  async #tryStart(ask: StartAsk): Promise<boolean> {
    const { spec, signal } = ask
    const info = await this.#engine.inspect(spec.name, signal)
    if (info !== null) {
      const same = this.#requireOwn(info, spec.name) === spec.labels.specHash
      if (same && info.State.Running) return true
      // Created and never started: by a Penstock that died in between, or is about to start it.
      if (same && info.State.Status === 'created') return await this.#run(ask, info.Id, false)
      await this.#engine.end(info, info.State.Running ? spec.stopGraceMs : 0, signal)
    }
    await this.#requireImage(ask)
    await this.#requirePort(spec, signal)
    ask.progress({ phase: 'start', ratio: null })
    const id = await this.#create(ask)
    return id !== null && (await this.#run(ask, id, true))
  }

  /** Null when the name was taken meanwhile. Not abortable, so that an abort leaves no orphan. */
  async #create({ spec, signal }: StartAsk): Promise<string | null> {
    signal.throwIfAborted()
    const options = createOptions({
      spec,
      image: this.#image(spec),
      gpuRequests: this.#gpuRequests || spec.rehearsal === null,
      hfToken: 'hfToken' in this.#options ? this.#options.hfToken : process.env.HF_TOKEN,
    })
    const never = new AbortController().signal
    try {
      return await this.#engine.call(never, CALL_MS, async (docker, abortSignal) => {
        return (await docker.createContainer({ ...options, abortSignal })).id
      })
    } catch (error) {
      const cause = error instanceof PenstockError ? error.cause : error
      if (statusOf(cause) === 409) return null
      throw this.#placed(error, spec)
    }
  }

  /** Starts a created container; whatever goes wrong, ours does not stay behind half-started. */
  async #run(ask: StartAsk, id: string, ours: boolean): Promise<boolean> {
    const { spec, signal } = ask
    try {
      await this.#engine.call(signal, START_MS, async (docker, abortSignal) => {
        await docker.getContainer(id).start({ abortSignal }).catch(ignore(304))
      })
      await this.#watch(spec, id, signal)
      return true
    } catch (error) {
      const cause = error instanceof PenstockError ? error.cause : error
      const ended = error instanceof PenstockError && cause === undefined
      // An engine that ended by itself stays, for its log and its exit code.
      if (signal.aborted ? ours : !ended) await this.#engine.remove(id)
      if (vanished(cause) && !signal.aborted) return false
      if (spec.rehearsal !== null && this.#gpuRequests && lacksGpuRuntime(cause)) {
        this.#gpuRequests = false
        this.#options.note?.(
          `node ${this.node}: no NVIDIA runtime; rehearsing without GPU requests`,
        )
        return false
      }
      throw this.#placed(error, spec)
    }
  }

  async #watch(spec: RankSpec, id: string, signal: AbortSignal): Promise<void> {
    const untilMs = systemClock.monotonic() + EARLY_EXIT_MS
    while (systemClock.monotonic() < untilMs) {
      const info = await this.#engine.inspect(id, signal)
      if (info === null) return
      if (!info.State.Running) {
        const log = await this.#engine.tail(id, 50, signal)
        const program = spec.command[0] ?? ''
        const exitCode = info.State.ExitCode
        throw earlyExit({ program, exitCode, log, place: this.#place(spec) })
      }
      await systemClock.sleep(EARLY_POLL_MS, signal)
    }
  }

  async #requireImage({ spec, signal, progress }: StartAsk): Promise<void> {
    const image = this.#image(spec)
    if (await this.hasImage(spec, signal)) return
    if (spec.rehearsal !== null) {
      const message = `image ${image} is not on this node; run \`penstock simulator-image\``
      throw new PenstockError('image_missing', message, this.#place(spec))
    }
    progress({ phase: 'pull', ratio: null })
    const docker = await this.#engine.connect()
    const report = (ratio: number | null): void => progress({ phase: 'pull', ratio })
    await pull({ ...this.#ask(spec), docker, image, signal, progress: report })
  }

  /** The host's network is the container's, and only rank 0 serves HTTP. */
  async #requirePort(spec: RankSpec, signal: AbortSignal): Promise<void> {
    const { rank, port } = spec.labels
    const address = this.#options.node.listen ?? this.#options.node.address
    if (rank !== 0 || !(await answers(address, port, signal))) return
    const hint = "see `ss -ltnp` there, or change the node's ports"
    const message = `port ${port} at ${address} is taken by another program; ${hint}`
    throw new PenstockError('port_taken', message, this.#place(spec))
  }

  async #require(name: string, signal: AbortSignal): Promise<Info> {
    const info = await this.#engine.inspect(name, signal)
    if (info === null || info.Name !== `/${name}` || labelsOf(info) === null) {
      throw new PenstockError('not_found', `nothing named ${name} here`, { node: this.node })
    }
    return info
  }

  /** The spec hash of our container; somebody else's under our name is an error. */
  #requireOwn(info: Info, name: string): string {
    const labels = labelsOf(info)
    if (labels !== null) return labels.specHash
    const message = `a container named ${name} exists that is not ours; remove or rename it`
    throw new PenstockError('conflict', message, { node: this.node })
  }

  #image(spec: RankSpec): string {
    return spec.rehearsal === null ? spec.image : this.#options.simulatorImage
  }

  #ask(spec: RankSpec): DockerAsk {
    return { ...this.#engine.ask, place: this.#place(spec), image: this.#image(spec) }
  }

  #place(spec: RankSpec): ErrorPlace {
    const { deployment, replica, rank } = spec.labels
    return { node: this.node, replica: `${deployment}-${replica}`, rank }
  }

  /** An error of a call that did not know its rank, told again with rank and image. */
  #placed(error: unknown, spec: RankSpec): unknown {
    if (!(error instanceof PenstockError) || error.place.rank !== undefined) return error
    return error.cause === undefined
      ? new PenstockError(error.code, error.message, this.#place(spec))
      : explain(error.cause, this.#ask(spec))
  }
}

/** Somebody removed the container between our create and our start. */
const vanished = (error: unknown): boolean =>
  statusOf(error) === 404 && error instanceof Error && / - No such container/.test(error.message)
