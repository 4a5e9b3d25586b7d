/**
 * The official Python client through the real gateway, in front of an engine that replays the bytes
 * of a real vLLM (test/fixtures/vllm-0.32.0). `make conformance` does the same with a live vLLM.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { z } from 'zod'
import { JSON_TYPE, type Script, type Seen, SSE } from '../support/engine.ts'
import { closeAll, KEY, startWorld } from '../support/gateway.ts'
import { requirePart } from '../support/parts.ts'
import { pythonWithOpenai, runPython } from '../support/python.ts'

const folder = join(import.meta.dirname, '../fixtures/vllm-0.32.0')
const python = pythonWithOpenai()

const Ask = z.object({
  stream: z.boolean().default(false),
  stream_options: z.object({ include_usage: z.boolean().optional() }).nullish(),
  temperature: z.number().optional(),
})

/** What the real engine answered to the like of this request. */
const recordingOf = ({ path, body }: Seen): string => {
  const ask = Ask.parse(JSON.parse(body.toString('utf8')))
  if ((ask.temperature ?? 0) < 0) return 'plain-invalid-value.json'
  if (body.length > 100_000) return 'plain-context-too-long.json'
  const kind = path.endsWith('/chat/completions') ? 'chat' : 'completions'
  if (!ask.stream) return `plain-${kind}.json`
  return `plain-${kind}-stream-${ask.stream_options?.include_usage ? 'usage' : 'bare'}.sse`
}

/** In pieces that end anywhere, also inside a character. */
const pieces = (bytes: Buffer, size: number): Script['steps'] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => ({
    send: bytes.subarray(index * size, (index + 1) * size),
  }))

const replay = (seen: Seen): Script => {
  const name = recordingOf(seen)
  const bytes = readFileSync(join(folder, name))
  if (name.endsWith('.sse')) return { headers: SSE, steps: pieces(bytes, 97) }
  const refused = name.startsWith('plain-invalid') || name.startsWith('plain-context')
  return { status: refused ? 400 : 200, headers: JSON_TYPE, steps: [{ send: bytes }] }
}

afterAll(closeAll)

it.skipIf(!requirePart('the Python openai client', python !== null))(
  'every check of python_client.py passes',
  async () => {
    const { url } = await startWorld(replay, { snapshot: { maxBodyBytes: 8 * 1024 * 1024 } })
    const script = join(import.meta.dirname, 'python_client.py')
    const end = await runPython(python ?? '', [script, `${url}/v1`, KEY, 'qwq-32b'])
    expect(end.output).not.toContain('FAIL')
    expect(end.output).toMatch(/\b1[0-9] passed, 0 failed\n$/)
    expect(end.code).toBe(0)
  },
  120_000,
)
