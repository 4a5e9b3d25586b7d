/**
 * The memory of the process driver: one JSON file a rank, so that a Penstock that died without a
 * word finds its engines again. Written whole or not at all (rename(2)).
 */
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { type Labels, labelsFromRecord } from '../core/runtime.ts'

const RunSchema = z.object({
  version: z.literal(1),
  name: z.string().regex(/^[a-z0-9][a-z0-9.-]{0,200}$/),
  /** Tells this run from the next of the same name; inherited by every process of the run. */
  run: z.uuid(),
  labels: z.record(z.string(), z.string()),
  command: z.array(z.string()).min(1),
  /** Names only: values may be secrets. */
  environment: z.array(z.string()),
  bootId: z.string(),
  /** The wrapper, leader of the run's process group; null until it was started. */
  leader: z.object({ pid: z.int().positive(), startTicks: z.int().nonnegative() }).nullable(),
  startedAtMs: z.number(),
})

export type Run = z.output<typeof RunSchema>
export type OwnRun = Run & { readonly own: Labels }

export class RunFiles {
  readonly directory: string
  readonly logs: string

  constructor(home: string) {
    this.directory = join(home, 'run')
    this.logs = join(home, 'logs')
  }

  path(name: string): string {
    return join(this.directory, `${name}.json`)
  }

  exitPath(run: Pick<Run, 'name' | 'run'>): string {
    return join(this.directory, `${run.name}.${run.run}.exit`)
  }

  logPath(name: string): string {
    return join(this.logs, `${name}.log`)
  }

  async prepare(): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 })
    await mkdir(this.logs, { recursive: true, mode: 0o700 })
  }

  async write(run: Run): Promise<void> {
    const temporary = `${this.path(run.name)}.${run.run}.new`
    await writeFile(temporary, `${JSON.stringify(run, null, 2)}\n`, { mode: 0o600 })
    await rename(temporary, this.path(run.name))
  }

  /** `foreign`: something is there that is not ours to touch (damaged, or no labels of ours). */
  async read(name: string): Promise<OwnRun | 'foreign' | null> {
    const text = await textOrNull(this.path(name))
    if (text === null) return null
    const run = parseRun(text)
    return run !== null && run.name === name ? run : 'foreign'
  }

  async all(): Promise<readonly OwnRun[]> {
    const names = (await namesIn(this.directory)).filter((file) => file.endsWith('.json'))
    const runs = await Promise.all(names.map((file) => this.read(file.slice(0, -5))))
    return runs.filter((run) => run !== null && run !== 'foreign')
  }

  /** Exit code left by the wrapper; null while it runs or when it was killed itself. */
  async exitCode(run: Run): Promise<number | null> {
    const text = await textOrNull(this.exitPath(run))
    return text !== null && /^\d{1,3}$/.test(text.trim()) ? Number(text) : null
  }

  async exitedAtMs(run: Run): Promise<number | null> {
    return (await stat(this.exitPath(run)).catch(() => null))?.mtimeMs ?? null
  }

  /** Removes everything of this name except its log, also what a killed Penstock left behind. */
  async remove(name: string): Promise<void> {
    const left = (await namesIn(this.directory)).filter((file) => belongsTo(file, name))
    await Promise.all(left.map((file) => rm(join(this.directory, file), { force: true })))
  }
}

const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const TRAILER = new RegExp(`^\\.(json|json\\.${UUID}\\.new|${UUID}\\.exit(\\.new)?)$`)

/** Names may hold dots, so a prefix is not enough: `a` must not remove the files of `a.b`. */
const belongsTo = (file: string, name: string): boolean =>
  file.startsWith(name) && TRAILER.test(file.slice(name.length))

const parseRun = (text: string): OwnRun | null => {
  let value: unknown = null
  try {
    value = JSON.parse(text)
  } catch {
    return null // damaged: the caller treats the file as foreign and says so
  }
  const run = RunSchema.safeParse(value)
  const own = run.success ? labelsFromRecord(run.data.labels) : null
  return run.success && own !== null ? { ...run.data, own } : null
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT'

const textOrNull = async (path: string): Promise<string | null> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

const namesIn = async (directory: string): Promise<readonly string[]> => {
  try {
    return await readdir(directory)
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}
