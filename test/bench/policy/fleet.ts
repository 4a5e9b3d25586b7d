/** A rehearsed fleet for the bench: `penstock up` as a process, with a gateway.yaml of our own. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  newPlace,
  type Place,
  penstock,
  type Running,
  until,
  verb,
} from '../../support/penstock.ts'

export const SPEED = 5

export type BenchFleet = {
  readonly baseUrl: string
  readonly consoleUrl: string
  readonly adminKey: string
  readonly key: string
  /** Engine address by replica, such as `deepseek-r1/0`. */
  readonly engines: ReadonlyMap<string, string>
  newKey(consumer: string): Promise<string>
  stop(): Promise<void>
}

const DEPLOYMENTS = ['deepseek-r1.yaml', 'qwq-32b.yaml']

/** Resolves when both models are ready; `speed` times as fast as real engines. */
export const startFleet = async (gatewayYaml: string, speed = SPEED): Promise<BenchFleet> => {
  const place = await newPlace({ PENSTOCK_REHEARSAL_SPEED: String(speed) })
  const manifests = join(place.home, 'manifests')
  mkdirSync(manifests, { recursive: true })
  for (const file of DEPLOYMENTS) copyFileSync(join('manifests', file), join(manifests, file))
  writeFileSync(join(manifests, 'gateway.yaml'), gatewayYaml)
  const inventory = join(place.home, 'inventory.yaml')
  writeFileSync(inventory, inventoryAt(20_000 + Math.floor(Math.random() * 8_000)))
  const files = { PENSTOCK_MANIFESTS: manifests, PENSTOCK_INVENTORY: inventory }
  const here = { ...place, environment: { ...place.environment, ...files } }
  const run = penstock(here, ['up'])
  try {
    return await readyFleet(here, run)
  } catch (error) {
    await end(here, run)
    throw error
  }
}

/** The machines of inventory.yaml, on ports that another Penstock here does not use. */
const inventoryAt = (port: number): string => {
  const ports = `ports: { http: ${port}, rendezvous: ${port + 10_000} }`
  const node = (name: string, address: string, count: number): string =>
    `  ${name}: { address: ${address}, driver: process, ${ports},\n` +
    `    fabric: { interface: lo }, gpus: { profile: h20-96g, count: ${count} } }\n`
  const nodes = [
    node('one', '127.0.0.31', 1),
    node('a', '127.0.0.32', 8),
    node('b', '127.0.0.33', 8),
  ]
  return `nodes:\n${nodes.join('')}`
}

const readyFleet = async (place: Place, run: Running): Promise<BenchFleet> => {
  await run.says(/Try it from another terminal/, 600_000)
  const text = run.output()
  const key = /consumer key\S*\s+(sk-ps-\S+)/.exec(text)?.[1] ?? ''
  const adminKey = /admin key\S*\s+(\S+)/.exec(text)?.[1] ?? ''
  const consoleUrl = `http://127.0.0.1:${place.consolePort}`
  return {
    baseUrl: `http://127.0.0.1:${place.gatewayPort}/v1`,
    consoleUrl,
    adminKey,
    key,
    engines: await enginesOf(consoleUrl, adminKey),
    newKey: (consumer) => newKey(place, consumer),
    stop: () => end(place, run),
  }
}

const end = async (place: Place, run: Running): Promise<void> => {
  run.signal('SIGTERM')
  await run.ended(120_000)
  place.remove()
}

const newKey = async (place: Place, consumer: string): Promise<string> => {
  const { code, output } = await verb(place, 'keys', 'create', '--consumer', consumer)
  const key = /sk-ps-\S+/.exec(output)?.[0]
  if (code !== 0 || key === undefined) throw new Error(`no key for ${consumer}: ${output}`)
  return key
}

type Fleet = {
  readonly deployments: readonly {
    readonly replicas: readonly { readonly id: string; readonly endpoint: string }[]
  }[]
}

/** The documented answer of our own admin API, which the same commit serves. */
const isFleet = (value: unknown): value is Fleet =>
  typeof value === 'object' && value !== null && 'deployments' in value

const enginesOf = (consoleUrl: string, key: string): Promise<ReadonlyMap<string, string>> =>
  until(async () => {
    const headers = { authorization: `Bearer ${key}` }
    const answer: unknown = await (await fetch(`${consoleUrl}/admin/v1/fleet`, { headers })).json()
    if (!isFleet(answer)) throw new Error(`GET fleet: ${JSON.stringify(answer)}`)
    const all = answer.deployments.flatMap(({ replicas }) => replicas)
    if (all.length === 0) return null
    return new Map(all.map(({ id, endpoint }) => [id, endpoint]))
  }, 'the fleet')
