/** Who may import whom (design 2), and which library lives where (design 3). */
import { type Import, importsOf, packageOf } from './imports.ts'
import { type Finding, lineOf, type SourceFile } from './source.ts'

/** Zone of a path: the first pattern that matches. `web` is the page, it runs in a browser. */
const ZONES: readonly (readonly [string, RegExp])[] = [
  ['core', /^src\/core\//],
  ['errors', /^src\/errors\.ts$/],
  ['clock', /^src\/clock\.ts$/],
  ['config', /^src\/config\.ts$/],
  ['fleet', /^src\/fleet\.ts$/],
  ['web', /^src\/console\/web\//],
  ['plug-in folder', /^src\/(gateway|control|telemetry|console|store|drivers|agent)\//],
  ['load', /^src\/load\//],
  ['runtimes', /^runtimes\/[^/]+\.ts$/],
  ['simulator', /^runtimes\/simulator\//],
  ['shell', /^src\/(main\.ts$|cli\/)/],
]

const zoneOf = (path: string): string =>
  ZONES.find(([, pattern]) => pattern.test(path))?.[0] ?? 'no zone'

const SHARED = ['core', 'errors', 'clock', 'config']

/** Zones that a zone may import beside itself; a plug-in folder is one folder, not all of them. */
const MAY: Readonly<Record<string, readonly string[]>> = {
  core: [],
  errors: ['core'],
  clock: [],
  config: ['core', 'errors'],
  fleet: ['core', 'errors', 'clock'],
  web: ['core'],
  'plug-in folder': SHARED,
  load: ['core', 'errors', 'clock'],
  runtimes: ['core'],
  simulator: ['core', 'errors', 'clock'],
}

/** The one mutable store of the control side (design 2). */
const FLEET_USERS = /^src\/(control|telemetry|console)\//
const DRIVER_TYPE_USERS = /^src\/(control|telemetry)\//

const HOMES: Readonly<Record<string, RegExp>> = {
  fastify: /^src\/(gateway|console)\//,
  '@fastify/static': /^src\/console\//,
  '@fastify/swagger': /^src\/console\//,
  undici: /^src\/(gateway|telemetry|load|cli)\//,
  dockerode: /^src\/drivers\/docker[\w-]*\.ts$/,
  'tar-stream': /^src\/drivers\//,
  '@kubernetes/client-node': /^src\/drivers\/kubernetes[\w-]*\.ts$/,
  systeminformation: /^src\/(telemetry\/|drivers\/process[\w-]*\.ts$)/,
  'prom-client': /^src\/telemetry\//,
  '@opentelemetry/api': /^src\/telemetry\//,
  yaml: /^src\/control\//,
  kysely: /^src\/store\//,
  pg: /^src\/store\//,
  ioredis: /^src\/gateway\/redis[\w-]*\.ts$/,
  jose: /^src\/gateway\//,
  pino: /^src\/(main\.ts$|cli\/|log\.ts$)/,
  commander: /^src\/(main\.ts$|cli\/)/,
  'log-update': /^src\/cli\/board\.ts$/,
  zod: /^src\//,
  preact: /^src\/console\/web\//,
  '@preact/signals': /^src\/console\/web\//,
  uplot: /^src\/console\/web\//,
}

export const direction = (file: SourceFile): readonly Finding[] =>
  importsOf(file).flatMap((entry) => {
    if (entry.started) return []
    const rule = entry.target === null ? libraryRule(file.path, entry) : zoneRule(file.path, entry)
    return rule === null ? [] : [{ path: file.path, line: lineOf(file, entry.offset), rule }]
  })

const libraryRule = (path: string, { specifier }: Import): string | null => {
  if (specifier.startsWith('node:')) return null
  const name = packageOf(specifier)
  const home = HOMES[name]
  if (home === undefined)
    return `${name} has no home in the table of test/support/tidy/direction.ts`
  return home.test(path) ? null : `${name} may only be imported from ${home.source}`
}

const zoneRule = (path: string, { target, typeOnly }: Import): string | null => {
  if (target === null || !/\.tsx?$/.test(target)) return null
  const [from, to] = [zoneOf(path), zoneOf(target)]
  if (from === 'shell' || sameFolder(path, target, from, to)) return null
  if (MAY[from]?.includes(to)) return null
  if (to === 'fleet' && FLEET_USERS.test(path)) return null
  if (target === 'src/drivers/driver.ts' && typeOnly && DRIVER_TYPE_USERS.test(path)) return null
  return `${from === 'no zone' ? path : from} may not import ${target}`
}

const sameFolder = (path: string, target: string, from: string, to: string): boolean =>
  from === to &&
  (from !== 'plug-in folder' ||
    path.split('/').slice(0, 2).join('/') === target.split('/').slice(0, 2).join('/'))
