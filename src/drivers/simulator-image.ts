/**
 * The flight simulator as an image, built from what this machine has: no registry, no Dockerfile.
 * Its programs stand where the real engines' stand, so the real command lines run unchanged.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeSpec } from '../core/inventory.ts'
import { PenstockError } from '../errors.ts'
import { DockerEngine } from './docker-engine.ts'
import { CONTENT_LABEL, hashTree, type ImageFile, importTree } from './docker-image.ts'
import { APPLICATION, nodeParts, shellParts, sourceParts } from './image-parts.ts'

/** 120 MB of Node over a slow line; longer than this something hangs. */
const IMPORT_MS = 15 * 60_000
const BIN = 'runtimes/simulator/bin'

export const simulatorImage = (version: string): string => `penstock/simulator:${version}`

export type SimulatorImageAsk = {
  /** The checkout, or where the package is installed. */
  readonly root: string
  readonly version: string
  /** Nodes with `driver: docker` are given the image; each engine once. */
  readonly nodes: readonly NodeSpec[]
  readonly signal: AbortSignal
  readonly sshCommand?: readonly string[]
  readonly note?: (line: string) => void
}

export type SimulatorImageAnswer = {
  readonly image: string
  /** Hash of the content; equal hash, nothing is sent. */
  readonly hash: string
  readonly built: readonly string[]
  readonly kept: readonly string[]
}

/** Throws invalid_input (no simulator below `root`), node_unreachable, node_tls. */
export const buildSimulatorImage = async (
  ask: SimulatorImageAsk,
): Promise<SimulatorImageAnswer> => {
  const files = await simulatorFiles(ask.root)
  const [image, hash] = [simulatorImage(ask.version), await hashTree(files)]
  const built: string[] = []
  const kept: string[] = []
  for (const node of onePerEngine(ask.nodes)) {
    const engine = new DockerEngine(node, ask.sshCommand ?? ['ssh'])
    try {
      if ((await contentOf(engine, image, ask.signal)) === hash) {
        kept.push(node.name)
        continue
      }
      ask.note?.(`node ${node.name}: importing ${image}`)
      await engine.call(ask.signal, IMPORT_MS, (docker, signal) =>
        importTree({ docker, image, files, hash, signal }),
      )
      built.push(node.name)
    } finally {
      await engine.close()
    }
  }
  return { image, hash, built, kept }
}

const onePerEngine = (nodes: readonly NodeSpec[]): readonly NodeSpec[] => [
  ...new Map(nodes.filter((it) => it.driver === 'docker').map((it) => [it.docker, it])).values(),
]

const contentOf = async (
  engine: DockerEngine,
  image: string,
  signal: AbortSignal,
): Promise<string | null> => {
  if (!(await engine.hasImage(image, signal))) return null
  return await engine.call(signal, IMPORT_MS, async (docker) => {
    const info = await docker.getImage(image).inspect()
    return info.Config.Labels?.[CONTENT_LABEL] ?? null
  })
}

const simulatorFiles = async (root: string): Promise<readonly ImageFile[]> => {
  const programs = await programNames(root)
  const [node, shell, sources] = await Promise.all([nodeParts(), shellParts(), sourceParts(root)])
  return [...node, ...shell, ...sources, ...programs.map(program)]
}

const programNames = async (root: string): Promise<readonly string[]> => {
  const names = await readdir(join(root, BIN)).catch(() => [])
  if (names.length > 0) return names
  throw new PenstockError('invalid_input', `no simulator in ${join(root, BIN)}`)
}

/** A script, not a link: the simulator's own scripts find their files relative to themselves. */
const program = (name: string): ImageFile => ({
  path: `usr/local/bin/${name}`,
  mode: 0o755,
  from: { text: `#!/bin/sh\nexec /${APPLICATION}/${BIN}/${name} "$@"\n` },
})
