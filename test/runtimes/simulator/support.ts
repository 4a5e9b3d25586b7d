/** Starts simulator processes under the real programs' names and stops them by their pids. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Architecture } from '../../../src/core/manifest.ts'
import type { Rehearsal } from '../../../src/core/runtime.ts'

export const BIN = resolve(import.meta.dirname, '../../../runtimes/simulator/bin')

export const QWQ: Architecture = {
  weightBytes: 65_527_752_704,
  parameters: 32_763_876_352,
  hiddenSize: 5120,
  layers: 64,
  attentionHeads: 40,
  kvHeads: 8,
  headDimension: 128,
  vocabulary: 152_064,
  maxContext: 131_072,
  weightsType: 'bf16',
}

export const R1: Architecture = {
  weightBytes: 673_150_000_000,
  parameters: 671_030_000_000,
  activeParameters: 37_000_000_000,
  hiddenSize: 7168,
  layers: 61,
  attentionHeads: 128,
  latentDimension: 576,
  vocabulary: 129_280,
  maxContext: 163_840,
  weightsType: 'fp8',
}

export const H20 = {
  gpuName: 'NVIDIA H20',
  memoryBytes: 97_871 * 2 ** 20,
  bandwidthBytesPerSecond: 4e12,
  bf16Flops: 148e12,
  fp8Flops: 296e12,
  interconnectBytesPerSecond: 900e9,
  powerLimitWatts: 500,
}

const GPUS = { one: [0], eight: [0, 1, 2, 3, 4, 5, 6, 7] }

export const rehearsal = (over: Partial<Rehearsal> = {}): Rehearsal => ({
  ...H20,
  node: 'h20-1',
  gpus: GPUS.one,
  architecture: QWQ,
  speed: 100,
  ...over,
})

export const r1Rehearsal = (node: string, over: Partial<Rehearsal> = {}): Rehearsal =>
  rehearsal({ node, gpus: GPUS.eight, architecture: R1, speed: 200, ...over })

const running = new Set<Simulated>()
const scratch = mkdtempSync(join(tmpdir(), 'penstock-simulator-'))

/** Where simulators leave their GPUs' readings, by node. */
export const WRITTEN_BY_SIMULATORS = join(scratch, 'penstock-rehearsal')

export class Simulated {
  readonly child: ChildProcess
  output = ''
  exit: { code: number | null; signal: string | null } | null = null

  constructor(
    program: string,
    argv: readonly string[],
    environment: Rehearsal | null,
    extra: Readonly<Record<string, string>> = {},
  ) {
    this.child = spawn(join(BIN, program), [...argv], {
      env: {
        PATH: process.env.PATH ?? '',
        PENSTOCK_NODE: process.execPath,
        TMPDIR: scratch,
        NODE_COMPILE_CACHE: join(tmpdir(), 'penstock-rehearsal', 'compile-cache'),
        ...(environment === null ? {} : { PENSTOCK_REHEARSAL: JSON.stringify(environment) }),
        ...extra,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const take = (chunk: unknown) => {
      this.output = (this.output + String(chunk)).slice(-1_000_000)
    }
    this.child.stdout?.on('data', take)
    this.child.stderr?.on('data', take)
    this.child.once('close', (code, signal) => {
      this.exit = { code, signal }
      running.delete(this)
    })
    running.add(this)
  }

  async ended(): Promise<number | null> {
    await until(
      () => this.exit !== null,
      `the end of ${this.child.spawnfile}`,
      () => this.output,
    )
    return this.exit?.code ?? null
  }

  async says(text: string | RegExp): Promise<void> {
    const said = () =>
      typeof text === 'string' ? this.output.includes(text) : text.test(this.output)
    const over = () => said() || this.exit !== null
    await until(over, `"${text}" in the log`, () => this.output)
    if (!said()) throw new Error(`ended without saying ${text}:\n${this.output}`)
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.child.kill(signal)
  }
}

/** For afterEach: kills what this file started, by pid. */
export const stopAll = async (): Promise<void> => {
  for (const one of running) one.kill()
  await until(
    () => running.size === 0,
    'all simulators to end',
    () => '',
  )
}

export const cleanUp = (): void => rmSync(scratch, { recursive: true, force: true })

const DEADLINE_MS = 25_000

/** Waits for a condition; a generous deadline and a message instead of a bare time-out. */
export const until = async (
  holds: () => boolean | Promise<boolean>,
  what: string,
  details: () => string = () => '',
): Promise<void> => {
  const deadline = Date.now() + DEADLINE_MS
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}\n${details()}`)
    await new Promise((wake) => setTimeout(wake, 15))
  }
}

export const freePort = (host = '127.0.0.1'): Promise<number> =>
  new Promise((found, failed) => {
    const server = createServer()
    server.once('error', failed)
    server.listen(0, host, () => {
      const address = server.address()
      server.close(() =>
        typeof address === 'object' && address !== null
          ? found(address.port)
          : failed(new Error('no port')),
      )
    })
  })

export const answers = async (url: string): Promise<number | null> => {
  try {
    const response = await fetch(url)
    await response.arrayBuffer()
    return response.status
  } catch {
    return null
  }
}

export const isReady = (url: string) => async (): Promise<boolean> =>
  (await answers(`${url}/health`)) === 200

export const post = (url: string, path: string, body: unknown, signal?: AbortSignal) =>
  fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  })

/** Payloads of an SSE body, with the framing checked: `data: …` lines parted by empty lines. */
export const events = (text: string): readonly string[] => {
  if (!text.endsWith('\n\n')) throw new Error(`cut off: ${text.slice(-100)}`)
  return text
    .slice(0, -2)
    .split('\n\n')
    .map((event) => {
      if (!event.startsWith('data: ') || event.includes('\n')) throw new Error(`frame: ${event}`)
      return event.slice('data: '.length)
    })
}

export const metric = (text: string, name: string): number | null => {
  const line = text
    .split('\n')
    .find((one) => one.startsWith(`${name}{`) || one.startsWith(`${name} `))
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1))
}
