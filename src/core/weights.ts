/**
 * Where an engine finds its model: the name or path it is given, the variables and mounts that make
 * it so. Containers see the node's `weights` directory at one fixed path; the process driver has no
 * mounts, so there every path is the host's own. Refuses to know whether the files are there.
 */
import type { NodeSpec } from './inventory.ts'
import type { Weights } from './manifest.ts'
import type { Mount } from './runtime.ts'

/** Where containers see the node's `weights`. */
const WEIGHTS_INSIDE = '/weights'

/**
 * The Docker volume that stands in for `weights` on a node without it: a group restarts as new
 * containers, and what is not in a volume would be downloaded again each time.
 */
export const CACHE_VOLUME = 'penstock-cache'

export type Source = {
  /** What the engine is asked to load: a repository or an absolute path. */
  readonly model: string
  readonly hub: 'huggingface' | 'modelscope' | null
  /** The directory that outlives the rank, as the engine sees it; null: the user's own cache. */
  readonly directory: string | null
  readonly environment: Readonly<Record<string, string>>
  readonly mounts: readonly Mount[]
}

/** Which of the sources counts: `from`, or the only one given; a path before a hub. */
const sourceKind = (weights: Weights): 'huggingface' | 'modelscope' | 'path' => {
  if (weights.from !== undefined) return weights.from
  if (weights.path !== undefined) return 'path'
  return weights.huggingface !== undefined ? 'huggingface' : 'modelscope'
}

/** Why the weights cannot be had on this node, or null. */
export const weightsProblem = (weights: Weights, node: NodeSpec): string | null =>
  sourceKind(weights) === 'path' && !isAbsolute(weights.path ?? '') && node.weights === undefined
    ? 'weights.path is relative and the node has no `weights`'
    : null

export const sourceOf = (weights: Weights, node: NodeSpec): Source => {
  const kind = sourceKind(weights)
  const mounts: Mount[] = []
  const contained = node.driver !== 'process'
  const own = node.weights === undefined ? null : trimmed(node.weights)
  const directory = contained ? WEIGHTS_INSIDE : own
  if (contained) {
    // Read and write: it is also the download cache and holds compiled kernels between restarts.
    mounts.push({ host: own ?? CACHE_VOLUME, inside: WEIGHTS_INSIDE, readOnly: false })
  }
  const environment: Record<string, string> = {}
  if (kind === 'path') {
    const path = weights.path ?? ''
    // A local model is complete or broken; asking a hub could only hang without a network.
    environment.HF_HUB_OFFLINE = '1'
    if (contained && isAbsolute(path)) mounts.push({ host: path, inside: path, readOnly: true })
    const model = isAbsolute(path) ? path : `${directory ?? ''}/${path}`
    return { model, hub: null, directory, environment, mounts }
  }
  if (weights.offline) environment.HF_HUB_OFFLINE = '1'
  if (directory !== null) {
    environment.HF_HOME = `${directory}/huggingface`
    if (kind === 'modelscope') environment.MODELSCOPE_CACHE = `${directory}/modelscope`
  }
  return { model: weights[kind] ?? '', hub: kind, directory, environment, mounts }
}

const isAbsolute = (path: string): boolean => path.startsWith('/')
const trimmed = (path: string): string => (path.length > 1 ? path.replace(/\/+$/, '') : path)
