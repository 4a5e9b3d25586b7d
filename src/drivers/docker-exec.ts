/**
 * A program inside a rank's container. Docker has no call to end an exec, so the program tells its
 * process id first (`sh` execs into it) and a second exec kills it and its group.
 */
import type { Readable } from 'node:stream'
import type Docker from 'dockerode'
import { systemClock } from '../clock.ts'
import { PenstockError } from '../errors.ts'
import { orAborted } from './docker-engine.ts'
import { type DockerAsk, explain } from './docker-errors.ts'
import { framesOf } from './docker-stream.ts'
import { LineSplitter, lastLine } from './lines.ts'

/** An exec is a session of its own (runc calls setsid), so its process id is its group's. */
const ANNOUNCE = 'echo "$$"; exec "$@"'
const KILL = 'kill -s KILL -- "-$0" 2>/dev/null || kill -s KILL "$0"'
const CALL_MS = 10_000
/** A container under load starts an exec within a second; then we leave it to its own end. */
const ANNOUNCE_MS = 5000
const STDERR_CHARS_MAX = 4096

export type ExecAsk = DockerAsk & {
  readonly container: Docker.Container
  readonly command: readonly string[]
}

/** Lines of stdout; throws exec_failed, not_running, node_unreachable. */
export async function* execLines(ask: ExecAsk, signal: AbortSignal): AsyncGenerator<string> {
  signal.throwIfAborted()
  const run = await ExecRun.begin(ask)
  const stop = (): void => {
    run.end().catch(() => undefined) // awaited, and its failure told, in `finally`
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    yield* run.lines()
    if (!signal.aborted) await run.requireSuccess()
  } catch (error) {
    if (!signal.aborted) throw explain(error, ask)
  } finally {
    signal.removeEventListener('abort', stop)
    await run.end()
  }
}

class ExecRun {
  readonly #ask: ExecAsk
  readonly #exec: Docker.Exec
  readonly #output: Readable
  readonly #pid = Promise.withResolvers<number | null>()
  #stderr = ''
  #finished = false
  #ending: Promise<void> | null = null

  static async begin(ask: ExecAsk): Promise<ExecRun> {
    try {
      const exec = await ask.container.exec({
        Cmd: ['sh', '-c', ANNOUNCE, 'penstock', ...ask.command],
        AttachStdout: true,
        AttachStderr: true,
        abortSignal: AbortSignal.timeout(CALL_MS),
      })
      // No signal for the start itself: it would cut the output later on.
      const started = exec.start({ Detach: false, Tty: false })
      return new ExecRun(ask, exec, await orAborted(started, AbortSignal.timeout(CALL_MS)))
    } catch (error) {
      throw explain(error, ask)
    }
  }

  private constructor(ask: ExecAsk, exec: Docker.Exec, output: Readable) {
    this.#ask = ask
    this.#exec = exec
    this.#output = output
  }

  /** The first line is the process id; all others are the program's. */
  async *lines(): AsyncGenerator<string> {
    const stdout = new LineSplitter()
    const stderr = new TextDecoder()
    let announced = false
    try {
      for await (const { stream, bytes } of framesOf(this.#output)) {
        if (stream === 'stderr') {
          const text = stderr.decode(bytes, { stream: true })
          this.#stderr = (this.#stderr + text).slice(-STDERR_CHARS_MAX)
          continue
        }
        for (const line of stdout.push(bytes)) {
          if (announced) yield line
          else this.#pid.resolve(/^\d+$/.test(line) ? Number(line) : null)
          announced = true
        }
      }
      this.#finished = true
      if (announced) yield* stdout.end()
    } finally {
      this.#pid.resolve(null)
    }
  }

  async requireSuccess(): Promise<void> {
    const { ExitCode: code } = await this.#exec.inspect({
      abortSignal: AbortSignal.timeout(CALL_MS),
    })
    if (code === 0) return
    const program = this.#ask.command[0] ?? ''
    const said = lastLine(this.#stderr)
    const how = code === 127 ? 'is not in the container' : `exited with ${code}`
    const message = `${program} ${how}${said === '' ? '' : `: ${said}`}`
    throw new PenstockError('exec_failed', message, this.#ask.place)
  }

  /** Kills the program if it still runs; safe to call twice. */
  end(): Promise<void> {
    this.#ending ??= this.#end()
    return this.#ending
  }

  async #end(): Promise<void> {
    if (this.#finished) return
    const waited = new AbortController()
    const late = systemClock.sleep(ANNOUNCE_MS, waited.signal).then(
      () => null,
      () => null,
    )
    const pid = await Promise.race([this.#pid.promise, late])
    waited.abort()
    if (pid !== null && !this.#finished) await this.#kill(pid)
    this.#output.destroy()
  }

  async #kill(pid: number): Promise<void> {
    try {
      const kill = await this.#ask.container.exec({
        Cmd: ['sh', '-c', KILL, String(pid)],
        abortSignal: AbortSignal.timeout(CALL_MS),
      })
      await kill.start({ Detach: true, Tty: false })
    } catch (error) {
      // The container ended, and the program with it; anything else is worth telling.
      const text = error instanceof Error ? error.message : String(error)
      if (!/not running|no such container|is not running|stopped/i.test(text)) {
        throw explain(error, this.#ask)
      }
    }
  }
}
