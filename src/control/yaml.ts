/**
 * YAML text to plain values that remember where they stand. YAML 1.2 core: `no` is text. Reads
 * hostile text in bounded time and depth and never throws: what is wrong comes back as problems.
 */
import { Composer, type Document, isScalar, Lexer, LineCounter, Parser } from 'yaml'
import {
  type Located,
  type Place,
  PROBLEMS_MAX,
  type Problem,
  Reader,
  VALUES_MAX,
} from './located.ts'

export type YamlText = {
  /** Documents that could be read, in order; nothing but comments is no document. */
  readonly documents: readonly Located[]
  /** Whether that is all of them: what a key given twice says first is still read. */
  readonly complete: boolean
  readonly problems: readonly Problem[]
  readonly place: Place
}

/** An inventory of 1,000 nodes with every setting is 360 KB. */
export const TEXT_MAX = 1024 * 1024
/** Open blocks, lists and keys at once; our schemas need about a dozen. */
const DEPTH_MAX = 64
/**
 * Pieces that the lexer cuts a file into, 171,000 for those 1,000 nodes: bounds the time to
 * seconds.
 */
const PIECES_MAX = 300_000
/** Pieces that fit nowhere, after which the rest of the file is not looked at. */
const ASTRAY_MAX = 100
const DOCUMENTS_MAX = 1000

export const readYaml = (given: string): YamlText => {
  // A byte order mark is allowed and would shift the columns of line 1.
  const text = given.startsWith('\uFEFF') ? given.slice(1) : given
  const lines = lineCounter(text)
  const place = (offset: number) => {
    const { line, col } = lines.linePos(Math.max(0, Math.min(offset, text.length)))
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const refused = refusedText(text)
  if (refused !== null) return { documents: [], complete: false, problems: [refused], place }
  const composed = compose(text)
  const documents: Located[] = []
  const problems: Problem[] = [...composed.problems]
  const budget = { left: VALUES_MAX }
  let complete = problems.length === 0
  for (const document of composed.documents) {
    const broken = documentProblems(document, place)
    problems.push(...broken)
    const reader = new Reader(budget, problems, place)
    const root =
      document.contents === null || broken.length > 0 ? null : reader.read(document.contents, [])
    if (broken.length > 0 || reader.lost) complete = false
    else if (root !== null && !isBlank(document)) documents.push(root)
    if (budget.left < 0) break
  }
  return { documents, complete, problems: problems.slice(0, PROBLEMS_MAX), place }
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
  let astray = 0
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) {
      for (const document of composer.next(token)) documents.push(document)
      if (token.type === 'error') astray += 1
    }
    pieces += 1
    // What is no YAML is a complaint a piece, and making them takes long: the first ones do.
    if (astray > ASTRAY_MAX) break
    if (parser.stack.length > DEPTH_MAX) return stop(`nested deeper than ${DEPTH_MAX} levels`)
    if (pieces > PIECES_MAX) return stop('too many entries for one file')
    if (documents.length > DOCUMENTS_MAX) return stop(`more than ${DOCUMENTS_MAX} documents`)
  }
  for (const token of parser.end()) {
    for (const document of composer.next(token)) documents.push(document)
  }
  for (const document of composer.end(false, text.length)) documents.push(document)
  // Directives and the like with no document after them are nobody's errors.
  const left = composer.streamInfo().errors.slice(0, PROBLEMS_MAX)
  return {
    documents,
    problems: left.map((error) => ({ at: error.pos[0], path: [], message: plain(error) })),
  }
}

/** One a line: a broken line makes the library report what follows from it too. */
const documentProblems = (document: Document.Parsed, place: Place): Problem[] => {
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
    case 'TAG_RESOLVE_FAILED':
      return `the tag ${message.replace(/^Unresolved tag: /, '').slice(0, 60)} is not read here`
    case 'BAD_INDENT':
    case 'MISSING_CHAR':
      return unclosed(message)
    default:
      return `not valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`
  }
}

/** "… must … end with a }" and "Missing closing "quote": what is open is some lines above. */
const unclosed = (message: string): string => {
  const [, bracket, quote] = /end with a (.)$|^Missing closing (.)quote/.exec(message) ?? []
  if (bracket !== undefined) return `expected ${bracket} by here: its other half above is open`
  if (quote !== undefined) return `expected ${quote} by here: a quote above is not closed`
  return `not valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`
}

/** An empty document, as `---` at the end of a file makes one, says nothing. */
const isBlank = ({ contents }: Document.Parsed): boolean =>
  isScalar(contents) && contents.value === null && contents.source === ''
