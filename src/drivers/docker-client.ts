/** From a node of the inventory to a connected Docker client. */
import { readFile } from 'node:fs/promises'
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import Docker from 'dockerode'
import type { NodeSpec } from '../core/inventory.ts'
import { PenstockError } from '../errors.ts'
import { SshAgent } from './docker-ssh.ts'

export type DockerClient = { readonly docker: Docker; close(): void }

/** dockerode's options, with the agent that docker-modem takes but its types leave out. */
type ClientOptions = Docker.DockerOptions & { readonly agent: HttpAgent }

/**
 * A socket for each call: a daemon that was restarted must not be met through a dead one. Empty
 * strings keep docker-modem from filling gaps out of DOCKER_HOST and DOCKER_CERT_PATH.
 */
const BASE = { host: '', ca: '', cert: '', key: '' } as const

export const connectDocker = async (
  node: NodeSpec,
  sshCommand: readonly string[],
): Promise<DockerClient> => {
  const options = await clientOptions(node, sshCommand)
  return { docker: new Docker(options), close: () => options.agent.destroy() }
}

const clientOptions = async (
  node: NodeSpec,
  sshCommand: readonly string[],
): Promise<ClientOptions> => {
  const url = new URL(node.docker)
  if (url.protocol === 'unix:') {
    return { ...BASE, protocol: 'http', socketPath: url.pathname, agent: new HttpAgent() }
  }
  if (url.protocol === 'ssh:') {
    const user = url.username === '' ? null : decodeURIComponent(url.username)
    const port = url.port === '' ? null : Number(url.port)
    const target = { user, host: bare(url.hostname), port, command: sshCommand }
    // The host is only the `Host` header; the agent connects.
    return { ...BASE, protocol: 'http', host: 'docker', port: 80, agent: new SshAgent(target) }
  }
  const place = { host: bare(url.hostname), port: Number(url.port) }
  if (node.tls === undefined) {
    return { ...BASE, ...place, protocol: 'http', agent: new HttpAgent() }
  }
  const [ca, cert, key] = await Promise.all([
    pem(node, 'ca', node.tls.ca),
    pem(node, 'cert', node.tls.cert),
    pem(node, 'key', node.tls.key),
  ])
  return { ...BASE, ...place, ca, cert, key, protocol: 'https', agent: new HttpsAgent() }
}

/** `new URL` of a scheme it does not know keeps the brackets of an IPv6 address. */
const bare = (hostname: string): string => hostname.replace(/^\[(.*)\]$/, '$1')

const pem = async (node: NodeSpec, what: string, path: string): Promise<Buffer> => {
  try {
    return await readFile(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const message = `cannot read tls.${what} ${path} (${code})`
    throw new PenstockError('node_tls', message, { node: node.name }, error)
  }
}
