/** A Python that has the official `openai` client, or null. */
import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'

const root = join(import.meta.dirname, '../..')

/** A pip install of one package and its dependencies; then it is there for every later run. */
const INSTALL_DEADLINE_MS = 300_000

const hasOpenai = (python: string): boolean =>
  spawnSync(python, ['-c', 'import openai'], { stdio: 'ignore' }).status === 0

const search = (): string | null =>
  [
    join(root, '.conformance/client/bin/python'),
    join(root, '.conformance/venv/bin/python'),
    'python3',
  ].find(hasOpenai) ?? null

/** In CI it is installed when it is missing (conformance/client); elsewhere nothing is fetched. */
export const pythonWithOpenai = (): string | null => {
  const found = search()
  if (found !== null || process.env.CI !== 'true') return found
  const script = join(root, 'conformance/client')
  spawnSync('bash', [script], { stdio: 'inherit', timeout: INSTALL_DEADLINE_MS })
  return search()
}

export type ProgramEnd = { readonly code: number | null; readonly output: string }

/** Runs a script of this repository to its end; its output is kept whole (a few kilobytes). */
export const runPython = (python: string, args: readonly string[]): Promise<ProgramEnd> =>
  new Promise((resolve, reject) => {
    const child = spawn(python, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const pieces: Buffer[] = []
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (piece: Buffer) => pieces.push(piece))
    }
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, output: Buffer.concat(pieces).toString('utf8') }))
  })
