/**
 * Settings of this process, from flags and PENSTOCK_* variables through one schema. A flag wins
 * over a variable; an empty variable counts as unset. Every problem is reported at once.
 */
import { availableParallelism } from 'node:os'
import { z } from 'zod'
import { nearest } from './core/nearest.ts'
import { MAX_THREADS } from './core/snapshot.ts'

const number = (pattern: RegExp, min: number, max: number) =>
  z
    .string()
    .refine((text) => pattern.test(text) && Number(text) >= min && Number(text) <= max, {
      message: `expected a number from ${min} to ${max}`,
    })
    .transform(Number)

const whole = (min: number, max: number) => number(/^\d{1,9}$/, min, max)

/** Port 0 lets the system choose: for tests, and for a second Penstock beside the first. */
const Port = whole(0, 65_535)

const Host = z
  .string()
  .regex(/^[A-Za-z0-9:]([A-Za-z0-9.:%-]{0,252})$/, 'expected an IP address or a host name')

const Path = z.string().refine((text) => text.trim() !== '' && !/[\0\r\n]/.test(text), {
  message: 'expected a path on one line',
})

/** One gateway thread per core, less one for control, at least one (shared design, section 2). */
const defaultThreads = (): number => Math.min(MAX_THREADS, Math.max(1, availableParallelism() - 1))

const isRedisUrl = (text: string): boolean => {
  const url = URL.parse(text)
  if (url === null || !/^rediss?:$/.test(url.protocol) || url.hostname === '') return false
  const plain = /^(\/\d{0,4})?$/.test(url.pathname) && url.search === '' && url.hash === ''
  return plain && isEncoded(url.username) && isEncoded(url.password)
}

/** A `%` that stands for itself has to be written %25. */
const isEncoded = (text: string): boolean => /^(?:[^%]|%[0-9A-Fa-f]{2})*$/.test(text)

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

export const SettingsSchema = z.strictObject({
  home: Path.default('./.penstock').describe('directory of the database, logs and run files'),
  gatewayPort: Port.default(8080).describe('port of the OpenAI-compatible endpoint'),
  gatewayHost: Host.default('0.0.0.0').describe('address that the endpoint binds'),
  consolePort: Port.default(8001).describe('port of the console, admin API and metrics'),
  consoleHost: Host.default('127.0.0.1').describe('address that the console binds'),
  inventory: Path.default('./inventory.yaml').describe('file that lists the machines'),
  manifests: Path.default('./manifests').describe('directory of deployments and gateway settings'),
  threads: whole(1, MAX_THREADS).default(defaultThreads).describe('gateway threads'),
  logLevel: z
    .enum(LEVELS, { message: `expected one of ${LEVELS.join(', ')}` })
    .default('info')
    .describe('least severe log line that is written'),
  redis: z
    .string()
    .refine(isRedisUrl, { message: 'expected a URL such as redis://10.0.0.5:6379' })
    .optional()
    .describe('Redis by which several gateways share their limits; from the environment only'),
  redisPasswordFile: Path.optional().describe('file that holds the password of that Redis'),
  rehearsalSpeed: number(/^\d{1,4}(\.\d{1,3})?$/, 0.1, 1000)
    .default(20)
    .describe('how many times faster than real the rehearsed engines run'),
})

export type Settings = Readonly<z.output<typeof SettingsSchema>>
type Key = keyof Settings

/** `gatewayPort` is PENSTOCK_GATEWAY_PORT in the environment and --gateway-port as a flag. */
export const variableOf = (key: string): string =>
  `PENSTOCK_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`

const flagOf = (key: string): string =>
  `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Set by Penstock itself for the engines that it starts, or keys that verbs read themselves. */
const INTERNAL = ['PENSTOCK_REHEARSAL', 'PENSTOCK_NODE', 'PENSTOCK_ADMIN_KEY', 'PENSTOCK_KEY']

/** Never shown, and never a flag: who lists the processes would read it. */
export const SECRET: readonly Key[] = ['redis']

const KEYS: readonly Key[] = SettingsSchema.keyof().options

export type SettingsAnswer =
  | { readonly ok: true; readonly settings: Settings }
  | { readonly ok: false; readonly problems: readonly string[] }

/** `flags` as commander gives them (camelCase); names that are no setting are not looked at. */
export const loadSettings = (
  env: Readonly<Record<string, string | undefined>>,
  flags: Readonly<Record<string, unknown>>,
): SettingsAnswer => {
  const given: Record<string, string> = {}
  const origin = new Map<PropertyKey, string>()
  for (const key of KEYS) {
    const [flag, variable] = [flags[key], env[variableOf(key)]]
    const fromFlag = flag !== undefined && flag !== null
    if (!fromFlag && (variable === undefined || variable === '')) continue
    given[key] = fromFlag ? String(flag) : (variable ?? '')
    origin.set(key, fromFlag ? flagOf(key) : variableOf(key))
  }
  const parsed = SettingsSchema.safeParse(given)
  const problems = unknownVariables(env)
  for (const issue of parsed.error?.issues ?? []) {
    const key = issue.path[0] ?? ''
    const value = JSON.stringify(given[String(key)]?.slice(0, 200))
    const got = SECRET.some((secret) => secret === key) ? '' : `, got ${value}`
    problems.push(`${origin.get(key) ?? String(key)}: ${issue.message}${got}`)
  }
  if (parsed.success) problems.push(...clashes(parsed.data))
  if (!parsed.success || problems.length > 0) return { ok: false, problems }
  return { ok: true, settings: Object.freeze(parsed.data) }
}

const unknownVariables = (env: Readonly<Record<string, string | undefined>>): string[] => {
  const known = KEYS.map(variableOf)
  return Object.keys(env)
    .filter((name) => name.startsWith('PENSTOCK_') && env[name] !== undefined)
    .filter((name) => !known.includes(name) && !INTERNAL.includes(name))
    .map((name) => {
      const guess = nearest(name, known)
      return `${name}: no such setting${guess === null ? '' : ` (did you mean ${guess}?)`}`
    })
}

const EVERY_ADDRESS = ['0.0.0.0', '::']

const clashes = ({ gatewayPort, gatewayHost, consolePort, consoleHost }: Settings): string[] => {
  const shared = gatewayHost === consoleHost
  const hosts = shared || EVERY_ADDRESS.some((any) => any === gatewayHost || any === consoleHost)
  if (gatewayPort !== consolePort || gatewayPort === 0 || !hosts) return []
  return [`gateway and console cannot share port ${gatewayPort}: change one of them`]
}
