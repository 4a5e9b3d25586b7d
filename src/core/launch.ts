/**
 * A placed replica to what its ranks are launched with: asks the runtime for the command line of
 * each rank and adds what is the machine's (GPUs, mounts, IPC, devices) and what is Penstock's
 * (names, labels, ports, the rehearsal). Pure, so equal input gives an equal hash: that is how a
 * running container is recognised as wanted.
 */
import type { Fit } from './fit.ts'
import type { NodeSpec } from './inventory.ts'
import type { Architecture, Deployment } from './manifest.ts'
import type { Seat } from './placement.ts'
import type { GpuProfile, GpuProfiles } from './profile.ts'
import { hostPort } from './ranks.ts'
import {
  type Labels,
  type LaunchAsk,
  type RankSpec,
  type Rehearsal,
  type Runtime,
  specHash,
} from './runtime.ts'
import { parseSize } from './units.ts'

/** Room between rendezvous ports: engines take a few of the neighbours (SGLang up to six). */
const RENDEZVOUS_STEP = 10

export type RankAsk = {
  readonly deployment: Deployment
  readonly architecture: Architecture
  readonly replica: number
  readonly seats: readonly Seat[]
  /** The fit of the seats' profile; unchecked on a cpu node. */
  readonly fit: Fit
  readonly runtime: Runtime
  readonly profiles: GpuProfiles
  /** Clock factor of rehearsals. */
  readonly rehearsalSpeed: number
}

export type RankSpecs = {
  readonly ranks: readonly RankSpec[]
  readonly specHash: string
  /** `http://host:port` of rank 0. */
  readonly endpoint: string
}

export const rankSpecs = (ask: RankAsk): RankSpecs => {
  const { deployment, replica, seats, runtime } = ask
  const leader = seats[0]
  if (leader === undefined) throw new RangeError(`${deployment.name}/${replica} has no ranks`)
  const httpPort = leader.node.ports.http + leader.slot
  const rendezvousPort = leader.node.ports.rendezvous + RENDEZVOUS_STEP * leader.slot
  const bare = seats.map((_, rank) => bareSpec(ask, { rank, httpPort, rendezvousPort }))
  const hash = specHash(bare)
  const ranks = bare.map((spec, rank) => {
    const labels: Labels = {
      deployment: deployment.name,
      replica,
      rank,
      size: seats.length,
      specHash: hash,
      engine: runtime.name,
      node: spec.node,
      gpus: spec.gpus,
      port: httpPort,
      rehearsal: spec.rehearsal !== null,
    }
    return { ...spec, labels }
  })
  const endpoint = `http://${hostPort(leader.node.address, httpPort)}`
  return { ranks, specHash: hash, endpoint }
}

type Ports = Pick<LaunchAsk, 'rank' | 'httpPort' | 'rendezvousPort'>

const bareSpec = (ask: RankAsk, ports: Ports): Omit<RankSpec, 'labels'> => {
  const { deployment, architecture, replica, seats, fit, runtime } = ask
  const seat = seats[ports.rank]
  if (seat === undefined) throw new RangeError(`rank ${ports.rank} of ${seats.length}`)
  const { node, gpus } = seat
  const launch = runtime.launch({
    deployment,
    architecture,
    replica,
    ranks: seats.map((one) => ({ node: one.node, gpus: one.gpus })),
    memory: memoryOf(fit, node),
    ...ports,
  })
  return {
    name: `penstock-${deployment.name}-${replica}-${ports.rank}`,
    node: node.name,
    image: launch.image,
    command: launch.command,
    environment: launch.environment,
    gpus,
    mounts: launch.mounts,
    stopGraceMs: launch.stopGraceMs,
    ...machineSettings(node, seats.length > 1),
    rehearsal: rehearsalOf(ask, seat),
  }
}

const memoryOf = (fit: Fit, node: NodeSpec): LaunchAsk['memory'] =>
  node.device === 'cpu'
    ? null
    : {
        gpuBytes: fit.memoryBytes,
        fraction: fit.memoryFraction,
        overheadBytes: fit.overheadBytesPerGpu,
      }

/** RDMA needs the device files and pinned memory; a rank without peers elsewhere needs neither. */
const machineSettings = ({ container, fabric }: NodeSpec, grouped: boolean) => {
  const rdma = grouped && fabric !== undefined && fabric.hca.length > 0
  return {
    ipc: container.ipc,
    shmBytes: parseSize(container.shm),
    memlock: container.memlock,
    privileged: container.privileged,
    capabilities: rdma ? ['IPC_LOCK'] : [],
    devices: [...(rdma ? ['/dev/infiniband'] : []), ...container.devices],
  }
}

const rehearsalOf = (ask: RankAsk, { node, gpus }: Seat): Rehearsal | null => {
  if (!node.rehearse) return null
  const profile = ask.profiles.get(node.gpus?.profile ?? '')
  if (profile === undefined) return null
  return { node: node.name, gpus, ...figures(profile), ...played(ask) }
}

const played = ({ architecture, rehearsalSpeed, deployment }: RankAsk) => ({
  architecture,
  speed: rehearsalSpeed,
  ...(deployment.rehearseAs === undefined ? {} : { asVersion: deployment.rehearseAs }),
})

const figures = (profile: GpuProfile) => ({
  gpuName: profile.names[0] ?? profile.name,
  memoryBytes: profile.memoryBytes.value,
  bandwidthBytesPerSecond: profile.bandwidthBytesPerSecond.value,
  bf16Flops: profile.bf16Flops.value,
  // Without FP8 units the engines compute FP8 weights in 16 bits.
  fp8Flops: (profile.fp8Flops ?? profile.bf16Flops).value,
  interconnectBytesPerSecond: profile.interconnectBytesPerSecond.value,
  powerLimitWatts: profile.powerLimitWatts.value,
})
