/** Figures as an operator reads them. No locale: the same text on every machine. */

const KIB = 1024
export const MIB = 1024 ** 2
export const GIB = 1024 ** 3

/** 1234567 -> `1,234,567`. */
export const thousands = (value: number): string =>
  String(Math.trunc(value)).replace(/\B(?=(\d{3})+$)/g, ',')

/** Bytes as `87.9 GiB`; negative values keep their sign. */
export const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`

/** Bytes as KiB where GiB would be all zeros, for a token's share of the KV cache. */
export const kib = (bytes: number): string => `${(bytes / KIB).toFixed(1)} KiB`

/** `32GiB` -> bytes; the inventory's schema has checked the form. */
export const parseSize = (text: string): number => {
  const count = Number.parseInt(text, 10)
  return text.endsWith('GiB') ? count * GIB : count * MIB
}

/** `1 GPU`, `8 GPUs`. */
export const plural = (count: number, word: string): string =>
  `${thousands(count)} ${word}${count === 1 ? '' : 's'}`

/** 0, 1, 2, 5 -> `0-2,5`: how GPU indices are written. */
export const ranges = (indices: readonly number[]): string => {
  const sorted = indices.toSorted((a, b) => a - b)
  const runs: [number, number][] = []
  for (const index of sorted) {
    const last = runs.at(-1)
    if (last !== undefined && index === last[1] + 1) last[1] = index
    else runs.push([index, index])
  }
  return runs.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(',')
}
