/**
 * What a schema has against a value, in plain words, in its place: the position of the value in the
 * file, what was expected, what is there, and the known key or word that was probably meant. What
 * is known is read from the schema itself; there is no second list.
 */
import { z } from 'zod'
import { nearest } from '../core/nearest.ts'
import type { Located, Path, Problem } from './located.ts'

/** Issues that one document may report; the first hundred say what is wrong. */
const ISSUES_MAX = 100

/** The value by its schema, or every problem, in the words and places of the file. */
export const check = <S extends z.ZodType>(
  schema: S,
  root: Located,
): { readonly value: z.output<S> | null; readonly problems: readonly Problem[] } => {
  const parsed = schema.safeParse(root.value)
  if (parsed.success) return { value: parsed.data, problems: [] }
  const problems = parsed.error.issues
    .slice(0, ISSUES_MAX)
    .flatMap((issue) => explain(schema, root, issue))
    .slice(0, ISSUES_MAX)
  return { value: null, problems }
}

/** Where a path leads: the value, or what stands nearest above it in the file. */
export const placeOf = (root: Located, path: Path): { at: number; node: Located | null } => {
  let at = root.at
  let node: Located = root
  for (const step of path) {
    const entry = typeof step === 'string' ? node.entries.get(step) : undefined
    const next = entry?.node ?? (typeof step === 'number' ? node.items[step] : undefined)
    if (next === undefined) return { at, node: null }
    // A value that is left out has no place of its own; its key has.
    at = next.kind === 'nothing' ? (entry?.keyAt ?? next.at) : next.at
    node = next
  }
  return { at, node }
}

const explain = (schema: z.ZodType, root: Located, issue: z.core.$ZodIssue): Problem[] => {
  const path = steps(issue.path)
  const { at, node } = placeOf(root, path)
  const inner = schemaAt(schema, path)
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = inner instanceof z.ZodObject ? Object.keys(inner.shape) : []
      return issue.keys.slice(0, ISSUES_MAX).map((key) => ({
        at: node?.entries.get(key)?.keyAt ?? at,
        path: [...path, key],
        message: `unknown key${meant(key, known) || oneOf(known, '; known here: ')}`,
      }))
    }
    case 'invalid_key': {
      const key = String(path.at(-1) ?? '')
      const keyAt = placeOf(root, path.slice(0, -1)).node?.entries.get(key)?.keyAt ?? at
      const why = issue.issues[0]
      const wanted = why?.code === 'invalid_format' ? format(why) : 'another key'
      const message = `expected ${wanted} as a key, got ${JSON.stringify(cut(key))}`
      return [{ at: keyAt, path, message }]
    }
    case 'custom':
      return [{ at, path, message: issue.message }]
    default:
      return [{ at, path, message: complaint(issue, inner, node, path) }]
  }
}

const steps = (path: readonly PropertyKey[]): Path =>
  path.map((step) => (typeof step === 'symbol' ? String(step) : step))

const complaint = (
  issue: z.core.$ZodIssue,
  schema: z.ZodType | null,
  node: Located | null,
  path: Path,
): string => {
  const expected =
    issue.code === 'invalid_format' ? format(issue) : schema === null ? null : expectation(schema)
  const wanted = expected ?? 'something else'
  if (node === null) return `missing: expected ${wanted}`
  // Under `environment` stand secrets; an error message is no place for them.
  if (path.includes('environment')) return `expected ${wanted}, got a ${node.kind}`
  return `expected ${wanted}, got ${got(issue, node)}${hint(schema, node)}`
}

/** zod's own default messages begin so; any other was written by us, for people. */
const own = (message: string): string | null => (message.startsWith('Invalid ') ? null : message)

const format = (issue: z.core.$ZodIssueInvalidStringFormat): string => {
  const written = own(issue.message)
  if (written !== null) return written.replace(/^expected /, '')
  if ('prefix' in issue) return `text that begins with ${JSON.stringify(issue.prefix)}`
  return issue.pattern === undefined ? issue.format : `text of the form ${issue.pattern}`
}

/** The schema that judges the value at a path; null where the path leaves it. */
const schemaAt = (schema: z.ZodType, path: Path): z.ZodType | null => {
  let here: z.ZodType | null = bare(schema)
  for (const step of path) {
    if (here instanceof z.ZodObject) here = plain(here.shape[String(step)])
    else if (here instanceof z.ZodRecord) here = plain(here.valueType)
    else if (here instanceof z.ZodArray) here = plain(here.element)
    else return null
  }
  return here
}

const plain = (schema: unknown): z.ZodType | null =>
  schema instanceof z.ZodType ? bare(schema) : null

/** Without the wrappers for what may be left out, and before a transformation. */
const bare = (schema: z.ZodType): z.ZodType | null => {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  ) {
    return plain(schema.unwrap())
  }
  return schema instanceof z.ZodPipe ? plain(schema.in) : schema
}

const expectation = (schema: z.ZodType): string => {
  if (schema instanceof z.ZodEnum || schema instanceof z.ZodLiteral) return oneOf(words(schema), '')
  if (schema instanceof z.ZodNumber) return number(schema)
  if (schema instanceof z.ZodString) return text(schema)
  if (schema instanceof z.ZodBoolean) return 'true or false'
  if (schema instanceof z.ZodArray) return 'a list'
  if (schema instanceof z.ZodRecord) return 'a map'
  if (schema instanceof z.ZodObject) return `a map with ${oneOf(Object.keys(schema.shape), '')}`
  return 'something else'
}

const words = (schema: z.ZodType | null): readonly string[] => {
  if (schema instanceof z.ZodEnum) return schema.options.map(String)
  return schema instanceof z.ZodLiteral ? [...schema.values].map(String) : []
}

/** Bounds as wide as these are there to keep arithmetic exact, not to tell anybody. */
const WIDE = 1e9

const number = (schema: z.ZodNumber): string => {
  const { minimum, exclusiveMinimum, maximum = Infinity } = z.toJSONSchema(schema)
  const least = minimum ?? -Infinity
  const what = schema.isInt ? 'integer' : 'number'
  const article = schema.isInt ? 'an' : 'a'
  const positive = exclusiveMinimum === 0 || (schema.isInt && least === 1)
  if (maximum >= WIDE) return positive ? `a positive ${what}` : `${article} ${what}`
  if (exclusiveMinimum === 0) return `a positive ${what} up to ${maximum}`
  return `${article} ${what} from ${least} to ${maximum}`
}

/** No text of ours may hold it, so every rule of a text objects to it. */
const IMPOSSIBLE = '\u0000'

const text = (schema: z.ZodString): string => {
  const issue = schema.safeParse(IMPOSSIBLE).error?.issues[0]
  if (issue?.code === 'invalid_format') return format(issue)
  if (schema.maxLength !== null) return `text of 1 to ${schema.maxLength} characters`
  return schema.minLength === null ? 'text' : 'text that is not empty'
}

const NAMES_MAX = 16

const oneOf = (names: readonly string[], before: string): string => {
  const shown = names.slice(0, NAMES_MAX)
  if (shown.length === 0) return ''
  if (names.length > NAMES_MAX) return `${before}${shown.join(', ')}, …`
  const last = shown.at(-1)
  return `${before}${shown.length === 1 ? last : `${shown.slice(0, -1).join(', ')} or ${last}`}`
}

const meant = (word: string, known: readonly string[]): string => {
  const near = nearest(word, known)
  return near === null ? '' : ` (did you mean ${JSON.stringify(near)}?)`
}

const SHOWN_MAX = 60

const got = (issue: z.core.$ZodIssue, node: Located): string => {
  const length = node.kind === 'list' ? node.items.length : node.source.length
  const sized = issue.code === 'too_big' || issue.code === 'too_small'
  switch (node.kind) {
    case 'map':
      return 'a map'
    case 'list':
      return sized ? `a list of ${length}` : 'a list'
    case 'nothing':
      return 'nothing'
    default:
  }
  if (sized && node.kind === 'text' && length > SHOWN_MAX) return `${length} characters`
  const shown = node.kind === 'text' ? String(node.value) : node.source
  return node.kind === 'text' ? JSON.stringify(cut(shown)) : cut(shown)
}

const cut = (shown: string): string =>
  shown.length > SHOWN_MAX ? `${shown.slice(0, SHOWN_MAX)}…` : shown

/** What people write for true and false in YAML 1.1, where `no` was not text. */
const BOOLEANS: ReadonlyMap<string, string> = new Map([
  ...['yes', 'y', 'on'].map((word) => [word, 'true'] as const),
  ...['no', 'n', 'off'].map((word) => [word, 'false'] as const),
])

const hint = (schema: z.ZodType | null, node: Located): string => {
  const written = String(node.value)
  if (node.kind === 'text') {
    if (schema instanceof z.ZodEnum || schema instanceof z.ZodLiteral) {
      return meant(written, words(schema))
    }
    const boolean = schema instanceof z.ZodBoolean ? BOOLEANS.get(written.toLowerCase()) : undefined
    if (boolean !== undefined) return ` (did you mean ${boolean}?)`
    if (schema instanceof z.ZodNumber && /^-?\d{1,15}(\.\d{1,9})?$/.test(written)) {
      return ` (did you mean ${written}, without quotes?)`
    }
  }
  const scalar = node.kind === 'number' || node.kind === 'boolean'
  if (schema instanceof z.ZodString && scalar && schema.safeParse(node.source).success) {
    return ` (did you mean ${JSON.stringify(cut(node.source))}, in quotes?)`
  }
  return ''
}
