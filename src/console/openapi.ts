/** The OpenAPI document: schemas derived from zod, one component each, operations from routes. */
import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import * as answers from './answers.ts'
import * as bodies from './bodies.ts'
import * as fleet from './fleet.ts'
import { FitSchema, PlanSchema } from './planned.ts'
import * as usage from './usage-answers.ts'

/** What callers send: defaults make a key optional. */
const ASKED = {
  InputFiles: bodies.InputFilesSchema,
  RestartAsk: bodies.RestartAsk,
  DestroyAsk: bodies.DestroyAsk,
  KeyAsk: bodies.KeyAsk,
  FaultAsk: bodies.FaultAskSchema,
} as const

const ANSWERED = {
  ApplyEvent: answers.ApplyEventSchema,
  CreatedKey: answers.CreatedKeySchema,
  DeploymentView: fleet.DeploymentSchema,
  Error: answers.ErrorSchema,
  FaultAnswers: answers.FaultAnswersSchema,
  FinishedRequest: answers.FinishedRequestSchema,
  Fit: FitSchema,
  FleetView: fleet.FleetSchema,
  GpuView: fleet.GpuSchema,
  Health: answers.HealthSchema,
  History: answers.HistorySchema,
  Issue: answers.IssueSchema,
  KeyView: answers.KeyViewSchema,
  Keys: answers.KeysSchema,
  NodeView: fleet.NodeSchema,
  Plan: PlanSchema,
  PlanAnswer: answers.PlanAnswerSchema,
  Reconciliation: usage.ReconciliationSchema,
  ReplicaView: fleet.ReplicaSchema,
  Replicas: answers.ReplicasSchema,
  Requests: answers.RequestsSchema,
  Series: answers.SeriesSchema,
  UsageReport: usage.UsageReportSchema,
} as const

export type Component = keyof typeof ASKED | keyof typeof ANSWERED

type JsonSchema = Readonly<Record<string, unknown>>

export const ref = (name: Component): JsonSchema => ({ $ref: `#/components/schemas/${name}` })

/** Dialect and id come from OpenAPI 3.1 itself and from the component's place in it. */
const bare = ({ $schema: _dialect, $id: _id, ...schema }: JsonSchema): JsonSchema => schema

const components = (
  schemas: Readonly<Record<string, z.ZodType>>,
  io: 'input' | 'output',
): Record<string, JsonSchema> => {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(schemas)) registry.add(schema, { id })
  const uri = (id: string): string => `#/components/schemas/${id}`
  const made = z.toJSONSchema(registry, { io, uri })
  return Object.fromEntries(
    Object.entries(made.schemas).map(([id, schema]) => [id, bare({ ...schema })]),
  )
}

/** A query or path schema, inline. */
export const inline = (schema: z.ZodType): JsonSchema =>
  bare({ ...z.toJSONSchema(schema, { io: 'input' }) })

const SECURITY = { adminKey: { type: 'http', scheme: 'bearer' } } as const

/** Must be awaited before the routes that it describes are declared. */
export const describeApi = async (app: FastifyInstance, version: string): Promise<void> => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Penstock admin API',
        description: 'Plan, apply, watch and operate a fleet. The bearer is an admin key.',
        version,
        license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
      },
      servers: [{ url: '/' }],
      components: { securitySchemes: SECURITY },
      tags: [
        { name: 'admin', description: 'needs an admin key' },
        { name: 'open', description: 'for probes and this machine' },
      ],
    },
  })
}

/** The whole document; routes must be declared by now. */
export const apiDocument = (app: FastifyInstance): JsonSchema => ({
  ...app.swagger(),
  components: {
    securitySchemes: SECURITY,
    schemas: { ...components(ASKED, 'input'), ...components(ANSWERED, 'output') },
  },
})

type Responses = Readonly<Record<string, unknown>>

export const content = (description: string, type: string, schema: JsonSchema) => ({
  description,
  content: { [type]: { schema } },
})

export const json = (description: string, name: Component) =>
  content(description, 'application/json', ref(name))

/** Every refusal has the one shape; `default` covers them all. */
const FAILURE = { default: json('a refusal or a failure, shaped as OpenAI shapes them', 'Error') }

export type Operation = {
  readonly id: string
  readonly summary: string
  /** False: open to everybody who may reach the console. */
  readonly admin: boolean
  readonly body?: Component
  readonly querystring?: JsonSchema
  readonly params?: JsonSchema
  readonly response: Responses
}

/** A route's schema, for the document alone: handlers read requests with zod. */
export const operation = (what: Operation) => ({
  operationId: what.id,
  summary: what.summary,
  tags: [what.admin ? 'admin' : 'open'],
  ...(what.admin ? { security: [{ adminKey: [] }] } : {}),
  ...(what.body === undefined ? {} : { body: ref(what.body) }),
  ...(what.querystring === undefined ? {} : { querystring: what.querystring }),
  ...(what.params === undefined ? {} : { params: what.params }),
  response: { ...what.response, ...FAILURE },
})
