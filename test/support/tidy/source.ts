/** A TypeScript file, parsed, and how the rules walk it. Knows no rule. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseSync, visitorKeys } from 'oxc-parser'

/** A syntax node (ESTree with TypeScript, from oxc-parser), read without trusting its shape. */
export type Syntax = { readonly type: string; readonly start: number; readonly end: number }

export type SourceFile = {
  /** From the repository root, with forward slashes. */
  readonly path: string
  readonly text: string
  readonly program: Syntax
  readonly comments: readonly { readonly text: string; readonly start: number }[]
  /** Offset of each line's first character. */
  readonly lineStarts: readonly number[]
}

export type Finding = { readonly path: string; readonly line: number; readonly rule: string }

export const findingLine = (finding: Finding): string =>
  `${finding.path}:${finding.line} ${finding.rule}`

export const isSyntax = (value: unknown): value is Syntax =>
  typeof value === 'object' &&
  value !== null &&
  'type' in value &&
  typeof value.type === 'string' &&
  'start' in value &&
  typeof value.start === 'number'

/** A field of a node, whatever it is; undefined when the node has none of that name. */
export const field = (node: Syntax, name: string): unknown =>
  Object.getOwnPropertyDescriptor(node, name)?.value

export const child = (node: Syntax, name: string): Syntax | null => {
  const value = field(node, name)
  return isSyntax(value) ? value : null
}

export const children = (node: Syntax, name: string): readonly Syntax[] => {
  const value = field(node, name)
  return Array.isArray(value) ? value.filter(isSyntax) : []
}

export const text = (node: Syntax | null, name: string): string | null => {
  const value = node === null ? null : field(node, name)
  return typeof value === 'string' ? value : null
}

/** Throws on a file that does not parse: then no rule can be trusted. */
export const parse = (path: string, source: string): SourceFile => {
  const parsed = parseSync(path, source)
  const [wrong] = parsed.errors
  if (wrong !== undefined) throw new Error(`${path}: ${wrong.message}`)
  const lineStarts = [0]
  for (let at = source.indexOf('\n'); at !== -1; at = source.indexOf('\n', at + 1)) {
    lineStarts.push(at + 1)
  }
  const comments = parsed.comments.map(({ value, start }) => ({ text: value, start }))
  return { path, text: source, program: parsed.program, comments, lineStarts }
}

/** Line of an offset, from 1. */
export const lineOf = (file: SourceFile, offset: number): number => {
  let [low, high] = [0, file.lineStarts.length]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if ((file.lineStarts[middle] ?? 0) <= offset) low = middle
    else high = middle
  }
  return low + 1
}

export const lineCount = (source: string): number =>
  source.split('\n').length - (source.endsWith('\n') ? 1 : 0)

/** Where a visited node hangs: the parent, and the parent's field that holds it. */
export type Place = { readonly parent: Syntax | null; readonly key: string }

/** Depth first, parents before children. */
export const walk = (root: Syntax, visit: (node: Syntax, place: Place) => void): void => {
  const pending: { node: Syntax; place: Place }[] = [
    { node: root, place: { parent: null, key: '' } },
  ]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    visit(next.node, next.place)
    for (const key of visitorKeys[next.node.type] ?? []) {
      const value = field(next.node, key)
      for (const node of Array.isArray(value) ? value.filter(isSyntax) : [value]) {
        if (isSyntax(node)) pending.push({ node, place: { parent: next.node, key } })
      }
    }
  }
}

/** Every .ts and .tsx file below `folders`, sorted; a folder that is absent is empty. */
export const readSources = (root: string, folders: readonly string[]): readonly SourceFile[] => {
  const paths = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.tsx?$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1)),
  )
  return paths
    .filter((path) => !path.startsWith('test/fixtures/'))
    .sort()
    .map((path) => parse(path, readFileSync(join(root, path), 'utf8')))
}
