/** Real parts that tests need: where one is missing its test is skipped loudly; in CI it fails. */
import { spawnSync } from 'node:child_process'

/** Use as `test.skipIf(!requirePart('promtool', hasProgram('promtool')))`. */
export const requirePart = (name: string, present: boolean): boolean => {
  if (present) return true
  if (process.env.CI === 'true') throw new Error(`CI needs ${name}, which is missing here`)
  process.stderr.write(`SKIPPED: ${name} is missing on this machine, its tests do not run\n`)
  return false
}

export const hasProgram = (name: string): boolean =>
  spawnSync('/bin/sh', ['-c', 'command -v -- "$1"', 'sh', name], { stdio: 'ignore' }).status === 0
