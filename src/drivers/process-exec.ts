/** A program run in the place of a rank on this machine: its environment, its directory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { PenstockError } from '../errors.ts'
import { lastLine, linesOf } from './lines.ts'

const STDERR_CHARS_MAX = 4096

export type ExecAsk = {
  readonly command: readonly string[]
  readonly environment: Record<string, string>
  readonly directory: string
  readonly node: string
}

/** Lines of stdout; throws exec_failed when it cannot run or ends with a failure. */
export async function* execLines(ask: ExecAsk, signal: AbortSignal): AsyncGenerator<string> {
  signal.throwIfAborted()
  const [program = '', ...rest] = ask.command
  const child = spawn(program, rest, {
    cwd: ask.directory,
    env: ask.environment,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = endOf(child)
  const kill = (): void => killGroup(child)
  signal.addEventListener('abort', kill, { once: true })
  let stderr = ''
  child.stderr.setEncoding('utf8')
  child.stderr.on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS_MAX)
  })
  try {
    yield* linesOf(child.stdout)
    const end = await ended
    if (signal.aborted || end.ok) return
    const said = lastLine(stderr)
    const message = `${program} ${end.how}${said === '' ? '' : `: ${said}`}`
    throw new PenstockError('exec_failed', message, { node: ask.node })
  } finally {
    signal.removeEventListener('abort', kill)
    killGroup(child)
    await ended
  }
}

type End = { readonly ok: boolean; readonly how: string }

const endOf = (child: ChildProcess): Promise<End> =>
  new Promise((resolve) => {
    child.once('error', (error) => resolve({ ok: false, how: `cannot run (${error.message})` }))
    child.once('close', (code, name) =>
      resolve({ ok: code === 0, how: code === null ? `ended by ${name}` : `exited with ${code}` }),
    )
  })

const killGroup = (child: ChildProcess): void => {
  // While the leader is not reaped its number cannot be taken by another group.
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
