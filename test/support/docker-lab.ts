/**
 * Three real Docker engines side by side on loopback, one with one GPU and two with eight, as the
 * acceptance wants them (no GPU is there: the stub hook of docker-daemon.ts takes the requests).
 *
 *   npx node test/support/docker-lab.ts up --dir DIR     starts them, prints the inventory
 *   npx node test/support/docker-lab.ts down --dir DIR   stops them by pid, removes DIR
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { hashTree, importTree } from '../../src/drivers/docker-image.ts'
import { shellParts } from '../../src/drivers/image-parts.ts'
import { buildSimulatorImage } from '../../src/drivers/simulator-image.ts'
import { type Daemon, startDaemon, stopDaemon } from './docker-daemon.ts'
import { nodeSpec } from './rank.ts'

export const LAB = [
  { name: 'h20-1', address: '127.0.0.2', gpus: 1 },
  { name: 'h20-8a', address: '127.0.0.3', gpus: 8 },
  { name: 'h20-8b', address: '127.0.0.4', gpus: 8 },
] as const

/** A shell and its tools; what the tests run in place of an engine. */
export const TEST_IMAGE = 'penstock/test:1'
const PORT = 2375

export type Lab = {
  readonly engines: readonly Daemon[]
  stop(): Promise<void>
}

export const importTestImage = async (daemon: Daemon): Promise<void> => {
  const files = await shellParts()
  const [hash, signal] = [await hashTree(files), AbortSignal.timeout(60_000)]
  await importTree({ docker: daemon.docker, image: TEST_IMAGE, files, hash, signal })
}

/** All or none: what came up is stopped again when one does not. */
export const startLab = async (directory: string, port = PORT): Promise<Lab> => {
  const started = await Promise.allSettled(
    LAB.map(async ({ name, address }) => {
      const hosts = [`tcp://${address}:${port}`]
      const daemon = await startDaemon({ directory: join(directory, name), hosts, gpus: true })
      await importTestImage(daemon)
      return daemon
    }),
  )
  const engines = started.filter((it) => it.status === 'fulfilled').map((it) => it.value)
  const stop = async (): Promise<void> => {
    await Promise.all(engines.map((engine) => engine.stop()))
    rmSync(directory, { recursive: true, force: true })
  }
  const failed = started.find((it) => it.status === 'rejected')
  if (failed !== undefined) {
    await stop()
    throw failed.reason
  }
  return { engines, stop }
}

/** Without CAP_SYS_RESOURCE the daemon may not raise memlock, so the lab leaves it alone. */
export const labInventory = (): string => {
  const nodes = LAB.map(({ name, address, gpus }) =>
    [
      `  ${name}:`,
      `    address: ${address}`,
      '    driver: docker',
      `    docker: tcp://${address}:${PORT}`,
      `    gpus: { profile: h20-96g, count: ${gpus} }`,
      ...(gpus > 1 ? ['    fabric: { interface: lo }'] : []),
      '    container: { memlock: default, ipc: private, shm: 64MiB }',
      '    rehearse: true',
      '',
    ].join('\n'),
  )
  return `nodes:\n${nodes.join('')}`
}

const StateSchema = z.object({
  engines: z.array(z.object({ directory: z.string(), pid: z.int().positive() })),
})

const up = async (directory: string): Promise<void> => {
  if (existsSync(directory)) throw new Error(`${directory} exists; run down first`)
  mkdirSync(directory, { recursive: true })
  const lab = await startLab(directory)
  const engines = lab.engines.map(({ directory: own, pid }) => ({ directory: own, pid }))
  writeFileSync(join(directory, 'lab.json'), JSON.stringify({ engines }))
  writeFileSync(join(directory, 'inventory.yaml'), labInventory())
  await simulator()
  process.stdout.write(labInventory())
  process.stderr.write(`inventory: ${join(directory, 'inventory.yaml')}\n`)
}

const simulator = async (): Promise<void> => {
  const root = resolve(import.meta.dirname, '..', '..')
  const { version } = z
    .object({ version: z.string() })
    .parse(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')))
  const nodes = LAB.map(({ name, address }) =>
    nodeSpec(name, { address, docker: `tcp://${address}:${PORT}` }),
  )
  const note = (line: string): void => void process.stderr.write(`${line}\n`)
  await buildSimulatorImage({ root, version, nodes, note, signal: AbortSignal.timeout(600_000) })
}

const down = async (directory: string): Promise<void> => {
  const state = StateSchema.parse(JSON.parse(readFileSync(join(directory, 'lab.json'), 'utf8')))
  await Promise.all(state.engines.map((engine) => stopDaemon(engine.directory, engine.pid)))
  rmSync(directory, { recursive: true, force: true })
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { dir: { type: 'string' } },
    allowPositionals: true,
  })
  const verb = { up, down }[positionals[0] === 'up' ? 'up' : 'down']
  if (values.dir === undefined || !['up', 'down'].includes(positionals[0] ?? '')) {
    process.stderr.write('usage: docker-lab.ts up|down --dir DIR\n')
    process.exit(2)
  }
  await verb(resolve(values.dir))
}
