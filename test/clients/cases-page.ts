/** docs/sdk-cases.md, made from the table of cases. */
import { KEY } from '../support/gateway.ts'
import { type Case, type Each, type Sight, sightIn } from './cases.ts'

/** What no SDK sends, but browsers and monitors do; the answer has no body. */
export const PLAIN = [
  {
    method: 'HEAD',
    path: '/v1/models',
    headers: { authorization: `Bearer ${KEY}` },
    status: 200,
    has: { 'content-type': 'application/json' },
  },
  { method: 'HEAD', path: '/v1/models', headers: {}, status: 401, has: {} },
  {
    method: 'OPTIONS',
    path: '/v1/chat/completions',
    headers: { origin: 'https://example.com', 'access-control-request-method': 'POST' },
    status: 204,
    has: { 'access-control-allow-origin': '*', 'access-control-allow-methods': 'POST, OPTIONS' },
  },
] as const

const HEAD = `# What a program with an official OpenAI SDK sees

Every line is played by the tests in \`test/clients\` to the official SDKs for JavaScript and
Python at their defaults (two retries): once against a server that answers as OpenAI does, once
against Penstock in front of an engine that misbehaves. This page is made from the same table and
checked by a test; \`npx vitest run test/clients/cases.test.ts -u\` writes it anew.

- *raises*: the class, and the status, \`type\`, \`code\` and \`param\` that the caller reads
  from it. Where two classes are named, the first is JavaScript's.
- *requests*: how many the SDK sends. Where Penstock names a wait, the SDK keeps to it; else it
  waits half a second and then a second, less up to a quarter.
- *why*: given exactly where the caller can tell Penstock from OpenAI. Two rules lie behind most
  of it: \`code\` is filled in where OpenAI leaves it empty, and no error is a page of HTML.
- *seen*: the GitHub thread that shows OpenAI's answer, or the SDKs' own code where that decides.
`

const escaped = (text: string): string => text.replace(/\|/g, '\\|')

const each = <Value>(value: Each<Value>, show: (one: Value) => string): string => {
  if (typeof value !== 'object' || value === null || !('js' in value)) return show(value)
  return `${show(value.js)} / ${show(value.python)}`
}

const classes = (sight: Sight): string => {
  const [js, python] = [sightIn('js', sight).raised, sightIn('python', sight).raised]
  const names = js === python ? [js] : [js, python]
  return names.map((name) => (name === null ? 'nothing' : `\`${name}\``)).join(' / ')
}

/** `BadRequestError` 400 invalid_request_error `code` (`param`) */
const sighted = (sight: Sight): string => {
  const { raised, status, type, code, param, text } = sight
  if (raised === null) return text === '' ? 'nothing' : `nothing; the answer is "${text}"`
  const words = [
    classes(sight),
    status === null ? '' : String(status),
    type ?? '',
    code === null ? '' : `\`${code}\``,
    param === null ? '' : `(\`${param}\`)`,
    text === '' ? '' : `after "${text}"`,
  ]
  return words.filter((word) => word !== '').join(' ')
}

const waits = ({ asksMs, shouldRetry }: Case): string => {
  const told = asksMs === 'some' ? 'as told' : asksMs === undefined ? '' : `${asksMs / 1000} s`
  return [told, shouldRetry === undefined ? '' : `\`x-should-retry: ${shouldRetry}\``]
    .filter((word) => word !== '')
    .join(', ')
}

const lineOf = (one: Case): string => {
  const { name, sight, openai, cancels, differs = '' } = one
  const { source } = openai
  const same = differs === '' ? 'the same' : sighted(openai.sight)
  const count = each(sight.attempts, String)
  const theirs = each(openai.sight.attempts, String)
  const cells = [
    cancels === true ? `${name} (JavaScript)` : name,
    sighted(sight),
    count,
    waits(one),
    theirs === count ? same : `${same}, ${theirs} requests`,
    differs,
    source === null ? 'assumed' : source,
  ]
  return `| ${cells.map(escaped).join(' | ')} |`
}

const plainLine = ({ method, path, headers, status, has }: (typeof PLAIN)[number]): string => {
  const sent = Object.keys(headers).join(', ') || 'no key'
  const got = Object.entries(has).map(([header, value]) => `\`${header}: ${value}\``)
  return `| ${[`${method} ${path}`, sent, String(status), got.join(', ')].join(' | ')} |`
}

export const pageOf = (cases: readonly Case[]): string =>
  [
    HEAD,
    '| case | Penstock raises | requests | wait | OpenAI raises | why | seen |',
    '|---|---|---|---|---|---|---|',
    ...cases.map(lineOf),
    '',
    'Without an SDK, as browsers and monitors ask:',
    '',
    '| request | with | status | headers |',
    '|---|---|---|---|',
    ...PLAIN.map(plainLine),
    '',
  ].join('\n')
