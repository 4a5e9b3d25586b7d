/** Which driver serves a node: the one place, beside serve.ts, that names concrete drivers. */
import { resolve } from 'node:path'
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
          node: resolvedNode(node),
          simulatorImage: simulatorImage(VERSION),
        })

/** TLS files as this process finds them, wherever it was started. */
export const resolvedNode = (node: NodeSpec): NodeSpec => {
  if (node.tls === undefined) return node
  const { ca, cert, key } = node.tls
  return { ...node, tls: { ca: resolve(ca), cert: resolve(cert), key: resolve(key) } }
}
