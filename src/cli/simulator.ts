/**
 * `penstock simulator-image`: the flight simulator as an image in the inventory's Docker engines.
 */
import type { Settings } from '../config.ts'
import { buildSimulatorImage } from '../drivers/simulator-image.ts'
import { resolvedNode } from './drivers.ts'
import { inputsOf, refuse } from './inputs.ts'
import { EXIT, type ExitCode, print, say } from './output.ts'
import { ROOT_DIRECTORY } from './places.ts'
import { VERSION } from './version.ts'

const TIMEOUT_MS = 600_000

export const simulatorImage = async (settings: Settings): Promise<ExitCode> => {
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const nodes = inputs.desired.inventory.nodes.map(resolvedNode)
  const answer = await buildSimulatorImage({
    root: ROOT_DIRECTORY,
    version: VERSION,
    nodes,
    signal: AbortSignal.timeout(TIMEOUT_MS),
    note: say,
  })
  for (const node of answer.built) print(`${node}: ${answer.image} built`)
  for (const node of answer.kept) print(`${node}: ${answer.image} is up to date`)
  if (answer.built.length + answer.kept.length === 0) print('no node has `driver: docker`')
  return EXIT.done
}
