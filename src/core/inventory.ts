/**
 * inventory.yaml: the machines. Decides what a node may say; refuses to know whether it is true
 * (that is `penstock doctor`). Types are inferred from the schema, defaults live only here.
 */
import { z } from 'zod'

/** Lower-case names that are safe as label, file and host name; at most 40 characters. */
export const Name = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?$/,
    'expected 1 to 40 of a-z 0-9 . - beginning and ending with a letter or digit',
  )

const Address = z
  .string()
  .regex(
    /^(::)?[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$/,
    'expected an IP address or a host name',
  )

const DockerEndpoint = z
  .string()
  .regex(
    /^(unix:\/\/\/\S+|tcp:\/\/[^\s/@]+:\d{1,5}|ssh:\/\/[^\s/]+)$/,
    'expected unix:///path, tcp://host:port or ssh://user@host',
  )

export const NodeSchema = z.strictObject({
  address: Address.describe('address that other nodes and Penstock reach this machine by'),
  listen: Address.optional().describe('address the engines bind; default: `address`'),
  driver: z.enum(['docker', 'process']).default('docker').describe('how engines are run here'),
  docker: DockerEndpoint.default('unix:///var/run/docker.sock').describe('Docker Engine endpoint'),
  tls: z
    .strictObject({ ca: z.string().min(1), cert: z.string().min(1), key: z.string().min(1) })
    .optional()
    .describe('PEM files for a tcp:// endpoint, relative to the inventory file'),
  device: z.enum(['cuda', 'cpu']).default('cuda').describe('what the engines compute on'),
  gpus: z
    .strictObject({
      profile: z.string().min(1).describe('a file name in gpu-profiles/ without .yaml'),
      count: z.int().min(1).max(64),
    })
    .optional()
    .describe('the GPUs of this machine; left out on a cpu node'),
  fabric: z
    .strictObject({
      interface: z.string().min(1).max(15).describe('network interface for NCCL and Gloo'),
      hca: z.array(z.string().min(1)).max(32).default([]).describe('InfiniBand or RoCE adapters'),
      gidIndex: z.int().min(0).max(255).optional().describe('GID index, 3 on most RoCE fabrics'),
    })
    .optional()
    .describe('the network between nodes of one replica'),
  weights: z
    .string()
    .regex(/^\//, 'expected an absolute path')
    .optional()
    .describe('directory on this machine that holds or caches model weights'),
  ports: z
    .strictObject({
      http: z.int().min(1024).max(65000).default(8100),
      rendezvous: z.int().min(1024).max(65000).default(29500),
    })
    .prefault({})
    .describe('first port of the engines and of their rendezvous; the lowest GPU index is added'),
  container: z
    .strictObject({
      privileged: z.boolean().default(false),
      memlock: z.enum(['unlimited', 'default']).default('unlimited'),
      ipc: z.enum(['host', 'private']).default('host'),
      shm: z
        .string()
        .regex(/^\d+(MiB|GiB)$/, 'expected a size such as 32GiB')
        .default('32GiB'),
      devices: z.array(z.string().startsWith('/dev/')).max(32).default([]),
    })
    .prefault({})
    .describe('what containers on this machine may use'),
  cost: z
    .strictObject({
      amount: z.number().positive().max(1e12),
      currency: z.string().regex(/^[A-Z]{3}$/, 'expected an ISO 4217 code such as CNY'),
      per: z.enum(['hour', 'month', 'year']),
    })
    .optional(),
  rehearse: z.boolean().default(false).describe('run the flight simulator in place of the engine'),
})

export const InventorySchema = z.strictObject({
  nodes: z.record(Name, NodeSchema).refine((nodes) => Object.keys(nodes).length > 0, {
    message: 'expected at least one node',
  }),
})

export type NodeSettings = z.output<typeof NodeSchema>
export type NodeSpec = NodeSettings & { readonly name: string }
export type Inventory = { readonly nodes: readonly NodeSpec[] }

/** Every node on this machine, run by the simulator: what `penstock up` does without a GPU. */
export const rehearsed = (inventory: Inventory): Inventory => ({
  nodes: inventory.nodes.map((node, index) => ({
    ...node,
    driver: 'process',
    rehearse: true,
    listen: undefined,
    // All of 127.0.0.0/8 is loopback on Linux (RFC 1122 3.2.1.3): each node keeps its own address.
    address: `127.0.${Math.floor((index + 10) / 250)}.${((index + 10) % 250) + 1}`,
  })),
})

/** Nodes whose ranks are processes of this machine, not containers. */
export const processNodes = ({ nodes }: Inventory): ReadonlySet<string> =>
  new Set(nodes.filter(({ driver }) => driver === 'process').map(({ name }) => name))
