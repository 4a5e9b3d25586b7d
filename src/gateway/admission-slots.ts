/**
 * What all gateway threads know of each replica together: what each thread has sent there, and the
 * ceiling that was learned. A thread has a row of its own, so that a crashed one's share can be
 * taken off; sums are over the column. The ceiling is learned by whichever thread holds the lock.
 */
import type { Sent } from '../core/admission.ts'
import { CEILING, type Ceiling, type Learned, UNLEARNED } from '../core/ceiling.ts'
import { MAX_SLOTS, MAX_THREADS } from '../core/snapshot.ts'

/** Cells of one thread and replica. The last five only ever grow, and wrap around. */
const CELLS = [
  'held',
  'gone',
  'fresh',
  'unstarted',
  'unstartedTokens',
  'unseenTokens',
  'growthTokens',
  'streaming',
  'outputTokens',
  'firstTokens',
  'firstTokenMs',
  'firstTokenPrompt',
] as const
export type Cell = (typeof CELLS)[number]
const INDEX: ReadonlyMap<Cell, number> = new Map(CELLS.map((cell, index) => [cell, index]))
const WIDTH = CELLS.length
const ROW = MAX_SLOTS * WIDTH

/** Cells of one replica over all threads. */
const SHARED = {
  lock: 0,
  running: 1,
  kvRatio: 2,
  prefill: 3,
  foreign: 4,
  firstMs: 5,
  firstTokens: 6,
}
const SHARED_WIDTH = 8
/** Fixed point of the ceiling's fractions. */
const PARTS = 1000

/** Counters at the last step beside what was learned, and when it was, ms. */
export const PAST = [
  'atMs',
  'outputTokens',
  'firstTokens',
  'firstTokenMs',
  'firstTokenPrompt',
  'generatedTokens',
]
const LEARNED = [
  'running',
  'kvRatio',
  'prefillTokens',
  'weight',
  'x',
  'y',
  'xx',
  'xy',
  'yy',
  'flow',
  'best',
  'knee',
  'firstTokenMs',
  'firstTokenTokens',
  'firstTokenBestMs',
  'paceStreams',
  'paceTokens',
  'paceMs',
] as const satisfies readonly (keyof Learned)[]
const NOTES = LEARNED.length + PAST.length

export class AdmissionSlots {
  readonly buffer: SharedArrayBuffer
  readonly #threads: number
  readonly #cells: Int32Array
  readonly #shared: Int32Array
  readonly #notes: Float64Array

  /** Wraps the buffer that another thread made, or makes one. */
  constructor(threads: number, buffer?: SharedArrayBuffer) {
    this.#threads = Math.min(threads, MAX_THREADS)
    const notesBytes = MAX_SLOTS * NOTES * 8
    const sharedBytes = MAX_SLOTS * SHARED_WIDTH * 4
    this.buffer =
      buffer ?? new SharedArrayBuffer(notesBytes + sharedBytes + this.#threads * ROW * 4)
    this.#notes = new Float64Array(this.buffer, 0, MAX_SLOTS * NOTES)
    this.#shared = new Int32Array(this.buffer, notesBytes, MAX_SLOTS * SHARED_WIDTH)
    this.#cells = new Int32Array(this.buffer, notesBytes + sharedBytes, this.#threads * ROW)
  }

  add(thread: number, slot: number, { cell, by }: { cell: Cell; by: number }): void {
    Atomics.add(this.#cells, thread * ROW + slot * WIDTH + indexOf(cell), by)
  }

  /** Of one thread, who alone writes it so. */
  set(thread: number, slot: number, { cell, to }: { cell: Cell; to: number }): void {
    Atomics.store(this.#cells, thread * ROW + slot * WIDTH + indexOf(cell), to)
  }

  /** Over all threads; of a counter that wraps around, only differences count. */
  sum(slot: number, cell: Cell): number {
    let sum = 0
    const at = slot * WIDTH + indexOf(cell)
    for (let thread = 0; thread < this.#threads; thread += 1) {
      sum += Atomics.load(this.#cells, thread * ROW + at)
    }
    return sum | 0
  }

  sent(slot: number): Sent {
    return {
      held: this.sum(slot, 'held'),
      foreign: this.#load(slot, SHARED.foreign),
      fresh: this.sum(slot, 'fresh'),
      unstarted: this.sum(slot, 'unstarted'),
      unstartedTokens: this.sum(slot, 'unstartedTokens'),
      unseenTokens: this.sum(slot, 'unseenTokens'),
      growthTokens: this.sum(slot, 'growthTokens'),
    }
  }

  ceiling(slot: number): Ceiling {
    const running = this.#load(slot, SHARED.running)
    if (running === 0) return CEILING
    return {
      running: running / PARTS,
      kvRatio: this.#load(slot, SHARED.kvRatio) / PARTS,
      prefillTokens: this.#load(slot, SHARED.prefill),
    }
  }

  /** What a first token took in the engine lately, and for how long a prompt; 0: not known. */
  firstToken(slot: number): { readonly ms: number; readonly tokens: number } {
    return {
      ms: this.#load(slot, SHARED.firstMs),
      tokens: this.#load(slot, SHARED.firstTokens),
    }
  }

  /** Requests of others on the engine. */
  noteForeign(slot: number, count: number): void {
    Atomics.store(this.#shared, slot * SHARED_WIDTH + SHARED.foreign, count)
  }

  /** False: another thread is at it. */
  tryLock(thread: number, slot: number): boolean {
    const cell = slot * SHARED_WIDTH + SHARED.lock
    return Atomics.compareExchange(this.#shared, cell, 0, thread + 1) === 0
  }

  unlock(slot: number): void {
    Atomics.store(this.#shared, slot * SHARED_WIDTH + SHARED.lock, 0)
  }

  /** Only while the lock is held. */
  learned(slot: number): { readonly learned: Learned; readonly past: readonly number[] } {
    const at = slot * NOTES
    const note = (index: number): number => this.#notes[at + index] ?? 0
    const past = PAST.map((_, index) => note(LEARNED.length + index))
    // A running ceiling of 0 is a row that was never written.
    if (note(0) === 0) return { learned: UNLEARNED, past }
    const learned = { ...UNLEARNED }
    const entries = LEARNED.map((name, index) => [name, note(index)] as const)
    return { learned: Object.assign(learned, Object.fromEntries(entries)), past }
  }

  /** Only while the lock is held. */
  learn(slot: number, learned: Learned, past: readonly number[]): void {
    const at = slot * NOTES
    for (const [index, name] of LEARNED.entries()) this.#notes[at + index] = learned[name]
    for (const [index, value] of past.entries()) {
      this.#notes[at + LEARNED.length + index] = value
    }
    const to = (cell: number, value: number) =>
      Atomics.store(this.#shared, slot * SHARED_WIDTH + cell, Math.round(value))
    to(SHARED.running, learned.running * PARTS)
    to(SHARED.kvRatio, learned.kvRatio * PARTS)
    to(SHARED.prefill, learned.prefillTokens)
    to(SHARED.firstMs, learned.firstTokenMs)
    to(SHARED.firstTokens, learned.firstTokenTokens)
  }

  /** Another replica has the slot from now on: what was learned of the last one is void. */
  forget(slot: number): void {
    this.#notes.fill(0, slot * NOTES, (slot + 1) * NOTES)
    for (const cell of Object.values(SHARED)) {
      if (cell !== SHARED.lock) Atomics.store(this.#shared, slot * SHARED_WIDTH + cell, 0)
    }
  }

  /** The thread is gone, and with it every request that it held. */
  clear(thread: number): void {
    for (let cell = thread * ROW; cell < (thread + 1) * ROW; cell += 1) {
      Atomics.store(this.#cells, cell, 0)
    }
    for (let slot = 0; slot < MAX_SLOTS; slot += 1) {
      const cell = slot * SHARED_WIDTH + SHARED.lock
      Atomics.compareExchange(this.#shared, cell, thread + 1, 0)
    }
  }

  #load(slot: number, cell: number): number {
    return Atomics.load(this.#shared, slot * SHARED_WIDTH + cell)
  }
}

const indexOf = (cell: Cell): number => INDEX.get(cell) ?? 0
