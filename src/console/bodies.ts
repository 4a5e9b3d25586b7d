/**
 * What callers of the admin API may send. Strict: an unknown key is an answer of 400 that names
 * it. Types are inferred from here; bounds keep a caller from holding the main thread.
 */
import { z } from 'zod'
import type { FaultAsk, InputFiles, KeyRequest, RankScope } from '../core/admin.ts'
import { dayOf, parseDay } from '../core/day.ts'
import { USAGE_DIMENSIONS, type UsageAsk } from '../core/usage-report.ts'
import { PenstockError } from '../errors.ts'

/** Bodies of the admin API, bytes: an inventory and a directory of manifests as text. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024

const File = z.strictObject({
  path: z.string().min(1).max(4096).describe('how messages name this file'),
  text: z.string().max(MAX_BODY_BYTES).describe('the whole file, YAML'),
})

export const InputFilesSchema = z.strictObject({
  inventory: File.nullable()
    .default(null)
    .describe('null: keep the inventory that the running Penstock has'),
  manifests: z.array(File).max(1000),
}) satisfies z.ZodType<InputFiles>

const Target = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]{0,39}(\/\d{1,4})?$/, 'expected deployment or deployment/replica')
  .describe('a deployment (`deepseek-r1`) or one replica of it (`deepseek-r1/0`)')

export const RestartAsk = z.strictObject({ target: Target })

export const DestroyAsk = z.strictObject({
  target: Target.nullable().describe('null: everything that was deployed'),
})

export const KeyAsk = z.strictObject({
  role: z.enum(['consumer', 'admin']).default('consumer'),
  consumer: z
    .string()
    .regex(/^[\w.@:-]{1,64}$/, 'expected 1 to 64 of A-Z a-z 0-9 _ . @ : -')
    .describe('who the key is for; usage and limits are counted under this name'),
  models: z
    .array(z.string().min(1).max(128))
    .max(100)
    .nullable()
    .default(null)
    .describe('models that this key may call; null: every model'),
}) satisfies z.ZodType<KeyRequest>

const Scope = z
  .strictObject({
    deployment: z.string().max(40).nullable().default(null),
    replica: z.int().min(0).max(9999).nullable().default(null),
    rank: z.int().min(0).max(1023).nullable().default(null),
    node: z.string().max(253).nullable().default(null),
  })
  .describe('which ranks; what is null does not narrow') satisfies z.ZodType<RankScope>

const Setting = z
  .record(z.string().max(32), z.union([z.string().max(64), z.number(), z.null()]))
  .describe('`kind` and figures of one fault of the flight simulator; spans are simulated ms')

export const FaultAskSchema = z.discriminatedUnion('do', [
  z.strictObject({
    do: z.literal('add'),
    faults: z
      .array(z.strictObject({ scope: Scope, fault: Setting }))
      .min(1)
      .max(1000),
    sentAtMs: z
      .number()
      .nullable()
      .default(null)
      .describe('epoch ms from which `startMs` counts; null: now'),
  }),
  z.strictObject({
    do: z.literal('clear'),
    scope: Scope,
    kind: z.string().max(32).nullable().default(null).describe('null: faults of every kind'),
  }),
  z.strictObject({ do: z.literal('list'), scope: Scope }),
]) satisfies z.ZodType<FaultAsk>

export const KeyPath = z.strictObject({ id: z.string().min(1).max(128) })

/** Query strings carry text: whole numbers are written in digits, truth as `true` or `false`. */
const digits = (min: number, max: number) => z.coerce.number().int().min(min).max(max)

export const LogsQuery = z.strictObject({
  target: Target,
  rank: digits(0, 1023).default(0).describe('rank of the replica; 0 leads'),
  lines: digits(0, 10_000).default(200).describe('how many of the last lines'),
  follow: z
    .enum(['true', 'false'])
    .default('false')
    .describe('true: go on until the caller leaves'),
})

export const RequestsQuery = z.strictObject({ limit: digits(1, 1000).default(100) })

export const HistoryQuery = z.strictObject({
  since: digits(0, Number.MAX_SAFE_INTEGER).default(0).describe('epoch milliseconds'),
})

/** As many days as usage is kept; a month when nothing is said. */
const USAGE_DAYS_MAX = 800
const USAGE_DAYS = 30

const Day = z
  .string()
  .refine((text) => parseDay(text) !== null, 'expected a day such as 2026-11-24')
  .transform((text) => parseDay(text) ?? 0)

const dimensions: readonly string[] = USAGE_DIMENSIONS

const By = z
  .string()
  .default('consumer,model')
  .refine((text) => text.split(',').every((name) => dimensions.includes(name)), {
    message: `expected some of ${USAGE_DIMENSIONS.join(', ')}, with commas between`,
  })
  .transform((text) => USAGE_DIMENSIONS.filter((name) => text.split(',').includes(name)))
  .describe(`what rows are told apart by: some of ${USAGE_DIMENSIONS.join(', ')}`)

export const UsageQuery = z.strictObject({
  from: Day.optional().describe('first day, UTC; default: 29 days before `to`'),
  to: Day.optional().describe('last day, UTC; default: today'),
  by: By,
})

/** Days from the query, filled up from `nowMs` (epoch). Throws invalid_request. */
export const usageAsk = (query: z.output<typeof UsageQuery>, nowMs: number): UsageAsk => {
  const toDay = query.to ?? dayOf(nowMs)
  const fromDay = query.from ?? toDay - USAGE_DAYS + 1
  if (fromDay > toDay) {
    throw new PenstockError('invalid_request', '`from` is after `to`', { param: 'from' })
  }
  if (toDay - fromDay >= USAGE_DAYS_MAX) {
    const message = `usage is kept for ${USAGE_DAYS_MAX} days: ask for no more`
    throw new PenstockError('invalid_request', message, { param: 'from' })
  }
  return { fromDay, toDay, by: query.by }
}

/** Parses or throws invalid_request naming every issue; `what` is `body`, `query` or `path`. */
export const read = <S extends z.ZodType>(schema: S, value: unknown, what: string): z.output<S> => {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issues = result.error.issues.map((issue) => issueLine(issue, what))
  const shown = issues.slice(0, 20)
  if (issues.length > shown.length) shown.push(`and ${issues.length - shown.length} more`)
  const first = result.error.issues[0]
  const param = first === undefined ? what : issueParam(first, what)
  throw new PenstockError('invalid_request', shown.join('; '), { param })
}

type Issue = z.core.$ZodIssue

/** `manifests[0].text`; keys that a caller chose are cut. */
const issuePath = (path: readonly PropertyKey[]): string =>
  path
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part).slice(0, 64)}`))
    .join('')
    .replace(/^\./, '')

const issueParam = (issue: Issue, what: string): string => {
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : []
  return issuePath([...issue.path, ...unknown]) || what
}

const issueLine = (issue: Issue, what: string): string => {
  if (issue.code !== 'unrecognized_keys') {
    const where = issuePath(issue.path)
    return `${where === '' ? what : `${what}: ${where}`}: ${issue.message}`
  }
  const keys = issue.keys.slice(0, 10).map((key) => JSON.stringify(key.slice(0, 64)))
  const where = issue.path.length === 0 ? what : `${what}: ${issuePath(issue.path)}`
  return `${where}: unknown key ${keys.join(', ')}`
}
