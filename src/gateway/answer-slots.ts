/**
 * Which replica keeps which answer of the Responses API, shared by all threads: the id is the
 * engine's and names no replica. One 64-bit word an answer, so that no lock is needed: 52 bits of
 * a hash of consumer and id, and the replica's slot. Another consumer's id hashes to other bits,
 * so that nobody reads what is not his. Of very many answers, old ones are forgotten at random.
 */
import { hash } from 'node:crypto'
import { MAX_SLOTS } from '../core/snapshot.ts'

/** 65,536 answers in 512 KiB. */
const BUCKETS = 8_192
const WAYS = 8
const SLOT_BITS = BigInt(Math.log2(MAX_SLOTS))
const SLOT_MASK = (1n << SLOT_BITS) - 1n

type Place = { readonly bucket: number; readonly tag: bigint; readonly victim: number }

export class AnswerSlots {
  readonly buffer: SharedArrayBuffer
  readonly #cells: BigUint64Array

  /** Wraps a buffer that another thread made, or makes one. */
  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(BUCKETS * WAYS * 8)
    this.#cells = new BigUint64Array(this.buffer)
  }

  keep(consumer: string, id: string, slot: number): void {
    const { bucket, tag, victim } = placeOf(consumer, id)
    const word = (tag << SLOT_BITS) | BigInt(slot)
    for (let cell = bucket; cell < bucket + WAYS; cell += 1) {
      const held = Atomics.load(this.#cells, cell)
      if (held >> SLOT_BITS === tag) {
        Atomics.store(this.#cells, cell, word)
        return
      }
      if (held === 0n && Atomics.compareExchange(this.#cells, cell, 0n, word) === 0n) return
    }
    Atomics.store(this.#cells, bucket + victim, word)
  }

  /** The replica's slot; null: not known here, or not this consumer's. */
  slotOf(consumer: string, id: string): number | null {
    const { bucket, tag } = placeOf(consumer, id)
    for (let cell = bucket; cell < bucket + WAYS; cell += 1) {
      const held = Atomics.load(this.#cells, cell)
      if (held >> SLOT_BITS === tag) return Number(held & SLOT_MASK)
    }
    return null
  }
}

const placeOf = (consumer: string, id: string): Place => {
  const digest = hash('sha256', `${consumer}\n${id}`, 'buffer')
  // A word of zeros is an empty place.
  const tag = (digest.readBigUInt64BE(0) >> SLOT_BITS) | 1n
  return {
    bucket: (digest.readUInt32BE(8) % BUCKETS) * WAYS,
    tag,
    victim: digest.readUInt8(12) % WAYS,
  }
}
