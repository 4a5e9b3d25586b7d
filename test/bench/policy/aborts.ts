/**
 * Callers who leave: while they wait in the queue, while the engine reads their prompt, while it
 * thinks, while it answers. What the engine does for nobody afterwards, and whether our books say
 * what the engine counted. One rehearsed vLLM with a batch of eight.
 */

import { parseExposition } from '../../../src/core/prometheus.ts'
import type { FinishedRequest, GatewaySnapshot } from '../../../src/core/snapshot.ts'
import { KEY, routeOf, snapshotOf, startTestGateway, targetOf } from '../../support/gateway.ts'
import { until } from '../../support/penstock.ts'

export const BATCH = 8
const AT_ONCE = 16
const WAIT_MS = 40
const LONG = 'water '.repeat(6000)

export type Phase = 'queued' | 'prefilling' | 'thinking' | 'streaming'
export const PHASES: readonly Phase[] = ['queued', 'prefilling', 'thinking', 'streaming']

export type AbortResult = {
  readonly phase: Phase
  readonly aborts: number
  /** Of them, how many had left before a token came. */
  readonly beforeToken: number
  readonly engine: Counters
  readonly books: Counters
  /** Requests that the engine still runs a second later; 0. */
  readonly stillRunning: number
}

type Counters = { readonly prompt: number; readonly completion: number }

/** `count` callers leave in this phase; the engine has nobody else, but for those who fill it. */
export const abortCase = async (
  engineUrl: string,
  phase: Phase,
  count: number,
): Promise<AbortResult> => {
  const gateway = await startTestGateway(snapshotFor(engineUrl), 2)
  try {
    const holders = phase === 'queued' ? await fill(gateway.url) : null
    const before = await countersOf(engineUrl)
    const seen = gateway.finished.length
    let left = count
    const caller = async (): Promise<void> => {
      while (left > 0) {
        left -= 1
        await leaveIn(phase, gateway.url)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, caller))
    const mine = await until(() => {
      const ended = gateway.finished.slice(seen).filter(({ outcome }) => outcome === 'client_gone')
      return ended.length >= count ? ended : null
    }, `${count} reports`)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const stillRunning = await gaugeOf(engineUrl, 'vllm:num_requests_running')
    const after = await countersOf(engineUrl)
    const held = holders === null ? null : await holders.end()
    return {
      phase,
      aborts: mine.length,
      beforeToken: mine.filter(({ ttftMs }) => ttftMs === null).length,
      // Those who fill the engine go on generating meanwhile: nothing of it is a leaver's.
      engine: {
        prompt: after.prompt - before.prompt,
        completion: held === null ? after.completion - before.completion : 0,
      },
      books: sumOf(mine),
      stillRunning: stillRunning - (holders === null ? 0 : BATCH),
    }
  } finally {
    await gateway.handle.close()
  }
}

const snapshotFor = (engineUrl: string): GatewaySnapshot => {
  const target = targetOf(engineUrl, {
    maxRunning: BATCH,
    requestsRunning: 0,
    requestsWaiting: 0,
    kvCacheUsageRatio: 0,
    kvCapacityTokens: 80_000,
    readAtMs: Date.now(),
  })
  return snapshotOf([routeOf([target])])
}

const post = (url: string, content: string, maxTokens: number, signal: AbortSignal) =>
  fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'qwq-32b',
      stream: true,
      max_tokens: maxTokens,
      ignore_eos: true,
      messages: [{ role: 'user', content }],
    }),
    signal,
  })

/** As many long answers as the batch holds, all of them begun. */
const fill = async (url: string) => {
  const ending = new AbortController()
  const answers = await Promise.all(
    Array.from({ length: BATCH }, () => post(url, 'Tell me all of it.', 20_000, ending.signal)),
  )
  const reading = answers.map((answer) => answer.text().catch(() => ''))
  return {
    end: async (): Promise<void> => {
      ending.abort()
      await Promise.all(reading)
    },
  }
}

const leaveIn = async (phase: Phase, url: string): Promise<void> => {
  const leaving = new AbortController()
  const content = phase === 'prefilling' ? `${Math.random()} ${LONG}` : 'What is a penstock?'
  const early = phase === 'queued' || phase === 'prefilling'
  if (early) setTimeout(() => leaving.abort(), WAIT_MS)
  try {
    const answer = await post(url, content, 4000, leaving.signal)
    const mark = phase === 'thinking' ? '"reasoning":"' : '"content":"'
    let text = ''
    for await (const chunk of answer.body ?? []) {
      text = (text + Buffer.from(chunk).toString()).slice(-4096)
      if (!early && marked(text, mark)) leaving.abort()
    }
  } catch (error) {
    if (!leaving.signal.aborted) throw error
  }
}

/** The first chunk of a chat has an empty content. */
const marked = (text: string, mark: string): boolean =>
  text.split(mark).some((part, index) => index > 0 && !part.startsWith('"'))

const sumOf = (requests: readonly FinishedRequest[]): Counters => ({
  prompt: requests.reduce((sum, { promptTokens }) => sum + (promptTokens ?? 0), 0),
  completion: requests.reduce((sum, { completionTokens }) => sum + (completionTokens ?? 0), 0),
})

const gaugeOf = async (engineUrl: string, name: string): Promise<number> => {
  const { samples } = parseExposition(await (await fetch(`${engineUrl}/metrics`)).text())
  return samples.filter((one) => one.name === name).reduce((sum, { value }) => sum + value, 0)
}

const countersOf = async (engineUrl: string): Promise<Counters> => ({
  prompt: await gaugeOf(engineUrl, 'vllm:prompt_tokens_total'),
  completion: await gaugeOf(engineUrl, 'vllm:generation_tokens_total'),
})
