/**
 * Docker over SSH through the machine's own `ssh`, as Docker's CLI does it: the operator's
 * ~/.ssh/config, agent, keys, jump hosts and known_hosts hold. (ssh2, which docker-modem brings,
 * would accept any host key.) Each connection is one `ssh … docker system dial-stdio`.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { Agent } from 'node:http'
import { Duplex, type Readable, type Writable } from 'node:stream'

export type SshTarget = {
  readonly user: string | null
  readonly host: string
  readonly port: number | null
  /** Program and leading options; tests add `-F FILE`. */
  readonly command: readonly string[]
}

/** Idle connections kept for the next call; a handshake costs 0.2 s and more. */
const IDLE_MAX = 2
/** A follow and an exec for each of 16 ranks hold one each; the rest is for short calls. */
const CONNECTIONS_MAX = 64
/** sshd begins to refuse at 10 that are not authenticated yet (MaxStartups 10:30:100). */
const HANDSHAKES_MAX = 6
const STDERR_CHARS_MAX = 2048

/** What ssh said before it gave up; `message` is its last words. */
export class SshError extends Error {
  constructor(said: string) {
    super(said)
    this.name = 'SshError'
  }
}

export const sshArguments = (target: SshTarget): readonly string[] => [
  ...target.command.slice(1),
  ...['-T', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=10', '-o', 'ServerAliveInterval=15'],
  ...(target.port === null ? [] : ['-p', String(target.port)]),
  ...(target.user === null ? [] : ['-l', target.user]),
  // `--` before the host: a name that begins with a dash must never become an option.
  ...['--', target.host, 'docker', 'system', 'dial-stdio'],
]

export class SshAgent extends Agent {
  readonly #target: SshTarget
  /** At most CONNECTIONS_MAX wait here: the agent asks for no more. */
  readonly #waiting: (() => void)[] = []
  #handshakes = 0

  constructor(target: SshTarget) {
    super({ keepAlive: true, maxFreeSockets: IDLE_MAX, maxSockets: CONNECTIONS_MAX })
    this.#target = target
  }

  override createConnection(
    _options: unknown,
    done: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    const open = (): void => {
      this.#handshakes += 1
      done(null, new SshConnection(this.#spawn(), () => this.#settled()))
    }
    if (this.#handshakes < HANDSHAKES_MAX) open()
    else this.#waiting.push(open)
  }

  #settled(): void {
    this.#handshakes -= 1
    this.#waiting.shift()?.()
  }

  #spawn(): SshChild {
    return spawn(this.#target.command[0] ?? 'ssh', sshArguments(this.#target), {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
  }
}

type SshChild = ChildProcessByStdio<Writable, Readable, Readable>

/** The standard streams of `ssh` as the one socket that Node's HTTP client expects. */
class SshConnection extends Duplex {
  readonly #child: SshChild
  /** Told once: the first byte came (so ssh is through), or it ended before. */
  #settled: () => void
  #stderr = ''

  constructor(child: SshChild, settled: () => void) {
    super({ allowHalfOpen: false })
    this.#child = child
    this.#settled = settled
    child.stdout.on('data', (chunk: Buffer) => {
      this.#settle()
      if (!this.push(chunk)) child.stdout.pause()
    })
    child.stderr.setEncoding('utf8')
    child.stderr.on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_CHARS_MAX)
    })
    // A write after ssh ended fails here too; its reason is told by `close` below.
    child.stdin.on('error', () => undefined)
    child.once('error', (error) => this.destroy(error))
    child.once('close', (code) => {
      if (code === 0) this.push(null)
      else this.destroy(new SshError(this.#stderr.trim() || `ssh exited with ${code}`))
    })
  }

  override _read(): void {
    this.#child.stdout.resume()
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    if (this.#child.stdin.write(chunk)) done()
    else this.#child.stdin.once('drain', done)
  }

  override _final(done: () => void): void {
    this.#child.stdin.end(done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#child.kill()
    this.#settle()
    done(error)
  }

  #settle(): void {
    const settled = this.#settled
    this.#settled = () => undefined
    settled()
  }

  // What Node's HTTP client calls on a socket; time-outs are ours (an abort signal a call).
  setTimeout(): this {
    return this
  }
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
  ref(): this {
    this.#child.ref()
    return this
  }
  unref(): this {
    this.#child.unref()
    return this
  }
}
