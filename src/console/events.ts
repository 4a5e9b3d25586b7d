/**
 * `GET /admin/v1/events`: one picture of the fleet, serialised once and offered to every reader.
 * A reader that is slow misses pictures and gets the newest when it catches up; nothing queues.
 */
import type { Clock, Stop } from '../clock.ts'
import type { AdminPort } from '../core/admin.ts'
import type { FinishedRequest } from '../core/snapshot.ts'
import { PenstockError } from '../errors.ts'
import type { ConsoleLog } from './failures.ts'
import type { EventStream } from './sse.ts'

/** Browsers open one each; 64 is a control room, not a crowd. */
export const MAX_READERS = 64
/** At most four pictures a second: faster than an eye follows a table. */
const TICK_MS = 250
/** Ages must move although nothing changed. */
const QUIET_MS = 2000
/** A picture may cost one twentieth of the main thread: big fleets are drawn less often. */
const COST_FACTOR = 20
/** Requests kept for readers; more than this between two pictures are left out. */
const RECENT = 100

type Reader = {
  readonly stream: EventStream
  /** Asked before each picture: a revoked key ends its streams. */
  readonly allowed: () => boolean
  behind: boolean
  /** Number of the last request that it was sent. */
  seen: number
}

type Numbered = { readonly number: number; readonly request: FinishedRequest }

export class EventHub {
  readonly #admin: AdminPort
  readonly #clock: Clock
  readonly #log: ConsoleLog
  readonly #readers = new Set<Reader>()
  #stops: readonly Stop[] = []
  #changed = false
  #picture = ''
  #drawnAtMs = Number.NEGATIVE_INFINITY
  #gapMs = TICK_MS
  #recent: readonly Numbered[] = []
  #counted = 0

  constructor(admin: AdminPort, clock: Clock, log: ConsoleLog) {
    this.#admin = admin
    this.#clock = clock
    this.#log = log
  }

  get readers(): number {
    return this.#readers.size
  }

  /** Throws rate_limit_exceeded before the stream is opened when there are too many. */
  assertRoom(): void {
    if (this.#readers.size < MAX_READERS) return
    const what = `${MAX_READERS} event streams are open, which is the most; close one`
    throw new PenstockError('rate_limit_exceeded', what)
  }

  add(stream: EventStream, allowed: () => boolean): void {
    if (stream.closed.aborted) return
    const reader: Reader = { stream, allowed, behind: false, seen: 0 }
    this.#readers.add(reader)
    if (this.#readers.size === 1) this.#start()
    stream.closed.addEventListener('abort', () => this.#remove(reader), { once: true })
    stream.onDrain(() => {
      if (reader.behind) this.#offer(reader)
    })
    if (this.#clock.monotonic() - this.#drawnAtMs >= this.#gapMs) this.#draw()
    else this.#offer(reader)
  }

  close(): void {
    for (const reader of this.#readers) reader.stream.end()
    this.#readers.clear()
    this.#stop()
  }

  #start(): void {
    const changed = this.#admin.subscribe(() => {
      this.#changed = true
    })
    this.#stops = [changed, this.#clock.every(TICK_MS, () => this.#tick())]
  }

  #stop(): void {
    for (const stop of this.#stops) stop()
    this.#stops = []
  }

  #remove(reader: Reader): void {
    this.#readers.delete(reader)
    if (this.#readers.size === 0) this.#stop()
  }

  #tick(): void {
    const sinceMs = this.#clock.monotonic() - this.#drawnAtMs
    if (sinceMs >= QUIET_MS || (this.#changed && sinceMs >= this.#gapMs)) this.#draw()
  }

  /** A picture that cannot be drawn is a bug: it is logged, and must not end what serves tokens. */
  #draw(): void {
    this.#changed = false
    this.#drawnAtMs = this.#clock.monotonic()
    try {
      this.#picture = JSON.stringify(this.#admin.fleet())
      this.#count(this.#admin.requests(RECENT))
    } catch (error) {
      this.#log.error({ err: error }, 'the fleet could not be drawn; event streams were closed')
      this.close()
      return
    }
    this.#gapMs = Math.max(TICK_MS, (this.#clock.monotonic() - this.#drawnAtMs) * COST_FACTOR)
    for (const reader of this.#readers) this.#offer(reader)
  }

  /** Numbers the requests that the last picture did not have; `newest` comes newest first. */
  #count(newest: readonly FinishedRequest[]): void {
    const known = new Map(this.#recent.map((entry) => [entry.request.id, entry]))
    const numbered = newest.toReversed().map((request) => {
      const entry = known.get(request.id)
      if (entry !== undefined) return entry
      this.#counted += 1
      return { number: this.#counted, request }
    })
    this.#recent = numbered.slice(-RECENT)
  }

  #offer(reader: Reader): void {
    if (!reader.allowed()) {
      reader.stream.end()
      return
    }
    reader.behind = !reader.stream.ready
    if (reader.behind) return
    reader.stream.send('fleet', this.#picture)
    const fresh = this.#recent.filter((entry) => entry.number > reader.seen)
    if (fresh.length === 0) return
    reader.seen = this.#counted
    const requests = fresh.map((entry) => entry.request).toReversed()
    reader.stream.send('requests', JSON.stringify({ requests }))
  }
}
