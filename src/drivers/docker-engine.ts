/** One Docker engine: connected when first needed, each call with a deadline and a clear error. */
import { Readable } from 'node:stream'
import type Docker from 'dockerode'
import { systemClock } from '../clock.ts'
import type { NodeSpec } from '../core/inventory.ts'
import { PenstockError } from '../errors.ts'
import { connectDocker, type DockerClient } from './docker-client.ts'
import { type DockerAsk, explain, statusOf } from './docker-errors.ts'
import { bytesOf } from './docker-pull.ts'
import { lastLines } from './docker-stream.ts'

export type Info = Docker.ContainerInspectInfo
export type Work<T> = (docker: Docker, abortSignal: AbortSignal) => Promise<T>

/** Listing and inspecting answer in milliseconds; a daemon that takes this long hangs. */
export const CALL_MS = 10_000
/** Beyond the grace: Docker itself waits 10 s for a SIGKILL to work. */
const KILL_MS = 30_000
const REMOVE_MS = 60_000
const POLL_MS = 100

export class DockerEngine {
  readonly #node: NodeSpec
  readonly #sshCommand: readonly string[]
  #client: Promise<DockerClient> | null = null

  constructor(node: NodeSpec, sshCommand: readonly string[]) {
    this.#node = node
    this.#sshCommand = sshCommand
  }

  /** The place and endpoint that an error names when nothing more is known. */
  get ask(): DockerAsk {
    return { endpoint: this.#node.docker, place: { node: this.#node.name } }
  }

  async connect(): Promise<Docker> {
    // A failed attempt (a missing PEM file) is tried again: the operator may have put it there.
    this.#client ??= connectDocker(this.#node, this.#sshCommand).catch((error: unknown) => {
      this.#client = null
      throw error
    })
    return (await this.#client).docker
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => null)
    this.#client = null
    client?.close()
  }

  /** Failures come out explained, an abort as its own reason, a deadline as node_unreachable. */
  async call<T>(signal: AbortSignal, limitMs: number, work: Work<T>): Promise<T> {
    signal.throwIfAborted()
    const limit = AbortSignal.timeout(limitMs)
    const both = AbortSignal.any([signal, limit])
    try {
      return await orAborted(work(await this.connect(), both), both)
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (!limit.aborted) throw explain(error, this.ask)
      const message = `Docker at ${this.#node.docker} did not answer within ${limitMs / 1000} s`
      throw new PenstockError('node_unreachable', message, { node: this.#node.name }, error)
    }
  }

  async get(path: string, signal: AbortSignal): Promise<unknown> {
    return await this.call(signal, CALL_MS, (docker, abortSignal) =>
      dial(docker, path, abortSignal),
    )
  }

  async hasImage(image: string, signal: AbortSignal): Promise<boolean> {
    return await this.call(signal, CALL_MS, async (docker, abortSignal) => {
      return (await dial(docker, `/images/${image}/json`, abortSignal).catch(noneOn404)) !== null
    })
  }

  /** Null when there is none; `id` may be a name. */
  async inspect(id: string, signal: AbortSignal): Promise<Info | null> {
    return await this.call(signal, CALL_MS, async (docker, abortSignal) => {
      return await docker.getContainer(id).inspect({ abortSignal }).catch(noneOn404)
    })
  }

  /** The last lines of a container's output. */
  async tail(id: string, lines: number, signal: AbortSignal): Promise<string> {
    return await this.call(signal, CALL_MS, async (docker, abortSignal) => {
      return await lastLines(
        await logBytes(docker, { id, lines, follow: false }, abortSignal),
        lines,
      )
    })
  }

  /** SIGTERM, after the grace SIGKILL, then removed. Fine when it is gone already. */
  async end(info: Info, graceMs: number, signal: AbortSignal): Promise<void> {
    if (info.State.Running && graceMs > 0) {
      const t = Math.ceil(graceMs / 1000)
      await this.call(signal, t * 1000 + KILL_MS, async (docker, abortSignal) => {
        await docker.getContainer(info.Id).stop({ t, abortSignal }).catch(ignore(304, 404))
      })
    }
    await this.remove(info.Id)
  }

  /** By id, so that a successor of the same name is safe; returns when it is gone. */
  async remove(id: string): Promise<void> {
    const limit = AbortSignal.timeout(REMOVE_MS)
    await this.call(limit, REMOVE_MS, async (docker, abortSignal) => {
      const options = { force: true, v: true, abortSignal }
      // 409: somebody else's removal is in progress.
      await docker.getContainer(id).remove(options).catch(ignore(404, 409))
    })
    while ((await this.inspect(id, limit)) !== null) await systemClock.sleep(POLL_MS, limit)
  }
}

export type LogAsk = { readonly id: string; readonly lines: number; readonly follow: boolean }

/** Always as a stream: dockerode would read a log that is not followed into memory whole. */
export const logBytes = async (
  docker: Docker,
  ask: LogAsk,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> => {
  const query = `follow=${ask.follow}&stdout=true&stderr=true&tail=${ask.lines}`
  const answer = await dial(docker, `/containers/${ask.id}/logs?${query}&`, signal, true)
  if (!(answer instanceof Readable)) throw new Error('no stream came back from the log')
  return bytesOf(answer, signal)
}

/** A GET that dockerode's own methods do not offer with a signal or as a stream. */
const dial = (
  docker: Docker,
  path: string,
  abortSignal: AbortSignal,
  isStream = false,
): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const statusCodes = { 200: true, 404: 'not found', 500: 'server error' }
    docker.modem.dial({ path, method: 'GET', abortSignal, isStream, statusCodes }, (error, data) =>
      error === null || error === undefined ? resolve(data) : reject(error),
    )
  })

/** docker-modem never settles when the daemon dies in the middle of an answer; this does. */
export const orAborted = async <T>(work: Promise<T>, signal: AbortSignal): Promise<T> => {
  const aborted = Promise.withResolvers<never>()
  const abort = (): void => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Statuses that mean: it is so already. */
export const ignore =
  (...statuses: readonly number[]) =>
  (error: unknown): void => {
    if (!statuses.includes(statusOf(error) ?? 0)) throw error
  }

const noneOn404 = (error: unknown): null => {
  if (statusOf(error) !== 404) throw error
  return null
}
