/**
 * Vectors and scores of a pooling model: made from the text alone, the same for the same text.
 * Each token is a sparse random direction (Achlioptas 2003), so texts that share words are near
 * each other; a little of the whole text's hash keeps any two apart.
 */
import { Random } from './random.ts'

/** Coordinates that one token moves. */
const SPARSE = 24
/** How much of a text's vector is its own alone, against one token's move. */
const OWN = 0.15

/** Of unit length, in single precision; `dimensions` of at least 1. */
export const vectorOf = (tokens: Int32Array, dimensions: number): Float32Array => {
  const vector = new Float32Array(dimensions)
  let hash = 0x811c9dc5
  for (const token of tokens) {
    hash = Math.imul(hash ^ token, 0x01000193)
    const random = new Random(token)
    for (let move = 0; move < SPARSE; move += 1) {
      const at = random.below(dimensions)
      vector[at] = (vector[at] ?? 0) + (random.next() < 0.5 ? -1 : 1)
    }
  }
  const own = new Random(hash)
  for (let at = 0; at < dimensions; at += 1) {
    vector[at] = (vector[at] ?? 0) + OWN * (own.next() - 0.5)
  }
  return unit(vector)
}

/** The first coordinates, of unit length again: how Matryoshka models are shortened. */
export const shortened = (vector: Float32Array, dimensions: number): Float32Array =>
  unit(vector.slice(0, dimensions))

const unit = (vector: Float32Array): Float32Array => {
  let squares = 0
  for (const value of vector) squares += value * value
  const length = Math.sqrt(squares)
  return length === 0 ? vector : vector.map((value) => value / length)
}

/** -1..1 for vectors of unit length and equal size. */
export const cosine = (one: Float32Array, other: Float32Array): number => {
  let sum = 0
  for (const [at, value] of one.entries()) sum += value * (other[at] ?? 0)
  return Math.fround(sum)
}

/** What a head of so many classes says of a text: one number a class, about -3..3. */
export const logitsOf = (tokens: Int32Array, classes: number): readonly number[] => {
  let hash = 0x9e3779b9
  for (const token of tokens) hash = Math.imul(hash ^ token, 0x85ebca6b)
  const random = new Random(hash)
  return Array.from({ length: classes }, () => Math.fround(6 * random.next() - 3))
}

/** Where the highest value stands, the first of equals; 0 of none. As many as a request names. */
export const highest = (values: readonly number[]): number => {
  let best = 0
  for (const [at, value] of values.entries()) {
    if (value > (values[best] ?? value)) best = at
  }
  return best
}

export const softmax = (logits: readonly number[]): readonly number[] => {
  const most = logits[highest(logits)] ?? 0
  const powers = logits.map((logit) => Math.exp(logit - most))
  const sum = powers.reduce((total, power) => total + power, 0)
  return powers.map((power) => Math.fround(power / sum))
}

/** One class is a yes or no: its share is the logistic function of its logit. */
export const shares = (logits: readonly number[]): readonly number[] =>
  logits.length === 1
    ? logits.map((logit) => Math.fround(1 / (1 + Math.exp(-logit))))
    : softmax(logits)

/** A cross-encoder's relevance, 0..1: the nearer the texts, the higher. */
export const relevance = (one: Int32Array, other: Int32Array): number => {
  const near = cosine(vectorOf(one, RELEVANCE_SIZE), vectorOf(other, RELEVANCE_SIZE))
  return Math.fround(1 / (1 + Math.exp(3 - 8 * near)))
}

const RELEVANCE_SIZE = 256

/** Little-endian single precision, as OpenAI's `encoding_format: base64`. */
export const bytesOf = (vector: Float32Array): Buffer => {
  const bytes = Buffer.alloc(4 * vector.length)
  for (const [at, value] of vector.entries()) bytes.writeFloatLE(value, 4 * at)
  return bytes
}
