/**
 * A world for ranks of the flight simulator without a process, a socket or a file: virtual time,
 * links and readings in memory, an end that only this rank comes to. What a rank says, and when,
 * is kept.
 */
import type { Server } from 'node:http'
import { type Duplex, duplexPair } from 'node:stream'
import { SimulatedClock } from '../../runtimes/simulator/clock.ts'
import type { GpuFiles } from '../../runtimes/simulator/gpu-files.ts'
import type { Address, Net } from '../../runtimes/simulator/net.ts'
import { Random } from '../../runtimes/simulator/text/random.ts'
import type { World } from '../../runtimes/simulator/world.ts'
import { type Call, call } from './memory-http.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** Thrown where `process.exit` would not return. */
class Ended extends Error {}

const keyOf = ({ host, port }: Address): string => `${host}:${port}`

/** What all ranks of a machine room share. */
export class Room {
  readonly clock: VirtualClock
  readonly gpus: GpuFiles
  readonly #stored = new Map<string, Readonly<Record<string, unknown>>>()
  readonly #listeners = new Map<string, (link: Duplex) => void>()
  readonly #servers = new Map<string, Server>()
  #pids = 100

  constructor(clock: VirtualClock) {
    this.clock = clock
    const key = (node: string, gpu: number) => `${node}/${gpu}`
    this.gpus = {
      read: (node, gpu) => this.#stored.get(key(node, gpu)) ?? null,
      write: (node, gpu, value) => {
        this.#stored.set(key(node, gpu), value)
        return Promise.resolve()
      },
      leave: (node, gpu, value) => {
        if (value === null) this.#stored.delete(key(node, gpu))
        else this.#stored.set(key(node, gpu), value)
      },
    }
  }

  get nextPid(): number {
    this.#pids += 1
    return this.#pids
  }

  /** The raw answer, and whether it was cut; nobody listening is an answer of nothing. */
  request(address: Address, asked: Call, ended: (raw: string, cut: boolean) => void): () => void {
    const server = this.#servers.get(keyOf(address))
    if (server !== undefined) return call(server, asked, ended)
    ended('', true)
    return () => {}
  }

  /** For one rank; `own` gets what is to be undone at its end. */
  net(own: (undo: () => void) => void): Net {
    return {
      listen: (address, take) => {
        const key = keyOf(address)
        if (this.#listeners.has(key)) return Promise.resolve({ ok: false, error: inUse() })
        this.#listeners.set(key, (link) => {
          own(() => link.destroy())
          take(link)
        })
        const close = () => void this.#listeners.delete(key)
        own(close)
        return Promise.resolve({ ok: true, close })
      },
      dial: (address) => {
        const take = this.#listeners.get(keyOf(address))
        if (take === undefined) return Promise.resolve(null)
        const [mine, theirs] = duplexPair()
        mine.once('close', () => theirs.destroy())
        theirs.once('close', () => mine.destroy())
        own(() => mine.destroy())
        take(theirs)
        return Promise.resolve(mine)
      },
      serve: (server, address) => {
        const key = keyOf(address)
        if (this.#servers.has(key)) return Promise.resolve(inUse())
        this.#servers.set(key, server)
        own(() => {
          this.#servers.delete(key)
          server.closeAllConnections()
        })
        return Promise.resolve(null)
      },
      taken: (address) => Promise.resolve(this.#servers.has(keyOf(address))),
    }
  }
}

const inUse = (): NodeJS.ErrnoException =>
  Object.assign(new Error('address in use'), { code: 'EADDRINUSE', errno: -98 })

const hexOf = (random: Random): string =>
  Array.from({ length: 32 }, () => random.below(16).toString(16)).join('')

/** Counts from the rank's own start; what it has asked for does not run once it has ended. */
class RankClock extends SimulatedClock {
  readonly #room: VirtualClock
  readonly #guard: (run: () => void) => () => void
  readonly #own: (undo: () => void) => void
  readonly #beganMs: number

  constructor(
    room: VirtualClock,
    guard: (run: () => void) => () => void,
    own: (undo: () => void) => void,
  ) {
    super(1)
    this.#room = room
    this.#guard = guard
    this.#own = own
    this.#beganMs = room.now()
  }

  override now(): number {
    return this.#room.now() - this.#beganMs
  }

  override epochMs(): number {
    return this.#room.epochMs()
  }

  override realMs(simulatedMs: number): number {
    return Math.max(0, simulatedMs)
  }

  override realNow(): number {
    return 0
  }

  override after(simulatedMs: number, run: () => void): () => void {
    return this.#room.after(simulatedMs, this.#guard(run))
  }

  override every(spanMs: number, run: () => void): () => void {
    const stop = this.#room.every(spanMs, this.#guard(run))
    this.#own(stop)
    return stop
  }

  override soon(run: () => void): () => void {
    return this.after(0, run)
  }

  override sleep(simulatedMs: number): Promise<void> {
    return new Promise((resolve) => this.after(simulatedMs, resolve))
  }
}

export class MemoryRank {
  readonly world: World
  /** Null while it runs; a killed one has 137. */
  code: number | null = null
  readonly #undo: (() => void)[] = []
  readonly #atExit: (() => void)[] = []
  readonly #signals = new Set<() => void>()
  readonly #guard: (run: () => void) => () => void

  /** `said` gets every line of its output. */
  constructor(room: Room, said: (text: string) => void) {
    this.#guard = (run) => () => this.#run(run)
    const print = (text: string) => {
      if (this.code === null) said(text)
    }
    const pid = room.nextPid
    const random = new Random(pid)
    const own = (undo: () => void) => void this.#undo.push(undo)
    this.world = {
      clock: new RankClock(room.clock, this.#guard, own),
      pid,
      net: room.net(own),
      gpus: room.gpus,
      hex: () => hexOf(random),
      stdout: print,
      stderr: print,
      exit: (code) => {
        this.#end(code, true)
        throw new Ended(`exit ${code}`)
      },
      onSignal: (run) => {
        this.#signals.add(run)
        return () => this.#signals.delete(run)
      },
      onExit: (run) => void this.#atExit.push(run),
      control: () => Promise.resolve(),
    }
  }

  /** The rank's whole life; a bug in it is thrown, its end is not. */
  live(life: Promise<void>): void {
    life.catch((error: unknown) => {
      if (error instanceof Ended) return
      throw error
    })
  }

  terminate(): void {
    for (const run of [...this.#signals]) this.#run(run)
  }

  /** SIGKILL: nothing is asked. */
  kill(): void {
    if (this.code === null) this.#end(137, false)
  }

  #run(run: () => void): void {
    if (this.code !== null) return
    try {
      run()
    } catch (error) {
      if (!(error instanceof Ended)) throw error
    }
  }

  #end(code: number, asked: boolean): void {
    if (this.code !== null) return
    if (asked) for (const run of this.#atExit) run()
    this.code = code
    for (const undo of this.#undo) undo()
  }
}
