/** Changes to a body as splices of its bytes: what nobody asked to change stays as it came. */
import type { Edit, Range } from './body.ts'

/** A copy of `bytes` with `range` replaced. */
export const splice = (bytes: Uint8Array, range: Range, insert: Uint8Array): Uint8Array =>
  applyEdits(bytes, [{ range, insert }])

/** A copy with all edits made. Their ranges must not overlap; at one place, the order given. */
export const applyEdits = (bytes: Uint8Array, edits: readonly Edit[]): Uint8Array => {
  const sorted = edits.toSorted((a, b) => a.range.start - b.range.start)
  const parts: Uint8Array[] = []
  let at = 0
  for (const { range, insert } of sorted) {
    parts.push(bytes.subarray(at, range.start), insert)
    at = range.end
  }
  parts.push(bytes.subarray(at))
  const result = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let filled = 0
  for (const part of parts) {
    result.set(part, filled)
    filled += part.length
  }
  return result
}
