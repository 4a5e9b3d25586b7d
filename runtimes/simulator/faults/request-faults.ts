/**
 * What goes wrong with one request, decided once when it reaches the engine. The exchange tells it
 * of tokens; the response (http/response.ts) plays what happens on the wire.
 */
import { Random } from '../text/random.ts'
import type { Fault, FaultKind } from './fault.ts'
import type { FaultSchedule } from './schedule.ts'

/** How a response ends before its time. */
export type Break = 'cut' | 'half-event' | 'truncate'

const BREAKS: readonly Break[] = ['cut', 'half-event', 'truncate']

/** One token each: after a broken all-reduce the likeliest one has nothing to do with the text. */
const RUBBISH = [
  '!',
  ' the',
  '的',
  '"),',
  ' NaN',
  '{{',
  '\n',
  'ción',
  ' 0',
  '�',
  '}}',
  ' ***',
  '吗',
]

export class RequestFaults {
  /** Status of an error to answer with in place of running; null: it runs. */
  readonly status: 500 | 429 | null
  /** Simulated milliseconds that the answer's first byte is late. */
  readonly delayMs: number
  readonly breaks: Break | null
  readonly #afterTokens: number
  readonly #rubbish: Random | null
  #tokens = 0

  /** Asks every kind, so that each spreads its share over all requests. */
  constructor(schedule: FaultSchedule, nowMs: number, maxTokens: number) {
    const hit = (kind: FaultKind): Fault | null => schedule.hits(kind, nowMs)
    const [internal, busy] = [hit('error-500'), hit('error-429')]
    this.status = internal !== null ? 500 : busy !== null ? 429 : null
    this.delayMs = hit('slow-first-byte')?.delayMs ?? 0
    const found = BREAKS.map(hit)
    const at = found.findIndex((fault) => fault !== null)
    this.breaks = BREAKS[at] ?? null
    // An answer of fewer tokens than `afterTokens` is broken before its last one.
    this.#afterTokens = Math.min(found[at]?.afterTokens ?? 0, maxTokens - 1)
    this.#rubbish = hit('garble') === null ? null : new Random(maxTokens)
  }

  /** Whether the connection must be reset now. */
  token(): boolean {
    this.#tokens += 1
    return this.breaks === 'cut' && this.due
  }

  /** The next piece of a stream holds a token that must not arrive whole. */
  get due(): boolean {
    return this.#tokens > this.#afterTokens
  }

  /** A token's text as the client gets it; what shows nothing goes on showing nothing. */
  text(piece: string): string {
    if (this.#rubbish === null || piece === '') return piece
    return RUBBISH[this.#rubbish.below(RUBBISH.length)] ?? '!'
  }
}
