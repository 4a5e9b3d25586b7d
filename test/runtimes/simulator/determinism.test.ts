/**
 * What is the same for a seed. The step loop: all of it, to the bit, however late and in whatever
 * portions it is driven, so long as requests arrive at the same simulated moments. A process whose
 * requests come over HTTP: text, counts and endings; at which step a request is taken in depends
 * on when it arrived, as in a real engine.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { Engine, type EngineConfig } from '../../../runtimes/simulator/physics/engine.ts'
import type { Sequence } from '../../../runtimes/simulator/physics/sequence.ts'
import { Runner } from '../../../runtimes/simulator/runner.ts'
import { costOf } from '../../../runtimes/simulator/service.ts'
import { Answer } from '../../../runtimes/simulator/text/answer.ts'
import { Random } from '../../../runtimes/simulator/text/random.ts'
import { VirtualClock } from '../../support/virtual-clock.ts'
import {
  cleanUp,
  events,
  freePort,
  isReady,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterAll(async () => {
  await stopAll()
  cleanUp()
})

const SPEEDS = [1, 20, 1000]
const STYLES = ['vllm', 'sglang'] as const
type Style = (typeof STYLES)[number]

/** A pool so small that answers are preempted, chunks so small that prompts are cut. */
const config = (style: Style): EngineConfig => ({
  style,
  poolTokens: 6000,
  blockTokens: style === 'vllm' ? 16 : 1,
  batchTokensMax: 512,
  runningMax: 24,
  queuedMax: null,
  prefixCache: true,
  priority: 'off',
})

type Request = { readonly atMs: number; readonly seed: number; readonly promptTokens: number }

/** Poisson arrivals, a third of them with a shared prefix. */
const traceOf = (seed: number, gapMs: number): readonly Request[] => {
  const random = new Random(seed)
  let atMs = 0
  return Array.from({ length: 120 }, () => {
    atMs += -Math.log(1 - random.next()) * gapMs
    return { atMs, seed: random.below(1e6), promptTokens: 40 + random.below(900) }
  })
}

const inputOf = ({ seed, promptTokens }: Request) => ({
  prompt: Int32Array.from({ length: promptTokens }, (_, at) => (seed % 3 === 0 ? at : at ^ seed)),
  maxTokens: 60 + (seed % 200),
  priority: 0,
  salt: 0,
  siblings: 1,
  source: new Answer({
    seed,
    language: seed % 2 === 0 ? 'en' : 'zh',
    topic: 'turbines',
    thinks: true,
    script: null,
    stop: [],
    minTokens: 0,
    ignoreEnd: false,
  }),
})

/** All that a sequence was, exactly: hashes of its tokens, counts and moments. */
const factsOf = (sequence: Sequence) => [
  sequence.hashes.join(','),
  sequence.promptTokens,
  sequence.cached,
  sequence.produced,
  sequence.preemptions,
  sequence.finish,
  sequence.admittedMs,
  sequence.firstTokenMs,
  sequence.lastTokenMs,
  sequence.endedMs,
]

const engineOf = (style: Style): Engine =>
  new Engine(config(style), costOf({ tensor: 1, pipeline: 1 }, rehearsal(), 262_144))

/** Drives a bare engine in portions of real time whose sizes come from another seed. */
const play = (style: Style, trace: readonly Request[], speed: number, jitter: number) => {
  const engine = engineOf(style)
  const random = new Random(jitter)
  const sequences: Sequence[] = []
  let [nowMs, freeMs, next] = [0, 0, 0]
  const arrive = (untilMs: number): void => {
    for (let one = trace[next]; one !== undefined && one.atMs <= untilMs; one = trace[next]) {
      const sequence = engine.add(inputOf(one), one.atMs)
      if (sequence !== null) sequences.push(sequence)
      next += 1
    }
  }
  while (next < trace.length || !engine.idle) {
    nowMs += random.next() * 30 * speed
    for (;;) {
      if (engine.endsMs === null) {
        const from = engine.idle ? Math.max(freeMs, trace[next]?.atMs ?? nowMs) : freeMs
        if (from > nowMs) break
        arrive(from)
        if (engine.begin(from) === null) break
      }
      const endMs = engine.endsMs
      if (endMs === null || endMs > nowMs) break
      freeMs = engine.finish().endMs
    }
  }
  return { facts: sequences.map(factsOf), totals: { ...engine.totals } }
}

/** Every timer comes late by up to ten real milliseconds, so at speed 1000 by ten seconds. */
class LateClock extends VirtualClock {
  override readonly speed: number
  readonly #random: Random

  constructor(speed: number, seed: number) {
    super()
    this.speed = speed
    this.#random = new Random(seed)
  }

  override after(simulatedMs: number, run: () => void): () => void {
    return super.after(simulatedMs + this.#random.next() * 10 * this.speed, run)
  }
}

/** The runner with all requests there at the beginning. */
const burst = async (style: Style, speed: number, seed: number) => {
  const clock = new LateClock(speed, seed)
  const hooks = { onStep: () => {}, onEnd: () => {}, onIdle: () => {} }
  const runner = new Runner(engineOf(style), clock, hooks)
  const told = new Map<Sequence, number>()
  const ended: Sequence[] = []
  const sequences = traceOf(5, 0).map((request) =>
    runner.submit(inputOf(request), {
      token: (sequence) => told.set(sequence, (told.get(sequence) ?? 0) + 1),
      finished: (sequence) => ended.push(sequence),
      flush: () => {},
    }),
  )
  await clock.runTo(1e9)
  expect(ended.length).toBe(sequences.length)
  for (const sequence of ended) expect(told.get(sequence)).toBe(sequence.produced)
  // The first step begins when the first timer comes: moments count from there.
  const [first] = sequences
  const origin = first?.admittedMs ?? 0
  return sequences.map((sequence) =>
    sequence === null
      ? null
      : [...factsOf(sequence).slice(0, 6), Math.round((sequence.endedMs - origin) * 1e6)],
  )
}

describe.each(STYLES)('the step loop as %s', (style) => {
  test('the same trace gives the same tokens at the same moments at any speed', () => {
    const trace = traceOf(11, 80)
    const [reference, ...others] = SPEEDS.map((speed) => play(style, trace, speed, speed + 1))
    expect(reference?.facts.length).toBe(trace.length)
    // Otherwise the interesting half of the scheduler was not there.
    expect(reference?.totals.preemptions).toBeGreaterThan(0)
    expect(reference?.totals.prefixHits).toBeGreaterThan(0)
    for (const other of others) expect(other).toEqual(reference)
    expect(play(style, traceOf(12, 80), 1, 2)).not.toEqual(reference)
  })

  test('timers that come late change no step', async () => {
    const [reference, ...others] = await Promise.all(
      SPEEDS.map((speed) => burst(style, speed, speed)),
    )
    for (const other of others) expect(other).toEqual(reference)
  })
})

const Whole = z.object({
  choices: z.array(
    z.object({ message: z.record(z.string(), z.unknown()), finish_reason: z.string() }),
  ),
  usage: z.object({ prompt_tokens: z.number(), completion_tokens: z.number() }),
})

const Chunk = z.object({
  choices: z.array(
    z.object({
      delta: z.object({ content: z.string().nullish(), reasoning: z.string().nullish() }),
    }),
  ),
})

const QUESTIONS = ['What is a penstock?', '什么是压力管道？', 'Why do turbines cavitate?']

const ask = (content: string, seed: number, stream: boolean) => ({
  model: 'qwq-32b',
  messages: [{ role: 'user', content }],
  seed,
  stream,
  max_tokens: 400,
})

const COMMAND =
  'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 32768 ' +
  '--reasoning-parser deepseek_r1 --enforce-eager'

/** All at once, so that they share steps. */
const answersAt = async (speed: number) => {
  const port = await freePort()
  const line = `${COMMAND} --host 127.0.0.1 --port ${port}`
  const one = new Simulated('vllm', line.split(' '), rehearsal({ speed }))
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => one.output)
  const whole = QUESTIONS.flatMap((question) =>
    [1, 2].map(async (seed) => {
      const answer = await post(url, '/v1/chat/completions', ask(question, seed, false))
      return Whole.parse(await answer.json())
    }),
  )
  const streamed = QUESTIONS.map(async (question) => {
    const answer = await post(url, '/v1/chat/completions', ask(question, 1, true))
    const chunks = events(await answer.text()).slice(0, -1)
    const deltas = chunks.flatMap((text) => Chunk.parse(JSON.parse(text)).choices)
    return deltas.map(({ delta }) => (delta.reasoning ?? '') + (delta.content ?? '')).join('')
  })
  const result = { whole: await Promise.all(whole), streamed: await Promise.all(streamed) }
  one.kill()
  return result
}

test('a process: text, counts and endings over HTTP at two speeds', async () => {
  const slow = await answersAt(50)
  const fast = await answersAt(1000)
  expect(fast).toEqual(slow)
  const texts = slow.whole.map(({ choices }) => JSON.stringify(choices[0]?.message))
  expect(new Set(texts).size).toBe(texts.length)
  for (const text of slow.streamed) expect(text.length).toBeGreaterThan(100)
}, 60_000)
