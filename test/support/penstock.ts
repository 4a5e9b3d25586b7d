/**
 * Runs the real `penstock` as a process of its own, in a home of its own, on ports it found free.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export type Place = {
  readonly home: string
  readonly gatewayPort: number
  readonly consolePort: number
  readonly environment: Readonly<Record<string, string>>
  remove(): void
}

export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      server.close(() => resolve(port))
    })
  })

export const newPlace = async (extra: Readonly<Record<string, string>> = {}): Promise<Place> => {
  const home = mkdtempSync(join(tmpdir(), 'penstock-e2e-'))
  const [gatewayPort, consolePort] = [await freePort(), await freePort()]
  return {
    home,
    gatewayPort,
    consolePort,
    environment: {
      PENSTOCK_HOME: home,
      PENSTOCK_GATEWAY_HOST: '127.0.0.1',
      PENSTOCK_GATEWAY_PORT: String(gatewayPort),
      PENSTOCK_CONSOLE_PORT: String(consolePort),
      PENSTOCK_REHEARSAL_SPEED: '200',
      ...extra,
    },
    remove: () => rmSync(home, { recursive: true, force: true }),
  }
}

export type Running = {
  readonly child: ChildProcess
  readonly pid: number
  output(): string
  /** Resolves with the match once the output has it; rejects when the process ends before. */
  says(pattern: RegExp, withinMs?: number): Promise<RegExpMatchArray>
  /** Exit code, or the signal's name. */
  ended(withinMs?: number): Promise<number | string>
  signal(name: NodeJS.Signals): void
}

export const penstock = (place: Place, words: readonly string[]): Running => {
  const child = spawn(process.execPath, ['src/main.ts', ...words], {
    cwd: ROOT,
    env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '', ...place.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  const hear = (chunk: Buffer): void => {
    text += chunk.toString()
  }
  child.stdout.on('data', hear)
  child.stderr.on('data', hear)
  const end = new Promise<number | string>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'))
  })
  const within = <T>(work: Promise<T>, ms: number, what: string): Promise<T> => {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${what} not within ${ms} ms:\n${text}`)), ms)
    })
    return Promise.race([work, late]).finally(() => clearTimeout(timer))
  }
  return {
    child,
    pid: child.pid ?? 0,
    output: () => text,
    says: (pattern, withinMs = 120_000) => {
      const look = async (): Promise<RegExpMatchArray> => {
        for (;;) {
          const match = text.match(pattern)
          if (match !== null) return match
          if (child.exitCode !== null) throw new Error(`ended before ${pattern}:\n${text}`)
          await new Promise((resolve) => setTimeout(resolve, 50))
        }
      }
      return within(look(), withinMs, `${pattern}`)
    },
    ended: (withinMs = 120_000) => within(end, withinMs, 'the end'),
    signal: (name) => {
      child.kill(name)
    },
  }
}

/** One verb, run to its end. */
export const verb = async (place: Place, ...words: string[]) => {
  const run = penstock(place, words)
  const code = await run.ended()
  return { code, output: run.output() }
}

/** Waits until `look` answers something else than null. */
export const until = async <T>(
  look: () => Promise<T | null> | T | null,
  what: string,
  withinMs = 120_000,
): Promise<T> => {
  const deadline = Date.now() + withinMs
  for (;;) {
    const found = await look()
    if (found !== null) return found
    if (Date.now() > deadline) throw new Error(`${what}: not within ${withinMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
