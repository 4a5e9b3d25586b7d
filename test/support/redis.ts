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

/** `more`: further words of its command line. */
export const startRedis = async (more: readonly string[] = []): Promise<TestRedis> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'penstock-redis-'))
  let child: ChildProcess | null = null
  const say = (...words: string[]): Promise<string> => command(port, words)
  const start = async (): Promise<void> => {
    const place = ['--bind', '127.0.0.1', '--port', String(port), '--dir', directory]
    const memory = ['--save', '', '--appendonly', 'no', '--requirepass', PASSWORD]
    child = spawn('redis-server', [...place, ...memory, ...more], { stdio: 'ignore' })
    for (let tries = 0; ; tries += 1) {
      const answer = await say('PING').catch(() => '')
      if (answer === '+PONG') return
      if (tries > 400) throw new Error('redis-server does not answer')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  const kill = async (): Promise<void> => {
    const running = child
    child = null
    if (running === null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await gone
  }
  await start()
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    start,
    kill,
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
    say,
    close: async () => {
      await kill()
      rmSync(directory, { recursive: true, force: true })
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
