/** "Did you mean …?": the known word that a mistyped one most likely stands for. */

/** Longer words are never typed by hand; the bound keeps hostile input cheap. */
const WORD_MAX = 64

/** Edits between two words; a swap of neighbours counts once (optimal string alignment). */
const edits = (from: string, to: string): number => {
  let before: number[] = []
  let above = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let row = 1; row <= from.length; row += 1) {
    const here = [row]
    for (let column = 1; column <= to.length; column += 1) {
      const same = from[row - 1] === to[column - 1]
      let best = Math.min(
        (above[column] ?? 0) + 1,
        (here[column - 1] ?? 0) + 1,
        (above[column - 1] ?? 0) + (same ? 0 : 1),
      )
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      if (row > 1 && column > 1 && swapped) best = Math.min(best, (before[column - 2] ?? 0) + 1)
      here.push(best)
    }
    before = above
    above = here
  }
  return above[to.length] ?? 0
}

/** Ignores case; null when nothing is within a third of the word's length (at least one edit). */
export const nearest = (word: string, known: readonly string[]): string | null => {
  if (word.length > WORD_MAX) return null
  const limit = Math.max(1, Math.floor(word.length / 3))
  let best: { readonly name: string; readonly distance: number } | null = null
  for (const name of known) {
    if (name.length > WORD_MAX || Math.abs(name.length - word.length) > limit) continue
    const distance = edits(word.toLowerCase(), name.toLowerCase())
    if (distance <= limit && (best === null || distance < best.distance)) best = { name, distance }
  }
  return best?.name ?? null
}
