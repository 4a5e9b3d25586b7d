/**
 * A simulated day of a replica on two nodes: every kind of fault once, a supervisor that starts it
 * anew, clients, scrapes and nvidia-smi, all on a virtual clock. Whatever is seen is written down.
 */
import type { Fault, FaultKind } from '../../../runtimes/simulator/faults/fault.ts'
import { readFault } from '../../../runtimes/simulator/faults/fault.ts'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import { serve } from '../../../runtimes/simulator/serve.ts'
import type { Settings } from '../../../runtimes/simulator/settings.ts'
import { nvidiaSmi } from '../../../runtimes/simulator/smi.ts'
import { Random } from '../../../runtimes/simulator/text/random.ts'
import { MemoryRank, Room } from '../../support/memory-world.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import { QWQ, rehearsal } from './support.ts'

export type Name = 'vllm' | 'sglang'

const MINUTE_MS = 60_000
export const SLOT_MS = 90 * MINUTE_MS
const DAY_MS = 24 * 60 * MINUTE_MS
const REQUESTS = 700
/** What the supervisor gives a replica that has ended before it starts it again. */
const BACKOFF_MS = 20_000

type Scope = Partial<
  Pick<Fault, 'durationMs' | 'rank' | 'share' | 'delayMs' | 'afterTokens' | 'code'>
>

/** One of each; the group is up and has been for half an hour when its slot's fault begins. */
export const TIMELINE: readonly (readonly [FaultKind, Scope])[] = [
  ['hang', { rank: 1 }],
  ['exit', { rank: 1, durationMs: 1000, code: 3 }],
  ['partition', { rank: 1, durationMs: 4 * MINUTE_MS }],
  ['freeze-counters', { rank: 0, durationMs: 40 * MINUTE_MS }],
  ['slow-shards', { durationMs: 40 * MINUTE_MS }],
  ['keep-memory', { rank: 0, durationMs: 15 * MINUTE_MS }],
  ['nvml-lost', { rank: 1, durationMs: 10 * MINUTE_MS }],
  ['xid', { rank: 1, durationMs: 10 * MINUTE_MS }],
  ['slow-first-byte', { rank: 0, durationMs: 40 * MINUTE_MS, delayMs: 5000, share: 0.5 }],
  ['cut', { rank: 0, durationMs: 40 * MINUTE_MS, afterTokens: 5, share: 0.5 }],
  ['half-event', { rank: 0, durationMs: 40 * MINUTE_MS, afterTokens: 5, share: 0.5 }],
  ['truncate', { rank: 0, durationMs: 40 * MINUTE_MS, afterTokens: 5, share: 0.5 }],
  ['garble', { rank: 0, durationMs: 40 * MINUTE_MS, share: 0.5 }],
  ['error-500', { rank: 0, durationMs: 40 * MINUTE_MS, share: 0.5 }],
  ['error-429', { rank: 0, durationMs: 40 * MINUTE_MS, share: 0.5 }],
]

/** When a slot's fault begins. */
export const startOf = (slot: number): number => slot * SLOT_MS + 30 * MINUTE_MS

/** These show only in a start: an operator restarts the replica while they are on. */
const RESTARTED: readonly FaultKind[] = ['slow-shards', 'keep-memory']

export type Entry = { readonly atMs: number; readonly who: string; readonly text: string }

const HTTP = { host: '10.0.0.1', port: 8000 }

const settingsOf = (engine: Name, rank: number): Settings => {
  const facts = {
    maxContext: QWQ.maxContext,
    attentionHeads: QWQ.attentionHeads,
    memoryBytes: 97_871 * 2 ** 20,
    localGpus: 1,
    environment: {},
  }
  const where = `--host ${HTTP.host} --port ${rank === 0 ? HTTP.port : HTTP.port + 1}`
  const command =
    engine === 'vllm'
      ? readVllm(
          `m --max-model-len 4096 --tensor-parallel-size 2 --nnodes 2 --node-rank ${rank} ${where}`
            .concat(` --master-addr 10.0.0.1 --master-port 29500${rank === 0 ? '' : ' --headless'}`)
            .split(' '),
          facts,
        )
      : readSglang(
          `--model-path m --context-length 4096 --tp-size 2 --nnodes 2 --node-rank ${rank} ${where}`
            .concat(' --dist-init-addr 10.0.0.1:29500 --enable-metrics')
            .split(' '),
          facts,
        )
  if (!command.ok) throw new Error(command.message)
  return command.settings
}

class Day {
  readonly entries: Entry[] = []
  readonly clock = new VirtualClock()
  readonly #engine: Name
  readonly #room = new Room(this.clock)
  #ranks: readonly MemoryRank[] = []
  #restarting = false

  constructor(engine: Name) {
    this.#engine = engine
  }

  note(who: string, text: string): void {
    this.entries.push({ atMs: this.clock.now(), who, text })
  }

  start(): void {
    this.#restarting = false
    this.#ranks = [0, 1].map((rank) => {
      const one = new MemoryRank(this.#room, (text) => this.note(`rank ${rank}`, text))
      const setting = rehearsal({ node: `node-${rank}`, speed: 1 })
      one.live(serve(settingsOf(this.#engine, rank), setting, this.#faults(rank), one.world))
      return one
    })
  }

  /** A replica whose head has ended is cleared away and begun again. */
  supervise(): void {
    const [head, other] = this.#ranks
    if (this.#restarting || head === undefined || head.code === null) return
    this.note('supervisor', `rank 0 ended with ${head.code}, rank 1 is at ${other?.code ?? 'work'}`)
    this.#restart()
  }

  /** SIGTERM, a minute's grace, SIGKILL, a new start. */
  restart(): void {
    this.note('operator', 'restart')
    this.#restart()
  }

  #restart(): void {
    this.#restarting = true
    for (const rank of this.#ranks) rank.terminate()
    this.clock.after(MINUTE_MS, () => {
      for (const rank of this.#ranks) rank.kill()
    })
    this.clock.after(MINUTE_MS + BACKOFF_MS, () => this.start())
  }

  /** Those still to come, and what of those begun still lasts; a blow strikes one process once. */
  #faults(rank: number): readonly Fault[] {
    const now = this.clock.now()
    return TIMELINE.flatMap(([kind, scope], slot) => {
      const { durationMs = null, ...rest } = scope
      const startMs = startOf(slot) - now
      const blow = durationMs === null || kind === 'exit' || kind === 'xid'
      const leftMs = durationMs === null ? null : Math.min(durationMs, startMs + durationMs)
      if (startMs < 0 && (blow || kind === 'keep-memory' || (leftMs ?? 1) <= 0)) return []
      const read = readFault({ kind, startMs: Math.max(0, startMs), durationMs: leftMs, ...rest })
      if (!read.ok) throw new Error(read.message)
      return read.fault.rank === null || read.fault.rank === rank ? [read.fault] : []
    })
  }

  ask(id: number, random: Random): void {
    const body = {
      model: 'm',
      messages: [{ role: 'user', content: `Question ${id}: ${'how? '.repeat(random.below(60))}` }],
      max_tokens: 10 + random.below(50),
      seed: id,
      stream: random.next() < 0.7,
    }
    const asked = { method: 'POST', path: '/v1/chat/completions', body }
    const began = this.clock.now()
    this.#room.request(HTTP, asked, (raw, cut) =>
      this.note('client', `${id} asked at ${began}${cut ? ' cut' : ''}\n${raw}`),
    )
  }

  get(path: string): void {
    this.#room.request(HTTP, { method: 'GET', path }, (raw, cut) =>
      this.note(`GET ${path}`, `${cut ? 'cut ' : ''}${raw}`),
    )
  }

  smi(node: number, argv: string): void {
    const setting = rehearsal({ node: `node-${node}`, speed: 1 })
    const { text, code } = nvidiaSmi(argv.split(' '), setting, this.#room)
    this.note(`smi ${node}`, `${code} ${text}`)
  }
}

/** All that was seen, in order; the same seed sees the same. */
export const day = async (
  engine: Name,
  seed: number,
  untilMs = DAY_MS,
): Promise<readonly Entry[]> => {
  const one = new Day(engine)
  const { clock } = one
  const random = new Random(seed)
  one.start()
  let atMs = 0
  for (let id = 0; id < REQUESTS; id += 1) {
    atMs += -Math.log(1 - random.next()) * (DAY_MS / (REQUESTS * 1.05))
    const own = new Random(seed * 10_007 + id)
    clock.after(atMs, () => one.ask(id, own))
  }
  clock.every(5000, () => one.supervise())
  clock.every(MINUTE_MS, () => one.get('/health'))
  clock.every(5 * MINUTE_MS, () => one.get('/metrics'))
  clock.every(2 * MINUTE_MS, () => {
    const query = '--query-gpu=memory.used,utilization.gpu,power.draw,temperature.gpu --format=csv'
    for (const node of [0, 1]) one.smi(node, query)
  })
  clock.every(30 * MINUTE_MS, () => one.smi(0, '-q -x'))
  for (const [slot, [kind]] of TIMELINE.entries()) {
    if (RESTARTED.includes(kind)) clock.after(startOf(slot) + MINUTE_MS, () => one.restart())
  }
  await clock.runTo(untilMs)
  return one.entries
}
