/** The simulator against the recorded bytes of a real vLLM 0.32.0: same requests, same shapes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseExposition } from '../../../src/core/prometheus.ts'
import { cleanUp, freePort, isReady, rehearsal, Simulated, stopAll, until } from './support.ts'

const FIXTURES = join(import.meta.dirname, '../../fixtures/vllm-0.32.0')
const Exchange = z.object({
  name: z.string(),
  status: z.number(),
  request: z.object({
    method: z.string(),
    path: z.string(),
    headers: z.record(z.string(), z.string()),
    body: z.string(),
  }),
  headers: z.record(z.string(), z.string()),
  body: z.string(),
})
const fixture = (name: string): string => readFileSync(join(FIXTURES, name), 'utf8')
const exchanges = (name: string) => z.array(Exchange).parse(JSON.parse(fixture(name)))

/** Keys in order and kinds of values: what a parser could trip over. */
const shape = (value: unknown): string => {
  if (Array.isArray(value)) return `[${[...new Set(value.map(shape))].join('|')}]`
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : typeof value
  return `{${Object.entries(value)
    // Half a character, as random weights sample it, has no bytes: an empty list.
    .map(([key, inner]) => `${key}:${key === 'bytes' ? 'bytes' : shape(inner)}`)
    .join(',')}}`
}

/** Kinds of events, each once: `event: name` where the protocol names them, and the data's shape. */
const shapes = (text: string): readonly string[] => {
  if (!text.endsWith('\n\n')) throw new Error(`cut off: ${text.slice(-100)}`)
  const kinds = text
    .slice(0, -2)
    .split('\n\n')
    .map((event) => {
      const found = /^(event: \S+\n)?data: (.*)$/.exec(event)
      if (found === null) throw new Error(`frame: ${event}`)
      const [, name = '', data = ''] = found
      return name + (data === '[DONE]' ? data : shape(JSON.parse(data)))
    })
  return [...new Set(kinds)].sort()
}

let url = ''
beforeAll(async () => {
  const port = await freePort()
  url = `http://127.0.0.1:${port}`
  const line =
    `serve ./tiny-qwen2 --served-model-name tiny-qwen2 --port ${port} --host 127.0.0.1 ` +
    '--max-model-len 2048 --enable-prompt-tokens-details'
  const one = new Simulated('vllm', line.split(' '), rehearsal({ speed: 1000 }))
  await until(isReady(url), 'the engine', () => one.output)
})
afterAll(async () => {
  await stopAll()
  cleanUp()
})

/** Differences with a reason: the recorded tokenizer and its sampling cannot be had here. */
const REASONS: Readonly<Record<string, string>> = {
  'chat-stream-stop': 'logit_bias, which forces the end token there, is not played',
  'get-v1-models': 'ids of permissions are random',
}

const replay = async ({ request }: z.output<typeof Exchange>) =>
  fetch(url + request.path, {
    method: request.method,
    headers: request.headers,
    ...(request.method === 'GET' ? {} : { body: request.body }),
  })

describe.each(['plain', 'protocols'])('%s exchanges', (set) => {
  for (const recorded of exchanges(`exchanges-${set}.json`)) {
    test(recorded.name, async () => {
      const response = await replay(recorded)
      const [mine, real] = [await response.text(), fixture(recorded.body)]
      expect(response.status).toBe(recorded.status)
      const type = recorded.headers['content-type'] ?? null
      expect(response.headers.get('content-type')).toBe(type)
      expect(response.headers.get('server')).toBe('uvicorn')
      if (REASONS[recorded.name] !== undefined) return
      if (type?.startsWith('text/event-stream')) {
        // A chunk with the last token and one without are two shapes, both must be there.
        expect(shapes(mine)).toEqual(shapes(real))
      } else if (response.status >= 400 || real === '' || real.startsWith('{"version"')) {
        expect(mine).toBe(real)
      } else expect(shape(JSON.parse(mine))).toBe(shape(JSON.parse(real)))
    })
  }
})

describe('metrics', () => {
  test('every vllm: family of the real one, with its type, labels and buckets', async () => {
    const mine = parseExposition(await (await fetch(`${url}/metrics`)).text())
    const real = parseExposition(fixture('metrics-after-abort.txt'))
    const of = (all: typeof mine) => {
      const found = new Map<string, Set<string>>()
      for (const { name, labels } of all.samples) {
        if (!name.startsWith('vllm:') || name === 'vllm:cache_config_info') continue
        // Token buckets follow the context length, which is the same here and there.
        const keys = [...labels]
          .filter(([key]) => key !== 'model_name')
          .map(([key, value]) => `${key}=${value}`)
        const set = found.get(name) ?? new Set()
        found.set(name, set.add(keys.sort().join()))
      }
      return Object.fromEntries([...found].map(([name, set]) => [name, [...set].sort()]))
    }
    expect(of(mine)).toEqual(of(real))
  })
})
