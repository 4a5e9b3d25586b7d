/** `penstock rehearse fault` on a fleet of two rehearsed nodes that really runs. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
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

/** On a port of its own: the default is where a rehearsal of somebody else may run. */
const inventory = (http: number): string => `nodes:
  one:
    address: 10.0.0.1
    driver: process
    gpus: { profile: h20-96g, count: 1 }
    ports: { http: ${http} }
  two:
    address: 10.0.0.2
    driver: process
    gpus: { profile: h20-96g, count: 1 }
    ports: { http: ${http} }
`

const MANIFEST = `kind: Deployment
name: qwq-32b
weights: { huggingface: Qwen/QwQ-32B }
engine: vllm
context: 32768
replicas: 2
`

describe('faults of a running fleet', { timeout: 240_000 }, () => {
  let place: Place
  let up: Running
  let key: string
  // The ranks' sockets: a path of its own, and one too long for the address of a socket.
  const temporary = mkdtempSync(join(tmpdir(), `penstock-faults-${'x'.repeat(90)}-`))

  beforeAll(async () => {
    const files = join(temporary, 'files')
    mkdirSync(join(files, 'manifests'), { recursive: true })
    writeFileSync(join(files, 'inventory.yaml'), inventory(await freePort()))
    writeFileSync(join(files, 'manifests', 'qwq.yaml'), MANIFEST)
    place = await newPlace({
      TMPDIR: temporary,
      PENSTOCK_INVENTORY: join(files, 'inventory.yaml'),
      PENSTOCK_MANIFESTS: join(files, 'manifests'),
    })
    up = penstock(place, ['up', '--rehearse'])
    key = (await up.says(/consumer key\S*\s+(sk-ps-\w+)/, 180_000))[1] ?? ''
    await until(async () => ((await fault('list')).code === 0 ? true : null), 'both ranks')
  }, 240_000)

  afterAll(async () => {
    up.signal('SIGTERM')
    await up.ended()
    place.remove()
    rmSync(temporary, { recursive: true, force: true })
  })

  const fault = (...words: string[]) => verb(place, 'rehearse', 'fault', ...words)

  const ask = async (stream = false) => {
    const response = await fetch(`http://127.0.0.1:${place.gatewayPort}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        model: 'qwq-32b',
        messages: [{ role: 'user', content: 'Hello' }],
        max_tokens: 30,
        stream,
      }),
    })
    return { status: response.status, text: await response.text() }
  }

  it('adds to all ranks, lists, and clears', async () => {
    expect((await ask()).status).toBe(200)
    const added = await fault('garble', '--for', '10h')
    expect(added).toMatchObject({ code: 0 })
    expect(added.output).toMatch(/qwq-32b\/0 rank 0 on node \w+: garble now, for 10h/)
    expect(added.output).toMatch(/qwq-32b\/1 rank 0 on node \w+: garble now, for 10h/)
    const listed = await fault('list')
    expect(listed.output).toMatch(/qwq-32b\/1 +0 +\w+ +\d+ +garble +on +9h\S+ more/)
    const rubbish = await ask()
    expect(rubbish.status).toBe(200)
    expect(rubbish.text).toMatch(/NaN|\{\{|!/)
    const cleared = await fault('clear', 'garble')
    expect(cleared.output.match(/1 cleared/g)).toHaveLength(2)
    expect((await fault('list')).output).toMatch(/no fault is on or to come/)
  })

  it('narrows to a replica or a node, and says so when nothing is there', async () => {
    const added = await fault('error-500', '--deployment', 'qwq-32b', '--replica', '1', '--json')
    const { ranks } = JSON.parse(added.output)
    expect(ranks).toHaveLength(1)
    expect(ranks[0]).toMatchObject({ replica: 'qwq-32b/1', problem: null, count: 1, speed: 200 })
    await fault('clear')
    const nobody = await fault('hang', '--node', 'three')
    expect(nobody.code).toBe(2)
    expect(nobody.output).toMatch(/no rank runs for node three; what runs: qwq-32b\/0 rank 0/)
    expect((await fault('hagn')).output).toMatch(/did you mean hang\?/)
  })

  it('plays a timeline at its simulated times', async () => {
    const file = join(temporary, 'day.yaml')
    // At speed 200: 5 and 40 simulated minutes are 1.5 and 12 s: sent in two messages.
    writeFileSync(
      file,
      '- { at: 5m, kind: error-429, for: 20h }\n' +
        '- { at: 40m, kind: garble, replica: 0, deployment: qwq-32b }\n',
    )
    const played = await fault('--timeline', file)
    expect(played).toMatchObject({ code: 0 })
    expect(played.output).toMatch(/2 faults; simulated time runs 200 times as fast/)
    const listed = await fault('list', '--json')
    const { ranks } = JSON.parse(listed.output)
    const startsOf = (replica: string, kind: string): number[] =>
      ranks
        .filter((rank: { replica: string }) => rank.replica === replica)
        .flatMap(({ faults }: { faults: { fault: { kind: string; startMs: number } }[] }) => faults)
        .filter((one: { fault: { kind: string } }) => one.fault.kind === kind)
        .map((one: { fault: { startMs: number } }) => one.fault.startMs)
    const [first = 0] = startsOf('qwq-32b/0', 'error-429')
    const [later = 0] = startsOf('qwq-32b/0', 'garble')
    // Exactly 35 simulated minutes apart, whenever each was sent (listing rounds to 1 ms).
    expect(Math.abs(later - first - 35 * 60_000)).toBeLessThanOrEqual(2)
    expect(startsOf('qwq-32b/1', 'error-429')).toHaveLength(1)
    expect(startsOf('qwq-32b/1', 'garble')).toHaveLength(0)
    await fault('clear')
    expect((await ask()).status).toBe(200)
  })
})
