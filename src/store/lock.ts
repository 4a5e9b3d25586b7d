/**
 * One Penstock per home. The lock itself is the kernel's (SQLite's exclusive lock on an empty
 * file): it vanishes with its process, even by kill -9, so no lock is ever stale, no process id is
 * guessed about, and two starters cannot both win. `penstock.lock` beside it only says who has it.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { z } from 'zod'
import { PenstockError } from '../errors.ts'
import { guarded } from './failure.ts'

const Owner = z.object({ pid: z.int().positive(), startedAtMs: z.int().nonnegative() })
type Owner = z.output<typeof Owner>

const SQLITE_BUSY = 5

const isBusy = (error: unknown): boolean =>
  error instanceof Error &&
  'errcode' in error &&
  typeof error.errcode === 'number' &&
  (error.errcode & 0xff) === SQLITE_BUSY

/** Who holds this home; null when it is not written down, or what is written is of the dead. */
const lockOwner = (home: string): Owner | null => {
  try {
    const parsed = Owner.safeParse(JSON.parse(readFileSync(join(home, 'penstock.lock'), 'utf8')))
    return parsed.success && isAlive(parsed.data.pid) ? parsed.data : null
  } catch (error) {
    // Absent or half-written by a process that was killed: the owner is unknown, not the lock.
    if (error instanceof SyntaxError) return null
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
    throw error
  }
}

/** The winner of a race writes its note only after it has the lock: until then the old one lies. */
const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    // EPERM: it lives and belongs to somebody else.
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

const alreadyRunning = (home: string): PenstockError => {
  const owner = lockOwner(home)
  const who = owner === null ? 'another Penstock' : `another Penstock (pid ${owner.pid})`
  const since =
    owner === null ? '' : ` since ${new Date(owner.startedAtMs).toISOString().slice(0, 19)}Z`
  const todo = `stop it${owner === null ? '' : ` (kill ${owner.pid})`} or choose another home`
  return new PenstockError(
    'already_running',
    `${who} uses ${home}${since}: ${todo} (PENSTOCK_HOME)`,
  )
}

/** Takes the lock of `home` for this process and returns its release. Throws already_running. */
export const takeLock = (home: string, owner: Owner): (() => void) => {
  const path = join(home, 'penstock.guard')
  const note = join(home, 'penstock.lock')
  const guard = guarded(path, () => {
    writeFileSync(path, '', { flag: 'a', mode: 0o600 })
    return new DatabaseSync(path, { timeout: 0 })
  })
  try {
    guarded(path, () => guard.exec('BEGIN EXCLUSIVE'))
    guarded(note, () => writeFileSync(note, `${JSON.stringify(owner)}\n`, { mode: 0o600 }))
  } catch (error) {
    guard.close()
    const cause = error instanceof Error ? error.cause : null
    throw isBusy(cause) ? alreadyRunning(home) : error
  }
  return () => {
    rmSync(note, { force: true })
    guard.close()
  }
}
