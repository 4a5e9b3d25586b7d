/** What a file refers to: imports, re-exports, and paths in strings (workers, child programs). */
import { posix } from 'node:path'
import { child, type SourceFile, type Syntax, text, walk } from './source.ts'

export type Import = {
  /** As written: `./a.ts`, `zod`, `node:fs`. */
  readonly specifier: string
  /** Repository path when the specifier is relative, else null. */
  readonly target: string | null
  readonly offset: number
  /** Erased at run time (`import type`), so it makes no cycle. */
  readonly typeOnly: boolean
  /** A path in a string: an entry that is started, not linked. */
  readonly started: boolean
}

const STATIC = new Set(['ImportDeclaration', 'ExportNamedDeclaration', 'ExportAllDeclaration'])

export const importsOf = (file: SourceFile): readonly Import[] => {
  const found: Import[] = []
  const folder = posix.dirname(file.path)
  const add = (specifier: string, node: Syntax, typeOnly: boolean, started: boolean): void => {
    const target = specifier.startsWith('.') ? posix.join(folder, specifier) : null
    found.push({ specifier, target, offset: node.start, typeOnly, started })
  }
  walk(file.program, (node, { parent }) => {
    const source = child(node, 'source')
    const specifier = text(source, 'value')
    if (STATIC.has(node.type) && specifier !== null) {
      add(specifier, node, (text(node, 'importKind') ?? text(node, 'exportKind')) === 'type', false)
    } else if (node.type === 'ImportExpression' && specifier !== null) {
      add(specifier, node, false, false)
    } else if (node.type === 'TSImportType' && specifier !== null) {
      add(specifier, node, true, false)
    } else if (node.type === 'Literal' && parent !== null && child(parent, 'source') !== node) {
      for (const path of pathsIn(text(node, 'value'), folder)) {
        found.push({
          specifier: path,
          target: path,
          offset: node.start,
          typeOnly: false,
          started: true,
        })
      }
    }
  })
  return found
}

/** Both readings of a string such as `../x/main.ts`: from the file, and from the root. */
const pathsIn = (value: string | null, folder: string): readonly string[] =>
  value !== null && /^[\w./@-]+\.tsx?$/.test(value)
    ? [posix.join(folder, value), posix.normalize(value.replace(/^\//, ''))]
    : []

/** `zod` of `zod/v4`, `@fastify/static` of `@fastify/static/x`. */
export const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
