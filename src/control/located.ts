/**
 * Nodes of a YAML document to plain values that remember where they stand. Aliases and merge keys
 * are followed here, under a budget, so that an alias bomb stays small.
 */
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type ParsedNode,
  type Scalar,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'

/** A value and where it stands; `at` is an offset into the text. */
export type Located = {
  readonly value: unknown
  readonly kind: 'map' | 'list' | 'text' | 'number' | 'boolean' | 'nothing'
  readonly at: number
  /** A scalar as it is written, for "got …". */
  readonly source: string
  readonly entries: ReadonlyMap<string, Entry>
  readonly items: readonly Located[]
}

export type Entry = { readonly keyAt: number; readonly node: Located }
export type Path = readonly (string | number)[]

/** Something that is not as YAML wants it; `path` is empty where there is none yet. */
export type Problem = { readonly at: number; readonly path: Path; readonly message: string }

/** Line and column of an offset, from 1. */
export type Place = (offset: number) => { readonly line: number; readonly column: number }

/** Values after aliases are followed; what every file of a large fleet together would have. */
export const VALUES_MAX = 100_000
/** Problems that one file reports of its YAML; more follow from the first. */
export const PROBLEMS_MAX = 20

const NO_ENTRIES: ReadonlyMap<string, Entry> = new Map()

const CORE_TAGS = ['str', 'int', 'float', 'bool', 'null', 'map', 'seq']
const CORE = new Set(CORE_TAGS.map((name) => `tag:yaml.org,2002:${name}`))

type Budget = { left: number }

/** Reads one document. It lives as long as that: anchors belong to a document. */
export class Reader {
  /** Something is not known, so that judging the whole would complain of what follows from it. */
  lost = false
  readonly #anchors = new Map<string, ParsedNode>()
  /** Anchored nodes that are being read: an alias to one of them would never end. */
  readonly #open = new Set<ParsedNode>()
  readonly #budget: Budget
  readonly #problems: Problem[]
  readonly #place: Place

  constructor(budget: Budget, problems: Problem[], place: Place) {
    this.#budget = budget
    this.#problems = problems
    this.#place = place
  }

  read(node: ParsedNode, path: Path): Located {
    const at = node.range[0]
    this.#budget.left -= 1
    if (this.#budget.left < 0) {
      const message = `more than ${VALUES_MAX} values once aliases are followed`
      if (this.#budget.left === -1) this.#lose(at, [], message)
      this.lost = true
      return nothing(at)
    }
    if (isAlias(node)) return this.#alias(node.source, at, path)
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, node)
    if (node.tag !== undefined && !CORE.has(node.tag)) {
      this.#lose(at, path, `the tag ${node.tag.slice(0, 60)} is not read here`)
      return nothing(at)
    }
    this.#open.add(node)
    const read = isScalar(node)
      ? this.#scalar(node, path)
      : isMap(node)
        ? this.#map(node, path)
        : this.#list(node, path)
    this.#open.delete(node)
    return read
  }

  #lose(at: number, path: Path, message: string): void {
    this.lost = true
    this.#complain(at, path, message)
  }

  #complain(at: number, path: Path, message: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push({ at, path, message })
  }

  #alias(name: string, at: number, path: Path): Located {
    const target = this.#anchors.get(name)
    const shown = name.slice(0, 60)
    if (target === undefined) {
      this.#lose(at, path, `the alias *${shown} names no anchor above it`)
      return nothing(at)
    }
    if (this.#open.has(target)) {
      this.#lose(at, path, `the alias *${shown} contains itself`)
      return nothing(at)
    }
    return this.read(target, path)
  }

  #scalar(node: Scalar.Parsed, path: Path): Located {
    const { value, source } = node
    const at = node.range[0]
    const kind =
      typeof value === 'string'
        ? 'text'
        : typeof value === 'number'
          ? 'number'
          : typeof value === 'boolean'
            ? 'boolean'
            : 'nothing'
    if (kind === 'nothing' && value !== null) this.#lose(at, path, 'expected a plain value')
    return { value: value ?? null, kind, at, source, entries: NO_ENTRIES, items: [] }
  }

  #list(node: YAMLSeq.Parsed, path: Path): Located {
    const items: Located[] = []
    for (const [index, item] of node.items.entries()) {
      if (this.#budget.left < 0) break
      items.push(
        isNode(item) ? this.read(item, [...path, index]) : this.#pairInList(node, [...path, index]),
      )
    }
    const value = items.map((item) => item.value)
    return { ...nothing(node.range[0]), value, kind: 'list', items }
  }

  #pairInList(node: YAMLSeq.Parsed, path: Path): Located {
    this.#lose(node.range[0], path, 'a key inside [ ]: expected a list of values')
    return nothing(node.range[0])
  }

  #map(node: YAMLMap.Parsed, path: Path): Located {
    const entries = new Map<string, Entry>()
    const merged: Located[] = []
    for (const { key, value } of node.items) {
      if (this.#budget.left < 0) break
      const keyAt = key?.range[0] ?? node.range[0]
      const name = this.#key(key, keyAt, path)
      if (name === null) continue
      const child = value === null ? nothing(keyAt) : this.read(value, [...path, name])
      const before = entries.get(name)
      if (name === '<<' && isScalar(key) && key.type === 'PLAIN') merged.push(child)
      else if (before === undefined) entries.set(name, { keyAt, node: child })
      else {
        const { line } = this.#place(before.keyAt)
        this.#complain(keyAt, [...path, name], `given twice, first in line ${line}`)
      }
    }
    for (const source of merged) this.#merge(entries, source, path)
    const value = Object.fromEntries([...entries].map(([name, entry]) => [name, entry.node.value]))
    return { ...nothing(node.range[0]), value, kind: 'map', entries }
  }

  #key(key: ParsedNode | null, at: number, path: Path): string | null {
    if (!isScalar(key) || key.source === '') {
      const empty = key === null || isScalar(key)
      const shape = 'a key that is no text: put text that begins with { or [ in quotes'
      this.#lose(at, path, empty ? 'a ":" with no key before it' : shape)
      return null
    }
    this.#budget.left -= 1
    if (key.anchor !== undefined) this.#anchors.set(key.anchor, key)
    // Numbers and the like stand for the text that was written: a node may be called 01.
    const name = typeof key.value === 'string' ? key.value : key.source
    if (name === '__proto__') {
      this.#complain(at, path, '__proto__ is not allowed as a key')
      return null
    }
    return name
  }

  /** `<<: *base` or `<<: [*a, *b]`: keys that are not given yet (yaml.org/type/merge). */
  #merge(entries: Map<string, Entry>, source: Located, path: Path): void {
    const sources = source.kind === 'list' ? source.items : [source]
    for (const { kind, at, entries: given } of sources) {
      if (kind !== 'map') this.#lose(at, [...path, '<<'], 'expected a map to merge')
      for (const [name, entry] of given) if (!entries.has(name)) entries.set(name, entry)
    }
  }
}

const nothing = (at: number): Located => ({
  value: null,
  kind: 'nothing',
  at,
  source: '',
  entries: NO_ENTRIES,
  items: [],
})

const isNode = (item: unknown): item is ParsedNode =>
  isScalar(item) || isMap(item) || isSeq(item) || isAlias(item)
