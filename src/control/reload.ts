/**
 * Hot reload: watches the directory of the manifests that were applied and takes over a Gateway
 * that alone has changed, by the same path as an apply. Deployments wait for `penstock apply`: an
 * editor that saves a file must not restart an engine.
 *
 * Only what was applied from here is followed: as long as the files on disk were those in use, a
 * change to them is the operator's wish. A directory that never was what is in use (an older copy,
 * an apply from another machine) is left alone, or a restart would turn the clock back.
 */
import { type FSWatcher, watch } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../clock.ts'
import type { InputFile, InputFiles, Issue } from '../core/admin.ts'
import { type Desired, gatewayOf } from '../core/desired.ts'
import { errorLine } from '../errors.ts'
import type { Fleet } from '../fleet.ts'
import type { AdminStore } from './admin.ts'
import { issueLine } from './load.ts'
import { readDirectory } from './read.ts'
import type { Wanted } from './wanted.ts'

/** The net under fs.watch, which network file systems and some containers do not have. */
const POLL_MS = 500
/** Files are read when nothing has moved for this long: an editor writes in several steps. */
const SETTLE_MS = 100
const LISTED_MAX = 10_000

export type ReloadOptions = {
  readonly fleet: Fleet
  readonly clock: Clock
  readonly wanted: Wanted
  readonly store: Pick<AdminStore, 'saveDesired' | 'audit'>
  readonly rehearse: boolean
  readonly directory: string
  readonly log: { info(message: string): void; error(message: string): void }
}

/** Watches until the result is called. */
export const watchManifests = (options: ReloadOptions): (() => void) => {
  const reload = new Reload(options)
  reload.start()
  return () => reload.stop()
}

type Texts = ReadonlyMap<string, string>

class Reload {
  readonly #options: ReloadOptions
  readonly #closed = new AbortController()
  #stopPolling = (): void => undefined
  #watcher: FSWatcher | null = null
  #looking = false
  #woken = false
  /** What the directory looks like, since when, and what it looked like when it was read. */
  #moving = ''
  #movedAtMs = 0
  #settled = ''
  #texts: Texts = new Map()
  /** The applied files that we know of, and whether they are those on disk. */
  #applied: InputFiles | null = null
  #following = false
  #said = ''

  constructor(options: ReloadOptions) {
    this.#options = options
  }

  start(): void {
    this.#stopPolling = this.#options.clock.every(POLL_MS, () => this.#look())
    this.#arm()
  }

  stop(): void {
    this.#closed.abort()
    this.#stopPolling()
    this.#watcher?.close()
  }

  /** Where watching is not possible, looking is enough. */
  #arm(): void {
    const disarm = (): void => {
      this.#watcher?.close()
      this.#watcher = null
    }
    try {
      this.#watcher = watch(this.#options.directory, { persistent: false }, () => this.#soon())
      this.#watcher.on('error', disarm)
    } catch {
      disarm()
    }
  }

  /** One look for a whole burst of events. */
  #soon(): void {
    if (this.#woken) return
    this.#woken = true
    this.#options.clock.sleep(SETTLE_MS, this.#closed.signal).then(
      () => {
        this.#woken = false
        void this.#look()
      },
      () => undefined,
    )
  }

  async #look(): Promise<void> {
    if (this.#looking || this.#closed.signal.aborted) return
    this.#looking = true
    try {
      await this.#lookOnce()
    } catch (error) {
      // The next look tries again: the files may be right, and the disk full for a moment.
      this.#settled = ''
      this.#problem(`the manifests could not be reloaded: ${errorLine(error)}`)
    } finally {
      this.#looking = false
    }
  }

  async #lookOnce(): Promise<void> {
    const { wanted, directory, clock } = this.#options
    const shape = await shapeOf(directory)
    const nowMs = clock.monotonic()
    if (shape !== this.#moving) this.#movedAtMs = nowMs
    this.#moving = shape
    const moved = shape !== this.#settled
    if (moved && nowMs - this.#movedAtMs < SETTLE_MS) {
      this.#soon()
      return
    }
    const { files } = wanted
    if (!moved && files === this.#applied) return
    const issues: Issue[] = []
    const manifests = await readDirectory(directory, issues)
    // Changed while we read: the next look comes soon.
    if ((await shapeOf(directory)) !== shape || this.#closed.signal.aborted) return
    this.#settled = shape
    this.#texts = textsOf(manifests)
    this.#consider(manifests, issues)
  }

  #consider(manifests: readonly InputFile[], issues: readonly Issue[]): void {
    const { wanted, directory } = this.#options
    const { files } = wanted
    const isNew = files !== this.#applied
    this.#applied = files
    if (files.inventory === null) return
    if (issues.length === 0 && same(this.#texts, textsOf(files.manifests))) {
      this.#following = true
      this.#clear()
    } else if (this.#following && !isNew) {
      this.#take(manifests, issues)
    } else {
      this.#following = false
      this.#say(`${directory} is not what was applied; \`penstock apply\` takes it over`, false)
    }
  }

  #take(manifests: readonly InputFile[], issues: readonly Issue[]): void {
    const { wanted, directory } = this.#options
    const files = { ...wanted.files, manifests }
    const checked = issues.length > 0 ? { ok: false as const, issues } : wanted.check(files)
    if (!checked.ok) {
      const [first] = checked.issues
      const more = checked.issues.length > 1 ? ` (and ${checked.issues.length - 1} more)` : ''
      this.#problem(`${first === undefined ? '' : issueLine(first)}${more}`)
      return
    }
    const others = changedDeployments(wanted.desired, checked.desired)
    if (others.length > 0) {
      const what = `${others.join(', ')} changed in ${directory}`
      const waits = this.#sameGateway(checked.desired) ? '' : ', the gateway with it'
      this.#say(`${what}: \`penstock apply\` takes it over${waits}`, false)
      return
    }
    // Without it there would be a gateway without limits: not what a slip of the hand should do.
    const gone = [...textsOf(wanted.files.manifests).keys()].filter(
      (name) => !this.#texts.has(name),
    )
    if (gone.length > 0) this.#problem(`${gone.join(', ')} is gone from ${directory}`)
    else if (this.#losesRoutes(checked.desired)) {
      const what = `no route is declared in ${directory} any more, and with them every limit`
      this.#problem(`${what} would go: \`penstock apply\` takes it over if that is meant`)
    } else this.#use(files, checked.desired)
  }

  /** A file cut short, or with its lines commented out, still reads as a Gateway of none. */
  #losesRoutes({ gateway, deployments }: Desired): boolean {
    const usual = gatewayOf(null, deployments).routes
    const before = this.#options.wanted.desired.gateway.routes
    return isDeepStrictEqual(gateway.routes, usual) && !isDeepStrictEqual(before, usual)
  }

  #sameGateway(desired: Desired): boolean {
    return isDeepStrictEqual(desired.gateway, this.#options.wanted.desired.gateway)
  }

  #use(files: InputFiles, desired: Desired): void {
    const { wanted, fleet, store, rehearse, clock, log } = this.#options
    const changed = changedNames(textsOf(wanted.files.manifests), this.#texts).join(', ')
    // Saved and in use, or neither: what a restart reads is what ran before it.
    fleet.generation = store.saveDesired(files, rehearse)
    wanted.use(files, desired)
    this.#applied = wanted.files
    fleet.config.reloads += 1
    fleet.config.reloadedAtMs = clock.now()
    this.#clear()
    store.audit('penstock', 'reload', changed)
    log.info(`${changed} changed on disk: in use now`)
  }

  /** The old files stay in use; said once for each state of the files. */
  #problem(message: string): void {
    const text = `${message}; what was in use before stays in use`
    if (this.#said === text) return
    this.#options.fleet.config.failures += 1
    this.#say(text, true)
  }

  #say(text: string, broken: boolean): void {
    if (this.#said === text) return
    this.#said = text
    const { fleet, log } = this.#options
    fleet.config.broken = broken
    fleet.config.problem = text
    if (broken) log.error(text)
    else log.info(text)
    fleet.changed()
  }

  #clear(): void {
    this.#said = ''
    const { config } = this.#options.fleet
    if (config.problem === null) return
    config.problem = null
    config.broken = false
    this.#options.fleet.changed()
  }
}

/** By file name: the directory may have another path where the files were applied. */
const textsOf = (files: readonly InputFile[]): Texts =>
  new Map(files.map((file) => [path.basename(file.path), file.text]))

const same = (a: Texts, b: Texts): boolean => changedNames(a, b).length === 0

const changedNames = (before: Texts, after: Texts): readonly string[] =>
  [...new Set([...before.keys(), ...after.keys()])].filter(
    (name) => before.get(name) !== after.get(name),
  )

const changedDeployments = (before: Desired, after: Desired): readonly string[] => {
  const [old, now] = [byName(before), byName(after)]
  return [...new Set([...old.keys(), ...now.keys()])].filter(
    (name) => !isDeepStrictEqual(old.get(name), now.get(name)),
  )
}

const byName = ({ deployments }: Desired) => new Map(deployments.map((one) => [one.name, one]))

/** Changes when a file was written, replaced, added or removed. */
const shapeOf = async (directory: string): Promise<string> => {
  try {
    const names = (await readdir(directory)).filter((name) => /^[^.].*\.ya?ml$/.test(name))
    const lines = names
      .sort()
      .slice(0, LISTED_MAX)
      .map((name) => lineOf(directory, name))
    return (await Promise.all(lines)).join('\n')
  } catch (error) {
    return errorLine(error)
  }
}

const lineOf = async (directory: string, name: string): Promise<string> => {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(path.join(directory, name), { bigint: true })
    return [name, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error) {
    return `${name} ${errorLine(error)}`
  }
}
