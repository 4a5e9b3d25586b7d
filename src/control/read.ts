/**
 * Inventory and manifests from disk to text. Whatever stands in the way (a directory, a link that
 * leads round, 50 MB, Latin-1) becomes an issue of that file, and the others are read all the same.
 */
import { opendir } from 'node:fs/promises'
import path from 'node:path'
import type { InputFile, InputFiles, Issue } from '../core/admin.ts'
import type { GpuProfiles } from '../core/profile.ts'
import { fileProblem, readText, wholeFile } from './file.ts'
import { type LoadAnswer, MANIFESTS_MAX, parseFiles, sortedIssues, TOTAL_MAX } from './load.ts'

export type InputPaths = { readonly inventoryPath: string | null; readonly manifestsDir: string }
export type InputReading = { readonly files: InputFiles; readonly issues: readonly Issue[] }

/** Files as they are on disk. `files` has those that could be read, `issues` the others. */
export const readInputs = async (paths: InputPaths): Promise<InputReading> => {
  const issues: Issue[] = []
  const inventory =
    paths.inventoryPath === null ? null : keep(await readText(paths.inventoryPath), issues)
  const manifests = await readDirectory(paths.manifestsDir, issues)
  if (manifests.length === 0 && issues.length === 0) {
    issues.push(wholeFile(paths.manifestsDir, 'holds no manifest: expected files *.yaml or *.yml'))
  }
  return { files: { inventory, manifests }, issues: sortedIssues(issues) }
}

/** Read and check: what `penstock check` does. */
export const loadFromDisk = async (
  paths: InputPaths,
  profiles: GpuProfiles,
): Promise<LoadAnswer> => {
  const { files, issues } = await readInputs(paths)
  return parseFiles(files, profiles, issues)
}

/** The *.yaml and *.yml files of a directory by name; what cannot be read goes to `issues`. */
export const readDirectory = async (
  directory: string,
  issues: Issue[],
): Promise<readonly InputFile[]> => {
  const listed = await list(directory)
  if ('message' in listed) {
    issues.push(listed)
    return []
  }
  const files: InputFile[] = []
  let total = 0
  for (const name of listed.names) {
    const file = keep(await readText(path.join(directory, name)), issues)
    if (file === null) continue
    total += file.text.length
    if (total > TOTAL_MAX) {
      issues.push(wholeFile(directory, 'holds more than 8 MiB of YAML files'))
      break
    }
    files.push(file)
  }
  return files
}

const keep = (read: InputFile | Issue, issues: Issue[]): InputFile | null => {
  if ('text' in read) return read
  issues.push(read)
  return null
}

/** Names that are looked at in one directory before it is called the wrong one. */
const ENTRIES_MAX = 100_000

const list = async (directory: string): Promise<{ readonly names: readonly string[] } | Issue> => {
  const names: string[] = []
  let entries = 0
  try {
    for await (const { name } of await opendir(directory)) {
      entries += 1
      // As in a shell, * does not mean dot files: editors keep their locks and backups there.
      if (/^[^.].*\.ya?ml$/.test(name)) names.push(name)
      if (entries > ENTRIES_MAX || names.length > MANIFESTS_MAX) {
        return wholeFile(directory, `holds more than ${MANIFESTS_MAX} YAML files`)
      }
    }
  } catch (error) {
    return wholeFile(directory, fileProblem(error))
  }
  return { names: names.sort() }
}
