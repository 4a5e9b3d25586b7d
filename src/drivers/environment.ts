/** The environment and the program of a rank that runs as a process on this machine. */
import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { delimiter, dirname, isAbsolute, join } from 'node:path'
import type { RankSpec } from '../core/runtime.ts'

/** What a rank inherits from Penstock; keys, database URLs and all else are not its business. */
const INHERITED = [
  'PATH',
  'HOME',
  'LANG',
  'LC_ALL',
  'TMPDIR',
  'LD_LIBRARY_PATH',
  'HF_TOKEN',
] as const
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Inherited by every process of a run, so that strays are found; see `processesOf`. */
export const RUN_MARK = 'PENSTOCK_RUN'

export type Variables = Readonly<Record<string, string | undefined>>

/** `simulatorBin` holds the flight simulator's `vllm`, `python3` and `nvidia-smi`. */
export const rankEnvironment = (
  spec: RankSpec,
  inherited: Variables,
  simulatorBin: string,
): Record<string, string> => {
  const environment: Record<string, string> = {}
  for (const key of INHERITED) {
    const value = inherited[key]
    if (value !== undefined) environment[key] = value
  }
  environment.PATH ??= DEFAULT_PATH
  if (spec.rehearsal === null && spec.gpus.length > 0) {
    environment.CUDA_VISIBLE_DEVICES = spec.gpus.join(',')
  }
  Object.assign(environment, spec.environment)
  if (spec.rehearsal !== null) {
    // The simulator must run on the Node that runs Penstock, wherever that is.
    const first = [simulatorBin, dirname(process.execPath)]
    environment.PATH = [...first, environment.PATH].join(delimiter)
    environment.PENSTOCK_NODE = process.execPath
    environment.PENSTOCK_REHEARSAL = JSON.stringify(spec.rehearsal)
  }
  return environment
}

const isExecutable = async (path: string): Promise<boolean> => {
  try {
    await access(path, constants.X_OK)
    return (await stat(path)).isFile()
  } catch {
    return false // absent, or not for us: either way it cannot be run
  }
}

/** As execvp(3) looks it up; null when it is nowhere. */
export const findProgram = async (program: string, path: string): Promise<string | null> => {
  if (isAbsolute(program)) return (await isExecutable(program)) ? program : null
  for (const directory of path.split(delimiter).filter((part) => part !== '')) {
    const candidate = join(directory, program)
    if (await isExecutable(candidate)) return candidate
  }
  return null
}
