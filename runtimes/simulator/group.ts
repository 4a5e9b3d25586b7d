/**
 * Ranks of one replica find each other over TCP at the leader's address, agree that they were
 * launched alike, and keep the connection: it closes when a rank dies. Lines of JSON, bounded.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { SimulatedClock } from './clock.ts'
import { isRecord } from './rehearsal.ts'
import type { Settings } from './settings.ts'

export type Group = {
  /** All ranks have come this far; rejects when one is lost or the time is up. */
  loaded(timeoutMs: number): Promise<void>
  /** Called once, with the rank that is gone (0: the leader). */
  onLost(run: (rank: number) => void): void
  /** The leader tells how busy the GPUs are; followers read it. */
  busyRatio: number
  close(): void
}

export type GroupError = { readonly message: string }
export type Formed =
  | { readonly ok: true; readonly group: Group }
  | ({ readonly ok: false } & GroupError)

type Line = Readonly<Record<string, unknown>>

const BEAT_MS = 1000
/** Silence after which a peer counts as lost: a partition sends no FIN. */
const SILENCE_MS = 10_000
const RETRY_MS = 100
const LINE_MAX = 65_536

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

/** One connection with line framing and heartbeats. */
class Peer {
  readonly #socket: Socket
  readonly #beat: NodeJS.Timeout
  #buffer = ''
  #heardMs = performance.now()
  #gone = false
  onLine: (line: Line) => void = () => {}
  onGone: () => void = () => {}

  constructor(socket: Socket, beat: () => Line) {
    this.#socket = socket
    socket.setEncoding('utf8').setNoDelay(true)
    socket.on('data', (chunk) => this.#data(String(chunk)))
    socket.on('error', () => this.#lost())
    socket.on('close', () => this.#lost())
    this.#beat = setInterval(() => {
      this.send(beat())
      if (performance.now() - this.#heardMs > SILENCE_MS) this.#lost()
    }, BEAT_MS)
  }

  send(line: Line): void {
    if (!this.#gone) this.#socket.write(`${JSON.stringify(line)}\n`)
  }

  close(): void {
    this.#gone = true
    clearInterval(this.#beat)
    this.#socket.destroy()
  }

  /** Sends a last line and closes. */
  end(line: Line): void {
    this.#gone = true
    clearInterval(this.#beat)
    this.#socket.end(`${JSON.stringify(line)}\n`)
  }

  #lost(): void {
    if (this.#gone) return
    this.close()
    this.onGone()
  }

  #data(chunk: string): void {
    this.#heardMs = performance.now()
    this.#buffer += chunk
    if (this.#buffer.length > LINE_MAX) this.#lost()
    while (!this.#gone) {
      const at = this.#buffer.indexOf('\n')
      if (at < 0) return
      const text = this.#buffer.slice(0, at)
      this.#buffer = this.#buffer.slice(at + 1)
      const line = parse(text)
      if (line === null) this.#lost()
      else this.onLine(line)
    }
  }
}

const parse = (text: string): Line | null => {
  try {
    const value: unknown = JSON.parse(text)
    return isRecord(value) ? value : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

type Milestones = { loaded: Set<number>; done: boolean; lost: number | null }

/** Rank 0: binds the address and waits for all others. `refused` hears why one was sent away. */
export const lead = async (
  settings: Settings,
  clock: SimulatedClock,
  refused: (reason: string) => void,
): Promise<Formed> => {
  const { rendezvous, nodes, rendezvousTimeoutMs } = settings
  if (rendezvous === null) throw new Error('one node needs no group')
  const peers = new Map<number, Peer>()
  const state: Milestones = { loaded: new Set([0]), done: false, lost: null }
  let lostHook: (rank: number) => void = () => {}
  let changed = () => {}
  const group: Group = {
    busyRatio: 0,
    onLost: (run) => {
      lostHook = run
      if (state.lost !== null) run(state.lost)
    },
    loaded: async (timeoutMs) => {
      const complete = () => state.loaded.size === nodes || state.lost !== null
      const intime = await until(complete, timeoutMs, clock, (run) => (changed = run))
      if (!intime || state.lost !== null) throw new Error(lostText(state, nodes))
      for (const peer of peers.values()) peer.send({ type: 'serve' })
    },
    close: () => {
      server.close()
      for (const peer of peers.values()) peer.close()
    },
  }
  const server: Server = createServer((socket) => {
    const peer = new Peer(socket, () => ({ type: 'beat', busy: group.busyRatio }))
    peer.onLine = (line) => {
      if (line.type === 'hello') welcome(peer, line)
      if (line.type === 'loaded') {
        const found = [...peers].find(([, known]) => known === peer)
        if (found !== undefined) state.loaded.add(found[0])
        changed()
      }
    }
  })
  const welcome = (peer: Peer, line: Line): void => {
    const reason = objection(line, settings, peers)
    if (reason !== null) {
      refused(reason)
      peer.end({ type: 'refuse', reason })
      return
    }
    const rank = Number(line.rank)
    peers.set(rank, peer)
    peer.onGone = () => {
      if (!state.done) {
        // Nothing has begun: the rank may be started again.
        peers.delete(rank)
        return
      }
      state.lost = rank
      changed()
      lostHook(rank)
    }
    changed()
  }
  const bound = await listen(server, rendezvous)
  if (bound !== null) return { ok: false, message: bound }
  const full = () => peers.size === nodes - 1
  const intime = await until(full, rendezvousTimeoutMs, clock, (run) => (changed = run))
  if (!intime) {
    group.close()
    const missing = nodes - 1 - peers.size
    return {
      ok: false,
      message: timeoutText(settings, `${missing} of ${nodes} ranks did not join`),
    }
  }
  state.done = true
  for (const peer of peers.values()) peer.send({ type: 'go' })
  return { ok: true, group }
}

const lostText = (state: Milestones, nodes: number): string =>
  state.lost === null
    ? `only ${state.loaded.size} of ${nodes} ranks became ready in time`
    : `rank ${state.lost} closed its connection during start`

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

const listen = (server: Server, { host, port }: { host: string; port: number }) =>
  new Promise<string | null>((resolve) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(
        `torch.distributed.DistNetworkError: The server socket has failed to listen on any local ` +
          `network address. port: ${port}, address: ${host}, code: ${error.errno ?? 0}, ` +
          `name: ${error.code ?? 'UNKNOWN'}, message: ${error.message}`,
      ),
    )
    server.listen({ host, port }, () => resolve(null))
  })

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
export const join = async (settings: Settings, clock: SimulatedClock): Promise<Formed> => {
  const { rendezvous, nodeRank, rendezvousTimeoutMs } = settings
  if (rendezvous === null) throw new Error('one node needs no group')
  const deadline = clock.now() + rendezvousTimeoutMs
  for (;;) {
    const socket = await dial(rendezvous)
    if (socket !== null) {
      const formed = await greet(socket, settings, nodeRank)
      if (formed !== 'again') return formed
    }
    if (clock.now() > deadline) {
      return { ok: false, message: timeoutText(settings, 'the leader cannot be reached') }
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }
}

const dial = ({ host, port }: { host: string; port: number }): Promise<Socket | null> =>
  new Promise((resolve) => {
    const socket = connect({ host, port })
    socket.once('connect', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', () => {
      socket.destroy()
      resolve(null)
    })
  })

/** `again`: the leader went away before the group was formed. */
const greet = (socket: Socket, settings: Settings, rank: number): Promise<Formed | 'again'> =>
  new Promise((resolve) => {
    const peer = new Peer(socket, () => ({ type: 'beat' }))
    let serve: () => void = () => {}
    let lost: () => void = () => {}
    let lostHook: (rank: number) => void = () => {}
    const gone = { value: false }
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
      if (line.type === 'go') resolve({ ok: true, group })
      if (line.type === 'serve') serve()
      if (line.type !== 'refuse') return
      peer.close()
      resolve({ ok: false, message: `the leader refused this rank: ${String(line.reason)}` })
    }
    peer.send({ type: 'hello', rank, print: fingerprint(settings) })
  })
