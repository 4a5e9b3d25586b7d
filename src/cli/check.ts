/** `penstock check`: the files and nothing else. Exit 0, or 2 with every issue. */
import type { Settings } from '../config.ts'
import { inputsOf, refuse } from './inputs.ts'
import { EXIT, type ExitCode, print } from './output.ts'

export const check = async (settings: Settings): Promise<ExitCode> => {
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const { inventory, deployments, gateway } = inputs.desired
  const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`
  const parts = [
    count(inventory.nodes.length, 'node'),
    count(deployments.length, 'deployment'),
    count(gateway.routes.length, 'route'),
  ]
  print(`${parts.join(', ')}: nothing wrong`)
  return EXIT.done
}
