/**
 * KV blocks: reference-counted, found again by the hash of their content, evicted least recently
 * used first. Pure and allocation-free per call. Block ids are 0..count-1.
 */
const NONE = -1

export class BlockPool {
  readonly count: number
  readonly #references: Int32Array
  /** The free list, doubly linked through the blocks themselves; head is evicted first. */
  readonly #previous: Int32Array
  readonly #next: Int32Array
  readonly #hashes: Float64Array
  readonly #byHash = new Map<number, number>()
  #head = NONE
  #tail = NONE
  #free = 0

  constructor(count: number) {
    this.count = count
    this.#references = new Int32Array(count)
    this.#previous = new Int32Array(count).fill(NONE)
    this.#next = new Int32Array(count).fill(NONE)
    this.#hashes = new Float64Array(count)
    for (let block = 0; block < count; block += 1) this.#append(block)
  }

  /** Blocks that no sequence holds, cached content or not. */
  get free(): number {
    return this.#free
  }

  get used(): number {
    return this.count - this.#free
  }

  /** Blocks whose content can be found again, held or not. */
  get cached(): number {
    return this.#byHash.size
  }

  references(block: number): number {
    return this.#references[block] ?? 0
  }

  /** A block with this content, or -1; it is not claimed yet. */
  find(hash: number): number {
    return this.#byHash.get(hash) ?? NONE
  }

  /** Adds a holder to a block that `find` gave. */
  claim(block: number): void {
    if (this.references(block) === 0) this.#unlink(block)
    this.#references[block] = this.references(block) + 1
  }

  /** A block to write to, its old content forgotten; -1 when every block is held. */
  take(): number {
    const block = this.#head
    if (block === NONE) return NONE
    this.#unlink(block)
    this.#forget(block)
    this.#references[block] = 1
    return block
  }

  /** Names the content of a full block, so that others find it; the first of equals is kept. */
  name(block: number, hash: number): void {
    if (this.#byHash.has(hash)) return
    this.#forget(block)
    this.#hashes[block] = hash
    this.#byHash.set(hash, block)
  }

  release(block: number): void {
    const left = this.references(block) - 1
    if (left < 0) throw new Error(`block ${block} released more often than claimed`)
    this.#references[block] = left
    if (left === 0) this.#append(block)
  }

  #forget(block: number): void {
    const hash = this.#hashes[block] ?? 0
    if (hash === 0) return
    this.#byHash.delete(hash)
    this.#hashes[block] = 0
  }

  #append(block: number): void {
    this.#previous[block] = this.#tail
    this.#next[block] = NONE
    if (this.#tail === NONE) this.#head = block
    else this.#next[this.#tail] = block
    this.#tail = block
    this.#free += 1
  }

  #unlink(block: number): void {
    const previous = this.#previous[block] ?? NONE
    const next = this.#next[block] ?? NONE
    if (previous === NONE) this.#head = next
    else this.#next[previous] = next
    if (next === NONE) this.#tail = previous
    else this.#previous[next] = previous
    this.#free -= 1
  }
}

/** A chained hash over token ids, 52 bits, never 0: one number per full block. */
export class BlockHasher {
  readonly #blockTokens: number
  #low: number
  #high: number
  #count = 0

  /** `salt` keeps tenants apart (vLLM's cache_salt); the same salt finds the same blocks. */
  constructor(blockTokens: number, salt = 0) {
    this.#blockTokens = blockTokens
    this.#low = 0x811c9dc5 ^ salt
    this.#high = 0x9e3779b9 ^ salt
  }

  /** The hash of the block that this token fills, else 0. */
  push(token: number): number {
    this.#low = Math.imul(this.#low ^ token, 0x01000193)
    this.#low ^= this.#low >>> 15
    this.#high = Math.imul(this.#high ^ (token + 0x7f4a7c15), 0x85ebca6b)
    this.#high ^= this.#high >>> 13
    this.#count += 1
    if (this.#count % this.#blockTokens !== 0) return 0
    return (this.#high >>> 12) * 2 ** 32 + (this.#low >>> 0) + 1
  }
}
