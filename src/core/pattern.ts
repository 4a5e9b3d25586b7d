/** Model names as the manifest writes them: a name, `x*` a prefix, `/x/` a regular expression. */
import { type Regex, regexOf } from './regex.ts'
import type { RouteMatch } from './snapshot.ts'

/** As gateway.yaml bounds them; a longer name is nobody's. */
export const MODEL_NAME_MAX = 200

export type Pattern = Pick<RouteMatch, 'kind' | 'pattern'>

export const patternOf = (written: string): Pattern => {
  if (written.length > 2 && written.startsWith('/') && written.endsWith('/')) {
    return { kind: 'regex', pattern: written.slice(1, -1) }
  }
  if (written.endsWith('*')) return { kind: 'prefix', pattern: written.slice(0, -1) }
  return { kind: 'exact', pattern: written }
}

/** What is wrong with a name or pattern as it is written; null: nothing. */
export const patternProblem = (written: string): string | null => {
  const { kind, pattern } = patternOf(written)
  if (kind !== 'regex') {
    return pattern.includes('*') ? 'a * stands at the end only; /…/ is a regular expression' : null
  }
  const answer = regexOf(pattern)
  return answer.ok ? null : `${answer.message} (character ${answer.at + 1} of the expression)`
}

const NOTHING: Regex = { test: () => false }

/** Regular expressions, each parsed once; one that is refused matches nothing. */
export class Regexes {
  #known: ReadonlyMap<string, Regex>
  readonly #used = new Map<string, Regex>()

  /** `before`: of the snapshot that this one replaces. */
  constructor(before: Regexes | null) {
    this.#known = before === null ? new Map() : before.#used
  }

  /** No more sources come: the old ones are let go. */
  seal(): void {
    this.#known = new Map()
  }

  of(source: string): Regex {
    const used = this.#used.get(source)
    if (used !== undefined) return used
    const regex = this.#known.get(source) ?? parsed(source)
    this.#used.set(source, regex)
    return regex
  }

  matches({ kind, pattern }: Pattern, name: string): boolean {
    if (kind === 'exact') return name === pattern
    if (name.length > MODEL_NAME_MAX) return false
    return kind === 'prefix' ? name.startsWith(pattern) : this.of(pattern).test(name)
  }
}

const parsed = (source: string): Regex => {
  const answer = regexOf(source)
  return answer.ok ? answer.regex : NOTHING
}
