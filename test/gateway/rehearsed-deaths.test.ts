/** Two rehearsed engines of a kind behind the gateway, one of them broken in each way it can be. */
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import type { GatewayRoute } from '../../src/core/snapshot.ts'
import {
  post as ask,
  cleanUp,
  freePort,
  isReady,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from '../runtimes/simulator/support.ts'
import {
  closeAll,
  until as met,
  policyOf,
  post,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'
import { heard } from '../support/teller.ts'

afterEach(async () => {
  await closeAll()
  await stopAll()
})
afterAll(cleanUp)

const ENGINES = ['vllm', 'sglang'] as const
type EngineName = (typeof ENGINES)[number]

const started = async (engine: EngineName, faults: readonly object[], parser = '') => {
  const port = await freePort()
  const line =
    engine === 'vllm'
      ? 'serve ./qwq-32b --served-model-name qwq-32b --max-model-len 4096 '
      : '-m sglang.launch_server --model-path ./qwq-32b --served-model-name qwq-32b '
  const argv = `${line}${parser}--host 127.0.0.1 --port ${port}`.split(' ')
  const program = engine === 'vllm' ? 'vllm' : 'python3'
  const extra = { PENSTOCK_FAULTS: JSON.stringify(faults) }
  const one = new Simulated(program, argv, rehearsal({ speed: 50 }), extra)
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => one.output)
  return { url, one }
}

/** The broken one seems idle and the other loaded, so that each request begins where it breaks. */
const world = async (engine: EngineName, faults: readonly object[], parser = '') => {
  const engines = await Promise.all([started(engine, faults, parser), started(engine, [], parser)])
  const targets = engines.map(({ url }, slot) =>
    targetOf(url, { id: `r${slot}`, slot, requestsRunning: slot * 50, requestsWaiting: slot * 50 }),
  )
  const more: Partial<GatewayRoute> = {
    engine,
    stallTimeoutMs: 1_000,
    firstTokenTimeoutMs: 10_000,
    policy: policyOf({
      retry: { attempts: 2, on: ['unreachable', 'error', 'busy', 'timeout'], budget: 1 },
      queue: { ceiling: 'none', depth: 10, wait: 1_000 },
    }),
  }
  const gateway = await startTestGateway(snapshotOf([routeOf(targets, more)]))
  const close = async (): Promise<void> => gateway.handle.close()
  return { ...gateway, close, healthy: engines[1]?.url ?? '', broken: engines[0]?.one }
}

const TOKENS = 60
const bodyOf = (question: number, more: object = {}) => ({
  model: 'qwq-32b',
  messages: [{ role: 'user', content: `Why is the sky blue? (${question})` }],
  max_tokens: TOKENS,
  ignore_eos: true,
  stream: true,
  stream_options: { include_usage: true },
  ...more,
})

const BREAKS = [
  { kind: 'cut', afterTokens: 20 },
  { kind: 'half-event', afterTokens: 7 },
  { kind: 'truncate', afterTokens: 33 },
  { kind: 'cut', afterTokens: 0 },
] as const
const REFUSALS = [{ kind: 'error-500' }, { kind: 'error-429' }] as const

describe.each(ENGINES)('%s', (engine) => {
  test.each(BREAKS)('$kind after $afterTokens tokens: another goes on', async (fault) => {
    const { url, close, healthy, finished, handle } = await world(engine, [fault])
    for (let question = 0; question < 3; question += 1) {
      const undisturbed = heard(
        await (await ask(healthy, '/v1/chat/completions', bodyOf(question))).text(),
      )
      const answer = heard(await (await post(url, JSON.stringify(bodyOf(question)))).text())
      expect(answer).toMatchObject({
        errors: [],
        done: true,
        finish: 'length',
        roles: undisturbed.roles,
      })
      expect(answer.ids.size).toBe(1)
      // What one engine said stands; another goes on as it likes, up to the limit that was asked.
      const told = Math.floor(fault.afterTokens / 2)
      expect(answer.text.slice(0, told)).toBe(undisturbed.text.slice(0, told))
      expect(answer.usages).toHaveLength(undisturbed.usages.length)
      expect(answer.usages.at(-1)).toMatchObject({
        prompt_tokens: undisturbed.usages.at(-1)?.prompt_tokens,
        completion_tokens: TOKENS,
      })
    }
    await met('the reports', () => finished.length === 3)
    const again = finished.map(
      ({ continuations, retries }) => (continuations ?? 0) + (retries ?? 0),
    )
    expect(again.every((count) => count === 1)).toBe(true)
    expect(finished.every(({ completionTokens }) => completionTokens === TOKENS)).toBe(true)
    expect(handle.totalInFlight()).toBe(0)
    await close()
  })

  test.each(REFUSALS)('$kind: another answers', async (fault) => {
    const { url, close, healthy, finished } = await world(engine, [fault])
    const expected = heard(await (await ask(healthy, '/v1/chat/completions', bodyOf(1))).text())
    const answer = heard(await (await post(url, JSON.stringify(bodyOf(1)))).text())
    expect(answer).toMatchObject({ text: expected.text, errors: [], done: true, continued: [] })
    await met('the report', () => finished.length === 1)
    expect(finished[0]).toMatchObject({ retries: 1, replica: 'r1', outcome: 'ok' })
    await close()
  })

  test('it stops in the middle: another goes on', async () => {
    const { url, close, broken } = await world(engine, [])
    const body = bodyOf(1, { max_tokens: 2_000 })
    const response = await post(url, JSON.stringify(body))
    const reader = response.body?.getReader()
    const decoder = new TextDecoder()
    let text = ''
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined }
      if (done) break
      const first = text === ''
      text += decoder.decode(value, { stream: true })
      if (first) broken?.kill('SIGSTOP')
    }
    const answer = heard(text)
    expect(answer).toMatchObject({ errors: [], done: true, finish: 'length' })
    expect(answer.continued).toHaveLength(1)
    expect(answer.usages.at(-1)).toMatchObject({ completion_tokens: 2_000 })
    await close()
  }, 60_000)

  test('tools, and a broken stream: the error event, and no [DONE]', async () => {
    const parser = engine === 'vllm' ? '--enable-auto-tool-choice --tool-call-parser hermes ' : ''
    const { url, close } = await world(engine, [{ kind: 'cut', afterTokens: 20 }], parser)
    const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }]
    const answer = heard(await (await post(url, JSON.stringify(bodyOf(1, { tools })))).text())
    expect(answer).toMatchObject({ errors: ['stream_interrupted'], done: false, finish: null })
    await close()
  })

  test('a model that thinks is not made to think twice', async () => {
    const parser = '--reasoning-parser deepseek-r1 '
    const flags = engine === 'vllm' ? parser.replace('-r1', '_r1') : parser
    const { url, close } = await world(engine, [{ kind: 'cut', afterTokens: 20 }], flags)
    const answer = heard(await (await post(url, JSON.stringify(bodyOf(1)))).text())
    expect(answer).toMatchObject({ errors: ['stream_interrupted'], done: false, continued: [] })
    await close()
  })
})
