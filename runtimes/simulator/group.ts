/**
 * Ranks of one replica find each other over TCP at the leader's address, agree that they were
 * launched alike, and keep the connection: it closes when a rank dies. Lines of JSON, bounded.
 */
import type { Duplex } from 'node:stream'
import type { SimulatedClock } from './clock.ts'
import type { Address, Listening } from './net.ts'
import { type Line, Peer } from './peer.ts'
import type { Settings } from './settings.ts'
import type { World } from './world.ts'

export type Group = {
  /** All ranks have come this far; rejects when one is lost or the time is up. */
  loaded(timeoutMs: number): Promise<void>
  /** Called once, with the rank that is gone (0: the leader). */
  onLost(run: (rank: number) => void): void
  /** This rank's part in collectives stops or goes on; `partition` also cuts what it hears. */
  stall(how: Stall): void
  /** Leader only: called when another rank stalls the group and when none does any more. */
  onStalled(run: (stalled: boolean) => void): void
  /** The leader tells how busy the GPUs are; followers read it. */
  busyRatio: number
  close(): void
}

/** `hang`: its processes stand; `partition`: they run, but the network carries nothing. */
export type Stall = 'none' | 'hang' | 'partition'

export type GroupError = { readonly message: string }
export type Formed =
  | { readonly ok: true; readonly group: Group }
  | ({ readonly ok: false } & GroupError)

/** Real milliseconds between two attempts to reach the leader. */
const RETRY_MS = 100

type Around = Pick<World, 'clock' | 'net'>

/** What must be equal on all ranks, as one word. */
const fingerprint = (settings: Settings): string =>
  [
    settings.engine,
    settings.model,
    `tp${settings.tensor}`,
    `pp${settings.pipeline}`,
    `nnodes${settings.nodes}`,
    `len${settings.contextTokens}`,
    `kv${settings.kvType}`,
  ].join(' ')

/** Rank 0: binds the address and waits for all others. `refused` hears why one was sent away. */
export const lead = async (
  settings: Settings,
  world: Around,
  refused: (reason: string) => void,
): Promise<Formed> => {
  const leader = new Leader(settings, world, refused)
  const problem = await leader.form()
  return problem === null ? { ok: true, group: leader } : { ok: false, message: problem }
}

class Leader implements Group {
  busyRatio = 0
  readonly #settings: Settings
  readonly #clock: SimulatedClock
  readonly #refused: (reason: string) => void
  readonly #world: Around
  #listening: Listening | null = null
  readonly #peers = new Map<number, Peer>()
  readonly #loaded = new Set([0])
  #formed = false
  #lost: number | null = null
  #lostHook: (rank: number) => void = () => {}
  #stallHook: (stalled: boolean) => void = () => {}
  readonly #stalls = new Map<number, Stall>()
  #own: Stall = 'none'
  #changed = () => {}

  constructor(settings: Settings, world: Around, refused: (reason: string) => void) {
    this.#settings = settings
    this.#world = world
    this.#clock = world.clock
    this.#refused = refused
  }

  /** Null once all ranks have joined, else why not. */
  async form(): Promise<string | null> {
    const { rendezvous, nodes, rendezvousTimeoutMs } = this.#settings
    if (rendezvous === null) throw new Error('one node needs no group')
    this.#listening = await this.#world.net.listen(rendezvous, (link) => this.#connected(link))
    if (!this.#listening.ok) return bindText(rendezvous, this.#listening.error)
    const full = () => this.#peers.size === nodes - 1
    if (!(await this.#until(full, rendezvousTimeoutMs))) {
      this.close()
      const missing = nodes - 1 - this.#peers.size
      return timeoutText(this.#settings, `${missing} of ${nodes} ranks did not join`)
    }
    this.#formed = true
    this.#tell({ type: 'go' })
    return null
  }

  async loaded(timeoutMs: number): Promise<void> {
    const { nodes } = this.#settings
    const complete = () => this.#loaded.size === nodes || this.#lost !== null
    const inTime = await this.#until(complete, timeoutMs)
    if (this.#lost !== null) {
      throw new Error(`rank ${this.#lost} closed its connection during start`)
    }
    if (!inTime) throw new Error(`only ${this.#loaded.size} of ${nodes} ranks became ready in time`)
    this.#tell({ type: 'serve' })
  }

  onLost(run: (rank: number) => void): void {
    this.#lostHook = run
    if (this.#lost !== null) run(this.#lost)
  }

  stall(how: Stall): void {
    this.#own = how
    for (const [rank, peer] of this.#peers) this.#muteAsTold(rank, peer)
    this.#tell({ type: 'stall', how })
  }

  onStalled(run: (stalled: boolean) => void): void {
    this.#stallHook = run
    if (this.#stalls.size > 0) run(true)
  }

  #stalled(rank: number, peer: Peer, how: unknown): void {
    if (how === 'hang' || how === 'partition') this.#stalls.set(rank, how)
    else this.#stalls.delete(rank)
    this.#muteAsTold(rank, peer)
    this.#stallHook(this.#stalls.size > 0)
  }

  #muteAsTold(rank: number, peer: Peer): void {
    peer.mute(this.#own === 'partition' || this.#stalls.get(rank) === 'partition')
  }

  close(): void {
    if (this.#listening?.ok === true) this.#listening.close()
    for (const peer of this.#peers.values()) peer.close()
  }

  #tell(line: Line): void {
    for (const peer of this.#peers.values()) peer.send(line)
  }

  #until(holds: () => boolean, timeoutMs: number): Promise<boolean> {
    return until(holds, timeoutMs, this.#clock, (run) => {
      this.#changed = run
    })
  }

  #connected(socket: Duplex): void {
    const peer = new Peer(socket, this.#clock, () => ({ type: 'beat', busy: this.busyRatio }))
    peer.onLine = (line) => {
      if (line.type === 'hello') this.#welcome(peer, line)
      const found = [...this.#peers].find(([, known]) => known === peer)
      if (found === undefined) return
      if (line.type === 'stall') this.#stalled(found[0], peer, line.how)
      if (line.type !== 'loaded') return
      this.#loaded.add(found[0])
      this.#changed()
    }
  }

  #welcome(peer: Peer, line: Line): void {
    const reason = objection(line, this.#settings, this.#peers)
    if (reason !== null) {
      this.#refused(reason)
      peer.end({ type: 'refuse', reason })
      return
    }
    const rank = Number(line.rank)
    this.#peers.set(rank, peer)
    this.#muteAsTold(rank, peer)
    peer.onGone = () => this.#gone(rank)
    this.#changed()
  }

  #gone(rank: number): void {
    if (!this.#formed) {
      // Nothing has begun: the rank may be started again.
      this.#peers.delete(rank)
      this.#stalls.delete(rank)
      return
    }
    this.#lost ??= rank
    this.#changed()
    this.#lostHook(rank)
  }
}

const timeoutText = ({ rendezvous, rendezvousTimeoutMs }: Settings, what: string): string =>
  `torch.distributed.DistStoreError: Timed out after ${Math.round(rendezvousTimeoutMs / 1000)} ` +
  `seconds waiting for clients at ${rendezvous?.host}:${rendezvous?.port}: ${what}.`

const objection = (
  line: Line,
  settings: Settings,
  peers: ReadonlyMap<number, Peer>,
): string | null => {
  const { rank, print } = line
  if (print !== fingerprint(settings)) {
    return `rank ${rank} was launched as "${print}", rank 0 as "${fingerprint(settings)}"`
  }
  if (typeof rank !== 'number' || rank < 1 || rank >= settings.nodes) {
    return `rank ${rank} is not one of 1 to ${settings.nodes - 1}`
  }
  return peers.has(rank) ? `rank ${rank} has joined already` : null
}

const bindText = ({ host, port }: Address, error: NodeJS.ErrnoException): string =>
  `torch.distributed.DistNetworkError: The server socket has failed to listen on any local ` +
  `network address. port: ${port}, address: ${host}, code: ${error.errno ?? 0}, ` +
  `name: ${error.code ?? 'UNKNOWN'}, message: ${error.message}`

/** True once the condition holds, false when the time is up. `subscribe` gets the wake-up call. */
const until = (
  holds: () => boolean,
  timeoutMs: number,
  clock: SimulatedClock,
  subscribe: (run: () => void) => void,
): Promise<boolean> =>
  new Promise((resolve) => {
    const finish = (value: boolean) => {
      subscribe(() => {})
      cancel()
      resolve(value)
    }
    const cancel = clock.after(timeoutMs, () => finish(holds()))
    subscribe(() => {
      if (holds()) finish(true)
    })
    if (holds()) finish(true)
  })

/** Ranks 1 and up: connect, again and again, until the leader is there or the time is up. */
export const join = async (settings: Settings, { clock, net }: Around): Promise<Formed> => {
  const { rendezvous, rendezvousTimeoutMs } = settings
  if (rendezvous === null) throw new Error('one node needs no group')
  const deadline = clock.now() + rendezvousTimeoutMs
  for (;;) {
    const socket = await net.dial(rendezvous)
    if (socket !== null) {
      const formed = await greet(socket, settings, clock)
      if (formed !== 'again') return formed
    }
    if (clock.now() > deadline) {
      return { ok: false, message: timeoutText(settings, 'the leader cannot be reached') }
    }
    await clock.sleep(RETRY_MS * clock.speed)
  }
}

/** `again`: the leader went away before the group was formed. */
const greet = (
  socket: Duplex,
  settings: Settings,
  clock: SimulatedClock,
): Promise<Formed | 'again'> =>
  new Promise((resolve) => {
    const peer = new Peer(socket, clock, () => ({ type: 'beat' }))
    let serve: () => void = () => {}
    let lost: () => void = () => {}
    let lostHook: (rank: number) => void = () => {}
    const gone = { value: false }
    let own: Stall = 'none'
    let leaders: unknown = 'none'
    const served = new Promise<void>((done, fail) => {
      serve = done
      lost = () => fail(new Error('the leader closed the connection during start'))
    })
    served.catch(() => {})
    const group: Group = {
      busyRatio: 0,
      loaded: (_timeoutMs) => {
        peer.send({ type: 'loaded' })
        return served
      },
      onLost: (run) => {
        lostHook = run
        if (gone.value) run(0)
      },
      stall: (how) => {
        // Told while the line still carries it; the end is told first when it carries again.
        peer.send({ type: 'stall', how })
        own = how
        peer.mute(own === 'partition' || leaders === 'partition')
      },
      onStalled: () => {},
      close: () => peer.close(),
    }
    peer.onGone = () => {
      gone.value = true
      resolve('again')
      lost()
      lostHook(0)
    }
    peer.onLine = (line) => {
      if (line.type === 'beat' && typeof line.busy === 'number') group.busyRatio = line.busy
      if (line.type === 'stall') {
        leaders = line.how
        peer.mute(own === 'partition' || leaders === 'partition')
      }
      if (line.type === 'go') resolve({ ok: true, group })
      if (line.type === 'serve') serve()
      if (line.type !== 'refuse') return
      peer.close()
      resolve({ ok: false, message: `the leader refused this rank: ${String(line.reason)}` })
    }
    peer.send({ type: 'hello', rank: settings.nodeRank, print: fingerprint(settings) })
  })
