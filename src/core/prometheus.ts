/**
 * Prometheus text to samples: exposition format 0.0.4 and what engines emit of OpenMetrics 1.0
 * (`# EOF`, exemplars, fractional timestamps). The text comes from a network peer: bounded in every
 * direction, a line that is no sample is counted and skipped, nothing throws.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export type Sample = {
  readonly name: string
  readonly labels: ReadonlyMap<string, string>
  readonly value: number
}

export type Exposition = {
  readonly samples: readonly Sample[]
  /** `# TYPE`: metric family to counter, gauge, histogram, summary, untyped … */
  readonly types: ReadonlyMap<string, string>
  /** Lines that are neither sample nor comment, and samples beyond a limit. */
  readonly malformed: number
  /** The text was longer than the limits; only its beginning was read. */
  readonly truncated: boolean
}

export type ExpositionLimits = {
  readonly charactersMax: number
  readonly linesMax: number
  readonly lineLengthMax: number
  readonly labelsMax: number
}

/** vLLM with all histograms prints about 2,000 lines; its longest (cache_config_info) is 3 KB. */
export const EXPOSITION_LIMITS: ExpositionLimits = {
  charactersMax: 8 * 1024 * 1024,
  linesMax: 200_000,
  lineLengthMax: 64 * 1024,
  labelsMax: 256,
}

type Options = {
  /** Only these names become samples; others are passed over unread. Absent: all. */
  readonly wanted?: ReadonlySet<string>
  readonly limits?: ExpositionLimits
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y
const LABEL = /[a-zA-Z_][a-zA-Z0-9_]*/y
const BLANKS = /[ \t]*/y
const TYPE = /^#[ \t]+TYPE[ \t]+([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]+([a-z]+)[ \t]*$/
/** Value, timestamp (integer milliseconds, or seconds in OpenMetrics), exemplar. */
const TAIL = /^[ \t]+(\S+)(?:[ \t]+[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)?[ \t]*(?: # \{.*)?$/
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/
const SPECIAL: Readonly<Record<string, number>> = {
  nan: Number.NaN,
  inf: Number.POSITIVE_INFINITY,
  '+inf': Number.POSITIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
}

export const parseExposition = (text: string, options: Options = {}): Exposition => {
  const { wanted, limits = EXPOSITION_LIMITS } = options
  const samples: Sample[] = []
  const types = new Map<string, string>()
  let [malformed, lines, start] = [0, 0, 0]
  const end = Math.min(text.length, limits.charactersMax)
  while (start < end && lines < limits.linesMax) {
    const stop = text.indexOf('\n', start)
    // A last line without its line feed was cut: `tokens 12` may have been `tokens 1234`.
    const whole = stop !== -1 && stop < end
    const line = whole ? text.slice(start, stop) : ''
    if (!whole && text[start] !== '#' && text.length <= end) malformed += 1
    start = whole ? stop + 1 : end
    lines += 1
    const read = readLine(line, wanted, limits)
    if (read === 'malformed') malformed += 1
    else if (read !== 'nothing' && 'type' in read) types.set(read.family, read.type)
    else if (read !== 'nothing') samples.push(read)
  }
  return { samples, types, malformed, truncated: start < text.length }
}

type Line = Sample | { readonly family: string; readonly type: string } | 'nothing' | 'malformed'

const readLine = (raw: string, wanted: Options['wanted'], limits: ExpositionLimits): Line => {
  const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw
  let at = match(BLANKS, line, 0)
  if (at === line.length) return 'nothing'
  if (line[at] === '#') {
    if (line.length > limits.lineLengthMax) return 'nothing'
    const [, family, type] = TYPE.exec(line.slice(at)) ?? []
    if (family === undefined || type === undefined || wanted?.has(family) === false) {
      return 'nothing'
    }
    return { family, type }
  }
  const nameEnd = match(NAME, line, at)
  if (nameEnd === at || line.length > limits.lineLengthMax) return 'malformed'
  const name = line.slice(at, nameEnd)
  if (wanted?.has(name) === false) return 'nothing'
  at = match(BLANKS, line, nameEnd)
  const labels = new Map<string, string>()
  if (line[at] === '{') at = readLabels(line, at + 1, labels, limits.labelsMax)
  else at = nameEnd
  const tail = at === -1 ? null : TAIL.exec(at === nameEnd ? line.slice(at) : ` ${line.slice(at)}`)
  const value = numberOf(tail?.[1] ?? '')
  return value === null ? 'malformed' : { name, labels, value }
}

/** Index where a sticky pattern that begins at `at` ends; `at` itself when it does not match. */
const match = (pattern: RegExp, line: string, at: number): number => {
  pattern.lastIndex = at
  return pattern.test(line) ? pattern.lastIndex : at
}

const numberOf = (text: string): number | null =>
  NUMBER.test(text) ? Number(text) : (SPECIAL[text.toLowerCase()] ?? null)

/** Reads `name="value",…}` into `labels`; the index behind the brace, or -1 when malformed. */
const readLabels = (
  line: string,
  from: number,
  labels: Map<string, string>,
  labelsMax: number,
): number => {
  let at = match(BLANKS, line, from)
  while (line[at] !== '}') {
    const nameEnd = match(LABEL, line, at)
    const name = line.slice(at, nameEnd)
    at = match(BLANKS, line, nameEnd)
    if (name === '' || line[at] !== '=' || labels.has(name) || labels.size >= labelsMax) return -1
    at = match(BLANKS, line, at + 1)
    const value = line[at] === '"' ? readQuoted(line, at + 1) : null
    if (value === null) return -1
    labels.set(name, value.text)
    at = match(BLANKS, line, value.end)
    if (line[at] === ',') at = match(BLANKS, line, at + 1)
    else if (line[at] !== '}') return -1
  }
  return at + 1
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\', '"': '"', n: '\n' }

/** A label value whose opening quote is behind us; null without an end or with a wrong escape. */
const readQuoted = (line: string, from: number): { text: string; end: number } | null => {
  let text = ''
  let start = from
  for (let at = from; at < line.length; at += 1) {
    if (line[at] === '"') return { text: text + line.slice(start, at), end: at + 1 }
    if (line[at] !== '\\') continue
    const escaped = ESCAPES[line[at + 1] ?? '']
    if (escaped === undefined) return null
    text += line.slice(start, at) + escaped
    at += 1
    start = at + 1
  }
  return null
}
