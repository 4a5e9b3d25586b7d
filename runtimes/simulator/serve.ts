/**
 * From Settings to a serving engine: phases, the group of ranks, the HTTP port, and every way the
 * process can end. Failure behaviour across nodes: design facts 2.7 (vLLM) and 3.4 (SGLang).
 */
import { createServer, type Server } from 'node:http'
import type { Rehearsal } from '../../src/core/runtime.ts'
import type { Fault } from './faults/fault.ts'
import { RankFaults } from './faults/rank.ts'
import { FaultSchedule } from './faults/schedule.ts'
import { GpuPublisher, heldOn } from './gpu.ts'
import { type Group, join, lead } from './group.ts'
import { engineServer } from './http/routes.ts'
import type { Service } from './http/service.ts'
import { sendEmpty } from './http/wire.ts'
import { CUDA_LOST, Lifetime } from './lifetime.ts'
import { engineLog } from './log.ts'
import { type Memory, memoryError, occupiedError, planMemory } from './memory.ts'
import * as phases from './phases.ts'
import { buildService } from './service.ts'
import type { Settings } from './settings.ts'
import { processWorld, type World } from './world.ts'

/** Runs until the engine ends; ends the process, or what stands for it, itself. */
export const serve = async (
  settings: Settings,
  rehearsal: Rehearsal,
  planned: readonly Fault[],
  world: World = processWorld(rehearsal.speed),
): Promise<void> => {
  const faults = new FaultSchedule(settings.nodeRank)
  for (const fault of planned) faults.add(fault)
  const { clock, exit } = world
  await world.control({ settings, rehearsal, clock, faults })
  const log = engineLog(settings.engine, rankName(settings), world)
  const memory = planMemory(rehearsal.architecture, rehearsal.memoryBytes, settings)
  const vram = { bytes: 0.6e9, busyRatio: () => 0 }
  const plays = new RankFaults(clock, faults, rehearsal.gpus)
  const publisher = new GpuPublisher(rehearsal, world, () => ({
    processName: processName(settings),
    memoryBytes: vram.bytes,
    busyRatio: vram.busyRatio(),
    ...plays.readings(),
  }))
  const reached = (bytes: number) => {
    vram.bytes = Math.max(vram.bytes, bytes)
  }
  const load = (spanMs: number) => plays.load(spanMs)
  const { pid } = world
  const starting = { settings, rehearsal, memory, clock, log, reached, load, plays, pid, world }
  const publish = () => void publisher.publish()
  plays.play({ publish, exit, xid: () => die(starting, CUDA_LOST), stall: () => undefined })
  const quiet = world.onSignal(() => exit(0))
  const group = await start(starting)
  await publisher.publish()
  quiet()
  const follower = settings.nodeRank > 0
  if (follower) return follow(starting, group, { publish, busy: (read) => (vram.busyRatio = read) })
  const service = buildService(settings, rehearsal, clock, {
    memory,
    faults,
    stdout: world.stdout,
    hex: world.hex,
    log,
  })
  const server = engineServer(service)
  const life = new Lifetime(service, server, { log, world })
  vram.busyRatio = life.busyRatio
  life.watch(group)
  plays.play({ publish, exit, xid: () => life.gpuLost(), stall: (how) => life.stall(how) })
  await listen(server, starting)
  await phases.opened(starting)
  if (service.state === 'starting') service.state = 'serving'
}

type Starting = phases.Starting & { readonly plays: RankFaults; readonly world: World }

/** Everything before the port opens; returns the group when there are several ranks. */
const start = async (starting: Starting): Promise<Group | null> => {
  const { settings, memory, rehearsal, clock, plays, world } = starting
  const began = clock.now()
  await phases.announce(starting)
  const left = rehearsal.gpus.map((gpu) => heldOn(world, rehearsal.node, gpu))
  if (left.some(({ lost }) => lost)) die(starting, CUDA_LOST)
  const taken = Math.max(0, ...left.map(({ memoryBytes }) => memoryBytes))
  const occupied = occupiedError(taken, memory, rehearsal.memoryBytes, settings)
  await refuseTakenPort(starting)
  phases.meeting(starting)
  await plays.free()
  const group = await meet(starting)
  await phases.met(starting)
  if (occupied !== null) die(starting, occupied)
  await phases.loadWeights(starting)
  await phases.profile(starting)
  const problem = memoryError(memory, rehearsal.memoryBytes, settings)
  if (problem !== null) die(starting, problem)
  phases.announceCache(starting)
  await phases.captureGraphs(starting)
  await plays.free()
  const leftMs = settings.readyTimeoutMs - (clock.now() - began)
  if (leftMs <= 0) die(starting, READY_TIMEOUT)
  if (group === null) return null
  try {
    await group.loaded(Math.min(leftMs, settings.rendezvousTimeoutMs))
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error)
    die(starting, `torch.distributed.DistBackendError: NCCL communicator was aborted: ${what}`)
  }
  return group
}

const READY_TIMEOUT =
  'TimeoutError: Timed out waiting for engine core processes to start. This is often caused by ' +
  'slow weight loading for large models. To increase the timeout, set the environment variable: ' +
  'VLLM_ENGINE_READY_TIMEOUT_S.'

const meet = async (starting: Starting): Promise<Group | null> => {
  const { settings, log, world } = starting
  if (settings.nodes === 1 || settings.rendezvous === null) return null
  const formed =
    settings.nodeRank === 0
      ? await lead(settings, world, (reason) => log.warn('Worker', `rendezvous refused: ${reason}`))
      : await join(settings, world)
  if (!formed.ok) return die(starting, formed.message)
  return formed.group
}

/** The engine's last line, then exit code 1. */
const die = ({ log, world }: Pick<Starting, 'log' | 'world'>, message: string): never => {
  log.plain(message)
  return world.exit(1)
}

/** Ranks above 0: vLLM serves nothing, SGLang a dummy that is always well. */
const follow = async (
  starting: Starting,
  group: Group | null,
  on: { readonly publish: () => void; readonly busy: (read: () => number) => void },
): Promise<void> => {
  const { settings, log, plays, world } = starting
  const { exit } = world
  if (group === null) throw new Error('a follower without a group')
  on.busy(() => group.busyRatio)
  plays.play({
    publish: on.publish,
    exit,
    xid: () => {
      log.error(settings.engine === 'vllm' ? 'Worker' : '', CUDA_LOST)
      // vLLM's run_headless returns as if all were well; SGLang's tree is ended by SIGQUIT.
      exit(settings.engine === 'vllm' ? 0 : 137)
    },
    stall: (how) => group.stall(how),
  })
  world.onSignal(() => {
    group.close()
    exit(0)
  })
  if (settings.engine === 'sglang') {
    await listen(dummyServer(), starting)
    log.plain('INFO:     Application startup complete.')
  }
  group.onLost(() => orphaned(starting))
}

/** The head is gone. */
const orphaned = ({ settings, log, clock, world }: Starting): void => {
  if (settings.engine === 'sglang') {
    log.error('', 'Rank 0 is gone: NCCL communicator was aborted. Received sigquit, exiting.')
    clock.after(SGLANG_ORPHAN_MS, () => world.exit(1))
    return
  }
  // Reported in vllm #32136: the headless follower loops on store errors and never ends.
  const complain = () => {
    log.warn('Worker', 'TCPStore.cpp: recvValue failed: Connection was likely closed.')
    clock.after(STORE_ERROR_MS, complain)
  }
  complain()
}

const SGLANG_ORPHAN_MS = 10_000
const STORE_ERROR_MS = 10_000

const dummyServer = (): Server =>
  createServer((request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
    const known = ['/ping', '/health', '/health_generate', '/metrics'].includes(path)
    sendEmpty(response, known ? 200 : 404)
  })

const rankName = (settings: Settings): string => {
  if (settings.engine === 'vllm') return 'simulator'
  const perNode = (settings.tensor * settings.pipeline) / settings.nodes
  return settings.tensor > 1 ? `TP${settings.nodeRank * perNode}` : ''
}

const processName = ({ engine }: Settings): string =>
  engine === 'vllm' ? 'VLLM::Worker' : 'sglang::scheduler'

const refuseTakenPort = async (starting: Starting): Promise<void> => {
  const { settings, world } = starting
  if (settings.engine === 'vllm' && settings.headless) return
  const host = settings.host === '0.0.0.0' ? '127.0.0.1' : settings.host
  if (await world.net.taken({ host, port: settings.port })) die(starting, inUse(settings))
}

const inUse = ({ host, port }: Settings): string =>
  `OSError: [Errno 98] error while attempting to bind on address ('${host}', ${port}): ` +
  'address already in use'

const listen = async (server: Server, starting: Starting): Promise<void> => {
  const { settings, world } = starting
  const error = await world.net.serve(server, settings)
  if (error === null) return
  if (error.code === 'EADDRINUSE') die(starting, inUse(settings))
  die(starting, `OSError: [Errno ${-(error.errno ?? 0)}] ${error.message}`)
}

export type { Memory, Service }
