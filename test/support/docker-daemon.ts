/** One real dockerd on loopback, with everything it keeps in a directory of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
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

/** Starts dockerd and waits until it answers on its own control socket. */
export const startDaemon = async (ask: DaemonAsk): Promise<Daemon> => {
  const daemon = new Daemon(ask)
  await daemon.start()
  return daemon
}

export class Daemon {
  readonly directory: string
  readonly docker: Docker
  readonly #ask: DaemonAsk
  #child: ChildProcess | null = null

  constructor(ask: DaemonAsk) {
    this.#ask = ask
    this.directory = ask.directory
    this.docker = new Docker({ socketPath: join(ask.directory, 's'), host: '' })
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Also again after `kill`, on the same data. Detached: it outlives a test that crashes. */
  async start(): Promise<void> {
    const { directory, gpus } = this.#ask
    mkdirSync(directory, { recursive: true })
    const hook = gpus ? [await stubHook(directory)] : []
    const path = [...hook, process.env.PATH, ...PATH_SBIN].join(delimiter)
    const log = openSync(join(directory, 'dockerd.log'), 'a')
    const child = spawn(findOnPath('dockerd') ?? 'dockerd', flags(this.#ask), {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, PATH: path },
    })
    closeSync(log)
    child.unref()
    this.#child = child
    await waitFor(`dockerd in ${directory}`, START_MS, async () => {
      if (child.exitCode !== null) throw new Error(logOf(directory))
      return await this.docker.ping().then(
        () => true,
        () => false,
      )
    })
  }

  /** kill -9; the data stays, and so do the containers until a daemon takes them over. */
  async kill(): Promise<void> {
    const { pid } = this
    process.kill(pid, 'SIGKILL')
    await waitFor('dockerd to die', STOP_MS, async () => !alive(pid))
    // Its containerd dies with it, but where process 1 reaps nobody it stays a zombie, which the
    // next dockerd takes for one that still runs.
    await rm(join(this.directory, 'e', 'containerd', 'containerd.pid'), { force: true })
  }

  /** Stops the daemon and its containers, and removes the directory. */
  stop(): Promise<void> {
    return stopDaemon(this.directory, this.pid)
  }
}

const flags = ({ directory, hosts, options }: DaemonAsk): readonly string[] => [
  ...['-H', `unix://${join(directory, 's')}`, ...hosts.flatMap((host) => ['-H', host])],
  ...['--data-root', join(directory, 'd'), '--exec-root', join(directory, 'e')],
  ...['--pidfile', join(directory, 'pid'), '--bridge', 'none', '--iptables=false'],
  ...(options ?? []),
]

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
  if (pid > 0 && alive(pid)) process.kill(pid, 'SIGTERM')
  await waitFor('dockerd to stop', STOP_MS, async () => !alive(pid))
  await sweep(directory)
  await rm(directory, { recursive: true, force: true, maxRetries: 5 })
}

/** What a killed daemon leaves: containerd, shims and their containers, mounts. */
const sweep = async (directory: string): Promise<void> => {
  const uses = (pid: string): boolean => textOf(`/proc/${pid}/cmdline`).includes(`${directory}/`)
  const shims = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && uses(name))
  const children = shims.flatMap((pid) =>
    textOf(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean),
  )
  for (const pid of [...shims, ...children].map(Number)) {
    if (alive(pid)) process.kill(pid, 'SIGKILL')
  }
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n')
  for (const path of mounts.map((line) => line.split(' ')[1] ?? '').reverse()) {
    if (path.startsWith(`${directory}/`)) spawnSync('umount', ['-l', path])
  }
}

const textOf = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // the process is gone
  }
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
