/**
 * Our readers against bytes of a real vLLM (test/fixtures/vllm-0.32.0, made by conformance/record):
 * what we launch it with, its log, its metrics, its streams and its errors.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { vllm } from '../../runtimes/vllm.ts'
import { engineError, engineErrorEvent } from '../../src/core/engine-error.ts'
import { parseExposition } from '../../src/core/prometheus.ts'
import { metricNames, readSignals, type Signals } from '../../src/core/signals.ts'
import { fieldsOf, SseScanner } from '../../src/core/sse.ts'
import { type EventKind, endingOfBody, StreamWatch } from '../../src/core/usage.ts'

const folder = join(import.meta.dirname, '../fixtures/vllm-0.32.0')
const bytes = (name: string): Uint8Array => readFileSync(join(folder, name))
const text = (name: string): string => readFileSync(join(folder, name), 'utf8')

const Exchanges = z.array(
  z.object({ name: z.string(), status: z.number(), body: z.string(), complete: z.boolean() }),
)
const exchanges = readdirSync(folder)
  .filter((name) => name.startsWith('exchanges-'))
  .flatMap((name) => Exchanges.parse(JSON.parse(text(name))))
const streams = exchanges.filter(({ body }) => body.endsWith('.sse'))
const refusals = exchanges.filter(({ status, body }) => status >= 400 && body.endsWith('.json'))

const signalsOf = (name: string): Signals =>
  readSignals(
    parseExposition(text(name), { wanted: metricNames(vllm.metrics) }).samples,
    vllm.metrics,
  )

type Watched = { readonly kinds: readonly EventKind[]; readonly watch: StreamWatch }

/** Through the scanner in pieces of `size` bytes, and the pieces given out again. */
const watched = (stream: Uint8Array, size: number): Watched & { readonly out: Uint8Array } => {
  const [scanner, watch] = [new SseScanner(1 << 20), new StreamWatch()]
  const kinds: EventKind[] = []
  const out: Uint8Array[] = []
  for (let at = 0; at < stream.length; at += size) {
    const step = scanner.push(stream.subarray(at, at + size))
    if (step === null) throw new Error('an event outgrew the limit')
    out.push(step.bytes)
    for (const event of step.events) kinds.push(watch.see(step.bytes, event))
  }
  out.push(scanner.rest())
  return { kinds, watch, out: Buffer.concat(out) }
}

describe('launch', () => {
  const Flags = z.array(z.object({ names: z.array(z.string()), values: z.string() }))
  const known = new Set(Flags.parse(JSON.parse(text('flags.json'))).flatMap(({ names }) => names))

  it('has the flags of the real parser', () => {
    expect(known.size).toBeGreaterThan(300)
    expect(known.has('--no-such-flag')).toBe(false)
  })

  it('sets no flag that the real parser would refuse', () => {
    const source = readFileSync(join(import.meta.dirname, '../../runtimes/vllm.ts'), 'utf8')
    const launched = [...source.matchAll(/^ {4}'(--[a-z-]+)':/gm)].map(([, flag = '']) => flag)
    expect(launched.length).toBeGreaterThan(10)
    expect(launched.filter((flag) => !known.has(flag))).toEqual([])
  })
})

describe('log', () => {
  it('shows the phases in their order and ends ready', () => {
    const phases = text('startup.txt')
      .split('\n')
      .flatMap((line) => vllm.phase(line)?.phase ?? [])
    const seen = phases.filter((phase, index) => phase !== phases[index - 1])
    expect(seen).toEqual(['start', 'rendezvous', 'weights', 'profile', 'ready'])
  })
})

describe('metrics', () => {
  it.each(['metrics-idle.txt', 'metrics-busy.txt', 'metrics-after-abort.txt'])(
    '%s parses whole and yields every signal',
    (name) => {
      expect(parseExposition(text(name))).toMatchObject({ malformed: 0, truncated: false })
      expect(Object.keys(signalsOf(name)).sort()).toEqual(Object.keys(vllm.metrics).sort())
    },
  )

  it('reads what the engine was doing', () => {
    const [idle, busy] = [signalsOf('metrics-idle.txt'), signalsOf('metrics-busy.txt')]
    const after = signalsOf('metrics-after-abort.txt')
    expect(idle).toMatchObject({ requestsRunning: 0, kvCacheUsageRatio: 0, stepsTotal: 0 })
    expect(idle.kvCapacityTokens).toBe(2_097_152)
    expect(busy.requestsRunning).toBe(3)
    expect(busy.kvCacheUsageRatio).toBeGreaterThan(0)
    expect(busy.generationTokensTotal).toBeGreaterThan(100)
    expect(after).toMatchObject({ requestsRunning: 0, requestsWaiting: 0, kvCacheUsageRatio: 0 })
    expect(after.stepsTotal).toBeGreaterThan(busy.stepsTotal ?? Number.POSITIVE_INFINITY)
    expect(signalsOf('metrics-queue-full.txt')).toMatchObject({
      requestsRunning: 1,
      requestsWaiting: 1,
    })
  })
})

describe('streams', () => {
  it.each(streams)('$name: the same in pieces of any size', ({ body }) => {
    const whole = bytes(body)
    const once = watched(whole, whole.length)
    for (const size of [1, 7, 100]) {
      const pieces = watched(whole, size)
      expect(Buffer.compare(pieces.out, whole)).toBe(0)
      expect(pieces.kinds).toEqual(once.kinds)
      expect(pieces.watch.ending()).toEqual(once.watch.ending())
    }
  })

  it.each(
    streams.filter(({ body }) => /usage|continuous|logprobs|stop\.|parsers|tools/.test(body)),
  )('$name: first token, finish reason, usage, [DONE]', ({ body }) => {
    const { kinds, watch } = watched(bytes(body), 64)
    expect(kinds.at(-1)).toBe('done')
    expect(kinds.filter((kind) => kind === 'done' || kind === 'error')).toHaveLength(1)
    const { finishReason, usage } = watch.ending()
    expect(finishReason).toMatch(/^(stop|length|tool_calls)$/)
    expect(usage?.promptTokens).toBeGreaterThan(0)
    expect(usage?.completionTokens).toBeGreaterThan(0)
  })

  it('the death of the engine core is an error event, whatever follows it', () => {
    const { kinds } = watched(bytes('death-stream.sse'), 64)
    expect(kinds.slice(-2)).toEqual(['error', 'done'])
    const events = new SseScanner(1 << 20).push(bytes('death-stream.sse'))
    const event = events?.events.at(-2)
    if (events === null || event === undefined) throw new Error('no error event')
    const error = engineErrorEvent(fieldsOf(events.bytes, event).data ?? '')
    expect(error).toMatchObject({ status: 500, body: { error: { type: 'server_error' } } })
    expect(error.body.error.message).toContain('EngineCore encountered an issue')
  })
})

describe('whole answers', () => {
  it.each(['plain-chat.json', 'plain-completions.json'])('%s: finish reason and usage', (name) => {
    const { finishReason, usage } = endingOfBody(bytes(name))
    expect(finishReason).toBe('length')
    expect(usage).toMatchObject({ completionTokens: 12 })
  })

  it('tells cached prompt tokens', () => {
    expect(endingOfBody(bytes('plain-chat-cached-again.json')).usage?.cachedTokens).toBe(256)
  })
})

describe('errors', () => {
  it.each(refusals)('$name: an OpenAI error with the same status', ({ name, status, body }) => {
    const error = engineError(status, text(body))
    expect(error.status).toBe(status)
    expect(error.body.error.message).not.toBe('')
    expect(error.body.error.type).toBe(status >= 500 ? 'server_error' : 'invalid_request_error')
    expect(error.body.error.code === null || !/^\d+$/.test(error.body.error.code)).toBe(true)
    if (name.startsWith('context-too-long')) {
      expect(error.body.error.code).toBe('context_length_exceeded')
    }
    if (name.startsWith('queue-full')) expect(error.retryAfterSeconds).toBeGreaterThan(0)
  })
})
