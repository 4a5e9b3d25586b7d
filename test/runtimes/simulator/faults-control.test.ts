/** The control socket of a running rank: its answers, its file, and 2,000 broken messages. */
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { Random } from '../../../runtimes/simulator/text/random.ts'
import {
  BIN,
  cleanUp,
  freePort,
  isReady,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

const directories: string[] = []

afterAll(async () => {
  await stopAll()
  cleanUp()
  for (const directory of directories) rmSync(directory, { recursive: true, force: true })
})

const run = promisify(execFile)

const started = async (temporary: string) => {
  const port = await freePort()
  const argv =
    'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 8192 ' +
    `--host 127.0.0.1 --port ${port}`
  const one = new Simulated('vllm', argv.split(' '), rehearsal(), { TMPDIR: temporary })
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => one.output)
  return { one, url, path: join(temporary, 'penstock-rehearsal', 'h20-1', 'control-0.sock') }
}

const scratch = (name = 'control-'): string => {
  const directory = mkdtempSync(join(tmpdir(), name))
  directories.push(directory)
  return directory
}

/** As Driver.exec runs it: the rank's environment, no more. */
const say = async (temporary: string, ...messages: (string | object)[]) => {
  const words = messages.map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))
  const { stdout } = await run(join(BIN, 'simulator-control'), words, {
    env: {
      PATH: process.env.PATH ?? '',
      PENSTOCK_NODE: process.execPath,
      TMPDIR: temporary,
      PENSTOCK_REHEARSAL: JSON.stringify(rehearsal()),
    },
  })
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

const ask = (url: string) =>
  post(url, '/v1/chat/completions', {
    model: 'qwq-32b',
    messages: [{ role: 'user', content: 'Hello' }],
    max_tokens: 5,
  })

describe('one rank', () => {
  test('faults come, are listed and go while it runs', async () => {
    const temporary = scratch()
    const { one, url, path } = await started(temporary)
    expect((await ask(url)).status).toBe(200)
    const add = { do: 'add', fault: { kind: 'error-500' } }
    const [status, added] = await say(temporary, 'status', add)
    expect(status).toMatchObject({ ok: true, engine: 'vllm', node: 'h20-1', rank: 0, gpus: [0] })
    expect(added).toMatchObject({ ok: true, ids: [1] })
    expect((await ask(url)).status).toBe(500)
    const later = { do: 'add', fault: { kind: 'error-429', startMs: 3_600_000 } }
    const elsewhere = { do: 'add', fault: { kind: 'cut', rank: 7 } }
    const [soon, other, list] = await say(temporary, later, elsewhere, 'list')
    expect(soon.ids).toEqual([2])
    expect(other.ids).toEqual([])
    expect(list.faults.map(({ id, on }: { id: number; on: boolean }) => [id, on])).toEqual([
      [1, true],
      [2, false],
    ])
    const startMs = list.faults[1].fault.startMs - list.nowMs
    expect(startMs).toBeGreaterThan(0)
    expect(startMs).toBeLessThanOrEqual(3_600_000)
    const [cleared] = await say(temporary, { do: 'clear', kind: 'error-500' })
    expect(cleared).toEqual({ ok: true, cleared: 1 })
    expect((await ask(url)).status).toBe(200)
    one.kill('SIGTERM')
    await one.ended()
    expect(existsSync(path)).toBe(false)
  })

  test('starts count from the moment of sending, also in a batch', async () => {
    const temporary = scratch()
    const { one } = await started(temporary)
    const sentAtMs = Date.now() - 5000
    const faults = [0, 1000, 600_000].map((startMs) => ({ kind: 'cut', startMs, durationMs: 10 }))
    const [added] = await say(temporary, { do: 'add', faults, sentAtMs })
    // At speed 100 those five seconds are 500 simulated ones: two of the three are over.
    const [list] = await say(temporary, 'list')
    expect(added.ids).toHaveLength(3)
    expect(list.faults).toHaveLength(1)
    expect(list.faults[0].fault.startMs - added.nowMs).toBeLessThan(600_000 - 500_000 + 1)
    one.kill()
  })

  test('a path too long for a socket, and a file left by a killed one', async () => {
    const temporary = scratch(`${'deep-'.repeat(20)}-`)
    const first = await started(temporary)
    first.one.kill()
    await first.one.ended()
    expect(statSync(first.path).isSocket()).toBe(true)
    await expect(say(temporary, 'status')).rejects.toThrow(/does the rank run/)
    const second = await started(temporary)
    const [status] = await say(temporary, 'status')
    expect(status.pid).toBe(second.one.child.pid)
    second.one.kill()
  })

  test('2,000 mutated messages: each is answered, and it still serves', async () => {
    const temporary = scratch()
    const { one, url, path } = await started(temporary)
    const random = new Random(20_261_124)
    let refused = 0
    for (let index = 0; index < 2000; index += 1) {
      const text = mutated(random)
      const said = await converse(path, text)
      for (const line of said.split('\n').filter((each) => each !== '')) {
        const answer = JSON.parse(line)
        expect(typeof answer.ok).toBe('boolean')
        if (answer.ok) continue
        refused += 1
        expect(answer.message.length).toBeGreaterThan(5)
      }
    }
    expect(refused).toBeGreaterThan(1000)
    expect(one.exit).toBe(null)
    const flood = await converse(path, Buffer.alloc(600_000, 0x7b))
    expect(JSON.parse(flood)).toMatchObject({ ok: false })
    await say(temporary, 'clear')
    const [list] = await say(temporary, 'list')
    expect(list.faults).toEqual([])
    expect((await ask(url)).status).toBe(200)
  }, 120_000)
})

const SEEDS = [
  '{"do":"add","fault":{"kind":"garble","startMs":10,"durationMs":5,"share":0.5}}',
  '{"do":"add","faults":[{"kind":"cut","afterTokens":3},{"kind":"error-429","rank":0}]}',
  '{"do":"clear","kind":"garble","id":3}',
  '{"do":"list"}',
  '{"do":"status"}',
]
const SPICE = [
  '{',
  '}',
  '"',
  '[',
  '\u0000',
  '1e999',
  'null',
  '-1',
  '\n',
  'ü',
  '__proto__',
  ',',
  ':',
]

const mutated = (random: Random): Buffer => {
  let bytes = Buffer.from(SEEDS[random.below(SEEDS.length)] ?? '')
  for (let change = 0; change <= random.below(6); change += 1) {
    const at = random.below(bytes.length + 1)
    const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at)]
    const kind = random.below(4)
    if (kind === 0) bytes = Buffer.concat([head, tail.subarray(1 + random.below(8))])
    else if (kind === 1) bytes = Buffer.concat([head, Buffer.from([random.below(256)]), tail])
    else if (kind === 2) {
      bytes = Buffer.concat([head, Buffer.from(SPICE[random.below(SPICE.length)] ?? ''), tail])
    } else bytes = Buffer.concat([head, tail.subarray(0, tail.length >> 1), tail])
  }
  return Buffer.concat([bytes, Buffer.from('\n')])
}

const converse = (path: string, bytes: Buffer): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(path)
    let said = ''
    socket.setEncoding('utf8')
    socket.on('data', (text) => {
      said += text
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET') reject(error)
    })
    socket.once('close', () => resolve(said))
    socket.end(bytes)
  })
