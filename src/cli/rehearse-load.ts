/** `penstock rehearse load`: next month's load against the running gateway, and what callers saw. */
import { type Command, Option } from 'commander'
import type { Settings } from '../config.ts'
import { PenstockError } from '../errors.ts'
import type { ExitCode } from './output.ts'

export const loadOptions = (command: Command): Command =>
  command.addOption(new Option('--seed <n>', 'same seed, same load').default('1'))

export const rehearseLoad = async (
  settings: Settings,
  given: Readonly<Record<string, unknown>>,
): Promise<ExitCode> => {
  const where = `http://127.0.0.1:${settings.gatewayPort}/v1`
  throw new PenstockError('not_running', `cannot load ${where} yet (seed ${String(given.seed)})`)
}
