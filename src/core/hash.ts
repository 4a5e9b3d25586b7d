/**
 * A 32-bit hash (MurmurHash3_x86_32, Austin Appleby, public domain) for spreading work: which
 * replica a session prefers, which share of a split it falls in. Not for secrets.
 */

const [C1, C2] = [0xcc9e2d51, 0x1b873593]

const scrambled = (word: number): number => {
  const product = Math.imul(word, C1)
  return Math.imul((product << 15) | (product >>> 17), C2)
}

const finished = (value: number): number => {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** 0 to 2^32 - 1. */
export const hashBytes = (bytes: Uint8Array, seed = 0): number => {
  const whole = bytes.length & ~3
  let hash = seed | 0
  for (let at = 0; at < whole; at += 4) {
    const low = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)
    const word = low | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)
    hash ^= scrambled(word)
    hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64) | 0
  }
  let rest = 0
  for (let at = bytes.length - 1; at >= whole; at -= 1) rest = (rest << 8) | (bytes[at] ?? 0)
  if (whole < bytes.length) hash ^= scrambled(rest)
  return finished(hash ^ bytes.length)
}

const encoder = new TextEncoder()

export const hashText = (text: string, seed = 0): number => hashBytes(encoder.encode(text), seed)

/** One hash of two, the order of which counts. */
export const hashOf = (first: number, second: number): number =>
  finished(first ^ scrambled(second ^ C2))

/** A hash as a number in (0, 1). */
export const unitOf = (hash: number): number => (hash + 0.5) / 4_294_967_296
