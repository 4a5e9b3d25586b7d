/**
 * Prometheus text as python's prometheus_client writes it: floats with a point, labels sorted, and
 * a `_created` series for each counter and histogram.
 */
export type Labels = Readonly<Record<string, string>>

export class Value {
  value = 0
  add(amount: number): void {
    this.value += amount
  }
}

export class Distribution {
  readonly edges: readonly number[]
  readonly counts: Float64Array
  sum = 0
  count = 0

  constructor(edges: readonly number[]) {
    this.edges = edges
    this.counts = new Float64Array(edges.length)
  }

  /** `weight` observations of the same value at once. */
  observe(value: number, weight = 1): void {
    this.sum += value * weight
    this.count += weight
    let low = 0
    let high = this.edges.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.edges[middle] ?? 0) < value) low = middle + 1
      else high = middle
    }
    if (low < this.edges.length) this.counts[low] = (this.counts[low] ?? 0) + weight
  }
}

/** Label texts are made once: a fleet of a hundred is scraped two hundred times a second. */
type Series = {
  readonly data: Value | Distribution
  readonly braces: string
  /** Of a histogram, one for each edge and one for +Inf. */
  readonly buckets: readonly string[]
}
type Family = {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly series: Map<string, Series>
}

type About = {
  readonly name: string
  readonly type: Family['type']
  readonly help: string
  readonly labels: Labels
}

/** Series of one family are bounded: labels here come from the command line or a fixed list. */
const SERIES_MAX = 1000

export class Registry {
  readonly #base: Labels
  readonly #families = new Map<string, Family>()
  readonly #created: number
  readonly #shows: (name: string) => boolean

  /**
   * `created`: Unix seconds, for the `_created` series. `shows`: whether a family is exported at
   * all; what is not can be counted all the same, so callers need not ask.
   */
  constructor(base: Labels, created: number, shows: (name: string) => boolean = () => true) {
    this.#base = base
    this.#created = created
    this.#shows = shows
  }

  /** The name as it is on the wire; a counter's ends in `_total` where the engine's does. */
  counter(name: string, help: string, labels: Labels = {}): Value {
    return this.#value(name, 'counter', help, labels)
  }

  gauge(name: string, help: string, labels: Labels = {}): Value {
    return this.#value(name, 'gauge', help, labels)
  }

  histogram(
    name: string,
    help: string,
    edges: readonly number[],
    labels: Labels = {},
  ): Distribution {
    const about = { name, type: 'histogram', help, labels } as const
    const data = this.#series(about, () => new Distribution(edges))
    if (!(data instanceof Distribution)) throw new Error(`${name} is not a histogram`)
    return data
  }

  text(): string {
    const lines: string[] = []
    for (const family of this.#families.values()) {
      if (!this.#shows(family.name)) continue
      lines.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`)
      for (const { data, braces: labels, buckets } of family.series.values()) {
        if (data instanceof Value) lines.push(`${family.name}${labels} ${float(data.value)}`)
        else histogramLines(family.name, { data, braces: labels, buckets }, lines)
      }
      if (family.type !== 'gauge') this.#createdLines(family, lines)
    }
    return lines.map((line) => `${line}\n`).join('')
  }

  #createdLines(family: Family, lines: string[]): void {
    const name = family.type === 'counter' ? family.name.replace(/_total$/, '') : family.name
    lines.push(`# HELP ${name}_created ${family.help}`, `# TYPE ${name}_created gauge`)
    for (const { braces: labels } of family.series.values()) {
      lines.push(`${name}_created${labels} ${this.#created}`)
    }
  }

  #value(name: string, type: 'counter' | 'gauge', help: string, labels: Labels): Value {
    const data = this.#series({ name, type, help, labels }, () => new Value())
    if (!(data instanceof Value)) throw new Error(`${name} is a histogram`)
    return data
  }

  #series(about: About, make: () => Value | Distribution): Value | Distribution {
    const { name, type, help } = about
    const family = this.#families.get(name) ?? { name, type, help, series: new Map() }
    this.#families.set(name, family)
    const labels = { ...this.#base, ...about.labels }
    const key = braces(labels)
    const known = family.series.get(key)
    if (known !== undefined) return known.data
    const data = make()
    const edges = data instanceof Value ? [] : [...data.edges, Number.POSITIVE_INFINITY]
    const buckets = edges.map((edge) => braces({ ...labels, le: float(edge) }))
    if (family.series.size < SERIES_MAX) family.series.set(key, { data, braces: key, buckets })
    return data
  }
}

const escaped = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

const braces = (labels: Labels): string => {
  const parts = Object.keys(labels)
    .sort()
    .map((key) => [key, labels[key] ?? ''] as const)
    .map(([key, value]) => `${key}="${escaped(value)}"`)
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}

const float = (value: number): string => {
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf'
  return Number.isInteger(value) && Math.abs(value) < 1e16 ? `${value}.0` : String(value)
}

const histogramLines = (
  name: string,
  { data, braces: labels, buckets }: Series & { readonly data: Distribution },
  lines: string[],
): void => {
  let below = 0
  for (const [index, bucket] of buckets.entries()) {
    below = index < data.counts.length ? below + (data.counts[index] ?? 0) : data.count
    lines.push(`${name}_bucket${bucket} ${float(below)}`)
  }
  lines.push(`${name}_count${labels} ${float(data.count)}`)
  lines.push(`${name}_sum${labels} ${float(data.sum)}`)
}

/** 1, 2, 5, 10, 20 … up to a length: vLLM's `build_1_2_5_buckets`. */
export const steps125 = (max: number): readonly number[] => {
  const edges: number[] = []
  for (let scale = 1; scale <= max; scale *= 10) {
    for (const factor of [1, 2, 5]) if (factor * scale <= max) edges.push(factor * scale)
  }
  return edges
}
