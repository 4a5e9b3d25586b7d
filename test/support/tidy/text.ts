/** Rules over plain text: width, unfinished work, and what no tracked file may tell. */
import { type Finding, lineOf, type SourceFile } from './source.ts'

export const WIDTH = 100

/** A line that is wide because of one address cannot be broken. */
const ADDRESS = /https?:\/\/\S{60,}/
/** Tests hold recorded lines and messages as one literal, which reads better whole. */
const LONG_LITERAL = /(['"`/]).{60,}\1/

const excused = (path: string, line: string): boolean =>
  ADDRESS.test(line) || (path.startsWith('test/') && LONG_LITERAL.test(line))

export const width = (file: SourceFile): readonly Finding[] =>
  file.text.split('\n').flatMap((line, index) => {
    const columns = [...line].length
    return columns <= WIDTH || excused(file.path, line)
      ? []
      : [{ path: file.path, line: index + 1, rule: `line of ${columns} columns` }]
  })

export const unfinished = (file: SourceFile): readonly Finding[] =>
  file.comments.flatMap((comment) => {
    const at = comment.text.search(/\b(TODO|FIXME|XXX|HACK)\b/)
    return at === -1
      ? []
      : [{ path: file.path, line: lineOf(file, comment.start + 2 + at), rule: 'unfinished work' }]
  })

/** Written so that no pattern matches its own source. */
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/(?<![\w.-])\/wor[k]\//, 'machine path'],
  [/(?<![\w.-])\/Users[/]\w/, 'machine path'],
  [/(?<![\w.-])\/home[/](?!vllm\b)\w+\//, 'machine path'],
  [/\/\.pyen[v]\//, 'machine path'],
  [/\bregistry\.(npm|yarn)[a-z]*\.(org|com)/, 'registry host'],
  [/\b(pypi\.or[g]|pythonhosted\.or[g]|download\.pytorch\.or[g])/, 'registry host'],
  [/\bsk-(ps-)?[A-Za-z0-9]{32,}/, 'key'],
  [/-----BEGIN (RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/]{40}/, 'private key'],
]

export const telltale = (path: string, content: string): readonly Finding[] =>
  content.split('\n').flatMap((line, index) =>
    SECRETS.filter(([pattern]) => pattern.test(line)).map(([, rule]) => ({
      path,
      line: index + 1,
      rule,
    })),
  )

/** A lockfile pins by version and hash; where it was resolved from is the machine's business. */
export const lockfile = (path: string, content: string): readonly Finding[] =>
  content
    .split('\n')
    .flatMap((line, index) =>
      /"resolved":|https?:\/\/[^"]*\.tgz/.test(line)
        ? [{ path, line: index + 1, rule: 'registry address' }]
        : [],
    )
