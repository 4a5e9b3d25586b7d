/** The options of `penstock rehearse load`, from text; every problem on a line of its own. */
import { type Command, Option } from 'commander'
import { z } from 'zod'
import { PenstockError } from '../errors.ts'
import { type ArrivalsAsk, PATTERNS } from '../load/arrivals.ts'
import { LENGTH_NAMES, lengthsOf } from '../load/lengths.ts'

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }
const SECONDS_MAX = 31 * 86_400
/** Of the default `--duration`, when neither it nor `--requests` is given. */
const DURATION_SECONDS = 60

const number = (min: number, max: number) =>
  z
    .string()
    .refine((text) => /^\d{1,9}(\.\d{1,6})?$/.test(text), 'expected a number')
    .transform(Number)
    .refine((value) => value >= min && value <= max, `expected a number from ${min} to ${max}`)

const whole = (min: number, max: number) =>
  number(min, max).refine(Number.isInteger, 'expected a whole number')

const Seconds = z
  .string()
  .regex(/^\d{1,9}(\.\d{1,3})?[smhd]?$/, 'expected a time such as 90s, 10m, 2h, 1d')
  .transform((text) => Number.parseFloat(text) * (UNITS[text.slice(-1)] ?? 1))
  .refine((seconds) => seconds > 0 && seconds <= SECONDS_MAX, 'expected at most 31 days')

const Model = z
  .string()
  .regex(/^[^\s=]{1,128}(=\d{1,6}(\.\d{1,3})?)?$/, 'expected a model name or NAME=WEIGHT')
  .transform((text) => {
    const [model = '', weight = '1'] = text.split('=')
    return { model, weight: Number(weight) }
  })
  .refine(({ weight }) => weight > 0, 'expected a weight above 0')

const Base = z
  .url({ protocol: /^https?$/, message: 'expected a URL such as http://host:8080/v1' })
  .transform((text) => text.replace(/\/+$/, ''))

const Key = z.string().regex(/^[\x21-\x7e]{1,512}$/, 'expected a key: visible ASCII, no spaces')

const Lengths = z.string().transform((text, context) => {
  const lengths = lengthsOf(text)
  if (lengths !== null) return lengths
  const message = `expected ${LENGTH_NAMES.join(', ')} or fixed:IN/OUT`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

const AskSchema = z
  .object({
    model: z.array(Model).max(100).default([]),
    rate: number(0.000_001, 100_000).prefault('1'),
    pattern: z.enum(PATTERNS, `expected ${PATTERNS.join(', ')}`).default('poisson'),
    day: Seconds.optional(),
    lengths: Lengths.prefault('sharegpt'),
    turns: number(1, 1000).optional(),
    prefix: whole(0, 100_000).optional(),
    natural: z.boolean().default(false),
    duration: Seconds.optional(),
    requests: whole(1, 10_000_000).optional(),
    consumers: whole(1, 1000).prefault('10'),
    key: z.array(Key).max(1000).default([]),
    baseUrl: Base.optional(),
    speed: number(0.01, 10_000).optional(),
    open: whole(1, 20_000).prefault('1000'),
    timeout: Seconds.prefault('30m'),
    seed: whole(0, 999_999_999).prefault('1'),
    json: z.boolean().default(false),
  })
  .readonly()
type Parsed = z.output<typeof AskSchema>

export type LoadAsk = Parsed & {
  readonly arrivals: ArrivalsAsk
  /** Simulated seconds after which nothing more is sent; Infinity: `--requests` ends it. */
  readonly endSeconds: number
  readonly requestsMax: number
}

/** Throws invalid_input, one problem a line. */
export const readLoadAsk = (given: Readonly<Record<string, unknown>>): LoadAsk => {
  const parsed = AskSchema.safeParse(given)
  if (!parsed.success) {
    const lines = parsed.error.issues.map(({ path, message }) => {
      const value = path.reduce<unknown>((at, key) => valueAt(at, key), given)
      return `${flagOf(String(path[0]))}: ${message}, got ${JSON.stringify(value)?.slice(0, 200)}`
    })
    throw new PenstockError('invalid_input', lines.join('\n'))
  }
  const { rate, pattern, day, duration, requests } = parsed.data
  const bounded = duration ?? (requests === undefined ? DURATION_SECONDS : null)
  const runSeconds = bounded ?? (requests ?? 1) / rate
  return {
    ...parsed.data,
    arrivals: { pattern, ratePerSecond: rate, daySeconds: day ?? runSeconds },
    endSeconds: bounded ?? Number.POSITIVE_INFINITY,
    requestsMax: requests ?? Number.POSITIVE_INFINITY,
  }
}

const valueAt = (value: unknown, key: PropertyKey): unknown =>
  typeof value === 'object' && value !== null
    ? Object.getOwnPropertyDescriptor(value, key)?.value
    : undefined

const flagOf = (key: string): string =>
  `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

const OPTIONS: readonly (readonly [string, string])[] = [
  ['--rate <per-second>', 'requests a second on average (default 1)'],
  ['--pattern <name>', 'poisson, diurnal or burst (default poisson)'],
  ['--day <time>', 'how long the day of diurnal lasts (default: the whole run)'],
  ['--lengths <name>', 'sharegpt, reasoning, long-context, fixed:IN/OUT (default sharegpt)'],
  ['--turns <mean>', "turns of a session on average (default: the lengths' own)"],
  ['--prefix <tokens>', "system prompt that a consumer's sessions share (default 200; fixed: 0)"],
  ['--duration <time>', 'how long requests are sent: 90s, 10m, 2h, 1d (default 60s)'],
  ['--requests <n>', 'end after this many'],
  ['--consumers <n>', 'how many callers, the first the heaviest (default 10)'],
  ['--base-url <url>', 'another OpenAI-compatible endpoint (default: the gateway here)'],
  ['--speed <n>', 'how many times faster than real it runs (default: what this fleet says)'],
  ['--open <n>', 'requests open at once, at most (default 1000)'],
  ['--timeout <time>', 'give up an answer after this (default 30m)'],
  ['--seed <n>', 'same seed, same load (default 1)'],
]

const listed = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  value,
]

/** Declares the options. Times are simulated: divided by the speed they are real ones. */
export const loadOptions = (command: Command): Command => {
  const model = new Option('--model <name[=weight]>', 'again for more (default: every model)')
  command.addOption(model.argParser(listed))
  for (const [flags, text] of OPTIONS) command.addOption(new Option(flags, text))
  const key = '$PENSTOCK_KEY, or a temporary one a consumer'
  return command
    .addOption(new Option('--key <key>', `again for more (default ${key})`).argParser(listed))
    .option('--natural', 'let answers end where the model ends them (leaves out ignore_eos)')
    .option('--json', 'print JSON')
}
