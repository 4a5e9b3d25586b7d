/** The composition root: puts fleet, control, gateway, telemetry, console and store together. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { runtimes } from '../../runtimes/index.ts'
import { systemClock as clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { startConsole } from '../console/server.ts'
import { adminPort } from '../control/admin.ts'
import { Backends } from '../control/backends.ts'
import { Loop } from '../control/loop.ts'
import { Nodes } from '../control/nodes.ts'
import type { DriverOf } from '../control/operations.ts'
import { watchPhases } from '../control/phases.ts'
import { postmortemIn } from '../control/postmortem.ts'
import { Pressure } from '../control/pressure.ts'
import { probe } from '../control/probe.ts'
import { loadProfiles } from '../control/profiles.ts'
import { watchManifests } from '../control/reload.ts'
import { gatewaySnapshot } from '../control/snapshot.ts'
import { Spillovers } from '../control/spillover.ts'
import { fleetView } from '../control/view.ts'
import { Wanted } from '../control/wanted.ts'
import type { AdminPort } from '../core/admin.ts'
import type { Desired } from '../core/desired.ts'
import type { GpuProfiles } from '../core/profile.ts'
import type { GatewaySnapshot } from '../core/snapshot.ts'
import type { FleetView } from '../core/view.ts'
import { PenstockError } from '../errors.ts'
import { Fleet } from '../fleet.ts'
import { type GatewayHandle, startGateway } from '../gateway/threads.ts'
import { openStore, type Store } from '../store/store.ts'
import { ADMIN_KEY_FILE } from './client.ts'
import { driverFactory } from './drivers.ts'
import { gatewaySettings } from './gateway-settings.ts'
import type { Log } from './log.ts'
import { CONSOLE_DIRECTORY, PROFILES_DIRECTORY } from './places.ts'
import { startTelemetry, type Telemetry } from './telemetry.ts'
import { VERSION } from './version.ts'

const PUBLISH_EVERY_MS = 100
/** Signals grow old even when nothing changes. */
const REFRESH_EVERY_MS = 1000
const FIRST_LOOK_MS = 12_000

export type PenstockOptions = {
  readonly settings: Settings
  readonly rehearse: boolean
  readonly log: Log
}

export type Penstock = {
  readonly admin: AdminPort
  readonly gatewayUrl: string
  readonly consoleUrl: string
  /** Made at the first start in this home, and shown only then. */
  readonly made: { readonly adminKey: string | null; readonly consumerKey: string | null }
  /** How many replicas are not gone yet. */
  remaining(): number
  /** Stop wanting anything, without forgetting what was applied. */
  release(): void
  drain(deadlineMs: number): Promise<void>
  close(): Promise<void>
}

export const startPenstock = async (options: PenstockOptions): Promise<Penstock> => {
  const profiles = await profilesOrThrow()
  const store = await openStore({ home: options.settings.home })
  const closers: (() => Promise<void> | void)[] = [() => store.close()]
  const close = async (): Promise<void> => {
    for (const closer of closers.splice(0).reverse()) await closer()
  }
  try {
    return await assemble(options, { profiles, store, closers, close })
  } catch (error) {
    await close()
    throw error
  }
}

const profilesOrThrow = async (): Promise<GpuProfiles> => {
  const answer = await loadProfiles(PROFILES_DIRECTORY)
  if (answer.ok) return answer.profiles
  const [first] = answer.issues
  throw new PenstockError('invalid_input', `${first?.file}:${first?.line}: ${first?.message}`)
}

type Parts = {
  readonly profiles: GpuProfiles
  readonly store: Store
  readonly closers: (() => Promise<void> | void)[]
  readonly close: () => Promise<void>
}

const assemble = async (
  { settings, rehearse, log }: PenstockOptions,
  { profiles, store, closers, close }: Parts,
): Promise<Penstock> => {
  const { rehearsalSpeed } = settings
  const fleet = new Fleet()
  const wanted = new Wanted({ fleet, clock, profiles, runtimes, rehearse, rehearsalSpeed })
  const nodes = new Nodes({ fleet, clock, driverFor: driverFactory(settings), log: log.info })
  closers.push(() => nodes.close())
  const driverOf = (node: string) => nodes.driver(node)
  const parts = { fleet, clock, driverOf, runtimes, store, log, nodes, wanted }
  const telemetry = await startTelemetry(parts)
  closers.push(() => telemetry.close())
  const spillovers = new Spillovers(fleet)
  const slotOf = (name: string) => fleet.backendSlot(name)
  const backends = new Backends({ environment: process.env, slotOf })
  const snapshot = (): GatewaySnapshot =>
    snapshotNow({ fleet, spillovers, backends, wanted, store, rehearse })
  const gateway = await startGateway({
    ...gatewaySettings(settings),
    snapshot: snapshot(),
    log,
    onFinished: telemetry.finished,
    onRestart: telemetry.threadRestarted,
  })
  closers.push(() => gateway.close())
  const pressure = () => pressureNow({ fleet, wanted, gateway })
  spillovers.watch((deployment, nowMs) => pressure().model(deployment, nowMs))
  const gatewayUrl = `http://${shownHost(settings.gatewayHost)}:${gateway.port}/v1`
  const view = (): FleetView => viewNow({ fleet, nodes, wanted, gateway, gatewayUrl, rehearse })
  telemetry.watch(view, (slot) => gateway.inFlight(slot))
  const publish = (): void => {
    wanted.refresh()
    gateway.publish(snapshot())
  }
  const core: Core = { fleet, wanted, nodes, store, gateway, rehearse, log, driverOf, publish }
  const { admin, begin } = controlled(core, { settings, telemetry, view, closers })
  const console = await startConsole({
    host: settings.consoleHost,
    port: settings.consolePort,
    admin,
    assets: CONSOLE_DIRECTORY,
    log: log.pino,
  })
  closers.push(() => console.close())
  // Shown only once, by a start that came this far: one whose port is taken has made none.
  const made = firstKeys(settings, store)
  nodes.start()
  closers.push(
    watchPhases({ fleet, clock, driverOf, runtimes, log: log.info }),
    clock.every(REFRESH_EVERY_MS, publish),
    throttled(fleet, publish),
  )
  if (await resume(core)) begin()
  const directory = settings.manifests
  closers.push(watchManifests({ fleet, clock, wanted, store, rehearse, directory, log }))
  publish()
  return {
    admin,
    gatewayUrl,
    consoleUrl: `http://${shownHost(settings.consoleHost)}:${console.port}/`,
    made,
    remaining: () => fleet.replicas.size,
    release: () => wantNothing(wanted),
    drain: (deadlineMs) => gateway.drain(deadlineMs),
    close,
  }
}

type Core = {
  readonly fleet: Fleet
  readonly wanted: Wanted
  readonly nodes: Nodes
  readonly store: Store
  readonly gateway: GatewayHandle
  readonly rehearse: boolean
  readonly log: Log
  readonly driverOf: DriverOf
  readonly publish: () => void
}

type Around = {
  readonly settings: Settings
  readonly telemetry: Telemetry
  readonly view: () => FleetView
  readonly closers: (() => Promise<void> | void)[]
}

/** The control loop and the admin port that steers it. The loop rests until `begin`. */
const controlled = (core: Core, { settings, telemetry, view, closers }: Around) => {
  const { fleet, wanted, store, gateway, rehearse, log, driverOf, publish } = core
  const postmortem = postmortemIn(join(settings.home, 'logs'), driverOf, log.info)
  const inFlight = (slot: number): number => gateway.inFlight(slot)
  const loopParts = { fleet, clock, driverOf, runtimes, inFlight, log: log.info }
  const loop = new Loop({
    ...loopParts,
    probe: telemetry.books.probing(probe),
    postmortem: postmortem.keep,
  })
  closers.push(() => loop.close())
  let looping = false
  const begin = (): void => {
    if (looping) return
    looping = true
    loop.start()
  }
  const admin = adminPort({
    ...{ fleet, clock, wanted, store, rehearse, driverOf, view },
    useInventory: (desired) => useInventory(core.nodes, desired),
    began: begin,
    requests: telemetry.requests,
    history: telemetry.history,
    usage: telemetry.books.usage,
    reconcile: telemetry.books.reconcile,
    metrics: telemetry.metrics,
    postmortemOf: postmortem.of,
    keysChanged: publish,
    ready: () => looping || fleet.observations.size > 0,
  })
  return { admin, begin }
}

/** Drivers for these nodes, and a first look; one that does not answer is not waited for long. */
const useInventory = async (nodes: Nodes, { inventory }: Desired): Promise<void> => {
  await nodes.use(inventory)
  await Promise.race([nodes.observe(), clock.sleep(FIRST_LOOK_MS)])
}

const shownHost = (host: string): string =>
  host === '0.0.0.0' || host === '::' ? 'localhost' : host.includes(':') ? `[${host}]` : host

const throttled = (fleet: Fleet, run: () => void): (() => void) => {
  let timer: NodeJS.Timeout | null = null
  const stop = fleet.subscribe(() => {
    timer ??= setTimeout(() => {
      timer = null
      run()
    }, PUBLISH_EVERY_MS)
  })
  return () => {
    stop()
    if (timer !== null) clearTimeout(timer)
  }
}

/**
 * Take up what was applied last. Nothing applied, or not readable: touch nothing until an apply.
 */
const resume = async ({ fleet, wanted, store, rehearse, log, nodes }: Core): Promise<boolean> => {
  const saved = await store.loadDesired()
  if (saved === null) return false
  if (saved.rehearsal !== rehearse) {
    log.info(`what was applied before was ${saved.rehearsal ? '' : 'not '}a rehearsal: left alone`)
    return false
  }
  const checked = wanted.check(saved.files)
  if (!checked.ok) {
    const [first] = checked.issues
    log.error(`what was applied before does not check any more: ${first?.file}: ${first?.message}`)
    return false
  }
  await useInventory(nodes, checked.desired)
  fleet.generation = saved.generation
  wanted.use(saved.files, checked.desired)
  return true
}

const wantNothing = (wanted: Wanted): void => {
  const { desired, files } = wanted
  wanted.use(files, { ...desired, deployments: [] })
}

const firstKeys = (settings: Settings, store: Store): Penstock['made'] => {
  const file = join(resolve(settings.home), ADMIN_KEY_FILE)
  const known = store.keys().filter(({ revokedAtMs }) => revokedAtMs === null)
  const key = (role: 'admin' | 'consumer', consumer: string): string =>
    store.createKey({ role, consumer, models: null }).key
  // A key file of an older database opens nothing: then it is written anew.
  const valid = existsSync(file) && store.roleOf(readFileSync(file, 'utf8').trim()) === 'admin'
  const adminKey = valid ? null : key('admin', 'local-cli')
  if (adminKey !== null) writeFileSync(file, `${adminKey}\n`, { mode: 0o600 })
  const consumerKey = known.some(({ role }) => role === 'consumer')
    ? null
    : key('consumer', 'first')
  return { adminKey, consumerKey }
}

let version = 0

const snapshotNow = (ask: {
  readonly fleet: Fleet
  readonly spillovers: Spillovers
  readonly backends: Backends
  readonly wanted: Wanted
  readonly store: Store
  readonly rehearse: boolean
}): GatewaySnapshot => {
  version += 1
  const { fleet, spillovers, backends, wanted, store, rehearse } = ask
  return gatewaySnapshot({
    fleet,
    spillovers,
    backends,
    deployments: wanted.desired.deployments,
    gateway: wanted.desired.gateway,
    keys: store.consumerKeys(),
    version,
    rehearsal: rehearse,
    nowMs: clock.now(),
  })
}

const pressureNow = ({ fleet, wanted, gateway }: Pick<Core, 'fleet' | 'wanted' | 'gateway'>) =>
  new Pressure({ fleet, queues: gateway, deployments: wanted.desired.deployments })

const viewNow = (ask: {
  readonly fleet: Fleet
  readonly nodes: Nodes
  readonly wanted: Wanted
  readonly gateway: GatewayHandle
  readonly gatewayUrl: string
  readonly rehearse: boolean
}): FleetView => {
  const { fleet, nodes, wanted, gateway, gatewayUrl, rehearse } = ask
  return fleetView({
    fleet,
    nodes: nodes.specs(),
    deployments: wanted.desired.deployments,
    gatewayManifest: wanted.desired.gateway,
    gateway: {
      url: gatewayUrl,
      threads: gateway.threads,
      inFlight: gateway.totalInFlight(),
      limits: gateway.limits(),
    },
    inFlight: (slot) => gateway.inFlight(slot),
    breaker: (slot) => gateway.breaker(slot),
    pressure: pressureNow({ fleet, wanted, gateway }),
    version: VERSION,
    rehearsal: rehearse || nodes.specs().some(({ rehearse: played }) => played),
    rehearsalSpeed: wanted.rehearsalSpeed,
    nowMs: clock.now(),
  })
}
