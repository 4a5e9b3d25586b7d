/** A real redis-server on loopback, on a port of its own; killed and started again as tests like. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasProgram, requirePart } from './parts.ts'
import { freePort } from './penstock.ts'

export const REDIS = requirePart('redis-server', hasProgram('redis-server'))
export const PASSWORD = 'a-password-that-no-log-shows'

export type TestRedis = {
  readonly port: number
  readonly url: string
  /** Resolves when it answers. It remembers nothing. */
  start(): Promise<void>
  /** As a crash: nothing is written any more. */
  kill(): Promise<void>
  /** Stops it in its tracks: connections stay, and nothing is answered. */
  freeze(): void
  thaw(): void
  /** One command by the plain protocol; the answer's first line. */
  say(...words: string[]): Promise<string>
  close(): Promise<void>
}

/** `more`: further words of its command line. What fails to start leaves nothing behind. */
export const startRedis = async (more: readonly string[] = []): Promise<TestRedis> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'penstock-redis-'))
  let child: ChildProcess | null = null
  const say = (...words: string[]): Promise<string> => command(port, words)
  const start = async (): Promise<void> => {
    const place = ['--bind', '127.0.0.1', '--port', String(port), '--dir', directory]
    const memory = ['--save', '', '--appendonly', 'no', '--requirepass', PASSWORD]
    const starting = spawn('redis-server', [...place, ...memory, ...more], { stdio: 'ignore' })
    child = starting
    let failed: Error | null = null
    starting.once('error', (error) => {
      failed = error
    })
    for (let tries = 0; ; tries += 1) {
      if (failed !== null) throw failed
      if (hasEnded(starting)) {
        throw new Error(`redis-server ended: ${starting.exitCode ?? starting.signalCode}`)
      }
      const answer = await say('PING').catch(() => '')
      if (answer === '+PONG' && !hasEnded(starting)) return
      if (tries > 400) throw new Error('redis-server does not answer')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  const kill = async (): Promise<void> => {
    const running = child
    child = null
    if (running === null || running.pid === undefined || hasEnded(running)) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await gone
  }
  const close = async (): Promise<void> => {
    await kill()
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    await start()
  } catch (error) {
    await close()
    throw error
  }
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    start,
    kill,
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
    say,
    close,
  }
}

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean =>
  exitCode !== null || signalCode !== null

/** Asks again and again, beside the gateways; `end` says how long the slowest answer took. */
export const watchPings = (redis: TestRedis): { end(): Promise<number> } => {
  let watching = true
  let slowestMs = 0
  const asked = async (): Promise<void> => {
    while (watching) {
      const startedAtMs = performance.now()
      await redis.say('PING')
      slowestMs = Math.max(slowestMs, performance.now() - startedAtMs)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  const done = asked()
  return {
    end: async () => {
      watching = false
      await done
      return slowestMs
    },
  }
}

const encoded = (words: readonly string[]): string =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`

const command = (port: number, words: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port })
    let text = ''
    socket.setTimeout(5_000, () => socket.destroy(new Error('Redis is silent')))
    socket.once('error', reject)
    socket.on('data', (chunk) => {
      text += chunk.toString()
      const [auth, ...rest] = text.split('\r\n')
      if (auth === undefined || rest.length < 2) return
      socket.destroy()
      resolve(rest[0] ?? '')
    })
    socket.write(encoded(['AUTH', PASSWORD]) + encoded(words))
  })
