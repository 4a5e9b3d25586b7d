/** A RankSpec as Docker wants it, and Docker's answer as a Container. Pure. */
import type Docker from 'dockerode'
import type { Container } from '../core/observed.ts'
import { type Labels, labelsFromRecord, labelsToRecord, type RankSpec } from '../core/runtime.ts'
import { shorten } from './docker-errors.ts'

export type CreateAsk = {
  readonly spec: RankSpec
  readonly image: string
  /** False on a rehearsing machine whose Docker knows no GPUs. */
  readonly gpuRequests: boolean
  readonly hfToken: string | undefined
}

/** NCCL's advice for containers, as NVIDIA's images print it: `--ulimit stack=67108864`. */
const STACK_BYTES = 64 * 1024 * 1024
/** Two sockets a stream and thousands of streams; containerd's default is 1024. */
const FILES = 65_536

export const createOptions = (ask: CreateAsk): Docker.ContainerCreateOptions => {
  const { spec, image, hfToken } = ask
  const [program = '', ...rest] = spec.command
  const environment = {
    ...(hfToken === undefined ? {} : { HF_TOKEN: hfToken }),
    ...spec.environment,
    ...(spec.rehearsal === null ? {} : { PENSTOCK_REHEARSAL: JSON.stringify(spec.rehearsal) }),
  }
  return {
    name: spec.name,
    Image: image,
    Entrypoint: [program],
    Cmd: rest,
    Env: Object.entries(environment).map(([key, value]) => `${key}=${value}`),
    Labels: labelsToRecord(spec.labels),
    // Images with a HEALTHCHECK would have Docker judge the engine as well.
    Healthcheck: { Test: ['NONE'] },
    StopSignal: 'SIGTERM',
    HostConfig: hostConfig(ask),
  }
}

const hostConfig = ({ spec, gpuRequests }: CreateAsk): Docker.HostConfig => ({
  NetworkMode: 'host',
  // tini as PID 1 passes signals to the engine and reaps the children that the engine forgets.
  Init: true,
  RestartPolicy: { Name: 'no' },
  IpcMode: spec.ipc,
  // With the host's IPC the host's /dev/shm is used and Docker ignores the size.
  ...(spec.ipc === 'private' ? { ShmSize: spec.shmBytes } : {}),
  Ulimits: spec.memlock === 'unlimited' ? ULIMITS : [],
  Privileged: spec.privileged,
  CapAdd: [...spec.capabilities],
  Devices: spec.devices.map((path) => ({
    PathOnHost: path,
    PathInContainer: path,
    CgroupPermissions: 'rwm',
  })),
  Binds: spec.mounts.map((it) => `${it.host}:${it.inside}${it.readOnly ? ':ro' : ''}`),
  ...(gpuRequests && spec.gpus.length > 0 ? { DeviceRequests: [gpuRequest(spec.gpus)] } : {}),
  // `local` would be smaller, but json-file is the one that every log collector reads.
  LogConfig: { Type: 'json-file', Config: { 'max-size': '50m', 'max-file': '2' } },
})

const ULIMITS = [
  { Name: 'memlock', Soft: -1, Hard: -1 },
  { Name: 'stack', Soft: STACK_BYTES, Hard: STACK_BYTES },
  { Name: 'nofile', Soft: FILES, Hard: FILES },
]

const gpuRequest = (gpus: readonly number[]): Docker.DeviceRequest => ({
  Driver: 'nvidia',
  DeviceIDs: gpus.map(String),
  Capabilities: [['gpu']],
})

/** Ours and readable, or null: then it is never touched. */
export const labelsOf = (info: Docker.ContainerInspectInfo): Labels | null =>
  labelsFromRecord(info.Config.Labels ?? {})

export const containerOf = (info: Docker.ContainerInspectInfo): Container | null => {
  const labels = labelsOf(info)
  if (labels === null) return null
  const state = stateOf(info.State.Status)
  return {
    name: info.Name.replace(/^\//, ''),
    labels,
    state,
    exitCode: state === 'exited' ? info.State.ExitCode : null,
    // Docker's zero time, 0001-01-01, lies before the epoch.
    startedAtMs: Math.max(0, Date.parse(info.State.StartedAt) || 0),
    error: errorOf(info.State),
  }
}

const stateOf = (status: string): Container['state'] => {
  if (status === 'created') return 'created'
  return status === 'running' || status === 'paused' || status === 'restarting'
    ? 'running'
    : 'exited'
}

const errorOf = (state: Docker.ContainerInspectInfo['State']): string | null => {
  if (state.OOMKilled) return 'killed by the kernel: out of memory'
  if (state.Error !== '') return shorten(state.Error)
  if (state.Status !== 'exited' || state.ExitCode <= 128) return null
  return `ended by signal ${state.ExitCode - 128}`
}
