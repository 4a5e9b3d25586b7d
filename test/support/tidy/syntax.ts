/** Rules that one file's syntax decides: what TypeScript may be used, and how large things get. */
import {
  child,
  children,
  type Finding,
  lineCount,
  lineOf,
  type Place,
  type SourceFile,
  type Syntax,
  text,
  walk,
} from './source.ts'

export const LIMITS = { fileLines: 400, functionLines: 70, parameters: 4 } as const

const BANNED: Readonly<Record<string, string>> = {
  TSAnyKeyword: 'any',
  TSNonNullExpression: 'non-null assertion (!)',
  TSTypeAssertion: 'type assertion',
  TSEnumDeclaration: 'enum',
  ExportDefaultDeclaration: 'default export',
}

const FUNCTIONS = new Set([
  'FunctionDeclaration',
  'FunctionExpression',
  'ArrowFunctionExpression',
  'TSMethodSignature',
  'TSFunctionType',
  'TSEmptyBodyFunctionExpression',
  'TSDeclareFunction',
])

export const syntax = (file: SourceFile): readonly Finding[] => {
  const found: Finding[] = []
  const report = (offset: number, rule: string): void => {
    found.push({ path: file.path, line: lineOf(file, offset), rule })
  }
  const lines = lineCount(file.text)
  if (lines > LIMITS.fileLines) report(file.text.length - 1, `file of ${lines} lines`)
  walk(file.program, (node, place) => {
    const rule = bannedHere(node)
    if (rule !== null) report(node.start, rule)
    if (FUNCTIONS.has(node.type)) {
      for (const broken of sizeRules(file, node, place)) report(node.start, broken)
    }
  })
  return found
}

const bannedHere = (node: Syntax): string | null => {
  const banned = BANNED[node.type]
  if (banned !== undefined) return banned
  if (node.type === 'TSAsExpression' && !isConst(child(node, 'typeAnnotation'))) return 'as'
  // `declare module 'x'` adds to a library's types (fastify's requests) and leaves no code behind.
  if (node.type === 'TSModuleDeclaration' && child(node, 'id')?.type !== 'Literal') {
    return 'namespace'
  }
  if (node.type === 'ExportAllDeclaration' && child(node, 'exported') === null) return 'export *'
  if (node.type !== 'ExportNamedDeclaration') return null
  const names = children(node, 'specifiers').map((entry) => text(child(entry, 'exported'), 'name'))
  return names.includes('default') ? 'default export' : null
}

const isConst = (type: Syntax | null): boolean =>
  type?.type === 'TSTypeReference' && text(child(type, 'typeName'), 'name') === 'const'

const sizeRules = (file: SourceFile, node: Syntax, { parent }: Place): readonly string[] => {
  const parameters = children(node, 'params').length
  const lines = functionLines(file, node)
  const name = text(nameOf(node) ?? (parent && nameOf(parent)), 'name') ?? 'function'
  return [
    parameters > LIMITS.parameters ? `${name} has ${parameters} parameters` : '',
    lines > LIMITS.functionLines ? `${name} has ${lines} lines` : '',
  ].filter((rule) => rule !== '')
}

const nameOf = (node: Syntax): Syntax | null => child(node, 'id') ?? child(node, 'key')

const functionLines = (file: SourceFile, node: Syntax): number =>
  lineOf(file, node.end) - lineOf(file, node.start) + 1

/** Lengths of all functions with a body, for the 90th percentile. */
export const functionLengths = (file: SourceFile): readonly number[] => {
  const found: number[] = []
  walk(file.program, (node) => {
    if (FUNCTIONS.has(node.type) && child(node, 'body') !== null)
      found.push(functionLines(file, node))
  })
  return found
}

/** Only what tests must also keep. */
export const anyOnly = (file: SourceFile): readonly Finding[] =>
  syntax(file).filter(({ rule }) => rule === 'any')
