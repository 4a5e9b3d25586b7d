/**
 * A pure reader of command lines with the manners of Python's argparse (CPython 3.12):
 * `--flag value`, `--flag=value`, unambiguous prefixes, nargs, choices, and its own error texts.
 *
 * A table is text: `--name,-alias type {choice|choice} =default`, flags parted by `;` or a newline,
 * a line that begins with two spaces continues the one before. Types: int, float, str, json,
 * size (1k, 2M, 1K = 1024), size-or-auto, flag (store_true), switch (--x and --no-x), maybe
 * (value optional), append; `+` and `*` behind a type take several values.
 */
export type FlagValue = string | number | boolean | readonly (string | number)[]

type Kind =
  | 'int'
  | 'float'
  | 'str'
  | 'json'
  | 'size'
  | 'size-or-auto'
  | 'flag'
  | 'switch'
  | 'maybe'
  | 'append'

export type Flag = {
  readonly names: readonly string[]
  readonly kind: Kind
  readonly many: '' | '+' | '*'
  readonly choices: readonly string[]
  readonly fallback: string | null
}

export type Parsed =
  | { readonly ok: true; readonly flags: Flags; readonly positional: readonly string[] }
  | { readonly ok: false; readonly message: string }

const KINDS: readonly string[] = [
  'int',
  'float',
  'str',
  'json',
  'size',
  'size-or-auto',
  'flag',
  'switch',
  'maybe',
  'append',
]
const isKind = (text: string): text is Kind => KINDS.includes(text)

/** Reads a table; a malformed row is a bug in the table and throws. */
export const flagTable = (...texts: readonly string[]): ReadonlyMap<string, Flag> => {
  const table = new Map<string, Flag>()
  for (const row of texts.join('\n').replaceAll('\n  ', '').split(/[;\n]/)) {
    if (row.trim() === '') continue
    const flag = readRow(row.trim())
    for (const name of flag.names) table.set(name, flag)
    if (flag.kind === 'switch') {
      for (const name of flag.names.filter((n) => n.startsWith('--'))) {
        table.set(`--no-${name.slice(2)}`, flag)
      }
    }
  }
  return table
}

const readRow = (row: string): Flag => {
  const match = /^(-\S+) ([a-z-]+)([+*]?)(?: \{([^}]*)\})?(?: =(.*))?$/.exec(row)
  const [, names = '', kind = '', many = '', choices = '', fallback] = match ?? []
  if (!isKind(kind)) throw new Error(`flag table: cannot read "${row}"`)
  return {
    names: names.split(','),
    kind,
    many: many === '+' || many === '*' ? many : '',
    choices: choices === '' ? [] : choices.split('|'),
    fallback: fallback ?? null,
  }
}

/** The values of a command line with the table's defaults behind them. */
export class Flags {
  readonly #table: ReadonlyMap<string, Flag>
  readonly #values: ReadonlyMap<Flag, FlagValue>

  constructor(table: ReadonlyMap<string, Flag>, values: ReadonlyMap<Flag, FlagValue>) {
    this.#table = table
    this.#values = values
  }

  given(name: string): boolean {
    return this.#values.has(this.#flag(name))
  }

  text(name: string): string | null {
    const value = this.#value(name)
    return value === null || typeof value === 'object' ? null : String(value)
  }

  number(name: string): number | null {
    const value = this.#value(name)
    return typeof value === 'number' ? value : null
  }

  on(name: string): boolean {
    const value = this.#value(name)
    return value === true || value === 'true'
  }

  list(name: string): readonly string[] {
    const value = this.#value(name)
    if (value === null) return []
    return typeof value === 'object' ? value.map(String) : [String(value)]
  }

  #flag(name: string): Flag {
    const flag = this.#table.get(name)
    if (flag === undefined) throw new Error(`flag table: there is no ${name}`)
    return flag
  }

  #value(name: string): FlagValue | null {
    const flag = this.#flag(name)
    const value = this.#values.get(flag)
    if (value !== undefined) return value
    if (flag.fallback === null) return null
    const read = convert(flag, flag.fallback)
    return read.ok ? read.value : null
  }
}

type Converted = { ok: true; value: string | number } | { ok: false; message: string }

const fail = (message: string): { ok: false; message: string } => ({ ok: false, message })

/** BooleanOptionalAction puts each `--no-x` behind its `--x`. */
const label = (flag: Flag): string => {
  const names = flag.names.flatMap((name) =>
    flag.kind === 'switch' && name.startsWith('--') ? [name, `--no-${name.slice(2)}`] : [name],
  )
  return `argument ${names.join('/')}`
}

const ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/** Python's `repr` of a string; what `%r` puts into argparse's messages. */
const quoted = (text: string): string => {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const inner = text
    .replaceAll('\\', '\\\\')
    .replaceAll("'", quote === "'" ? "\\'" : "'")
    .replace(/[\p{Cc}\p{Cs}]/gu, (one) => ESCAPES[one] ?? escapedUnit(one))
  return quote + inner + quote
}

const escapedUnit = (one: string): string => {
  const hex = (one.codePointAt(0) ?? 0).toString(16)
  return hex.length > 2 ? `\\u${hex.padStart(4, '0')}` : `\\x${hex.padStart(2, '0')}`
}

const convert = (flag: Flag, text: string): Converted => {
  const bad = (what: string) => fail(`${label(flag)}: invalid ${what} value: ${quoted(text)}`)
  if (flag.kind === 'int') {
    if (!/^\s*[+-]?\d+(_\d+)*\s*$/.test(text)) return bad('int')
    return chosen(flag, Number(text.replaceAll('_', '')))
  }
  if (flag.kind === 'float') {
    const value = pythonFloat(text)
    return value === null ? bad('float') : chosen(flag, value)
  }
  if (flag.kind === 'size' || flag.kind === 'size-or-auto') return size(flag, text)
  if (flag.kind === 'json' && !isJson(text)) {
    return fail(`${label(flag)}: Value ${text} cannot be converted to <function loads>.`)
  }
  return chosen(flag, text)
}

/** `float(text)`; null where Python raises. */
const pythonFloat = (text: string): number | null => {
  const [, sign = '', word = ''] = /^([+-]?)(inf|infinity|nan)$/i.exec(text.trim()) ?? []
  if (word !== '') return word.toLowerCase() === 'nan' ? Number.NaN : Number(`${sign}Infinity`)
  const digits = text.trim().replace(/(?<=\d)_(?=\d)/g, '')
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(digits) ? Number(digits) : null
}

const chosen = (flag: Flag, value: string | number): Converted => {
  if (flag.choices.length === 0 || flag.choices.includes(String(value))) return { ok: true, value }
  const shown = typeof value === 'number' ? String(value) : quoted(value)
  return fail(`${label(flag)}: invalid choice: ${shown} (choose from ${flag.choices.join(', ')})`)
}

const DECIMAL: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9, t: 1e12 }
const BINARY: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** vLLM's `human_readable_int`: 25.6k is 25600, 1K is 1024, and 1.5K is refused. */
const size = (flag: Flag, text: string): Converted => {
  const trimmed = text.trim()
  if (flag.kind === 'size-or-auto' && (trimmed === '-1' || trimmed.toLowerCase() === 'auto')) {
    return { ok: true, value: -1 }
  }
  const [, digits = '', suffix = ''] = /^(\d+(?:\.\d+)?)([kKmMgGtT])$/.exec(trimmed) ?? []
  if (suffix === '') {
    return /^[+-]?\d+(_\d+)*$/.test(trimmed)
      ? { ok: true, value: Number(trimmed.replaceAll('_', '')) }
      : fail(`${label(flag)}: invalid human_readable_int value: ${quoted(text)}`)
  }
  const decimal = DECIMAL[suffix]
  if (decimal !== undefined) return { ok: true, value: Math.trunc(Number(digits) * decimal) }
  if (!digits.includes('.')) return { ok: true, value: Number(digits) * (BINARY[suffix] ?? 1) }
  return fail(
    `${label(flag)}: Decimals are not allowed with binary suffixes like ${suffix}. ` +
      `Did you mean to use ${digits}${suffix.toLowerCase()} instead?`,
  )
}

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

type Match =
  | { kind: 'flag'; flag: Flag; name: string; inline: string | null }
  | { kind: 'positional' }
  | { kind: 'unknown' }
  | { kind: 'error'; message: string }

/** argparse `_parse_optional` and `_get_option_tuples`. */
const match = (table: ReadonlyMap<string, Flag>, argument: string, dotted: boolean): Match => {
  if (!argument.startsWith('-') || argument === '-') return { kind: 'positional' }
  const exact = table.get(argument)
  if (exact !== undefined) return { kind: 'flag', flag: exact, name: argument, inline: null }
  const equals = argument.indexOf('=')
  const name = equals < 0 ? argument : argument.slice(0, equals)
  const inline = equals < 0 ? null : argument.slice(equals + 1)
  const named = table.get(name)
  if (named !== undefined) return { kind: 'flag', flag: named, name, inline }
  const holder = dotted && name.includes('.') ? table.get(name.split('.', 1)[0] ?? '') : undefined
  if (holder !== undefined && /json|str/.test(holder.kind)) {
    return { kind: 'flag', flag: holder, name, inline }
  }
  if (argument.startsWith('--')) {
    const found = prefixed(table, name, inline)
    // What holds a space and is no flag is a value (argparse `_parse_optional`).
    return found.kind === 'unknown' && argument.includes(' ') ? { kind: 'positional' } : found
  }
  const short = table.get(argument.slice(0, 2))
  if (short !== undefined) {
    return { kind: 'flag', flag: short, name: argument.slice(0, 2), inline: argument.slice(2) }
  }
  if (/^-\d+$|^-\d*\.\d+$/.test(argument) || argument.includes(' ')) return { kind: 'positional' }
  return { kind: 'unknown' }
}

const prefixed = (table: ReadonlyMap<string, Flag>, name: string, inline: string | null): Match => {
  const names = [...table.keys()].filter((key) => key.startsWith(name))
  const [first] = names
  if (first === undefined) return { kind: 'unknown' }
  const flag = table.get(first)
  if (names.length > 1 || flag === undefined) {
    return {
      kind: 'error',
      message: `ambiguous option: ${name} could match ${names.join(', ')}`,
    }
  }
  return { kind: 'flag', flag, name: first, inline }
}

type Manners = {
  /** Flags that can be asked for afterwards, where these are more than may be given. */
  readonly all?: ReadonlyMap<string, Flag>
  /** vLLM's `--json-arg.key value`, which argparse itself does not have. Default: yes. */
  readonly dotted?: boolean
}

/** Parses; the message of a failure is argparse's text after `error: `. */
export const parseFlags = (
  table: ReadonlyMap<string, Flag>,
  argv: readonly string[],
  positionalMax: number,
  { all = table, dotted = true }: Manners = {},
): Parsed => {
  const look = (argument: string) => match(table, argument, dotted)
  const values = new Map<Flag, FlagValue>()
  const positional: string[] = []
  const unknown: string[] = []
  let index = 0
  while (index < argv.length) {
    const argument = argv[index] ?? ''
    index += 1
    if (argument === '--') {
      for (const rest of argv.slice(index)) {
        if (positional.length < positionalMax) positional.push(rest)
        else unknown.push(rest)
      }
      break
    }
    const found = look(argument)
    if (found.kind === 'error') return fail(found.message)
    if (found.kind === 'unknown') unknown.push(argument)
    else if (found.kind === 'positional') {
      if (positional.length < positionalMax) positional.push(argument)
      else unknown.push(argument)
    } else {
      const following = found.inline === null ? countValues(look, argv, index, found.flag) : 0
      const taken = argv.slice(index, index + following)
      const set = assign(values, found, taken)
      if (set !== null) return fail(set)
      index += following
    }
  }
  if (unknown.length > 0) return fail(`unrecognized arguments: ${unknown.join(' ')}`)
  return { ok: true, flags: new Flags(all, values), positional }
}

/** How many of the next arguments are values of this flag. */
const countValues = (
  look: (argument: string) => Match,
  argv: readonly string[],
  from: number,
  flag: Flag,
): number => {
  if (flag.kind === 'flag' || flag.kind === 'switch') return 0
  const most = flag.many === '' ? 1 : argv.length
  let count = 0
  while (count < most && from + count < argv.length) {
    const next = argv[from + count] ?? ''
    if (next === '--' || look(next).kind !== 'positional') break
    count += 1
  }
  return count
}

/** Stores the value; null when it is well-formed, else the error text. */
const assign = (
  values: Map<Flag, FlagValue>,
  found: { flag: Flag; name: string; inline: string | null },
  following: readonly string[],
): string | null => {
  const { flag, name, inline } = found
  if (flag.kind === 'flag' || flag.kind === 'switch') {
    if (inline !== null) return `${label(flag)}: ignored explicit argument ${quoted(inline)}`
    values.set(flag, !(flag.kind === 'switch' && !flag.names.includes(name)))
    return null
  }
  const texts = inline === null ? following : [inline]
  if (texts.length === 0) {
    if (flag.kind === 'maybe') values.set(flag, true)
    else if (flag.many === '*') values.set(flag, [])
    else return `${label(flag)}: expected ${flag.many === '+' ? 'at least one' : 'one'} argument`
    return null
  }
  if (name.includes('.')) return assignDotted(values, flag, name, texts[0] ?? '')
  const read: (string | number)[] = []
  for (const text of texts) {
    const value = convert(flag, text)
    if (!value.ok) return value.message
    read.push(value.value)
  }
  const before = values.get(flag)
  const [first = ''] = read
  if (flag.kind === 'append') values.set(flag, [...(Array.isArray(before) ? before : []), first])
  else values.set(flag, flag.many === '' ? first : read)
  return null
}

/** vLLM's `--json-arg.key value`: collected as `key=value`, kept as the text of one object. */
const assignDotted = (
  values: Map<Flag, FlagValue>,
  flag: Flag,
  name: string,
  text: string,
): string | null => {
  const before = values.get(flag)
  const keys = name.split('.').slice(1)
  if (keys.some((key) => key === '')) return `${label(flag)}: empty key in ${name}`
  const line = `${keys.join('.')}=${text}`
  values.set(flag, typeof before === 'string' ? `${before}\n${line}` : line)
  return null
}
