/** Turns what SQLite and the file system say into one line that names the file and what to do. */
import { PenstockError } from '../errors.ts'

/** Primary result codes, https://www.sqlite.org/rescode.html */
const ADVICE: Readonly<Record<number, string>> = {
  5: 'is locked by another program: close whatever has it open',
  7: 'could not be used: out of memory',
  8: 'cannot be written: check the owner and the mode of the file and of its directory',
  10: 'could not be read or written (disk error): check the disk and the system log',
  11: 'is damaged: restore it from a backup, or move it away and start again with new keys',
  13: 'could not be written, the disk is full: free some space, nothing else is needed',
  14: 'could not be opened: check that its directory exists and may be written',
  23: 'may not be used: the system refused access',
  26: 'is no database: restore it from a backup, or move it away and start again with new keys',
}

const SYSTEM: Readonly<Record<string, string>> = {
  EACCES: 'may not be used: check its owner and mode',
  EPERM: 'may not be used: check its owner and mode',
  EROFS: 'is on a read-only file system: choose another PENSTOCK_HOME',
  ENOSPC: 'could not be written, the disk is full: free some space',
  ENOTDIR: 'cannot be made: a part of its path is a file; choose another PENSTOCK_HOME',
  EEXIST: 'is no directory: move that file away or choose another PENSTOCK_HOME',
  EISDIR: 'is a directory: move it away',
  ENAMETOOLONG: 'has too long a name: choose a shorter PENSTOCK_HOME',
  EMFILE: 'could not be opened, too many files are open: raise the limit (ulimit -n)',
}

/** Null when `error` comes from neither: then it is a bug and is left alone. */
const storeFailure = (path: string, error: unknown): PenstockError | null => {
  if (!(error instanceof Error) || error instanceof PenstockError) return null
  if ('errcode' in error && typeof error.errcode === 'number') {
    const advice = ADVICE[error.errcode & 0xff] ?? 'refused an operation'
    return new PenstockError('store_failed', `${path} ${advice} (${error.message})`, {}, error)
  }
  if ('syscall' in error && 'code' in error && typeof error.code === 'string') {
    const advice = SYSTEM[error.code] ?? 'could not be used'
    return new PenstockError('store_failed', `${path} ${advice} (${error.code})`, {}, error)
  }
  return null
}

/** Runs `work`, failures readable. */
export const guarded = <T>(path: string, work: () => T): T => {
  try {
    return work()
  } catch (error) {
    throw storeFailure(path, error) ?? error
  }
}
