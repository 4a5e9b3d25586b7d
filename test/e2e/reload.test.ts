/** Hot reload with real processes: limits and keys change on four threads, streams go on. */
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  freePort,
  newPlace,
  type Place,
  penstock,
  type Running,
  until,
} from '../support/penstock.ts'

const inventoryOf = (http: number): string => `nodes:
  a:
    address: 127.0.0.1
    gpus: { profile: h20-96g, count: 1 }
    ports: { http: ${http} }
`
const QWQ = `kind: Deployment
name: qwq-32b
weights: { huggingface: Qwen/QwQ-32B, modelscope: Qwen/QwQ-32B, from: huggingface }
engine: vllm
context: 32768
`
const gatewayOf = (requests: number): string => `kind: Gateway
routes:
  - model: qwq-32b
    to: qwq-32b
    limits: [{ per: consumer, requestsPerDay: ${requests} }]
`
/** Connections one after another, each to whichever thread takes it. */
const ALL_THREADS = 24

const seconds = (sinceMs: number): string =>
  `${((performance.now() - sinceMs) / 1000).toFixed(2)} s`

describe('a running Penstock with four gateway threads', { timeout: 240_000 }, () => {
  let place: Place
  let up: Running
  let key: string
  let file: string

  beforeAll(async () => {
    const first = await newPlace()
    const directory = join(first.home, 'manifests')
    mkdirSync(directory)
    file = join(directory, 'gateway.yaml')
    writeFileSync(join(first.home, 'inventory.yaml'), inventoryOf(await freePort()))
    writeFileSync(join(directory, 'qwq-32b.yaml'), QWQ)
    writeFileSync(file, gatewayOf(100_001))
    const environment = {
      ...first.environment,
      PENSTOCK_INVENTORY: join(first.home, 'inventory.yaml'),
      PENSTOCK_MANIFESTS: directory,
      PENSTOCK_THREADS: '4',
      PENSTOCK_REHEARSAL_SPEED: '20',
    }
    place = { ...first, environment }
    up = penstock(place, ['up', '--rehearse'])
    key = (await up.says(/consumer key\S*\s+(sk-ps-\w+)/, 180_000))[1] ?? ''
  }, 240_000)

  afterAll(async () => {
    up.signal('SIGTERM')
    await up.ended(120_000)
    place.remove()
  })

  const ask = (more: object, bearer: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${place.gatewayPort}/v1/chat/completions`, {
      method: 'POST',
      // One connection a request, so that every thread gets some.
      headers: { authorization: `Bearer ${bearer}`, connection: 'close' },
      body: JSON.stringify({
        model: 'qwq-32b',
        messages: [{ role: 'user', content: 'Hello' }],
        max_tokens: 1,
        ...more,
      }),
    })

  const admin = async (method: string, path: string, body?: object): Promise<unknown> => {
    const bearer = readFileSync(join(place.home, 'admin.key'), 'utf8').trim()
    const response = await fetch(`http://127.0.0.1:${place.consolePort}/admin/v1/${path}`, {
      method,
      headers: {
        authorization: `Bearer ${bearer}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`)
    return response.json()
  }

  /** The limit that the next thread knows; the body is not of interest. */
  const limitNow = async (): Promise<number> => {
    const response = await ask({}, key)
    await response.text()
    return Number(response.headers.get('x-ratelimit-limit-requests'))
  }

  /** A long answer in the background; resolves with all of its text. */
  const longStream = (bearer: string): Promise<string> =>
    ask({ stream: true, max_tokens: 3_000, ignore_eos: true }, bearer).then((answer) =>
      answer.text(),
    )

  /** Until as many answers in a row as it takes to have met every thread show the new limit. */
  const everywhere = async (limit: number): Promise<void> => {
    let row = 0
    await until(
      async () => {
        row = (await limitNow()) === limit ? row + 1 : 0
        while (row > 0 && row < ALL_THREADS) row = (await limitNow()) === limit ? row + 1 : 0
        return row >= ALL_THREADS ? true : null
      },
      `the limit ${limit} on every thread`,
      30_000,
    )
  }

  const metric = async (name: string): Promise<number> => {
    const response = await fetch(`http://127.0.0.1:${place.consolePort}/metrics`, {
      headers: {
        authorization: `Bearer ${readFileSync(join(place.home, 'admin.key'), 'utf8').trim()}`,
      },
    })
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await response.text())?.[1])
  }

  test('a limit changes under a running stream, which ends whole', async () => {
    await everywhere(100_001)
    let over = false
    const stream = longStream(key).finally(() => {
      over = true
    })
    writeFileSync(file, gatewayOf(100_002))
    const sinceMs = performance.now()
    await until(async () => ((await limitNow()) === 100_002 ? true : null), 'the new limit')
    console.log(`a changed limit answers after ${seconds(sinceMs)}`)
    expect(over).toBe(false)
    await everywhere(100_002)
    console.log(`and on ${ALL_THREADS} connections in a row after ${seconds(sinceMs)}`)
    const text = await stream
    expect(text).toMatch(/data: \[DONE\]\n\n$/)
    expect(text).not.toContain('"error"')
  })

  test('a broken file keeps the old one, everywhere says so, and a rename heals it', async () => {
    writeFileSync(file, gatewayOf(100_003).replace('limits', 'limitz'))
    await until(
      async () =>
        JSON.stringify(await admin('GET', 'fleet')).includes('"broken":true') ? true : null,
      'the problem in the fleet',
    )
    const fleet = JSON.stringify(await admin('GET', 'fleet'))
    expect(fleet).toMatch(/gateway\.yaml:5:5: routes\[0\]\.limitz/)
    expect(await metric('penstock_config_last_reload_successful')).toBe(0)
    expect(await metric('penstock_config_reload_failures_total')).toBe(1)
    const logs = readdirSync(join(place.home, 'logs')).map((name) => join(place.home, 'logs', name))
    expect(logs.some((log) => readFileSync(log, 'utf8').includes('routes[0].limitz'))).toBe(true)
    expect(await limitNow()).toBe(100_002)

    writeFileSync(`${file}~`, gatewayOf(100_004))
    renameSync(`${file}~`, file)
    const sinceMs = performance.now()
    await until(async () => ((await limitNow()) === 100_004 ? true : null), 'the new limit')
    console.log(`a replaced file answers after ${seconds(sinceMs)}`)
    expect(await metric('penstock_config_last_reload_successful')).toBe(1)
  })

  test('a key that is revoked under load opens no thread any more, and cuts no stream', async () => {
    const made = JSON.stringify(
      await admin('POST', 'keys', { role: 'consumer', consumer: 'bob', models: null }),
    )
    const bearer = /"key":"([^"]+)"/.exec(made)?.[1] ?? ''
    const id = /"id":"([^"]+)"/.exec(made)?.[1] ?? ''
    const madeMs = performance.now()
    for (let row = 0; row < ALL_THREADS; row += 1) {
      const { status } = await ask({}, bearer)
      if (status !== 200) row = -1
    }
    console.log(`a new key opens ${ALL_THREADS} connections in a row after ${seconds(madeMs)}`)
    let over = false
    const stream = longStream(bearer).finally(() => {
      over = true
    })
    let [revokedMs, lastOpenMs, stopped, refused] = [0, 0, false, 0]
    const load = async (): Promise<void> => {
      while (!stopped) {
        const askedMs = performance.now()
        const response = await ask({}, bearer)
        await response.text()
        if (response.status === 200) lastOpenMs = Math.max(lastOpenMs, askedMs)
        else refused += 1
      }
    }
    const loads = Array.from({ length: 6 }, load)
    await until(() => (lastOpenMs > 0 ? true : null), 'the load')
    revokedMs = performance.now()
    await admin('DELETE', `keys/${id}`)
    await until(() => (refused >= 3 * ALL_THREADS ? true : null), 'refusals')
    stopped = true
    await Promise.all(loads)
    console.log(
      `last request let in began ${Math.round(lastOpenMs - revokedMs)} ms after the revocation was asked for`,
    )
    expect(over).toBe(false)
    for (let row = 0; row < ALL_THREADS; row += 1) {
      expect((await ask({}, bearer)).status).toBe(401)
    }
    expect(await stream).toMatch(/data: \[DONE\]\n\n$/)
  })
})
