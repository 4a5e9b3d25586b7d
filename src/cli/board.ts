/**
 * Progress of an apply: a line per rank. On a terminal the lines change in place, else each change
 * is printed.
 */
import { createLogUpdate } from 'log-update'
import type { ApplyEvent } from '../core/admin.ts'
import { dim, green, red, yellow } from './output.ts'

type RankEvent = Extract<ApplyEvent, { kind: 'rank' }>
type ReplicaEvent = Extract<ApplyEvent, { kind: 'replica' }>

const BAR = 20

const phaseWords = ({ phase, ratio }: RankEvent): string => {
  if (ratio === null) return phase
  const full = Math.round(Math.min(1, Math.max(0, ratio)) * BAR)
  const bar = `${'█'.repeat(full)}${dim('░'.repeat(BAR - full))}`
  return `${phase.padEnd(10)} ${bar} ${Math.round(ratio * 100)} %`
}

const stateWords = ({ state, reason }: ReplicaEvent): string => {
  if (state === 'ready') return green('ready')
  if (state === 'failed') return red(`failed: ${reason}; trying again`)
  return state === 'starting' ? state : yellow(`${state}: ${reason}`)
}

export class Board {
  readonly #live = process.stderr.isTTY
  readonly #update = createLogUpdate(process.stderr)
  readonly #ranks = new Map<string, RankEvent>()
  readonly #replicas = new Map<string, ReplicaEvent>()
  #printed = ''

  rank(event: RankEvent): void {
    this.#ranks.set(`${event.replica} rank ${event.rank} on ${event.node}`, event)
    if (this.#live) this.#draw()
    else this.#print(`${event.replica} rank ${event.rank} on ${event.node}`, plainPhase(event))
  }

  replica(event: ReplicaEvent): void {
    const before = this.#replicas.get(event.replica)
    this.#replicas.set(event.replica, event)
    if (this.#live) this.#draw()
    else if (before?.state !== event.state) this.#print(event.replica, stateWords(event))
  }

  #print(what: string, text: string): void {
    const line = `${what}: ${text}\n`
    if (line !== this.#printed) process.stderr.write(line)
    this.#printed = line
  }

  #draw(): void {
    const width = Math.max(0, ...[...this.#ranks.keys()].map((name) => name.length))
    const lines = [...this.#ranks].map(([name, event]) => {
      const replica = this.#replicas.get(event.replica)
      const words =
        replica === undefined || replica.state === 'starting'
          ? phaseWords(event)
          : stateWords(replica)
      return `  ${name.padEnd(width)}  ${words}`
    })
    const leaving = [...this.#replicas.values()].filter(
      ({ replica }) => ![...this.#ranks.values()].some((rank) => rank.replica === replica),
    )
    const rest = leaving.map((event) => `  ${event.replica}  ${stateWords(event)}`)
    this.#update([...lines, ...rest].join('\n'))
  }

  /** Leaves the last state on the screen. */
  end(): void {
    if (this.#live) this.#update.done()
  }
}

/** Quarters are enough for a log. */
const plainPhase = ({ phase, ratio }: RankEvent): string =>
  ratio === null ? phase : `${phase} ${Math.floor(ratio * 4) * 25} %`
