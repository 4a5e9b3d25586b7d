/**
 * manifests/gateway.yaml: routes, limits, spillover, consumers, backends. Decides what a Gateway
 * may say; rules that need the other documents are in core/desired.ts.
 */
import { z } from 'zod'
import { Duration } from './duration.ts'
import { Name } from './inventory.ts'

/** How soon a waiting request's turn comes; a key's consumer says how far it may go. */
export const PRIORITIES = ['low', 'normal', 'high'] as const
const Priority = z.enum(PRIORITIES)
const ModelName = z.string().min(1).max(200)
const ConsumerName = z.string().min(1).max(100)

const Amount = z.int().positive().max(1_000_000_000_000).optional()

const Limit = z.strictObject({
  per: z
    .string()
    .regex(
      /^(consumer|key|route|ip|(header|query|cookie):[A-Za-z0-9_-]{1,64})$/,
      'expected consumer, key, route, ip, header:NAME, query:NAME or cookie:NAME',
    )
    .describe('who shares one allowance'),
  requestsPerSecond: Amount,
  requestsPerMinute: Amount,
  requestsPerHour: Amount,
  requestsPerDay: Amount,
  tokensPerSecond: Amount,
  tokensPerMinute: Amount,
  tokensPerHour: Amount,
  tokensPerDay: Amount,
  inputTokensPerSecond: Amount,
  inputTokensPerMinute: Amount,
  inputTokensPerHour: Amount,
  inputTokensPerDay: Amount,
  outputTokensPerSecond: Amount,
  outputTokensPerMinute: Amount,
  outputTokensPerHour: Amount,
  outputTokensPerDay: Amount,
  concurrent: z.int().positive().max(1_000_000).optional().describe('requests at a time'),
  burst: Amount.describe('tokens at once after a rest; else one whole window'),
  requestBurst: Amount.describe('requests at once after a rest; else one whole window'),
})

const Parameter = z.string().regex(/^[a-z_][a-z0-9_]{0,63}$/, 'expected a name such as max_tokens')

const Ends = z.strictObject({ min: z.number().optional(), max: z.number().optional() })

/** What a body may say beside its messages. A consumer's rules count after its route's. */
export const ParametersSchema = z.strictObject({
  allow: z.array(Parameter).max(200).optional().describe('no other parameter may be sent'),
  refuse: z.array(Parameter).max(200).default([]),
  clamp: z
    .record(Parameter, Ends)
    .default({})
    .describe('a number outside is brought to the nearest end'),
  defaults: z.record(Parameter, z.json()).default({}).describe('where the body says nothing'),
  system: z
    .strictObject({ prepend: z.string().optional(), append: z.string().optional() })
    .optional()
    .describe('text before or after the system message'),
})

const WhenSchema = z.strictObject({
  consumers: z.array(ConsumerName).min(1).max(1000).optional(),
  groups: z.array(Name).min(1).max(100).optional().describe('of the consumer'),
  keys: z.array(z.string().min(1).max(100)).min(1).max(1000).optional().describe('key ids'),
  headers: z.record(z.string().regex(/^[A-Za-z0-9-]{1,64}$/), z.string().max(1000)).optional(),
})

const Cause = z.union([
  z.enum(['unavailable', 'unreachable', 'error', 'timeout', 'busy']),
  z.int().min(400).max(599),
])

const RouteSchema = z.strictObject({
  model: ModelName.describe('the model name that clients send; `x*` a prefix, `/x/` a regex'),
  aliases: z.array(ModelName).max(100).default([]).describe('other exact names for it'),
  when: WhenSchema.optional().describe('only for these callers; the first route that fits counts'),
  to: Name.describe('a deployment or a backend'),
  split: z
    .array(z.strictObject({ to: Name, percent: z.number().min(0).max(100) }))
    .max(20)
    .default([])
    .describe('others that answer a share of the callers; `to` gets the rest'),
  balance: z
    .enum(['least-load', 'power-of-two', 'round-robin', 'session', 'prefix'])
    .default('power-of-two'),
  slowStart: Duration.prefault('30s').describe('a fresh replica reaches its full share after this'),
  limits: z.array(Limit).max(20).default([]),
  spillover: z
    .strictObject({
      to: Name,
      on: z.array(z.enum(['tokens', 'saturation', 'latency', 'unavailable'])).min(1),
    })
    .optional(),
  fallback: z
    .strictObject({
      to: z.array(Name).min(1).max(10).describe('tried in this order'),
      on: z.array(Cause).min(1).max(50).default(['unavailable', 'unreachable', 'error', 'timeout']),
    })
    .optional(),
  retry: z
    .strictObject({
      attempts: z.int().min(0).max(5).default(2).describe('more than the first, each elsewhere'),
      on: z.array(Cause).max(50).default(['unreachable', 'error']),
      budget: z.number().min(0).max(1).default(0.1).describe('share of requests that may retry'),
    })
    .prefault({}),
  queue: z
    .strictObject({
      ceiling: z.enum(['auto', 'none']).default('auto').describe('none: engines queue themselves'),
      depth: z.int().min(0).max(100_000).default(1000).describe('requests that wait at most'),
      wait: Duration.prefault('60s').describe('then the stand-in, or a refusal'),
    })
    .prefault({}),
  firstTokenTarget: Duration.optional().describe('a first token expected later spills, or is 429'),
  perTokenTarget: Duration.optional().describe(
    'time per output token (TPOT): fewer run at once where streams are slower',
  ),
  firstTokenTimeout: Duration.prefault('30m').describe('from dispatch to the first byte of answer'),
  stallTimeout: Duration.prefault('5m').describe('between two events of one answer'),
  continueStreams: z.boolean().default(true).describe('on another replica when one dies'),
  parameters: ParametersSchema.optional(),
})

const ConsumerSchema = z.strictObject({
  group: Name.optional(),
  weight: z.number().min(0.01).max(1000).default(1).describe('share of a full model'),
  priority: Priority.default('normal').describe('when the request names none'),
  maxPriority: Priority.default('normal').describe('what x-penstock-priority may ask for'),
  spillover: z.enum(['allow', 'deny']).default('allow'),
  parameters: ParametersSchema.optional(),
})

/** An OpenAI-compatible service that Penstock does not run. */
const BackendSchema = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .describe('up to and with /v1, such as https://api.example.com/v1'),
  key: z
    .strictObject({
      file: z.string().min(1).optional(),
      environment: z
        .string()
        .regex(/^[A-Z_][A-Z0-9_]*$/)
        .optional(),
    })
    .refine((key) => (key.file === undefined) !== (key.environment === undefined), {
      message: 'expected one of file, environment',
    })
    .optional()
    .describe('read when it is needed; never written down'),
  models: z.record(ModelName, ModelName).default({}).describe('our name of a model to theirs'),
  context: z.int().min(16).max(10_000_000).default(131_072),
})

export const GatewaySchema = z.strictObject({
  kind: z.literal('Gateway'),
  routes: z.array(RouteSchema).max(10_000).default([]),
  consumers: z.record(ConsumerName, ConsumerSchema).default({}),
  backends: z.record(Name, BackendSchema).default({}),
  maxBody: z
    .string()
    .regex(/^\d{1,4}MiB$/, 'expected a size such as 32MiB')
    .prefault('32MiB')
    .transform((text) => Number.parseInt(text, 10) * 1024 * 1024),
  keepAlive: Duration.prefault('15s').describe('SSE comment while the engine is silent'),
})

export type Priority = z.output<typeof Priority>
export type Parameters = z.output<typeof ParametersSchema>
export type Route = z.output<typeof RouteSchema>
export type RouteCause = z.output<typeof Cause>
export type Consumer = z.output<typeof ConsumerSchema>
export type Backend = z.output<typeof BackendSchema>
export type Gateway = z.output<typeof GatewaySchema>
