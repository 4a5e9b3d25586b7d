/** What verbs print: data to stdout, talk to stderr; colour only for a terminal that wants it. */
import { styleText } from 'node:util'

export const EXIT = { done: 0, failed: 1, badInput: 2, changesPending: 3 } as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export const print = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

export const say = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2))

const styled = (style: 'bold' | 'dim' | 'red' | 'green' | 'yellow') => (text: string) =>
  styleText(style, text, { stream: process.stdout })

export const bold = styled('bold')
export const dim = styled('dim')
export const red = styled('red')
export const green = styled('green')
export const yellow = styled('yellow')

/** Columns padded to their widest cell; the last one is left as it is. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** `3 s`, `4 min`, `2 h`, `5 d`: the age of something, for people. */
export const age = (ms: number): string => {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`
}
