/**
 * YAML text to plain values that remember where they stand. YAML 1.2 core: `no` is text. Reads
 * hostile text in bounded time and depth and never throws: what is wrong comes back as problems.
 * Aliases and merge keys are resolved here, under a budget, so that an alias bomb stays small.
 */
import {
  Composer,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type ParsedNode,
  Parser,
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

export type YamlText = {
  /** Documents without a problem of their own, in order; nothing but comments is no document. */
  readonly documents: readonly Located[]
  readonly problems: readonly Problem[]
  /** Line and column, from 1. */
  place(offset: number): { readonly line: number; readonly column: number }
}

/** 1,000 nodes are about 150 KB; a megabyte is no inventory. */
export const TEXT_MAX = 1024 * 1024
/** Open blocks, lists and keys at once; our schemas need about a dozen. */
const DEPTH_MAX = 64
/** Pieces that the lexer cuts a file into: bounds the time to about two seconds. */
const PIECES_MAX = 300_000
/** Values after aliases are followed; what every file of a large fleet together would have. */
const VALUES_MAX = 100_000
const DOCUMENTS_MAX = 1000
const PROBLEMS_MAX = 20

export const readYaml = (given: string): YamlText => {
  // A byte order mark is allowed and would shift the columns of line 1.
  const text = given.startsWith('\uFEFF') ? given.slice(1) : given
  const lines = lineCounter(text)
  const place = (offset: number) => {
    const { line, col } = lines.linePos(Math.max(0, Math.min(offset, text.length)))
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const refused = refusedText(text)
  if (refused !== null) return { documents: [], problems: [refused], place }
  const composed = compose(text)
  const documents: Located[] = []
  const problems: Problem[] = [...composed.problems]
  const budget = { left: VALUES_MAX }
  for (const document of composed.documents) {
    const before = problems.length
    problems.push(...documentProblems(document, place))
    if (document.contents === null || problems.length > before) continue
    const reader = new Reader(budget, problems, place)
    const root = reader.read(document.contents, [])
    if (problems.length === before && !isBlank(document)) documents.push(root)
    if (budget.left < 0) break
  }
  return { documents, problems: problems.slice(0, PROBLEMS_MAX), place }
}

const lineCounter = (text: string): LineCounter => {
  const lines = new LineCounter()
  lines.addNewLine(0)
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) {
    lines.addNewLine(at + 1)
  }
  return lines
}

/** What YAML 1.2 (5.1, c-printable) does not allow in a stream, and half a surrogate pair. */
const FORBIDDEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  /[\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F\uFFFE\uFFFF]|\p{Surrogate}/u

const refusedText = (text: string): Problem | null => {
  if (text.length > TEXT_MAX) return { at: 0, path: [], message: 'larger than 1 MiB' }
  const found = FORBIDDEN.exec(text)
  if (found === null) return null
  const code = (found[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')
  return { at: found.index, path: [], message: `character U+${code} is not allowed in YAML` }
}

type Composed = { readonly documents: Document.Parsed[]; readonly problems: readonly Problem[] }

/** The library's own three steps, so that depth and length can be bounded between them. */
const compose = (text: string): Composed => {
  const parser = new Parser()
  // Our reader finds keys given twice in linear time and resolves `<<` itself.
  const composer = new Composer({ version: '1.2', uniqueKeys: false, prettyErrors: false })
  const documents: Document.Parsed[] = []
  const stop = (message: string) => ({
    documents,
    problems: [{ at: parser.offset, path: [], message }],
  })
  let pieces = 0
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) {
      for (const document of composer.next(token)) documents.push(document)
    }
    pieces += 1
    if (parser.stack.length > DEPTH_MAX) return stop(`nested deeper than ${DEPTH_MAX} levels`)
    if (pieces > PIECES_MAX) return stop('too many entries for one file')
    if (documents.length > DOCUMENTS_MAX) return stop(`more than ${DOCUMENTS_MAX} documents`)
  }
  for (const token of parser.end()) {
    for (const document of composer.next(token)) documents.push(document)
  }
  for (const document of composer.end(false, text.length)) documents.push(document)
  const left = documents.length === 0 ? composer.streamInfo().errors : []
  return {
    documents,
    problems: left.map((error) => ({ at: error.pos[0], path: [], message: plain(error) })),
  }
}

/** One a line: a broken line makes the library report what follows from it too. */
const documentProblems = (document: Document.Parsed, place: YamlText['place']): Problem[] => {
  const byLine = new Map<number, Problem>()
  for (const error of [...document.errors, ...document.warnings].slice(0, 1000)) {
    const { line } = place(error.pos[0])
    if (byLine.has(line) || byLine.size >= PROBLEMS_MAX) continue
    byLine.set(line, { at: error.pos[0], path: [], message: plain(error) })
  }
  const { explicit, version } = document.directives.yaml
  if (explicit === true && version !== '1.2') {
    const message = `YAML ${version} is not read here: take the %YAML line out`
    byLine.set(0, { at: document.range[0], path: [], message })
  }
  return [...byLine.values()]
}

type Complaint = { readonly code: string; readonly message: string }

/** The errors that people make most, in their words; the library's words for the others. */
const plain = ({ code, message }: Complaint): string => {
  switch (code) {
    case 'TAB_AS_INDENT':
      return 'a tab is used for indentation: YAML allows only spaces there'
    case 'BLOCK_AS_IMPLICIT_KEY':
      return 'a second ": " in one line, or a line too far right: put text with ": " in quotes'
    case 'MULTILINE_IMPLICIT_KEY':
      return 'not a key: expected "key: value" (is a ":" missing?)'
    case 'BAD_SCALAR_START':
      return `${message.charAt(0).toLowerCase()}${message.slice(1)}: put the text in quotes`
    default:
      return `not valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`
  }
}

/** An empty document, as `---` at the end of a file makes one, says nothing. */
const isBlank = ({ contents }: Document.Parsed): boolean =>
  isScalar(contents) && contents.value === null && contents.source === ''

const NO_ENTRIES: ReadonlyMap<string, Entry> = new Map()

const CORE_TAGS = ['str', 'int', 'float', 'bool', 'null', 'map', 'seq']
const CORE = new Set(CORE_TAGS.map((name) => `tag:yaml.org,2002:${name}`))

type Budget = { left: number }

/** Reads one document. It lives as long as that: anchors belong to a document. */
class Reader {
  readonly #anchors = new Map<string, ParsedNode>()
  /** Anchored nodes that are being read: an alias to one of them would never end. */
  readonly #open = new Set<ParsedNode>()
  readonly #budget: Budget
  readonly #problems: Problem[]
  readonly #place: YamlText['place']

  constructor(budget: Budget, problems: Problem[], place: YamlText['place']) {
    this.#budget = budget
    this.#problems = problems
    this.#place = place
  }

  read(node: ParsedNode, path: Path): Located {
    const at = node.range[0]
    this.#budget.left -= 1
    if (this.#budget.left < 0) {
      const message = `more than ${VALUES_MAX} values once aliases are followed`
      if (this.#budget.left === -1) this.#complain(at, [], message)
      return nothing(at)
    }
    if (isAlias(node)) return this.#alias(node.source, at, path)
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, node)
    if (node.tag !== undefined && !CORE.has(node.tag)) {
      this.#complain(at, path, `the tag ${node.tag.slice(0, 60)} is not read here`)
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

  #complain(at: number, path: Path, message: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push({ at, path, message })
  }

  #alias(name: string, at: number, path: Path): Located {
    const target = this.#anchors.get(name)
    const shown = name.slice(0, 60)
    if (target === undefined) {
      this.#complain(at, path, `the alias *${shown} names no anchor above it`)
      return nothing(at)
    }
    if (this.#open.has(target)) {
      this.#complain(at, path, `the alias *${shown} contains itself`)
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
    if (kind === 'nothing' && value !== null) this.#complain(at, path, 'expected a plain value')
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
    this.#complain(node.range[0], path, 'a key inside [ ]: expected a list of values')
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
      const shape =
        key === null || isScalar(key) ? 'no key before the ":"' : 'a key that is no text'
      this.#complain(at, path, `${shape}: put text that begins with { or [ in quotes`)
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
      if (kind !== 'map') this.#complain(at, [...path, '<<'], 'expected a map to merge')
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
