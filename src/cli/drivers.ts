/** Which driver serves a node: the one place, beside serve.ts, that names concrete drivers. */
import { dirname, resolve } from 'node:path'
import type { Settings } from '../config.ts'
import type { NodeSpec } from '../core/inventory.ts'
import { dockerDriver } from '../drivers/docker.ts'
import type { Driver } from '../drivers/driver.ts'
import { processDriver } from '../drivers/process.ts'
import { simulatorImage } from '../drivers/simulator-image.ts'
import { SIMULATOR_BIN } from './places.ts'
import { VERSION } from './version.ts'

export const driverFactory =
  (settings: Settings) =>
  (node: NodeSpec): Driver =>
    node.driver === 'process'
      ? processDriver({ node, home: resolve(settings.home), simulatorBin: SIMULATOR_BIN })
      : dockerDriver({
          node: resolvedNode(settings, node),
          simulatorImage: simulatorImage(VERSION),
        })

/** TLS files are named relative to the inventory file. */
export const resolvedNode = (settings: Settings, node: NodeSpec): NodeSpec => {
  if (node.tls === undefined) return node
  const from = dirname(resolve(settings.inventory))
  const { ca, cert, key } = node.tls
  const tls = { ca: resolve(from, ca), cert: resolve(from, cert), key: resolve(from, key) }
  return { ...node, tls }
}
