/** One connection between two ranks: lines of JSON, heartbeats, and what a partition does to it. */
import type { Duplex } from 'node:stream'
import type { SimulatedClock } from './clock.ts'
import { isRecord } from './rehearsal.ts'

export type Line = Readonly<Record<string, unknown>>

/** Real milliseconds. */
const BEAT_MS = 1000
/** Silence after which a peer counts as lost: a partition sends no FIN. */
const SILENCE_MS = 10_000
const LINE_MAX = 65_536
/** Lines that a partition holds back, as TCP would; there are five kinds, each said once. */
const HELD_MAX = 64

/** One connection with line framing and heartbeats. */
export class Peer {
  readonly #socket: Duplex
  readonly #clock: SimulatedClock
  readonly #stopBeat: () => void
  #buffer = ''
  #heardMs: number
  #gone = false
  #muted = false
  /** A close that a partition hides. */
  #hidden = false
  #held: { readonly line: Line; readonly sent: boolean }[] = []
  onLine: (line: Line) => void = () => {}
  onGone: () => void = () => {}

  constructor(socket: Duplex, clock: SimulatedClock, beat: () => Line) {
    this.#socket = socket
    this.#clock = clock
    this.#heardMs = clock.now()
    socket.setEncoding('utf8')
    socket.on('data', (chunk) => this.#data(String(chunk)))
    socket.on('error', () => this.#lost())
    socket.on('close', () => this.#lost())
    this.#stopBeat = clock.every(BEAT_MS, () => {
      this.send(beat())
      if ((clock.now() - this.#heardMs) / clock.speed > SILENCE_MS) this.#lost()
    })
  }

  send(line: Line): void {
    if (this.#muted && line.type !== 'stall') this.#hold(line, true)
    else this.#write(line)
  }

  /**
   * Nothing gets through until it is lifted, no close either; then what was held back arrives.
   * The `stall` lines are the simulator's own and pass, as do the bare heartbeats on the wire.
   */
  mute(muted: boolean): void {
    if (this.#muted === muted) return
    this.#muted = muted
    if (muted) return
    const held = this.#held
    this.#held = []
    for (const { line, sent } of held) {
      if (sent) this.#write(line)
      else this.onLine(line)
    }
    if (this.#hidden) this.#lost()
  }

  #write(line: Line): void {
    if (!this.#gone) this.#socket.write(`${JSON.stringify(line)}\n`)
  }

  #hold(line: Line, sent: boolean): void {
    if (sent && line.type === 'beat') this.#write({ type: 'beat' })
    if (line.type === 'beat' || this.#held.length >= HELD_MAX) return
    this.#held.push({ line, sent })
  }

  close(): void {
    this.#gone = true
    this.#stopBeat()
    this.#socket.destroy()
  }

  /** Sends a last line and closes. */
  end(line: Line): void {
    this.#gone = true
    this.#stopBeat()
    this.#socket.end(`${JSON.stringify(line)}\n`)
  }

  #lost(): void {
    if (this.#muted) this.#hidden = true
    if (this.#gone || this.#muted) return
    this.close()
    this.onGone()
  }

  #data(chunk: string): void {
    this.#heardMs = this.#clock.now()
    this.#buffer += chunk
    if (this.#buffer.length > LINE_MAX) this.#lost()
    while (!this.#gone) {
      const at = this.#buffer.indexOf('\n')
      if (at < 0) return
      const text = this.#buffer.slice(0, at)
      this.#buffer = this.#buffer.slice(at + 1)
      const line = parse(text)
      if (line === null) this.#lost()
      else if (this.#muted && line.type !== 'stall') this.#hold(line, false)
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
