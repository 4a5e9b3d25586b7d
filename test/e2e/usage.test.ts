/**
 * Usage on the whole way: callers, gateway threads, main thread, disk, with a real process that is
 * killed, and the engine's own counters for a judge.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  freePort,
  newPlace,
  type Place,
  penstock,
  type Running,
  until,
  verb,
} from '../support/penstock.ts'
import { startLoad, watchLateness } from '../support/usage-load.ts'

/** What kill -9 may cost: requests that ended in the last 250 ms. */
const LOST_MS = 250

const Row = z.object({ id: z.string(), n: z.number() })
const Sum = z.object({ n: z.number(), prompt: z.number(), completion: z.number() })
const Report = z.object({
  rehearsal: z.boolean(),
  total: z.object({
    requests: z.number(),
    completionTokens: z.number(),
    cost: z.array(z.object({ currency: z.string(), amount: z.number() })),
  }),
  unused: z.array(z.object({ currency: z.string(), amount: z.number() })),
  spent: z.array(z.object({ currency: z.string(), amount: z.number() })),
})
const Pair = z.object({ prompt: z.number(), completion: z.number() })
const Reconciled = z.object({
  runs: z.array(
    z.object({
      replica: z.string(),
      current: z.boolean(),
      engine: Pair,
      ours: Pair,
      probes: Pair,
      difference: Pair,
      requests: z.number(),
      cut: z.number(),
      unmetered: z.number(),
      resets: z.number(),
      kills: z.number(),
      why: z.array(z.string()),
    }),
  ),
})

/** How often each id is in the database; what is summed by day must be the same requests. */
const rowsIn = (place: Place): Map<string, number> => {
  const file = new DatabaseSync(join(place.home, 'penstock.db'))
  const rows = file.prepare('SELECT id, count(*) AS n FROM requests GROUP BY id').all()
  const sums = 'count(*) AS n, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion'
  const requests = Sum.parse(file.prepare(`SELECT ${sums} FROM requests`).get())
  const days = Sum.parse(
    file.prepare(`SELECT ${sums.replace('count(*)', 'sum(requests)')} FROM usage_days`).get(),
  )
  file.close()
  expect(days).toEqual(requests)
  return new Map(rows.map((row) => Row.parse(row)).map(({ id, n }) => [id, n]))
}

/** Every rehearsal has the same loopback addresses: this engine gets a port that none has. */
const enginePort = async (): Promise<number> => {
  for (;;) {
    const port = await freePort()
    if (port < 65_000) return port
  }
}

const rankPids = (place: Place): readonly number[] =>
  readdirSync(join(place.home, 'run'))
    .filter((name) => name.endsWith('.json'))
    .map((name) => readFileSync(join(place.home, 'run', name), 'utf8'))
    .map((text) => Number(/"pid":\s*(\d+)/.exec(text)?.[1]))

describe('usage', { timeout: 240_000 }, () => {
  let place: Place
  let serve: Running
  let key = ''

  const start = async (): Promise<void> => {
    serve = penstock(place, ['serve', '--rehearse'])
    await serve.says(/"endpoint /)
  }
  const ready = (): Promise<true> =>
    until(async () => {
      const { output } = await verb(place, 'status')
      return /qwq-32b\/0 +ready/.test(output) ? true : null
    }, 'qwq-32b ready')
  const base = (): string => `http://127.0.0.1:${place.gatewayPort}/v1`
  const load = (name: string, { leaving = 0, maxTokens = 12 } = {}) =>
    startLoad({ base: base(), key, callers: 8, name, maxTokens, leaving })
  const json = async <T>(schema: z.ZodType<T>, ...words: string[]): Promise<T> => {
    const { output, code } = await verb(place, 'usage', '--json', ...words)
    expect(code, output).toBe(0)
    return schema.parse(JSON.parse(output))
  }
  const current = async () => {
    const { runs } = await json(Reconciled, '--reconcile')
    const [run] = runs.filter((one) => one.current)
    expect(run?.replica).toBe('qwq-32b/0')
    if (run === undefined) throw new Error('no engine runs')
    return run
  }

  beforeAll(async () => {
    place = await newPlace({ PENSTOCK_THREADS: '3' })
    const [inventory, manifests] = [join(place.home, 'i.yaml'), join(place.home, 'manifests')]
    mkdirSync(manifests)
    writeFileSync(
      inventory,
      `nodes:
  h20-1:
    address: 10.0.0.11
    gpus: { profile: h20-96g, count: 1 }
    ports: { http: ${await enginePort()} }
    cost: { amount: 50000, currency: CNY, per: year }\n`,
    )
    const text = `kind: Deployment
name: qwq-32b
weights: { huggingface: Qwen/QwQ-32B }
engine: vllm
context: 65536\n`
    writeFileSync(join(manifests, 'qwq-32b.yaml'), text)
    await start()
    key = (await serve.says(/consumer key \(shown once\): (sk-ps-\w+)/))[1] ?? ''
    const { code, output } = await verb(
      place,
      ...['apply', '--inventory', inventory, '--manifests', manifests],
    )
    expect(code, output).toBe(0)
    await ready()
  }, 240_000)

  afterAll(() => {
    serve.signal('SIGKILL')
    for (const pid of rankPids(place)) {
      try {
        process.kill(-pid, 'SIGKILL')
      } catch {
        // It has ended already.
      }
    }
    place.remove()
  })

  it('agrees with the engine to the token, and says what aborts account for', async () => {
    expect(await current()).toMatchObject({
      requests: 0,
      difference: { prompt: 0, completion: 0 },
      why: [],
    })
    const whole = load('whole')
    await until(() => (whole.ended.length >= 200 ? true : null), '200 answers')
    await whole.stop()
    const even = await current()
    const named = whole.ended.reduce((sum, { promptTokens }) => sum + promptTokens, 0)
    expect(even.requests).toBe(whole.ended.length)
    expect(even.ours.prompt).toBe(named)
    expect(even.engine.prompt).toBe(named + even.probes.prompt)
    expect(even).toMatchObject({ difference: { prompt: 0, completion: 0 }, cut: 0, why: [] })

    const maxTokens = 300
    const cut = load('cut', { leaving: 0.8, maxTokens })
    await until(() => (cut.left() >= 40 ? true : null), '40 callers that left')
    await cut.stop()
    const after = await current()
    console.log(`after ${cut.left()} callers left: ${JSON.stringify(after)}`)
    expect(after.requests).toBe(even.requests + cut.ended.length + cut.left())
    expect(after.cut).toBeGreaterThan(10)
    expect(after.unmetered).toBe(0)
    // Prompts were read before anybody left. The engine stops when it hears of it: at 200 times
    // the real speed that is many steps later, of one token each, and never after the limit.
    expect(after.difference.prompt).toBe(0)
    expect(after.difference.completion).toBeGreaterThanOrEqual(0)
    expect(after.difference.completion).toBeLessThan(maxTokens * after.cut)
    if (after.difference.completion > 0) expect(after.why.join()).toContain('cut off')
  })

  it('shares what the machine costs, and hides no idle time', async () => {
    const report = await json(Report, '--by', 'consumer,day')
    const [spent] = report.spent
    const [charged] = report.total.cost
    expect(report.rehearsal).toBe(true)
    expect(spent?.currency).toBe('CNY')
    expect(charged?.amount).toBeGreaterThan(0)
    const sum = (charged?.amount ?? 0) + (report.unused[0]?.amount ?? 0)
    expect(sum).toBeCloseTo(spent?.amount ?? 0, 9)
    const { output } = await verb(place, 'usage')
    expect(output).toMatch(/^first +qwq-32b +\d+ /m)
    expect(output).toMatch(/^unused +[\d.]+ CNY/m)
    const bad = await verb(place, 'usage', '--by', 'colour')
    expect([bad.code, bad.output]).toEqual([2, expect.stringContaining('expected some of day')])
  })

  it('loses at most the last 250 ms of finished requests to kill -9', async () => {
    const lateness = watchLateness()
    const running = load('killed')
    await until(() => (running.ended.length >= 300 ? true : null), '300 answers')
    const killedAtMs = performance.now()
    serve.signal('SIGKILL')
    await serve.ended()
    await running.stop()
    lateness.stop()
    const rows = rowsIn(place)
    const missing = running.ended.filter(({ id }) => !rows.has(id))
    const oldest = Math.max(0, ...missing.map(({ atMs }) => killedAtMs - atMs))
    const late = lateness.worstMs()
    console.log(
      `kill -9: ${running.ended.length} ended, ${missing.length} lost, the oldest ` +
        `${oldest.toFixed(0)} ms before; this machine ran late by up to ${late.toFixed(0)} ms`,
    )
    expect(oldest).toBeLessThanOrEqual(LOST_MS + late)
    for (const { id } of running.ended) expect(rows.get(id) ?? 0).toBeLessThanOrEqual(1)
  })

  it('goes on with the same engine after that: what was lost is the difference', async () => {
    await start()
    await ready()
    const before = await current()
    console.log(`after kill -9: ${JSON.stringify(before)}`)
    expect(before).toMatchObject({ resets: 0, kills: 1 })
    expect(before.why.join()).toContain('killed 1 time')
    expect(before.difference.prompt).toBeGreaterThanOrEqual(0)
    const more = load('more')
    await until(() => (more.ended.length >= 50 ? true : null), '50 answers')
    await more.stop()
    const after = await current()
    expect(after.requests).toBe(before.requests + more.ended.length)
    expect(after.difference).toEqual(before.difference)
    expect(after.kills).toBe(1)
  })

  it('loses nothing to SIGTERM under load, whatever was answered', async () => {
    const running = load('ended')
    await until(() => (running.ended.length >= 200 ? true : null), '200 answers')
    serve.signal('SIGTERM')
    expect(await serve.ended()).toBe(0)
    await running.stop()
    const rows = rowsIn(place)
    const refused = running.ended.filter(({ status }) => status !== 200)
    console.log(`SIGTERM: ${running.ended.length} ended, ${refused.length} of them refused`)
    expect(running.ended.filter(({ id }) => rows.get(id) !== 1)).toEqual([])
  })

  it('cuts what runs at a second SIGTERM, and keeps its tokens on the books', async () => {
    await start()
    await ready()
    const asked = { model: 'qwq-32b', max_tokens: 50_000, ignore_eos: true, stream: true }
    const answer = await fetch(`${base()}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'x-request-id': 'long-1' },
      body: JSON.stringify({ ...asked, messages: [{ role: 'user', content: 'A novel, please.' }] }),
    })
    const text = answer.text()
    serve.signal('SIGTERM')
    await serve.says(/draining for up to/)
    serve.signal('SIGTERM')
    expect(await serve.ended()).toBe(0)
    expect(await text).toContain('server_draining')
    const file = new DatabaseSync(join(place.home, 'penstock.db'))
    const row = file.prepare("SELECT * FROM requests WHERE id = 'long-1'").get()
    file.close()
    expect(row).toMatchObject({ outcome: 'interrupted', prompt_tokens: expect.any(Number) })
    expect(row?.completion_tokens).toBeGreaterThan(0)
  })

  it('begins a new run with a new engine', async () => {
    await start()
    await ready()
    const before = await json(Reconciled, '--reconcile')
    expect((await verb(place, 'restart', 'qwq-32b')).code).toBe(0)
    const runs = await until(async () => {
      const answer = await json(Reconciled, '--reconcile')
      const [newest] = answer.runs
      return answer.runs.length > before.runs.length && newest?.current === true
        ? answer.runs
        : null
    }, 'a second run')
    expect(runs[0]).toMatchObject({ requests: 0, difference: { prompt: 0, completion: 0 } })
    expect(runs[1]).toMatchObject({ current: false, requests: before.runs[0]?.requests })
  })
})
