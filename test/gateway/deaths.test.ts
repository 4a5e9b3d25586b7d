/** Upstream deaths at any byte: no stream looks complete that was not, and every book is closed. */
import { afterEach, expect, test } from 'vitest'
import { limitsOf } from '../../src/core/limits.ts'
import { startEngine } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  closeLater,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
  until,
} from '../support/gateway.ts'
import {
  type Death,
  eventsOf,
  heard,
  PROMPT_TOKENS,
  scriptOf,
  toldBefore,
} from '../support/teller.ts'

afterEach(closeAll)

const WORDS = [
  'Der',
  ' Fluß',
  ' "steigt"',
  '\n\n',
  '水',
  '位',
  ' 🌊',
  ' \\und',
  ' \t',
  ' fällt',
  '.',
]
const TEXT = WORDS.join('')
const DEATHS = 1_000
const AT_ONCE = 20
const ASK = chatBody({
  stream: true,
  stream_options: { include_usage: true },
  // A thread that has seen no answer yet reserves no more than this.
  max_tokens: 2 * WORDS.length,
})
/** A good deal more than all deaths together need; little of it comes back in a minute. */
const LIMIT = 100_000

/** Numerical Recipes' generator: the same deaths each time. */
const randomOf = (seed: number): (() => number) => {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 4_294_967_296
  }
}

/** Prompt and answer of one that was not cut: what the gateway reserves once it has seen some. */
const WHOLE_TOKENS = PROMPT_TOKENS + WORDS.length
/** The probe's own prompt is guessed from the length of its body: at most a token for 3 bytes. */
const ROUGHLY = Math.ceil(ASK.length / 3)

const HOWS: readonly Death[] = ['reset', 'reset', 'end', 'end', 'error', 'abort', 'hang']

const world = async (replicas: number) => {
  const random = randomOf(replicas)
  const targets = []
  for (let slot = 0; slot < replicas; slot += 1) {
    const id = `chatcmpl-${'x'.repeat(slot)}`
    const engine = closeLater(
      await startEngine((seen) => {
        const telling = { words: WORDS, id, pieces: [1 + Math.floor(random() * 300), 7, 90] }
        if (seen.headers['x-request-id'] === 'last') return scriptOf(seen, telling)
        // One that goes on dies less often, so that some get through.
        if (toldBefore(seen, WORDS) !== '' && random() < 0.6) return scriptOf(seen, telling)
        const size = Buffer.byteLength(eventsOf(seen, telling).join(''))
        const at = Math.floor(random() * (size + 1))
        const how = HOWS[Math.floor(random() * HOWS.length)] ?? 'end'
        return scriptOf(seen, { ...telling, cut: { at, how } })
      }),
    )
    targets.push(targetOf(engine.url, { id: `r${slot}`, slot }))
  }
  const limits = limitsOf({
    model: 'qwq-32b',
    limits: [{ per: 'route', tokensPerDay: LIMIT, concurrent: AT_ONCE }],
  })
  const route = routeOf(targets, { stallTimeoutMs: 300, firstTokenTimeoutMs: 300, limits })
  const gateway = await startTestGateway(snapshotOf([route]), 2)
  closeLater(gateway.handle)
  return gateway
}

/** What became of one answer: whole, broken off with its error, or refused before it began. */
const judge = async (response: Response): Promise<'whole' | 'continued' | 'broken' | 'refused'> => {
  const text = await response.text()
  if (response.status !== 200) {
    expect([502, 504, 500]).toContain(response.status)
    expect(JSON.parse(text)).toMatchObject({ error: { type: 'server_error' } })
    return 'refused'
  }
  const answer = heard(text)
  expect(answer.ids.size).toBeLessThanOrEqual(1)
  expect(answer.roles).toBeLessThanOrEqual(1)
  expect(answer.usages.length).toBeLessThanOrEqual(1)
  if (answer.errors.length > 0) {
    expect(answer.errors).toHaveLength(1)
    expect(answer.done).toBe(false)
    expect(TEXT.startsWith(answer.text)).toBe(true)
    expect(text.trimEnd().split('\n\n').at(-1)).toContain('"error"')
    return 'broken'
  }
  expect(answer).toMatchObject({ text: TEXT, finish: 'stop' })
  if (answer.done) {
    expect(answer.usages[0]).toMatchObject({
      prompt_tokens: PROMPT_TOKENS,
      completion_tokens: WORDS.length,
    })
  }
  return answer.continued.length > 0 ? 'continued' : 'whole'
}

test.each([1, 2])(
  `${DEATHS} deaths, %i replica(s)`,
  async (replicas) => {
    const { url, handle, finished } = await world(replicas)
    const startedAtMs = performance.now()
    const whole = async (): Promise<void> => {
      const last = () => post(url, ASK, { 'x-request-id': 'last' })
      const answers = await Promise.all(Array.from({ length: AT_ONCE }, last))
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
      for (const answer of answers) await answer.text()
    }
    // Threads learn what a prompt weighs.
    await whole()
    await until('the first reports', () => finished.length === AT_ONCE)
    const counts = { whole: 0, continued: 0, broken: 0, refused: 0 }
    let left = DEATHS
    const one = async (): Promise<void> => {
      while (left > 0) {
        left -= 1
        counts[await judge(await post(url, ASK))] += 1
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, one))
    await until('all reports', () => finished.length === AT_ONCE + DEATHS)
    await until('nothing in flight', () => handle.totalInFlight() === 0)
    console.log(`${DEATHS} deaths, ${replicas} replica(s): ${JSON.stringify(counts)}`)
    expect(counts.broken + counts.refused).toBeGreaterThan(0)
    if (replicas === 1) expect(counts.continued).toBe(0)
    else expect(counts.continued).toBeGreaterThan(DEATHS / 3)

    expect(new Set(finished.map(({ id }) => id)).size).toBe(1 + DEATHS)
    // All places are free again.
    await whole()
    await until('the last reports', () => finished.length === 2 * AT_ONCE + DEATHS)
    // What is charged is what was used, and of those that never said how long their prompt was at
    // most a whole answer; what drained in the meantime is none of either.
    const used = finished.reduce(
      (sum, { promptTokens, completionTokens }) =>
        sum + (promptTokens ?? 0) + (completionTokens ?? 0),
      0,
    )
    const silent = finished.filter(({ promptTokens }) => promptTokens === null).length
    const probe = await post(url, ASK, { 'x-request-id': 'last' })
    await probe.text()
    const remaining = Number(probe.headers.get('x-ratelimit-remaining-tokens'))
    const charged = LIMIT - remaining - WHOLE_TOKENS
    const drained = ((performance.now() - startedAtMs) / 1_000) * (LIMIT / 86_400)
    console.log(
      `charged ${charged} of ${used} used, ${silent} silent, ${Math.ceil(drained)} drained`,
    )
    expect(charged).toBeGreaterThan(used - drained - ROUGHLY)
    expect(charged).toBeLessThan(used + silent * (WHOLE_TOKENS + 3) + ROUGHLY)
  },
  240_000,
)
