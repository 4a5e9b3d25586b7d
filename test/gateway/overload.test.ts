/**
 * A rehearsed engine, read as telemetry reads it, under twice what it can do: its own queue stays
 * near empty and nothing is preempted; who sends little hardly notices who sends much.
 */
import { hash } from 'node:crypto'
import { Agent, request } from 'node:http'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { runtimes } from '../../runtimes/index.ts'
import { systemClock } from '../../src/clock.ts'
import type { GatewayKey, RoutePolicy, Target } from '../../src/core/snapshot.ts'
import { createScraper } from '../../src/telemetry/scrape.ts'
import {
  cleanUp,
  freePort,
  isReady,
  metric,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from '../runtimes/simulator/support.ts'
import {
  closeAll,
  closeLater,
  policyOf,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'

afterEach(async () => {
  await closeAll()
  await stopAll()
})
afterAll(cleanUp)

/** Simulated seconds a second; a reading each half simulated second, as in production. */
const SPEED = 4
const SCRAPE_EVERY_MS = 500 / SPEED
const SAMPLE_EVERY_MS = 40
const RUNNING_MAX = 24
const PROMPT_WORDS = 60
const ANSWER_TOKENS = 60

const NAMES = ['large', 'small'] as const
const KEYS: readonly GatewayKey[] = NAMES.map((name) => {
  return { hash: hash('sha256', `sk-ps-${name}`), id: name, consumer: name, models: null }
})

const policy = (ceiling: RoutePolicy['queue']['ceiling']): RoutePolicy =>
  policyOf({ queue: { ceiling, depth: 1000, wait: 600_000 }, continueStreams: false })

/** One H20 with QwQ, a gateway in front, and readings on their way from one to the other. */
const rehearsed = async (threads: number, ceiling: RoutePolicy['queue']['ceiling'] = 'auto') => {
  const port = await freePort()
  const serve =
    'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 32768 ' +
    `--max-num-seqs ${RUNNING_MAX} --host 127.0.0.1 --port ${port}`
  const engine = new Simulated('vllm', serve.split(' '), rehearsal({ speed: SPEED }))
  const engineUrl = `http://127.0.0.1:${port}`
  await until(isReady(engineUrl), 'the engine', () => engine.output)
  const snapshot = (read: Partial<Target>) =>
    snapshotOf(
      [
        routeOf([targetOf(engineUrl, { maxRunning: RUNNING_MAX, ...read })], {
          policy: policy(ceiling),
        }),
      ],
      { keys: KEYS },
    )
  const gateway = await startTestGateway(snapshot({}), threads)
  closeLater(gateway.handle)
  let preempted = 0
  const scraper = createScraper({
    targets: () => [{ replica: 'qwq-32b-0', url: engineUrl, engine: 'vllm' }],
    runtimes,
    clock: systemClock,
    intervalMs: SCRAPE_EVERY_MS,
    onSample: ({ signals, readAtMs }) => {
      const { preemptionsTotal = 0 } = signals
      const read = {
        requestsRunning: signals.requestsRunning ?? null,
        requestsWaiting: signals.requestsWaiting ?? null,
        kvCacheUsageRatio: signals.kvCacheUsageRatio ?? null,
        kvCapacityTokens: signals.kvCapacityTokens ?? null,
        preemptions: preemptionsTotal - preempted,
        readAtMs,
      }
      preempted = preemptionsTotal
      gateway.handle.publish(snapshot(read))
    },
    onError: ({ message }) => console.log(message),
  })
  closeLater({ close: () => scraper.stop() })
  return { gateway, engineUrl }
}

type Sample = { readonly waiting: number; readonly running: number; readonly preemptions: number }

/** Looks at the engine itself, more often than the gateway does. */
const watch = (engineUrl: string) => {
  const samples: Sample[] = []
  let over = false
  const looking = (async () => {
    while (!over) {
      const text = await (await fetch(`${engineUrl}/metrics`)).text()
      const read = (name: string): number => metric(text, `vllm:${name}`) ?? Number.NaN
      samples.push({
        waiting: read('num_requests_waiting'),
        running: read('num_requests_running'),
        preemptions: read('num_preemptions_total'),
      })
      await new Promise((resolve) => setTimeout(resolve, SAMPLE_EVERY_MS))
    }
  })()
  return {
    samples,
    stop: () => {
      over = true
      return looking
    },
  }
}

type Answered = { readonly status: number; readonly firstTokenMs: number }

/** Streams an answer to its end, or until the client is told to leave. */
const ask = (url: string, agent: Agent, name: string): Promise<Answered> =>
  new Promise((resolve) => {
    const startedAtMs = performance.now()
    let firstTokenMs = Number.NaN
    let status = 0
    const end = (): void => resolve({ status, firstTokenMs: firstTokenMs * SPEED })
    const client = request(
      `${url}/v1/chat/completions`,
      {
        method: 'POST',
        agent,
        headers: { authorization: `Bearer sk-ps-${name}`, 'content-type': 'application/json' },
      },
      (response) => {
        status = response.statusCode ?? 0
        response.on('data', () => {
          if (Number.isNaN(firstTokenMs)) firstTokenMs = performance.now() - startedAtMs
        })
        response.on('end', end)
        response.on('error', end)
      },
    )
    client.on('error', end)
    client.end(
      JSON.stringify({
        model: 'qwq-32b',
        stream: true,
        max_tokens: ANSWER_TOKENS,
        ignore_eos: true,
        messages: [{ role: 'user', content: `${Math.random()} ${'water '.repeat(PROMPT_WORDS)}` }],
      }),
    )
  })

type Load = { readonly perSecond: number; readonly seconds: number; readonly name: string }

/** So many a simulated second, evenly, whatever comes of those before. */
const load = async (url: string, agent: Agent, { perSecond, seconds, name }: Load) => {
  const answers: Promise<Answered>[] = []
  const startedAtMs = performance.now()
  for (;;) {
    const second = ((performance.now() - startedAtMs) / 1000) * SPEED
    if (second >= seconds) return Promise.all(answers)
    while (answers.length < second * perSecond) answers.push(ask(url, agent, name))
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const quantile = (answers: readonly Answered[], share: number): number => {
  const sorted = answers.map(({ firstTokenMs }) => firstTokenMs).sort((a, b) => a - b)
  return Math.round(sorted[Math.floor(sorted.length * share)] ?? Number.NaN)
}

describe.each([1, 4])('an overloaded engine behind %i threads', { timeout: 180_000 }, (threads) => {
  test('at twice what it can do its queue stays short, and who sends little is served', async () => {
    const { gateway, engineUrl } = await rehearsed(threads)
    const agent = new Agent({ keepAlive: true, maxSockets: 5000 })
    const small = { perSecond: 1, seconds: 30, name: 'small' }
    const alone = await load(gateway.url, agent, small)
    const engine = watch(engineUrl)
    // A batch of 24 makes some 450 tokens a second, and so 7 of these answers.
    const [crowd, beside] = await Promise.all([
      load(gateway.url, agent, { perSecond: 14, seconds: 30, name: 'large' }),
      load(gateway.url, agent, small),
    ])
    await engine.stop()
    agent.destroy()
    const { samples } = engine
    const waiting = samples.map((sample) => sample.waiting)
    const [first, last] = [samples[0], samples.at(-1)]
    console.log(
      `${threads} threads, ${samples.length} looks at the engine: waiting at most ` +
        `${Math.max(...waiting)}, running at most ${Math.max(...samples.map((s) => s.running))}, ` +
        `preempted ${(last?.preemptions ?? 0) - (first?.preemptions ?? 0)}; first token of the ` +
        `small one alone P50 ${quantile(alone, 0.5)} P95 ${quantile(alone, 0.95)} ms, beside 14 ` +
        `times as much P50 ${quantile(beside, 0.5)} P95 ${quantile(beside, 0.95)} ms, of the ` +
        `large one P50 ${quantile(crowd, 0.5)} ms (simulated)`,
    )
    expect(samples.length).toBeGreaterThan(50)
    expect(Math.max(...waiting)).toBeLessThanOrEqual(2)
    expect(last?.preemptions).toBe(first?.preemptions)
    expect(Math.max(...samples.map(({ running }) => running))).toBeGreaterThan(RUNNING_MAX / 2)
    for (const answers of [alone, crowd, beside]) {
      expect(answers.every(({ status }) => status === 200)).toBe(true)
    }
    // He waits for a place now and then; in the order of arrival he would wait with all others.
    expect(quantile(beside, 0.5)).toBeLessThan(quantile(crowd, 0.5) / 3)
    expect(gateway.handle.waiting('qwq-32b')).toBe(0)
    expect(gateway.handle.admission(0).sent).toMatchObject({ held: 0, unstarted: 0 })
  })
})

test('without the ceiling the same load waits in the engine', { timeout: 120_000 }, async () => {
  const { gateway, engineUrl } = await rehearsed(1, 'none')
  const agent = new Agent({ keepAlive: true, maxSockets: 5000 })
  const engine = watch(engineUrl)
  await load(gateway.url, agent, { perSecond: 14, seconds: 15, name: 'large' })
  await engine.stop()
  agent.destroy()
  expect(Math.max(...engine.samples.map(({ waiting }) => waiting))).toBeGreaterThan(10)
})
