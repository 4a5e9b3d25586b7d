/**
 * Regular expressions over model names that clients send, in time linear in the name whatever the
 * expression: parsed here and run as a set of states (Thompson 1968), never by backtracking. What
 * cannot be run so, back-references and look-around, is refused when the manifest is loaded; so
 * is an expression of more than STATES_MAX states.
 */

export type Regex = { readonly test: (text: string) => boolean }
export type RegexAnswer =
  | { readonly ok: true; readonly regex: Regex }
  /** `at`: which character of the source, from 0. */
  | { readonly ok: false; readonly message: string; readonly at: number }

/** 200 characters times this many steps is less than a millisecond. */
const STATES_MAX = 1000
const PARTS_MAX = 100_000
const DEPTH_MAX = 50

type Ranges = readonly (readonly [number, number])[]
type Node =
  | { readonly kind: 'one'; readonly ranges: Ranges }
  | { readonly kind: 'start' | 'end' }
  | { readonly kind: 'sequence' | 'choice'; readonly nodes: readonly Node[] }
  | { readonly kind: 'repeat'; readonly node: Node; readonly min: number; readonly max: number }

const LAST = 0x10ffff
const DIGIT: Ranges = [[0x30, 0x39]]
const WORD: Ranges = [...DIGIT, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]]
const SPACE: Ranges = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]
const LINE_END: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
]

const others = (ranges: Ranges): Ranges => {
  const result: (readonly [number, number])[] = []
  let from = 0
  for (const [low, high] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (low > from) result.push([from, low - 1])
    from = Math.max(from, high + 1)
  }
  return from > LAST ? result : [...result, [from, LAST]]
}

const CLASSES: Readonly<Record<string, Ranges>> = {
  d: DIGIT,
  D: others(DIGIT),
  w: WORD,
  W: others(WORD),
  s: SPACE,
  S: others(SPACE),
}

class Refused extends Error {
  readonly at: number

  constructor(message: string, at: number) {
    super(message)
    this.at = at
  }
}

const pointOf = (character: string): number => character.codePointAt(0) ?? 0

class Parser {
  readonly #source: readonly string[]
  #at = 0
  #depth = 0

  constructor(source: string) {
    this.#source = [...source]
  }

  whole(): Node {
    const node = this.#choice()
    if (this.#at < this.#source.length) throw this.#refused('a ) without its (')
    return node
  }

  #choice(): Node {
    const nodes = [this.#sequence()]
    while (this.#take('|')) nodes.push(this.#sequence())
    return { kind: 'choice', nodes }
  }

  #sequence(): Node {
    const nodes: Node[] = []
    for (;;) {
      const next = this.#source[this.#at]
      if (next === undefined || next === '|' || next === ')') return { kind: 'sequence', nodes }
      nodes.push(this.#repeated(this.#one()))
    }
  }

  #one(): Node {
    const character = this.#source[this.#at] ?? ''
    if ('*+?{'.includes(character)) throw this.#refused(`nothing for ${character} to repeat`)
    this.#at += 1
    switch (character) {
      case '(':
        return this.#group()
      case '[':
        return { kind: 'one', ranges: this.#set() }
      case '.':
        return { kind: 'one', ranges: others(LINE_END) }
      case '^':
        return { kind: 'start' }
      case '$':
        return { kind: 'end' }
      case '\\':
        return { kind: 'one', ranges: this.#escape() }
      default:
        return { kind: 'one', ranges: [[pointOf(character), pointOf(character)]] }
    }
  }

  #group(): Node {
    const open = this.#at - 1
    if (this.#take('?') && !this.#take(':')) {
      throw new Refused('look-around and named groups are not supported', open)
    }
    this.#depth += 1
    if (this.#depth > DEPTH_MAX) throw new Refused(`deeper than ${DEPTH_MAX} groups`, open)
    const node = this.#choice()
    this.#depth -= 1
    if (!this.#take(')')) throw new Refused('a ( without its )', open)
    return node
  }

  /** After the backslash. */
  #escape(): Ranges {
    const character = this.#source[this.#at]
    if (character === undefined) throw this.#refused('a \\ at the end')
    if (/[1-9k]/.test(character)) throw this.#refused('back-references are not supported')
    const set = CLASSES[character]
    if (set === undefined && /[A-Za-z0]/.test(character)) {
      throw this.#refused(`\\${character} is not supported`)
    }
    this.#at += 1
    return set ?? [[pointOf(character), pointOf(character)]]
  }

  /** After the opening bracket. */
  #set(): Ranges {
    const open = this.#at - 1
    const negated = this.#take('^')
    const ranges: (readonly [number, number])[] = []
    while (!this.#take(']')) {
      const from = this.#member(open)
      const dash = this.#source[this.#at] === '-' && this.#source[this.#at + 1] !== ']'
      if (!dash) {
        ranges.push(...from)
        continue
      }
      this.#at += 1
      const to = this.#member(open)
      const [low, high] = [single(from), single(to)]
      if (low === null || high === null || low > high) {
        throw this.#refused('a range whose ends are out of order or no single characters')
      }
      ranges.push([low, high])
    }
    return negated ? others(ranges) : ranges
  }

  #member(open: number): Ranges {
    const character = this.#source[this.#at]
    if (character === undefined) throw new Refused('a [ without its ]', open)
    this.#at += 1
    return character === '\\' ? this.#escape() : [[pointOf(character), pointOf(character)]]
  }

  #repeated(node: Node): Node {
    const times = this.#times()
    if (times === null) return node
    if (node.kind === 'start' || node.kind === 'end') throw this.#refused('an anchor repeated')
    // Lazy or greedy: which characters a part takes is not asked.
    this.#take('?')
    if ('*+?{'.includes(this.#source[this.#at] ?? '.')) throw this.#refused('repeated twice')
    return { kind: 'repeat', node, ...times }
  }

  #times(): { readonly min: number; readonly max: number } | null {
    if (this.#take('*')) return { min: 0, max: Number.POSITIVE_INFINITY }
    if (this.#take('+')) return { min: 1, max: Number.POSITIVE_INFINITY }
    if (this.#take('?')) return { min: 0, max: 1 }
    if (this.#source[this.#at] !== '{') return null
    const rest = this.#source.slice(this.#at, this.#at + 12).join('')
    const found = /^\{(\d{1,4})(,(\d{0,4}))?\}/.exec(rest)
    if (found === null) throw this.#refused('expected {n}, {n,} or {n,m}; \\{ for a brace')
    const min = Number(found[1])
    const max = found[2] === undefined ? min : found[3] ? Number(found[3]) : Infinity
    if (max < min) throw this.#refused('more at least than at most')
    this.#at += found[0].length
    return { min, max }
  }

  #take(character: string): boolean {
    if (this.#source[this.#at] !== character) return false
    this.#at += 1
    return true
  }

  #refused(message: string): Refused {
    return new Refused(message, this.#at)
  }
}

const single = (ranges: Ranges): number | null => {
  const [first] = ranges
  return ranges.length === 1 && first?.[0] === first?.[1] ? (first?.[0] ?? null) : null
}

/** `next` and `other` are places in the list of states; the last state of all is the match. */
type State =
  | { readonly kind: 'one'; readonly ranges: Ranges; readonly next: number }
  | { readonly kind: 'start' | 'end'; readonly next: number }
  | { readonly kind: 'either'; readonly next: number; other: number }

const MATCH = -1

/** Built from the end: each part is given where to go on and returns where it begins. */
class Builder {
  readonly states: State[] = []
  #parts = 0

  build(node: Node, next: number): number {
    // An empty part, repeated, makes no states and takes its time all the same.
    this.#parts += 1
    if (this.#parts > PARTS_MAX) throw new Refused('too large: fewer repetitions', 0)
    switch (node.kind) {
      case 'one':
        return this.#add({ kind: 'one', ranges: node.ranges, next })
      case 'start':
      case 'end':
        return this.#add({ kind: node.kind, next })
      case 'sequence':
        return node.nodes.reduceRight((after, one) => this.build(one, after), next)
      case 'choice':
        return node.nodes
          .map((one) => this.build(one, next))
          .reduceRight((other, first) => this.#add({ kind: 'either', next: first, other }))
      case 'repeat':
        return this.#repeat(node, next)
    }
  }

  #repeat({ node, min, max }: Node & { kind: 'repeat' }, next: number): number {
    let begin = next
    if (max === Number.POSITIVE_INFINITY) {
      const loop: State = { kind: 'either', next, other: next }
      begin = this.#add(loop)
      loop.other = this.build(node, begin)
    } else {
      for (let extra = min; extra < max; extra += 1) {
        begin = this.#add({ kind: 'either', next, other: this.build(node, begin) })
      }
    }
    for (let times = 0; times < min; times += 1) begin = this.build(node, begin)
    return begin
  }

  #add(state: State): number {
    if (this.states.length >= STATES_MAX) throw new Refused('too large: fewer repetitions', 0)
    return this.states.push(state) - 1
  }
}

/** Places in the name that the states are tried at, each state once a place. */
const run = (states: readonly State[], begin: number, text: string): boolean => {
  const points = [...text].map(pointOf)
  let seen = new Set<number>()
  const reach = (place: number, at: number): boolean => {
    const open = [place]
    for (let one = open.pop(); one !== undefined; one = open.pop()) {
      if (one === MATCH) return true
      const state = states[one]
      if (state === undefined || seen.has(one)) continue
      seen.add(one)
      if (state.kind === 'either') open.push(state.next, state.other)
      else if (state.kind === 'start' && at === 0) open.push(state.next)
      else if (state.kind === 'end' && at === points.length) open.push(state.next)
    }
    return false
  }
  for (const [at, point] of points.entries()) {
    if (reach(begin, at)) return true
    const here = seen
    seen = new Set()
    for (const place of here) {
      const state = states[place]
      if (state?.kind !== 'one' || !within(state.ranges, point)) continue
      if (reach(state.next, at + 1)) return true
    }
  }
  return reach(begin, points.length)
}

const within = (ranges: Ranges, point: number): boolean =>
  ranges.some(([low, high]) => point >= low && point <= high)

/** The source as between the slashes; a name matches when the expression is found in it. */
export const regexOf = (source: string): RegexAnswer => {
  try {
    const builder = new Builder()
    const begin = builder.build(new Parser(source).whole(), MATCH)
    return { ok: true, regex: { test: (text) => run(builder.states, begin, text) } }
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    return { ok: false, message: error.message, at: error.at }
  }
}
