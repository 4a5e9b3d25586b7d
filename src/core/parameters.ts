/**
 * What a route and a consumer let a request's parameters be: from the bytes of a body and the
 * rules to edits, or to a refusal that names the parameter. Other bytes stay as they are.
 *
 * - Null says nothing, as for OpenAI: it may be sent, and a default takes its place.
 * - A parameter that is clamped must be a number: engines read "9999" as one (pydantic's lax mode),
 *   and a string that nobody compared would be a way around.
 * - A parameter that a rule speaks of may appear once: which of two counts is the engine's secret.
 * - The three names for an answer's length are one parameter here.
 */

import { type Edit, type Member, membersOf, valueAt } from './body.ts'
import type { Parameters } from './gateway-manifest.ts'
import { protocolAt } from './protocol.ts'
import { type Refusal, refusal, type SystemText, systemEdits } from './system-text.ts'

export type Adjustment =
  | { readonly ok: true; readonly edits: readonly Edit[]; readonly changes: readonly string[] }
  | Refusal

export type AdjustAsk = {
  readonly body: Uint8Array
  /** Where the body's object begins. The body must have been scanned. */
  readonly start: number
  /** The route's, then the consumer's: later ones have the last word. */
  readonly rules: readonly Parameters[]
  /** Of the request: `/v1/chat/completions`. */
  readonly path: string
  /** Defaults have a place here; a count of tokens, say, knows no temperature. */
  readonly defaults: boolean
  /** Of the model, tokens: a longer answer than this need not be forbidden. */
  readonly context: number
}

/** More than any API has; a body with a million members need not be kept in a list. */
const MEMBERS_MAX = 1_000
const NAME_MAX = 64
const CHANGES_TEXT_MAX = 1_000

/** What a request is about rather than how it is answered: not for `allow` to forbid. */
const CONTENT = new Set([
  ...['model', 'messages', 'prompt', 'input', 'instructions', 'system', 'stream'],
  ...['stream_options', 'query', 'documents', 'text_1', 'text_2'],
])

const LENGTH = 'max_tokens'
const LENGTHS: readonly string[] = [LENGTH, 'max_completion_tokens', 'max_output_tokens']

const parameterOf = (name: string): string => (LENGTHS.includes(name) ? LENGTH : name)

/** Ranges of the edits are of `body`. */
export const adjustParameters = (ask: AdjustAsk): Adjustment => {
  const members = membersOf(ask.body, { start: ask.start }, MEMBERS_MAX)
  if (members === null) return refusal(`the body has more than ${MEMBERS_MAX} fields`, 'body')
  const refused = notAllowed(ask, members) ?? repeated(ask.rules, members)
  if (refused !== null) return refused
  const work = new Work(ask, members)
  const wrong = work.parameters() ?? work.system()
  return wrong ?? { ok: true, edits: work.edits(), changes: work.changes }
}

/** The value of `x-penstock-parameters`; ASCII, bounded. */
export const changesText = (changes: readonly string[]): string => {
  const text = changes.join(', ')
  if (text.length <= CHANGES_TEXT_MAX) return text
  const kept = text.slice(0, CHANGES_TEXT_MAX)
  const whole = kept.slice(0, Math.max(0, kept.lastIndexOf(', ')))
  const rest = changes.length - whole.split(', ').length
  return `${whole}, and ${rest} more`
}

const says = ({ body }: AdjustAsk, { range: { start, end } }: Member): boolean =>
  !(end - start === 4 && body[start] === 0x6e)

const notAllowed = (ask: AdjustAsk, members: readonly Member[]): Refusal | null => {
  for (const { allow, refuse } of ask.rules) {
    const [may, mayNot] = [new Set(allow?.map(parameterOf)), new Set(refuse.map(parameterOf))]
    for (const member of members) {
      const name = parameterOf(member.name)
      const outside = allow !== undefined && !may.has(name) && !CONTENT.has(name)
      if ((!outside && !mayNot.has(name)) || !says(ask, member)) continue
      const shown = member.name === '' ? 'with this name' : shownName(member.name)
      const allowed = allow === undefined ? '' : `; allowed: ${allowedText(allow, mayNot)}`
      return refusal(`the parameter ${shown} is not allowed here${allowed}`, member.name)
    }
  }
  return null
}

const shownName = (name: string): string => `'${name.slice(0, NAME_MAX)}'`

const allowedText = (allow: readonly string[], mayNot: ReadonlySet<string>): string => {
  const names = allow.filter((name) => !mayNot.has(parameterOf(name)))
  return names.length === 0 ? 'none' : names.join(', ')
}

const repeated = (rules: readonly Parameters[], members: readonly Member[]): Refusal | null => {
  const spoken = new Set(rules.flatMap(namesIn).map(parameterOf))
  const seen = new Set<string>()
  for (const { name } of members) {
    if (seen.has(name)) return refusal(`"${name}" appears more than once in the body`, name)
    if (spoken.has(parameterOf(name))) seen.add(name)
  }
  return null
}

const namesIn = ({ refuse, clamp, defaults, system }: Parameters): readonly string[] => [
  ...refuse,
  ...Object.keys(clamp),
  ...Object.keys(defaults),
  ...(system === undefined ? [] : ['messages', 'instructions', 'system']),
]

type Clamp = Parameters['clamp'][string]

class Work {
  readonly changes: string[] = []
  readonly #ask: AdjustAsk
  readonly #members: readonly Member[]
  readonly #edits: Edit[] = []
  /** New members, each as `"name":value`. */
  readonly #added: string[] = []

  constructor(ask: AdjustAsk, members: readonly Member[]) {
    this.#ask = ask
    this.#members = members
  }

  edits(): readonly Edit[] {
    if (this.#added.length === 0) return this.#edits
    const at = this.#ask.start + 1
    const comma = this.#members.length === 0 ? '' : ','
    const insert = Buffer.from(this.#added.join(',') + comma)
    return [{ range: { start: at, end: at }, insert }, ...this.#edits]
  }

  parameters(): Refusal | null {
    const clamps = new Map<string, Clamp[]>()
    const defaults = new Map<string, unknown>()
    for (const rules of this.#ask.rules) {
      for (const [name, clamp] of Object.entries(rules.clamp)) {
        const parameter = parameterOf(name)
        clamps.set(parameter, [...(clamps.get(parameter) ?? []), clamp])
      }
      for (const [name, value] of Object.entries(rules.defaults)) {
        defaults.set(parameterOf(name), value)
      }
    }
    for (const [parameter, ends] of clamps) {
      const wrong = this.#clampGiven(parameter, ends)
      if (wrong !== null) return wrong
    }
    for (const [parameter, value] of this.#ask.defaults ? defaults : []) {
      const ends = clamps.get(parameter) ?? []
      this.#setAbsent(parameter, typeof value === 'number' ? clamped(value, ends) : value)
    }
    this.#setLength(clamps.get(LENGTH) ?? [], defaults.has(LENGTH))
    return null
  }

  system(): Refusal | null {
    const texts: SystemText = {
      // Each rule's text goes around what the rules before it made.
      prepend: this.#ask.rules.flatMap(({ system }) => system?.prepend || []).reverse(),
      append: this.#ask.rules.flatMap(({ system }) => system?.append || []),
    }
    if (texts.prepend.length + texts.append.length === 0) return null
    const { body, path } = this.#ask
    const result = systemEdits({ body, members: this.#members, path, texts })
    if (!result.ok) return result
    this.#edits.push(...result.edits)
    if (result.added !== null) this.#added.push(result.added)
    if (result.edits.length > 0 || result.added !== null) {
      if (texts.prepend.length > 0) this.changes.push('system prepended')
      if (texts.append.length > 0) this.changes.push('system appended')
    }
    return null
  }

  #clampGiven(parameter: string, ends: readonly Clamp[]): Refusal | null {
    for (const member of this.#members) {
      if (parameterOf(member.name) !== parameter || !says(this.#ask, member)) continue
      const { name, range } = member
      const value = valueAt(this.#ask.body, range)
      if (typeof value !== 'number') {
        return refusal(`${name} must be a number${endsText(ends)}`, name)
      }
      const inside = clamped(value, ends)
      if (inside === value) continue
      this.#edits.push({ range, insert: Buffer.from(JSON.stringify(inside)) })
      this.changes.push(`clamped ${name}=${inside}`)
    }
    return null
  }

  /** No `max_tokens` means as many as the context holds: more than the clamp allows. */
  #setLength(ends: readonly Clamp[], hasDefault: boolean): void {
    const longest = clamped(Number.POSITIVE_INFINITY, ends)
    if (hasDefault || !(longest < this.#ask.context)) return
    this.#setAbsent(LENGTH, longest)
  }

  /** Sets a parameter of which the body says nothing that the engine would obey. */
  #setAbsent(parameter: string, value: unknown): void {
    const caps: readonly string[] = protocolAt(this.#ask.path)?.caps ?? []
    const obeyed = parameter === LENGTH ? caps : [parameter]
    const [name] = obeyed
    if (name === undefined) return
    const given = this.#members.filter((member) => obeyed.includes(member.name))
    if (given.some((member) => says(this.#ask, member))) return
    const json = JSON.stringify(value)
    const empty = given.find((member) => member.name === name)
    if (empty === undefined) this.#added.push(`${JSON.stringify(name)}:${json}`)
    else this.#edits.push({ range: empty.range, insert: Buffer.from(json) })
    const told = typeof value === 'number' || typeof value === 'boolean' ? `=${value}` : ''
    this.changes.push(`set ${name}${told}`)
  }
}

const clamped = (value: number, ends: readonly Clamp[]): number =>
  ends.reduce(
    (number, { min, max }) =>
      Math.max(min ?? Number.NEGATIVE_INFINITY, Math.min(max ?? Number.POSITIVE_INFINITY, number)),
    value,
  )

const endsText = (ends: readonly Clamp[]): string => {
  const [min, max] = [
    clamped(Number.NEGATIVE_INFINITY, ends),
    clamped(Number.POSITIVE_INFINITY, ends),
  ]
  if (Number.isFinite(min) && Number.isFinite(max)) return ` from ${min} to ${max}`
  if (Number.isFinite(max)) return ` of at most ${max}`
  return Number.isFinite(min) ? ` of at least ${min}` : ''
}
