/** The operator's files, read and checked here, before anything is asked of a running Penstock. */
import { resolve } from 'node:path'
import type { Settings } from '../config.ts'
import { issueLine, parseFiles } from '../control/load.ts'
import { loadProfiles } from '../control/profiles.ts'
import { readInputs } from '../control/read.ts'
import type { InputFiles, Issue } from '../core/admin.ts'
import type { Desired } from '../core/desired.ts'
import { EXIT, type ExitCode, say } from './output.ts'
import { PROFILES_DIRECTORY } from './places.ts'

export type Inputs =
  | { readonly ok: true; readonly files: InputFiles; readonly desired: Desired }
  | { readonly ok: false; readonly issues: readonly Issue[] }

export const inputsOf = async (settings: Settings): Promise<Inputs> => {
  const profiles = await loadProfiles(PROFILES_DIRECTORY)
  if (!profiles.ok) return profiles
  const paths = { inventoryPath: settings.inventory, manifestsDir: settings.manifests }
  const { files, issues } = await readInputs(paths)
  const answer = parseFiles(files, profiles.profiles, issues)
  if (!answer.ok) return answer
  return { ok: true, files: sent(files), desired: answer.desired }
}

/** Paths inside a file are relative to it; a running Penstock may have another directory. */
const sent = ({ inventory, manifests, ...rest }: InputFiles): InputFiles => ({
  ...rest,
  inventory: inventory === null ? null : { ...inventory, path: resolve(inventory.path) },
  manifests: manifests.map((file) => ({ ...file, path: resolve(file.path) })),
})

/** Every issue on its line, then how many: exit code 2. */
export const refuse = (issues: readonly Issue[]): ExitCode => {
  for (const issue of issues) say(issueLine(issue))
  say(`${issues.length} problem${issues.length === 1 ? '' : 's'}; nothing was changed`)
  return EXIT.badInput
}
