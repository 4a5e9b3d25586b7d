/** A value that fits a JSON schema: arguments of a tool call, or a structured answer. */
import { isRecord } from '../rehearsal.ts'

const DEPTH_MAX = 6

export const exampleOf = (schema: unknown, topic: string, depth = 0): unknown => {
  if (!isRecord(schema) || depth > DEPTH_MAX) return topic
  if (schema.const !== undefined) return schema.const
  if (Array.isArray(schema.enum) && schema.enum.length > 0) return schema.enum[0]
  const [variant] = [schema.anyOf, schema.oneOf].flatMap((v) => (Array.isArray(v) ? v : []))
  if (variant !== undefined) return exampleOf(variant, topic, depth + 1)
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  if (type === 'integer' || type === 'number') {
    return typeof schema.minimum === 'number' ? schema.minimum : 42
  }
  if (type === 'boolean') return true
  if (type === 'null') return null
  if (type === 'array') return [exampleOf(schema.items, topic, depth + 1)]
  if (type !== 'object' && !isRecord(schema.properties)) return topic
  const properties = isRecord(schema.properties) ? schema.properties : {}
  const entries = Object.entries(properties).slice(0, 100)
  return Object.fromEntries(
    entries.map(([key, inner]) => [key, exampleOf(inner, topic, depth + 1)]),
  )
}
