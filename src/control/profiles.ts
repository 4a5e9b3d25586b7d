/** gpu-profiles/*.yaml from disk: facts about GPU models, keyed by file name. */
import path from 'node:path'
import type { InputFile, Issue } from '../core/admin.ts'
import { type GpuProfile, type GpuProfiles, ProfileSchema } from '../core/profile.ts'
import { check } from './explain.ts'
import { issueAt, sortedIssues } from './load.ts'
import { readDirectory } from './read.ts'
import { readYaml } from './yaml.ts'

export type ProfilesAnswer =
  | { readonly ok: true; readonly profiles: GpuProfiles }
  | { readonly ok: false; readonly issues: readonly Issue[] }

/** Every profile of a directory, or every issue of all of them. */
export const loadProfiles = async (directory: string): Promise<ProfilesAnswer> => {
  const issues: Issue[] = []
  const profiles = new Map<string, GpuProfile>()
  for (const file of await readDirectory(directory, issues)) {
    const profile = readProfile(file, issues)
    if (profile !== null) profiles.set(profile.name, profile)
  }
  if (profiles.size === 0 && issues.length === 0) {
    issues.push({ ...START, file: directory, message: 'holds no GPU profile' })
  }
  return issues.length === 0 ? { ok: true, profiles } : { ok: false, issues: sortedIssues(issues) }
}

const START = { line: 1, column: 1, path: '' }

const readProfile = (file: InputFile, issues: Issue[]): GpuProfile | null => {
  const yaml = readYaml(file.text)
  const [root, second] = yaml.documents
  issues.push(...yaml.problems.map((problem) => issueAt(file.path, yaml, problem)))
  if (second !== undefined) {
    const problem = { at: second.at, path: [], message: 'a second document: expected one profile' }
    issues.push(issueAt(file.path, yaml, problem))
  }
  if (root === undefined) {
    if (yaml.problems.length === 0) {
      issues.push({ ...START, file: file.path, message: 'is empty: expected a GPU profile' })
    }
    return null
  }
  const { value, problems } = check(ProfileSchema, root)
  issues.push(...problems.map((problem) => issueAt(file.path, yaml, problem)))
  return value === null ? null : { ...value, name: path.parse(file.path).name }
}
