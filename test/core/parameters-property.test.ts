import fc from 'fast-check'
import { expect, test } from 'vitest'
import { scanBody } from '../../src/core/body.ts'
import { applyEdits } from '../../src/core/edits.ts'
import { type Parameters, ParametersSchema } from '../../src/core/gateway-manifest.ts'
import { adjustParameters } from '../../src/core/parameters.ts'

const CHAT = '/v1/chat/completions'
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const rulesOf = (...rules: object[]): readonly Parameters[] =>
  rules.map((rule) => ParametersSchema.parse(rule))

const parsed = (source: string, rules: readonly Parameters[], path: string): unknown => {
  const body = bytes(source)
  const scan = scanBody(body)
  if (!scan.ok) throw new Error(scan.message)
  const { start } = scan
  const where = { body, start, path, context: 1_000_000 }
  const answer = adjustParameters({ ...where, rules, defaults: true })
  if (!answer.ok) throw new Error(answer.message)
  return JSON.parse(new TextDecoder().decode(applyEdits(body, answer.edits)))
}

/** JSON text of a value with spaces, escapes and members that come twice, as a client may write. */
type Hand = { next(below: number): number }

const spaces = (hand: Hand): string => [' ', '\n', '\t', '\r\n '][hand.next(12)] ?? ''

const written = (hand: Hand, value: unknown): string => {
  const gap = (): string => spaces(hand)
  if (typeof value === 'string') {
    const characters = Array.from({ length: value.length }, (_, at) => {
      const code = value.charCodeAt(at)
      const plain = JSON.stringify(value.charAt(at)).slice(1, -1)
      const surrogate = code >= 0xd800 && code <= 0xdfff
      if (!surrogate && hand.next(4) > 0) return plain
      const hex = code.toString(16).padStart(4, '0')
      return `\\u${hand.next(2) === 0 ? hex : hex.toUpperCase()}`
    })
    return `"${characters.join('')}"`
  }
  if (Array.isArray(value)) {
    const items = value.map((item) => `${gap()}${written(hand, item)}${gap()}`)
    return `[${items.length === 0 ? gap() : items.join(',')}]`
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(
      ([key, one]) => `${gap()}${written(hand, key)}${gap()}:${gap()}${written(hand, one)}${gap()}`,
    )
    return `{${members.length === 0 ? gap() : members.join(',')}}`
  }
  return JSON.stringify(value)
}

/** The rules once more, on parsed values, by another road: what the edited body must parse to. */
const intended = (given: Record<string, unknown>, rules: readonly Parameters[], path: string) => {
  const result: Record<string, unknown> = structuredClone(given)
  const lengths = ['max_tokens', 'max_completion_tokens', 'max_output_tokens']
  const family = (name: string): readonly string[] => (lengths.includes(name) ? lengths : [name])
  const obeyed = path === '/v1/responses' ? ['max_output_tokens'] : lengths.slice(0, 2)
  const has = (name: string): boolean => Object.hasOwn(given, name) && given[name] !== null
  const wanted: Record<string, unknown> = {}
  const into = (name: string): string => (lengths.includes(name) ? (obeyed[0] ?? '') : name)
  for (const rule of rules) {
    for (const [name, value] of Object.entries(rule.defaults)) wanted[into(name)] = value
  }
  const longest = rules
    .flatMap(({ clamp }) => Object.entries(clamp))
    .filter(([name]) => lengths.includes(name))
    .reduce(
      (at, [, { min, max }]) =>
        Math.max(min ?? Number.NEGATIVE_INFINITY, Math.min(at, max ?? Number.POSITIVE_INFINITY)),
      Number.POSITIVE_INFINITY,
    )
  const length = obeyed[0] ?? ''
  if (Number.isFinite(longest) && !Object.hasOwn(wanted, length)) wanted[length] = longest
  for (const [name, value] of Object.entries(wanted)) {
    const known = lengths.includes(name) ? obeyed : [name]
    if (!known.some(has)) result[name] = value
  }
  for (const rule of rules) {
    for (const [name, { min, max }] of Object.entries(rule.clamp)) {
      for (const one of family(name)) {
        const value = result[one]
        if (typeof value !== 'number') continue
        const least = Math.min(max ?? value, value)
        result[one] = Math.max(min ?? least, least)
      }
    }
    const { prepend, append } = rule.system ?? {}
    const around = (text: string): string =>
      [prepend, text, append].filter((part) => part !== undefined && part !== '').join('\n\n')
    if ((prepend ?? '') + (append ?? '') !== '') withSystem(result, path, around)
  }
  return result
}

const withSystem = (
  result: Record<string, unknown>,
  path: string,
  around: (text: string) => string,
): void => {
  if (path === '/v1/responses') {
    const text = result.instructions
    result.instructions = around(typeof text === 'string' ? text : '')
    return
  }
  const { messages } = result
  if (!Array.isArray(messages)) return
  const isSystem = (one: unknown): one is { role: string; content?: unknown } =>
    typeof one === 'object' &&
    one !== null &&
    'role' in one &&
    (one.role === 'system' || one.role === 'developer')
  const found = messages.find(isSystem)
  if (found === undefined) messages.unshift({ role: 'system', content: around('') })
  else found.content = around(typeof found.content === 'string' ? found.content : '')
}

const NAMES = ['max_tokens', 'max_completion_tokens', 'max_output_tokens', 'temperature', 'top_k']
const text = fc.string({ unit: 'binary', maxLength: 12 })
const bound = fc.record(
  { min: fc.integer({ min: 1, max: 40 }), max: fc.integer({ min: 40, max: 90 }) },
  { requiredKeys: [] },
)
const rule = fc.record(
  {
    clamp: fc.dictionary(fc.constantFrom(...NAMES), bound, { maxKeys: 3 }),
    defaults: fc.dictionary(fc.constantFrom('top_k', 'max_tokens', 'seed'), fc.integer(), {
      maxKeys: 2,
    }),
    system: fc.record({ prepend: text, append: text }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
)
const message = fc.record(
  {
    role: fc.constantFrom('user', 'system', 'developer', 'assistant'),
    content: fc.oneof(text, fc.constant(null)),
    name: fc.jsonValue(),
  },
  { requiredKeys: ['role', 'content'] },
)
const number = fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
const known = fc.dictionary(fc.constantFrom(...NAMES, 'seed'), fc.oneof(number, fc.constant(null)))
const others = fc.dictionary(
  fc.string({ unit: 'binary' }).filter((name) => !NAMES.includes(name)),
  fc.jsonValue({ maxDepth: 6 }),
)

test('the edited body parses to exactly what was intended, and the rest keeps its bytes', () => {
  const bodies = fc.record({
    known,
    others,
    messages: fc.option(fc.array(message, { maxLength: 4 }), { nil: undefined }),
    instructions: fc.option(text, { nil: undefined }),
  })
  const paths = fc.constantFrom(CHAT, '/v1/responses')
  const seeds = fc.array(fc.nat(), { minLength: 40, maxLength: 40 })
  fc.assert(
    fc.property(
      bodies,
      fc.array(rule, { maxLength: 2 }),
      paths,
      seeds,
      (parts, made, path, seed) => {
        let turn = 0
        const hand: Hand = {
          next: (below) => {
            turn += 1
            return ((seed[turn % seed.length] ?? 0) + turn * 7) % below
          },
        }
        const { messages, instructions } = parts
        const value: Record<string, unknown> = {
          ...parts.others,
          ...parts.known,
          ...(messages === undefined ? {} : { messages }),
          ...(instructions === undefined ? {} : { instructions }),
        }
        const rules = rulesOf(...made)
        // A member that no rule speaks of, twice: the last one counts, before and after.
        const twice = hand.next(3) === 0 ? '"unspoken":1,' : ''
        const rest = written(hand, { ...value, unspoken: 2 })
          .trimStart()
          .slice(1)
        const source = `${spaces(hand)}{${twice}${rest}`
        const before: Record<string, unknown> = JSON.parse(source)
        expect(parsed(source, rules, path)).toEqual(intended(before, rules, path))
      },
    ),
    { numRuns: 1_500 },
  )
})
