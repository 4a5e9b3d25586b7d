/**
 * Mutated bodies against the routes of pooling models, in memory: each is answered as the engine
 * would, in JSON, none with a 5xx but what the engine itself has, and nothing is left running.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { FaultSchedule } from '../../../runtimes/simulator/faults/schedule.ts'
import { engineServer } from '../../../runtimes/simulator/http/routes.ts'
import { planMemory } from '../../../runtimes/simulator/memory.ts'
import { buildService } from '../../../runtimes/simulator/service.ts'
import { call } from '../../support/memory-http.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import { type Name, settingsOf } from './played.ts'
import { rehearsal } from './support.ts'

const BODIES = 600
const HOUR_MS = 3_600_000

const VALID: readonly (readonly [path: string, body: Readonly<Record<string, unknown>>])[] = [
  ['/v1/embeddings', { model: 'm', input: ['a', 'b'], encoding_format: 'base64', dimensions: 8 }],
  ['/v1/embeddings', { input: [[1, 2], [3]], truncate_prompt_tokens: 1, user: 'u', priority: 1 }],
  ['/v1/embeddings', { input: 'a', encoding_format: 'bytes', use_activation: false }],
  ['/v1/embeddings', { messages: [{ role: 'user', content: 'Hello' }] }],
  ['/v2/embed', { model: 'm', texts: ['a', 'b'], embedding_types: ['float'], output_dimension: 8 }],
  ['/pooling', { model: 'm', input: 'a' }],
  ['/classify', { model: 'm', input: ['a', 'b'], text: 'a', input_ids: [1] }],
  ['/v1/classify', { model: 'm', input: ['a', 'b'] }],
  ['/score', { model: 'm', text_1: 'a', text_2: ['b', 'c'] }],
  [
    '/v1/score',
    { query: 'a', items: ['b', 'c'], label_token_ids: [1, 2], text_1: 'a', text_2: 'b' },
  ],
  ['/v1/score', { data_1: ['a'], data_2: ['b'], queries: 'q', documents: ['d'] }],
  ['/v1/rerank', { model: 'm', query: 'a', documents: ['b', 'c'], top_n: 1 }],
  ['/v2/rerank', { model: 'm', query: 'a', documents: ['b'], return_documents: false }],
  ['/encode', { text: 'a', input_ids: [1, 2] }],
]

const odd = fc.oneof(
  fc.constantFrom(
    null,
    '',
    ' ',
    0,
    -1,
    1.5,
    1e20,
    true,
    [],
    {},
    [[]],
    [null],
    [''],
    ['a', 1],
    'xml',
  ),
  fc.constantFrom(
    'a '.repeat(40_000),
    'a '.repeat(2_000),
    [1, -2],
    [1.5],
    Array.from({ length: 300 }, () => 'a'),
  ),
  fc.jsonValue({ maxDepth: 2 }),
)

/** A valid body with up to three fields changed, dropped or added. */
const bodies = fc.record({
  base: fc.constantFrom(...VALID),
  changes: fc.array(fc.record({ at: fc.nat(8), value: odd, drop: fc.boolean() }), { maxLength: 3 }),
})

const changed = ({ base: [path, body], changes }: ReturnType<typeof sample>[number]) => {
  const next: Record<string, unknown> = { ...body }
  const names = [...Object.keys(body), 'stream', 'dimensions', 'priority']
  for (const { at, value, drop } of changes) {
    const name = names[at % names.length] ?? 'input'
    if (drop) delete next[name]
    else next[name] = value
  }
  return { path, body: next }
}

const sample = (seed: number) => fc.sample(bodies, { numRuns: BODIES, seed })

const MATRYOSHKA = '{"is_matryoshka":true}'
test.each<readonly [Name, string]>([
  ['vllm', `--runner pooling --max-model-len 4096 --hf-overrides ${MATRYOSHKA}`],
  ['vllm', '--convert classify --max-model-len 4096 --hf-overrides {"num_labels":1}'],
  ['sglang', `--is-embedding --context-length 4096 --json-model-override-args ${MATRYOSHKA}`],
  ['sglang', '--context-length 4096'],
  ['sglang', '--is-embedding --context-length 4096 --max-total-tokens 1024'],
])(
  '%s %s',
  async (engine, flags) => {
    const clock = new VirtualClock()
    const settings = settingsOf(
      engine,
      null,
      `${flags} ${engine === 'vllm' ? '--disable-uvicorn-access-log' : ''}`.trim(),
    )
    const setting = rehearsal({ speed: 1 })
    const memory = planMemory(setting.architecture, setting.memoryBytes, settings)
    const service = buildService(settings, setting, clock, { memory, faults: new FaultSchedule(0) })
    service.state = 'serving'
    const server = engineServer(service)
    const seen = new Map<number, number>()
    for (const one of sample(20_261_124)) {
      const { path, body } = changed(one)
      const answers: string[] = []
      call(server, { method: 'POST', path, body }, (raw) => answers.push(raw))
      for (let turn = 0; turn < 50 && answers.length === 0; turn += 1) {
        await new Promise((wake) => setImmediate(wake))
        await clock.runTo(clock.now() + HOUR_MS)
      }
      const [raw = ''] = answers
      const status = Number(raw.split(' ')[1])
      const said = `${path} ${JSON.stringify(body).slice(0, 300)}\n${raw.slice(0, 300)}`
      expect([200, 400, 404].includes(status), said).toBe(true)
      if (!raw.includes('octet-stream')) JSON.parse(raw.split('\r\n\r\n').slice(1).join('\r\n\r\n'))
      seen.set(status, (seen.get(status) ?? 0) + 1)
    }
    expect(service.runner.open).toBe(0)
    expect(service.runner.engine.usedTokens).toBe(0)
    expect(seen.get(200)).toBeGreaterThan(BODIES / 50)
    expect(seen.get(400)).toBeGreaterThan(BODIES / 50)
  },
  120_000,
)
