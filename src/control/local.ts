/**
 * Weights that lie on this machine: a directory with config.json and *.safetensors says itself what
 * shape the model has. Reads a few small files synchronously, when manifests are checked.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { architectureOf } from '../core/catalogue.ts'
import { architectureFromConfig, type CheckpointReading } from '../core/checkpoint.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Deployment } from '../core/manifest.ts'
import { fileProblem } from './file.ts'

/** A config.json is a few KB; R1 has 163 weight files. */
const CONFIG_BYTES_MAX = 1024 * 1024
const FILES_MAX = 10_000
/** Directories that a relative path is looked up below. */
const ROOTS_MAX = 100

/** The shape of the checkpoint in a directory; null when no checkpoint lies there. */
export const localArchitecture = (directory: string): CheckpointReading | null => {
  try {
    return readCheckpoint(directory)
  } catch (error) {
    return { ok: false, reason: fileProblem(error) }
  }
}

const readCheckpoint = (directory: string): CheckpointReading | null => {
  const file = path.join(directory, 'config.json')
  const config = statSync(file, { throwIfNoEntry: false })
  if (config === undefined || !config.isFile()) return null
  if (config.size > CONFIG_BYTES_MAX) return { ok: false, reason: 'config.json is over 1 MiB' }
  const bytes = weightBytes(directory)
  if (bytes === 0) return { ok: false, reason: 'no *.safetensors beside config.json' }
  const parsed = json(readFileSync(file, 'utf8'))
  if (parsed === undefined) return { ok: false, reason: 'config.json is not JSON' }
  return architectureFromConfig(parsed, bytes)
}

/** Sizes of the weight files, links followed (a hub's cache is made of links). */
const weightBytes = (directory: string): number =>
  readdirSync(directory)
    // Mistral's "consolidated" files hold the same weights once more.
    .filter((name) => name.endsWith('.safetensors') && !name.startsWith('consolidated'))
    .slice(0, FILES_MAX)
    .map((name) => statSync(path.join(directory, name), { throwIfNoEntry: false })?.size ?? 0)
    .reduce((sum, size) => sum + size, 0)

const json = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * The deployment with the shape of its local weights, where it gives none and they lie here. A
 * checkpoint that is here and cannot be understood is said to `complain`.
 */
export const withLocalShape = (
  deployment: Deployment,
  nodes: readonly NodeSpec[],
  complain: (message: string) => void,
): Deployment => {
  const { path: where } = deployment.weights
  if (where === undefined || architectureOf(deployment) !== null) return deployment
  for (const directory of candidates(where, nodes)) {
    const read = localArchitecture(directory)
    if (read?.ok === true) return { ...deployment, architecture: read.architecture }
    if (read?.ok === false) complain(`${directory}: ${read.reason}`)
  }
  return deployment
}

const candidates = (where: string, nodes: readonly NodeSpec[]): readonly string[] => {
  if (path.isAbsolute(where)) return [where]
  const roots = new Set(nodes.flatMap(({ weights }) => (weights === undefined ? [] : [weights])))
  return [...roots].slice(0, ROOTS_MAX).map((root) => path.join(root, where))
}
