/**
 * What the operator wants, whole: inventory, deployments, gateway, profiles. Holds the rules that
 * one document's schema cannot: names used twice, names that name nothing, settings that contradict
 * each other or the model. Refuses to know files and lines (control/load.ts does) and whether a
 * deployment fits (core/fit.ts does).
 */

import { architectureOf, knownRepositories } from './catalogue.ts'
import { gatewayFindings } from './gateway-findings.ts'
import { type Gateway, GatewaySchema } from './gateway-manifest.ts'
import type { Inventory, NodeSpec } from './inventory.ts'
import type { Architecture, Deployment } from './manifest.ts'
import { nearest } from './nearest.ts'
import type { GpuProfiles } from './profile.ts'

export type Desired = {
  readonly inventory: Inventory
  /** In the order of the files, then of the documents in a file. */
  readonly deployments: readonly Deployment[]
  readonly gateway: Gateway
  readonly profiles: GpuProfiles
}

/** Which document something stands in: an index that the caller gives meaning to. */
export type DocumentId = number
export type Sourced<T> = { readonly document: DocumentId; readonly value: T }
export type Path = readonly (string | number)[]

/** One broken rule, in one place; `other` is the place that it clashes with. */
export type Finding = {
  readonly document: DocumentId
  readonly path: Path
  readonly message: string
  readonly other?: { readonly document: DocumentId; readonly path: Path }
}

/** What could be read. Documents that broke their own schema are left out of the first three. */
export type Parts = {
  readonly inventory: Sourced<Inventory> | null
  readonly deployments: readonly Sourced<Deployment>[]
  readonly gateways: readonly Sourced<Gateway>[]
  /**
   * Names that are declared, in whole documents and broken ones; null when a file could not be
   * read, so that nothing may be called unknown.
   */
  readonly nodeNames: ReadonlySet<string> | null
  readonly deploymentNames: readonly Sourced<string>[] | null
  readonly profiles: GpuProfiles
}

/** Every broken rule; empty when the parts make one whole. */
export const findings = (given: Parts): readonly Finding[] => {
  const parts = { ...given, guess: guesser() }
  return [
    ...inventoryFindings(parts),
    ...(parts.deploymentNames === null
      ? []
      : repeats(parts.deploymentNames, 'deployment', ['name'])),
    ...parts.deployments.flatMap((deployment) => deploymentFindings(deployment, parts)),
    ...repeats(
      parts.gateways.map(({ document }) => ({ document, value: 'Gateway' })),
      'document of kind',
      ['kind'],
    ),
    ...parts.gateways.flatMap((gateway) => gatewayFindings(gateway, parts)),
  ]
}

type Guess = (word: string, known: Iterable<string>) => string
type Asked = Parts & { readonly guess: Guess }

/** The nearest of many names takes a while to find: at most so often, among so many. */
const GUESSES_MAX = 20
const GUESSED_FROM_MAX = 1000

const guesser = (): Guess => {
  let left = GUESSES_MAX
  return (word, known) => {
    left -= 1
    const near = left < 0 ? null : nearest(word, [...known].slice(0, GUESSED_FROM_MAX))
    return near === null ? '' : ` (did you mean ${JSON.stringify(near)}?)`
  }
}

/**
 * Without a Gateway, or with one that has no routes, each deployment is a model of its own name.
 */
export const gatewayOf = (gateway: Gateway | null, deployments: readonly Deployment[]): Gateway => {
  if (gateway !== null && gateway.routes.length > 0) return gateway
  const routes = deployments.map(({ name }) => ({ model: name, to: name }))
  const usual = GatewaySchema.parse({ kind: 'Gateway', routes })
  return gateway === null ? usual : { ...gateway, routes: usual.routes }
}

const repeats = (
  names: readonly Sourced<string>[],
  what: string,
  path: Path,
): readonly Finding[] => {
  const first = new Map<string, DocumentId>()
  return names.flatMap(({ document, value }) => {
    const before = first.get(value)
    if (before === undefined) first.set(value, document)
    if (before === undefined) return []
    const message = `another ${what} ${value} is declared`
    return [{ document, path, message, other: { document: before, path } }]
  })
}

const inventoryFindings = ({ inventory, profiles, guess }: Asked): readonly Finding[] => {
  if (inventory === null) return []
  const { document, value } = inventory
  const own = value.nodes.flatMap((node) =>
    nodeFindings(node, profiles, guess).map(({ path, message }) => ({
      document,
      path: ['nodes', node.name, ...path],
      message,
    })),
  )
  return [...own, ...sharedAddresses(inventory)]
}

type Local = Pick<Finding, 'path' | 'message'>

const nodeFindings = (node: NodeSpec, profiles: GpuProfiles, guess: Guess): readonly Local[] => {
  const found: Local[] = []
  if (node.device === 'cpu' && node.gpus !== undefined) {
    found.push({ path: ['gpus'], message: 'a node with device: cpu has no gpus' })
  }
  if (node.device === 'cuda' && node.gpus === undefined) {
    const message = 'missing: expected profile and count, or device: cpu for a node without GPUs'
    found.push({ path: ['gpus'], message })
  }
  if (node.gpus !== undefined && !profiles.has(node.gpus.profile)) {
    const names = [...profiles.keys()].sort()
    const known = guess(node.gpus.profile, names) || `; known: ${names.join(', ')}`
    const shown = JSON.stringify(node.gpus.profile.slice(0, 60))
    found.push({ path: ['gpus', 'profile'], message: `no such GPU profile ${shown}${known}` })
  }
  if (node.tls !== undefined && !node.docker.startsWith('tcp://')) {
    found.push({ path: ['tls'], message: `only for a tcp:// endpoint, docker is ${node.docker}` })
  }
  return found
}

/** Several nodes may share a loopback address, and one machine may run several by `process`. */
const mayShare = (node: NodeSpec): boolean =>
  node.driver === 'process' || /^(127\.|::1$|localhost$)/i.test(node.address)

const sharedAddresses = ({ document, value }: Sourced<Inventory>): readonly Finding[] => {
  const first = new Map<string, NodeSpec>()
  return value.nodes.flatMap((node) => {
    const address = node.address.toLowerCase()
    const before = first.get(address)
    if (before === undefined) first.set(address, node)
    if (before === undefined || (mayShare(before) && mayShare(node))) return []
    const message = `node ${before.name} has the address ${node.address} too`
    const place = (name: string) => ({ document, path: ['nodes', name, 'address'] })
    return [{ ...place(node.name), message, other: place(before.name) }]
  })
}

const deploymentFindings = (
  { document, value }: Sourced<Deployment>,
  { nodeNames, guess }: Asked,
): readonly Finding[] =>
  [
    ...parallelFindings(value),
    ...nodeListFindings(value, nodeNames, guess),
    ...modelFindings(value, guess),
  ].map((local) => ({ document, ...local }))

const parallelFindings = ({ parallel, nodes }: Deployment): readonly Local[] => {
  const found: Local[] = []
  const ranks = parallel.tensor * parallel.pipeline
  if (ranks % parallel.nodes !== 0) {
    const message = `${parallel.nodes} nodes cannot share tensor × pipeline = ${ranks} GPUs evenly`
    found.push({ path: ['parallel', 'nodes'], message })
  }
  if (nodes !== undefined && nodes.length < parallel.nodes) {
    const message = `${nodes.length} listed, but parallel.nodes asks for ${parallel.nodes}`
    found.push({ path: ['nodes'], message })
  }
  return found
}

const nodeListFindings = (
  { nodes = [] }: Deployment,
  known: ReadonlySet<string> | null,
  guess: Guess,
): readonly Local[] => {
  const seen = new Set<string>()
  return nodes.flatMap((name, index) => {
    const path = ['nodes', index]
    if (seen.has(name)) return [{ path, message: `node ${name} is listed twice` }]
    seen.add(name)
    if (known === null || known.has(name)) return []
    return [{ path, message: `no node ${name} in the inventory${guess(name, known)}` }]
  })
}

const modelFindings = (deployment: Deployment, guess: Guess): readonly Local[] => {
  const architecture = architectureOf(deployment)
  if (architecture === null) return [unknownModel(deployment, guess)]
  const found: Local[] = []
  if (deployment.context > architecture.maxContext) {
    const most = `the model was made for at most ${architecture.maxContext} tokens`
    const message = `${most}, got ${deployment.context}`
    found.push({ path: ['context'], message })
  }
  return [...found, ...shapeFindings(deployment, architecture)]
}

/** Both engines refuse to start when attention heads do not divide over the tensor ranks. */
const shapeFindings = ({ parallel }: Deployment, shape: Architecture): readonly Local[] => {
  const found: Local[] = []
  if (shape.attentionHeads % parallel.tensor !== 0) {
    const heads = `${shape.attentionHeads} attention heads`
    const message = `${heads} cannot be split over ${parallel.tensor} GPUs evenly`
    found.push({ path: ['parallel', 'tensor'], message })
  }
  if (parallel.pipeline > shape.layers) {
    const message = `the model has ${shape.layers} layers, fewer than ${parallel.pipeline} stages`
    found.push({ path: ['parallel', 'pipeline'], message })
  }
  return found
}

const unknownModel = ({ weights }: Deployment, guess: Guess): Local => {
  const source =
    weights.huggingface !== undefined
      ? 'huggingface'
      : weights.modelscope !== undefined
        ? 'modelscope'
        : 'path'
  const name = (weights[source] ?? '').slice(0, 200)
  const near = source === 'path' ? '' : guess(name, knownRepositories)
  const message = `the shape of ${name} is not known here: add an architecture${near}`
  return { path: ['weights', source], message }
}
