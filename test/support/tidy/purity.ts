/**
 * core/, runtimes/*.ts and the load generator's plan decide and refuse to know: no clock, no
 * chance, no I/O (style 8).
 */
import { importsOf } from './imports.ts'
import {
  child,
  children,
  type Finding,
  lineOf,
  type Place,
  type SourceFile,
  type Syntax,
  text,
  walk,
} from './source.ts'

export const PURE = /^(src\/core\/|runtimes\/[^/]+\.ts$|src\/load\/(?!run\.ts|request\.ts))/

const IMPURE = new Set([
  'Date',
  'performance',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'queueMicrotask',
  'process',
  'console',
  'fetch',
  'crypto',
  'globalThis',
])

/** Fields of a parent in which an identifier is only a name, not a reference. */
const NAME_ONLY: Readonly<Record<string, readonly string[]>> = {
  MemberExpression: ['property'],
  Property: ['key'],
  MethodDefinition: ['key'],
  PropertyDefinition: ['key'],
  TSPropertySignature: ['key'],
  TSMethodSignature: ['key'],
  TSQualifiedName: ['right'],
  ImportSpecifier: ['imported'],
  ExportSpecifier: ['local', 'exported'],
  LabeledStatement: ['label'],
}

export const purity = (file: SourceFile): readonly Finding[] => {
  const found: Finding[] = []
  const report = (offset: number, rule: string): void => {
    found.push({ path: file.path, line: lineOf(file, offset), rule })
  }
  walk(file.program, (node, place) => {
    const name = node.type === 'Identifier' ? text(node, 'name') : null
    if (name !== null && IMPURE.has(name) && !onlyAName(place)) {
      report(node.start, `pure code names ${name}`)
    }
    if (isMathRandom(node)) report(node.start, 'pure code names Math.random')
    if (node.type === 'ImportDeclaration') {
      const rule = nodeImport(node)
      if (rule !== null) report(node.start, rule)
    }
  })
  for (const { specifier, started, offset } of importsOf(file)) {
    if (started) report(offset, `pure code names the program ${specifier}`)
  }
  return found
}

const onlyAName = ({ parent, key }: Place): boolean =>
  parent !== null &&
  Object.getOwnPropertyDescriptor(parent, 'computed')?.value !== true &&
  (NAME_ONLY[parent.type]?.includes(key) ?? false)

const isMathRandom = (node: Syntax): boolean =>
  node.type === 'MemberExpression' &&
  text(child(node, 'object'), 'name') === 'Math' &&
  text(child(node, 'property'), 'name') === 'random'

/** Only assert, and createHash: equal in, equal out. */
const nodeImport = (node: Syntax): string | null => {
  const specifier = text(child(node, 'source'), 'value') ?? ''
  if (!specifier.startsWith('node:') || specifier.startsWith('node:assert')) return null
  const names = children(node, 'specifiers').map((entry) => text(child(entry, 'imported'), 'name'))
  const hashOnly = specifier === 'node:crypto' && names.every((name) => name === 'createHash')
  return hashOnly ? null : `pure code imports ${specifier}`
}
