/** Starting, judging and ending one run of the process driver; all by what /proc and files say. */
import { spawn } from 'node:child_process'
import { open } from 'node:fs/promises'
import { systemClock } from '../clock.ts'
import type { Container } from '../core/observed.ts'
import { PenstockError } from '../errors.ts'
import { RUN_MARK } from './environment.ts'
import { bootId, isAlive, processesOf, readEnvironment, readProcess } from './proc.ts'
import type { OwnRun, Run, RunFiles } from './runfile.ts'
import { WRAPPER } from './wrapper.ts'

const POLL_MS = 40
/** A killed process is gone at once, unless it hangs in a device driver (state D). */
const KILL_WAIT_MS = 15_000

const markOf = (run: Run): string => `${RUN_MARK}=${run.run}`

/** Spawns the wrapper with the rank's log as its output; it is nobody's child once we die. */
export const launch = async (
  run: Run,
  files: RunFiles,
  environment: Record<string, string>,
  directory: string,
): Promise<Run['leader']> => {
  const log = await open(files.logPath(run.name), 'a', 0o600)
  try {
    const child = spawn('/bin/sh', ['-c', WRAPPER, run.name, files.exitPath(run), ...run.command], {
      cwd: directory,
      detached: true,
      env: { ...environment, [RUN_MARK]: run.run },
      stdio: ['ignore', log.fd, log.fd],
    })
    const pid = await new Promise<number>((resolve, reject) => {
      child.once('error', reject)
      child.once('spawn', () => resolve(child.pid ?? 0))
    })
    child.unref()
    const process = await readProcess(pid)
    return { pid, startTicks: process?.startTicks ?? 0 }
  } finally {
    await log.close()
  }
}

/**
 * The run's leader, alive. A run whose starter died between spawn and writing has none on file:
 * then it is looked for by its mark.
 */
const liveLeader = async (run: Run): Promise<Run['leader']> => {
  if (run.bootId !== (await bootId())) return null
  if (run.leader !== null) {
    const found = await readProcess(run.leader.pid)
    const same = isAlive(found) && found.startTicks === run.leader.startTicks
    return same ? run.leader : null
  }
  const marked = await processesOf({ mark: markOf(run), leader: null })
  const leader = marked.find((process) => process.pid === process.session)
  return leader === undefined ? null : { pid: leader.pid, startTicks: leader.startTicks }
}

export const stateOf = async (run: OwnRun, files: RunFiles): Promise<Container> => {
  const { name, own: labels, startedAtMs } = run
  const base = { name, labels, startedAtMs, exitCode: null, error: null }
  // The leader is asked first: if it ends in between, the exit file is there by then.
  const leader = await liveLeader(run)
  const exitCode = await files.exitCode(run)
  if (exitCode !== null) {
    const error = exitCode > 128 ? `ended by signal ${exitCode - 128}` : null
    return { ...base, state: 'exited', exitCode, error }
  }
  if (leader !== null) return { ...base, state: 'running' }
  if (run.leader === null) return { ...base, state: 'created' }
  const error =
    run.bootId === (await bootId())
      ? 'ended without an exit code: it and its wrapper were killed'
      : 'the machine was restarted'
  return { ...base, state: 'exited', error }
}

/** SIGTERM to the engine, then SIGKILL to all of the run; returns when all of it is gone. */
export const terminate = async (
  run: OwnRun,
  graceMs: number,
  files: RunFiles,
  signal: AbortSignal,
): Promise<void> => {
  const leader = await liveLeader(run)
  if (leader !== null && (await files.exitCode(run)) === null && graceMs > 0) {
    send(leader.pid, 'SIGTERM')
    const deadlineMs = systemClock.monotonic() + graceMs
    while (systemClock.monotonic() < deadlineMs && (await liveLeader(run)) !== null) {
      await systemClock.sleep(POLL_MS, signal)
    }
  }
  await killAll(run)
}

const killAll = async (run: OwnRun): Promise<void> => {
  if (run.bootId !== (await bootId())) return
  const mark = { mark: markOf(run), leader: run.leader ?? (await liveLeader(run)) }
  const deadlineMs = systemClock.monotonic() + KILL_WAIT_MS
  let left = await processesOf(mark)
  while (left.length > 0) {
    for (const process of left) send(process.pid, 'SIGKILL')
    if (systemClock.monotonic() > deadlineMs) {
      const pids = left.map((process) => process.pid).join(', ')
      const message = `${run.name} does not die: process ${pids} (uninterruptible; see dmesg)`
      throw new PenstockError('container_refused', message, placeOf(run))
    }
    await systemClock.sleep(POLL_MS)
    left = await processesOf(mark)
  }
}

/** The environment of a live run, as its wrapper was started with; null when it does not run. */
export const environmentOf = async (run: Run): Promise<Record<string, string> | null> => {
  const leader = await liveLeader(run)
  return leader === null ? null : await readEnvironment(leader.pid)
}

export const placeOf = (run: OwnRun): { node: string; replica: string; rank: number } => ({
  node: run.own.node,
  replica: `${run.own.deployment}-${run.own.replica}`,
  rank: run.own.rank,
})

const send = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch (error) {
    // ESRCH: it ended meanwhile, which is what we want.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
