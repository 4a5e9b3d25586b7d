/**
 * One real Penstock behind another: the outer one has no deployment, only a backend. Its key stands
 * in a file, is changed while it runs, and is shown by nothing.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  freePort,
  newPlace,
  type Place,
  penstock,
  type Running,
  until,
  verb,
} from '../support/penstock.ts'

const DEPLOYMENT = `kind: Deployment
name: qwq-32b
weights: { huggingface: Qwen/QwQ-32B }
engine: vllm
context: 65536
`
/** Rehearsed nodes share this machine's loopback. */
const inventoryOf = (http: number, rendezvous: number): string => `nodes:
  h20-1:
    address: 10.0.0.11
    gpus: { profile: h20-96g, count: 1 }
    ports: { http: ${http}, rendezvous: ${rendezvous} }
`

type One = { readonly place: Place; readonly serve: Running; readonly key: string }

type Spawned = Omit<One, 'key'>

/** `spawned` has it before anything can fail. */
const started = async (spawned: Spawned[]): Promise<One> => {
  const place = await newPlace()
  const serve = penstock(place, ['serve', '--rehearse'])
  spawned.push({ place, serve })
  const [, key = ''] = await serve.says(/consumer key \(shown once\): (sk-ps-\w+)/)
  return { place, serve, key }
}

const apply = async ({ place }: One, manifests: Readonly<Record<string, string>>) => {
  const folder = join(place.home, 'manifests')
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(manifests)) writeFileSync(join(folder, name), text)
  const inventory = join(place.home, 'inventory.yaml')
  writeFileSync(inventory, inventoryOf(await freePort(), await freePort()))
  const words = ['apply', '--inventory', inventory, '--manifests', folder]
  const { code, output } = await verb(place, ...words)
  expect(code, output).toBe(0)
}

const ended = async ({ place, serve }: Spawned): Promise<void> => {
  serve.signal('SIGKILL')
  await serve.ended()
  const runs = join(place.home, 'run')
  for (const name of existsSync(runs) ? readdirSync(runs, { recursive: true }) : []) {
    if (!String(name).endsWith('.json')) continue
    const text = readFileSync(join(place.home, 'run', String(name)), 'utf8')
    const pid = Number(/"pid":\s*(\d+)/.exec(text)?.[1])
    try {
      if (pid > 1) process.kill(-pid, 'SIGKILL')
    } catch {
      // It has ended already.
    }
  }
  place.remove()
}

describe('one Penstock behind another', { timeout: 240_000 }, () => {
  const spawned: Spawned[] = []
  let inner: One
  let outer: One
  const keyFile = (): string => join(outer.place.home, 'manifests', 'inner.key')

  beforeAll(async () => {
    inner = await started(spawned)
    outer = await started(spawned)
    await apply(inner, { 'qwq-32b.yaml': DEPLOYMENT })
    const gateway = `kind: Gateway
backends:
  inner:
    url: http://127.0.0.1:${inner.place.gatewayPort}/v1
    key: { file: inner.key }
    models: { big: qwq-32b }
routes:
  - { model: "*", to: inner, aliases: [big] }
`
    await apply(outer, { 'gateway.yaml': gateway })
    await until(async () => {
      const { output } = await verb(inner.place, 'status')
      return /qwq-32b\/0 +ready/.test(output) ? true : null
    }, 'qwq-32b ready')
  }, 240_000)

  afterAll(async () => {
    for (const one of spawned.splice(0).reverse()) await ended(one)
  })

  const ask = (model: string, stream = false): Promise<Response> =>
    fetch(`http://127.0.0.1:${outer.place.gatewayPort}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${outer.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        model,
        max_tokens: 8,
        stream,
        messages: [{ role: 'user', content: 'hello' }],
      }),
    })
  const status = async (): Promise<number> => {
    const response = await ask('big')
    await response.text()
    return response.status
  }

  it('has no backend without its key, and has it as soon as the file is there', async () => {
    const response = await ask('big')
    expect(response.status).toBe(503)
    expect(await response.text()).toContain('its file cannot be read (ENOENT)')
    writeFileSync(keyFile(), 'sk-ps-of-nobody\n')
    await until(async () => ((await status()) === 502 ? true : null), 'the wrong key')
    const refused = await (await ask('big')).text()
    expect(refused).toContain("backend inner refused the gateway's own key (401)")
    writeFileSync(keyFile(), `${inner.key}\n`)
    await until(async () => ((await status()) === 200 ? true : null), 'the right key')
  })

  it('answers through both, whole and streamed; the inner one’s refusals come through', async () => {
    const whole = await ask('big')
    expect(whole.headers.get('x-penstock-replica')).toBe('backend/inner')
    expect(whole.headers.get('x-penstock-model')).toBe('qwq-32b')
    expect(await whole.json()).toMatchObject({ usage: { completion_tokens: 8 } })
    const streamed = await (await ask('big', true)).text()
    expect(streamed).toContain('data: [DONE]')
    const unknown = await ask('nobody')
    expect(unknown.status).toBe(404)
    expect(await unknown.text()).toContain('this key may use qwq-32b')
  })

  it('shows its key nowhere', async () => {
    const texts = [outer.serve.output()]
    for (const words of [['status'], ['status', '--json'], ['plan'], ['plan', '--json']]) {
      texts.push((await verb(outer.place, ...words)).output)
    }
    const admin = readFileSync(join(outer.place.home, 'admin.key'), 'utf8').trim()
    const fleet = await fetch(`http://127.0.0.1:${outer.place.consolePort}/admin/v1/fleet`, {
      headers: { authorization: `Bearer ${admin}` },
    })
    expect(fleet.status).toBe(200)
    texts.push(await fleet.text())
    for (const text of texts) expect(text).not.toContain(inner.key)
  })
})
