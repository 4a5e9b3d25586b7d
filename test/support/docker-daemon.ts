/** One real dockerd on loopback, with everything it keeps in a directory of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { chmod, rm } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import Docker from 'dockerode'
import { systemClock } from '../../src/clock.ts'

export type DaemonAsk = {
  /** Data, sockets and logs; kept short, a unix socket's path holds 107 bytes. */
  readonly directory: string
  /** `tcp://127.0.0.2:2375` and the like; several are possible. */
  readonly hosts: readonly string[]
  /** For instance `--tlsverify --tlscacert=…`. */
  readonly options?: readonly string[]
  /** Make GPU device requests acceptable on a machine without a GPU (stub hook). */
  readonly gpus?: boolean
}

export type Daemon = {
  readonly directory: string
  readonly docker: Docker
  readonly pid: number
  /** kill -9, the data stays: `start` again on the same directory adopts it. */
  kill(): Promise<void>
  /** Stops the daemon and its containers, and removes the directory. */
  stop(): Promise<void>
}

const PATH_SBIN = ['/usr/local/sbin', '/usr/sbin', '/sbin']
const START_MS = 60_000
const STOP_MS = 30_000

export const findOnPath = (program: string): string | null =>
  [...(process.env.PATH ?? '').split(delimiter), ...PATH_SBIN]
    .map((directory) => join(directory, program))
    .find((path) => existsSync(path)) ?? null

/**
 * An executable of this name on the daemon's PATH registers the `nvidia` device driver; it exits 0
 * as a hook that has nothing to mount. The engine then sets NVIDIA_VISIBLE_DEVICES itself.
 */
const stubHook = async (directory: string): Promise<string> => {
  const bin = join(directory, 'bin')
  mkdirSync(bin, { recursive: true })
  const hook = join(bin, 'nvidia-container-runtime-hook')
  writeFileSync(hook, '#!/bin/sh\nexit 0\n')
  await chmod(hook, 0o755)
  return bin
}

/** Starts dockerd detached, waits until it answers on its own control socket. */
export const startDaemon = async (ask: DaemonAsk): Promise<Daemon> => {
  const { directory } = ask
  mkdirSync(directory, { recursive: true })
  const path = [...(ask.gpus ? [await stubHook(directory)] : []), process.env.PATH, ...PATH_SBIN]
  const log = openSync(join(directory, 'dockerd.log'), 'a')
  const socket = join(directory, 's')
  const child = spawn(
    findOnPath('dockerd') ?? 'dockerd',
    [
      ...['-H', `unix://${socket}`, ...ask.hosts.flatMap((host) => ['-H', host])],
      ...['--data-root', join(directory, 'd'), '--exec-root', join(directory, 'e')],
      ...['--pidfile', join(directory, 'pid'), '--bridge', 'none', '--iptables=false'],
      ...(ask.options ?? []),
    ],
    {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, PATH: path.join(delimiter) },
    },
  )
  closeSync(log)
  child.unref()
  const docker = new Docker({ socketPath: socket, host: '' })
  await waitFor(`dockerd in ${directory}`, START_MS, async () => {
    if (child.exitCode !== null) throw new Error(logOf(directory))
    return await docker.ping().then(
      () => true,
      () => false,
    )
  })
  const pid = child.pid ?? 0
  return {
    directory,
    docker,
    pid,
    kill: () => kill(child, pid),
    stop: () => stopDaemon(directory, pid),
  }
}

const kill = async (child: ChildProcess, pid: number): Promise<void> => {
  process.kill(pid, 'SIGKILL')
  await waitFor('dockerd to die', STOP_MS, async () => child.signalCode !== null || !alive(pid))
}

/** Containers first: a daemon that stops leaves their shims to a later daemon. */
export const stopDaemon = async (directory: string, pid: number): Promise<void> => {
  const docker = new Docker({ socketPath: join(directory, 's'), host: '' })
  const containers = await docker.listContainers({ all: true }).catch(() => [])
  await Promise.all(
    containers.map((it) =>
      docker
        .getContainer(it.Id)
        .remove({ force: true })
        .catch(() => undefined),
    ),
  )
  if (alive(pid)) process.kill(pid, 'SIGTERM')
  await waitFor('dockerd to stop', STOP_MS, async () => !alive(pid))
  await rm(directory, { recursive: true, force: true, maxRetries: 5 })
}

const alive = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return !stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
  } catch {
    return false
  }
}

const logOf = (directory: string): string =>
  readFileSync(join(directory, 'dockerd.log'), 'utf8').slice(-2000)

export const waitFor = async (
  what: string,
  deadlineMs: number,
  ready: () => Promise<boolean>,
): Promise<void> => {
  const untilMs = systemClock.monotonic() + deadlineMs
  while (!(await ready())) {
    if (systemClock.monotonic() > untilMs) throw new Error(`waited in vain for ${what}`)
    await systemClock.sleep(50)
  }
}
