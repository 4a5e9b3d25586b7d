/** Memory of one thread for requests and answers that another replica may have to go on with. */

/** A thousand long prompts; beyond that a stream that breaks off is an error, as it is without. */
const KEPT_BYTES_MAX = 256 * 1024 * 1024

export class Kept {
  #bytes = 0

  /** False: that would be too much, and nothing has changed. */
  change(bytes: number): boolean {
    if (bytes > 0 && this.#bytes + bytes > KEPT_BYTES_MAX) return false
    this.#bytes += bytes
    return true
  }
}
