/** `penstock rehearse load` as a process, against a real simulator and the real gateway. */
import { spawn } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
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
  KEY,
  QWQ_ONLY_KEY,
  routeOf,
  snapshotOf,
  startTestGateway,
  type TestGateway,
  targetOf,
} from '../support/gateway.ts'

const SPEED = 50
const SERVE =
  'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 32768 ' +
  '--reasoning-parser deepseek_r1 --enable-prompt-tokens-details --host 127.0.0.1 --port'

let engine: Simulated
let engineUrl: string
let gateway: TestGateway

beforeAll(async () => {
  const port = await freePort()
  engine = new Simulated('vllm', [...SERVE.split(' '), `${port}`], rehearsal({ speed: SPEED }))
  engineUrl = `http://127.0.0.1:${port}`
  await until(isReady(engineUrl), 'the engine', () => engine.output)
  const route = routeOf([targetOf(engineUrl)])
  const away = routeOf([], {
    model: 'deepseek-r1',
    deployment: 'deepseek-r1',
    why: 'nothing is deployed',
  })
  gateway = await startTestGateway(snapshotOf([route, away]))
  closeLater(gateway.handle)
}, 60_000)

afterAll(async () => {
  await closeAll()
  await stopAll()
  cleanUp()
})

type Ended = { readonly code: number | null; readonly out: string; readonly talk: string }
type Started = { signal(): void; talk(): string; readonly ended: Promise<Ended> }

const rehearse = (words: string, environment: Readonly<Record<string, string>> = {}): Started => {
  const argv = ['src/main.ts', 'rehearse', 'load', ...words.split(' ')]
  const child = spawn(process.execPath, argv, {
    env: { PATH: process.env.PATH ?? '', ...environment },
  })
  let [out, talk] = ['', '']
  child.stdout.on('data', (chunk) => {
    out += String(chunk)
  })
  child.stderr.on('data', (chunk) => {
    talk += String(chunk)
  })
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (code) => resolve({ code, out, talk }))
  })
  return { signal: () => child.kill('SIGINT'), talk: () => talk, ended }
}

const Row = z.looseObject({
  name: z.string(),
  requests: z.number(),
  outcomes: z.record(z.string(), z.number()),
  ttftSeconds: z.object({ p50: z.number().nullable(), p99: z.number().nullable() }),
  tpotSeconds: z.object({ p50: z.number().nullable() }),
  promptTokens: z.number(),
  cachedTokens: z.number(),
  completionTokens: z.number(),
  withoutUsage: z.number(),
})
const View = z.looseObject({
  durationSeconds: z.number(),
  total: Row,
  models: z.array(Row),
  consumers: z.array(Row),
  refusals: z.record(z.string(), z.number()),
})

const viewOf = async (words: string) => {
  const { code, out, talk } = await rehearse(`${words} --json`).ended
  if (code !== 0) throw new Error(`ended with ${code}: ${talk}`)
  return View.parse(JSON.parse(out))
}

const engineMetric = async (name: string): Promise<number> => {
  const answer = await fetch(`${engineUrl}/metrics`)
  return metric(await answer.text(), name) ?? Number.NaN
}

describe('penstock rehearse load', { timeout: 120_000 }, () => {
  const atEngine = (): string => `--base-url ${engineUrl}/v1 --speed ${SPEED}`
  const atGateway = (): string => `--base-url ${gateway.url}/v1 --speed ${SPEED} --key ${KEY}`

  it('sends what it says: the engine counts the same tokens as the summary', async () => {
    const before = await engineMetric('vllm:generation_tokens_total')
    const view = await viewOf(`${atEngine()} --requests 30 --rate 10 --lengths fixed:500/40`)
    expect(view.total.outcomes).toMatchObject({ ok: 30, refused: 0, error: 0 })
    expect(view.total).toMatchObject({ withoutUsage: 0, completionTokens: 30 * 40 })
    expect((await engineMetric('vllm:generation_tokens_total')) - before).toBe(30 * 40)
    const each = view.total.promptTokens / 30
    expect(each).toBeGreaterThanOrEqual(500)
    expect(each).toBeLessThan(520)
    expect(view.total.ttftSeconds.p50).toBeGreaterThan(0)
    // One H20 cannot read 65 GB of weights a step in less than 16 ms (4 TB/s).
    expect(view.total.tpotSeconds.p50).toBeGreaterThan(0.016)
  })

  it('has sessions whose shared beginnings the prefix cache finds', async () => {
    const words = '--requests 60 --rate 4 --consumers 2 --lengths fixed:200/20 --seed 7'
    const alone = await viewOf(`${atEngine()} ${words}`)
    expect(alone.total.cachedTokens / alone.total.promptTokens).toBeLessThan(0.1)
    const shared = await viewOf(`${atEngine()} ${words} --seed 8 --prefix 400 --turns 4`)
    expect(shared.total.cachedTokens / shared.total.promptTokens).toBeGreaterThan(0.4)
  })

  it('goes through the gateway, and keeps refusals apart from failures', async () => {
    const models = '--model qwq-32b=3 --model deepseek-r1=1'
    const words = `${models} --requests 40 --rate 10 --lengths fixed:50/10 --consumers 4`
    const view = await viewOf(`${atGateway()} ${words}`)
    const [r1, qwq] = view.models
    expect(qwq?.outcomes).toMatchObject({ ok: qwq?.requests, refused: 0, error: 0 })
    expect(r1?.outcomes).toMatchObject({ ok: 0, refused: r1?.requests, error: 0 })
    expect(view.refusals).toEqual({ '503 model_unavailable': r1?.requests })
    expect((r1?.requests ?? 0) + (qwq?.requests ?? 0)).toBe(40)
    expect(view.consumers.reduce((sum, { requests }) => sum + requests, 0)).toBe(40)
    await until(
      () => gateway.finished.length >= 40,
      'the reports of the gateway',
      () => `${gateway.finished.length}`,
    )
  })

  it('sends the same for a seed', async () => {
    const words = `${atEngine()} --requests 12 --rate 10 --seed 5 --consumers 3`
    const [one, two] = [await viewOf(words), await viewOf(words)]
    const sums = ({ models, consumers }: z.output<typeof View>) =>
      [...models, ...consumers]
        .map(({ name, requests, promptTokens, completionTokens }) => ({
          name,
          requests,
          promptTokens,
          completionTokens,
        }))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
    expect(sums(two)).toEqual(sums(one))
  })

  it('ends early on Ctrl-C, with its summary', async () => {
    const words = '--rate 5 --duration 1d --lengths fixed:50/200 --consumers 2'
    const started = rehearse(`${atEngine()} ${words}`)
    await until(() => /ok [1-9]/.test(started.talk()), 'a first progress line', started.talk)
    started.signal()
    const { code, out } = await started.ended
    expect(code).toBe(0)
    expect(out).toMatch(/^MODEL +REQUESTS +OK/m)
    expect(out).toMatch(/^qwq-32b +\d+/m)
    const running = async () => (await engineMetric('vllm:num_requests_running')) === 0
    await until(running, 'the engine to be left in peace')
  })

  it('takes its key from the environment', async () => {
    const words = `--base-url ${gateway.url}/v1 --requests 3 --rate 10 --lengths fixed:5/5`
    const { code, out } = await rehearse(words, { PENSTOCK_KEY: QWQ_ONLY_KEY }).ended
    expect(code).toBe(0)
    expect(out).toMatch(/^qwq-32b +3 +3 /m)
  })

  it('answers bad options in a line each, with exit code 2', async () => {
    const { code, talk, out } = await rehearse('--rate fast --consumers 0').ended
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(talk.trimEnd().split('\n')).toEqual([
      '--rate: expected a number, got "fast"',
      '--consumers: expected a number from 1 to 1000, got "0"',
    ])
  })

  it('names the nearest model, the wrong key, and an endpoint that is not there', async () => {
    const strange = await rehearse(`${atGateway()} --model qwq-32`).ended
    expect(strange).toMatchObject({ code: 2 })
    expect(strange.talk.trimEnd()).toBe('--model: no model qwq-32 (did you mean qwq-32b?)')
    const words = `--base-url ${gateway.url}/v1 --key sk-ps-of-somebody-else`
    const wrong = await rehearse(words).ended
    expect(wrong.code).toBe(1)
    expect(wrong.talk.trimEnd()).toMatch(/refuses the key \(401\): give another by --key$/)
    const nobody = await rehearse(`--base-url http://127.0.0.1:${await freePort()}/v1`).ended
    expect(nobody.code).toBe(1)
    expect(nobody.talk.trimEnd()).toMatch(/^nothing answers at http:\/\/127/)
  })
})
