/** Rules over the whole import graph: no cycle, no orphan. */
import { importsOf } from './imports.ts'
import { type Finding, lineOf, type SourceFile } from './source.ts'

/**
 * Every strongly connected set of files that import values from each other (Tarjan 1972),
 * reported once, at its first file.
 */
export const cycles = (files: readonly SourceFile[]): readonly Finding[] => {
  const edges = new Map(files.map((file) => [file.path, valueTargets(file)]))
  const state = { next: 0, index: new Map<string, number>(), low: new Map<string, number>() }
  const stack: string[] = []
  const found: Finding[] = []
  const visit = (path: string): void => {
    state.index.set(path, state.next)
    state.low.set(path, state.next)
    state.next += 1
    stack.push(path)
    for (const target of edges.get(path) ?? []) {
      if (!edges.has(target)) continue
      if (!state.index.has(target)) visit(target)
      if (stack.includes(target)) {
        state.low.set(path, Math.min(state.low.get(path) ?? 0, state.low.get(target) ?? 0))
      }
    }
    if (state.low.get(path) !== state.index.get(path)) return
    const group = stack.splice(stack.indexOf(path))
    if (group.length > 1 || edges.get(path)?.includes(path)) {
      found.push({ path: group[0] ?? path, line: 1, rule: `import cycle: ${group.join(' -> ')}` })
    }
  }
  for (const path of edges.keys()) if (!state.index.has(path)) visit(path)
  return found
}

const valueTargets = (file: SourceFile): readonly string[] =>
  importsOf(file).flatMap(({ target, typeOnly, started }) =>
    target === null || typeOnly || started ? [] : [target],
  )

/** Relative imports of files that are not there, and files that nothing but tests refers to. */
export const orphans = (
  files: readonly SourceFile[],
  entries: readonly string[],
): readonly Finding[] => {
  const used = new Set([
    ...entries,
    ...files.flatMap((file) =>
      importsOf(file).flatMap(({ target }) =>
        target === null || target === file.path ? [] : [target],
      ),
    ),
  ])
  return files
    .filter((file) => !used.has(file.path))
    .map((file) => ({ path: file.path, line: 1, rule: 'nothing imports this file' }))
}

/** Every importer of `path`, for a message or a check. */
export const importers = (files: readonly SourceFile[], path: string): readonly Finding[] =>
  files.flatMap((file) =>
    importsOf(file)
      .filter(({ target }) => target === path)
      .map(({ offset }) => ({
        path: file.path,
        line: lineOf(file, offset),
        rule: `imports ${path}`,
      })),
  )
