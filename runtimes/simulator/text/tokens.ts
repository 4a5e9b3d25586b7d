/**
 * Text to tokens, near enough: about what Qwen's and DeepSeek's vocabularies make of English and
 * Chinese, digits one by one. Ids are hashes of the pieces, so equal text has equal tokens.
 */
const PIECE = / ?[A-Za-z]{1,10}|[\u3400-\u9fff\uf900-\ufaff]{1,2}|\d|\s+|[^\s]/gu

/** FNV-1a over UTF-16 units, positive. */
export const tokenId = (piece: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < piece.length; index += 1) {
    hash = Math.imul(hash ^ piece.charCodeAt(index), 0x01000193)
  }
  return hash >>> 1
}

export const pieces = (text: string): readonly string[] => text.match(PIECE) ?? []

/** Collects a prompt's tokens; counts all, keeps no more than `keepMax`. */
export class TokenList {
  readonly #keepMax: number
  readonly #ids: number[] = []
  count = 0

  constructor(keepMax: number) {
    this.#keepMax = keepMax
  }

  push(id: number): void {
    this.count += 1
    if (this.#ids.length < this.#keepMax) this.#ids.push(id)
  }

  text(text: string): void {
    for (const [piece] of text.matchAll(PIECE)) this.push(tokenId(piece))
  }

  toArray(): Int32Array {
    return Int32Array.from(this.#ids)
  }
}
