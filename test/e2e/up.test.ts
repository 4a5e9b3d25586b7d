import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI from 'openai'
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

const MODELS = ['deepseek-r1', 'qwq-32b']

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Process ids of the rehearsed ranks of a home, by rank name. */
const rankPids = (place: Place): Record<string, number> =>
  Object.fromEntries(
    readdirSync(join(place.home, 'run'))
      .filter((name) => name.endsWith('.json'))
      .map((name) => {
        const text = readFileSync(join(place.home, 'run', name), 'utf8')
        return [name, Number(/"pid":\s*(\d+)/.exec(text)?.[1])]
      }),
  )

describe('penstock up, without a GPU', { timeout: 240_000 }, () => {
  let place: Place
  let up: Running
  let key: string

  beforeAll(async () => {
    place = await newPlace()
    up = penstock(place, ['up'])
    const match = await up.says(/consumer key\S*\s+(sk-ps-\w+)/, 180_000)
    key = match[1] ?? ''
  }, 240_000)

  afterAll(async () => {
    up.signal('SIGKILL')
    for (const pid of Object.values(rankPids(place))) if (alive(pid)) process.kill(-pid, 'SIGKILL')
    place.remove()
  })

  const client = (): OpenAI =>
    new OpenAI({ apiKey: key, baseURL: `http://127.0.0.1:${place.gatewayPort}/v1`, maxRetries: 0 })

  it('prints endpoint, consumer key, console, and that it is a rehearsal', () => {
    expect(up.output()).toContain(`http://127.0.0.1:${place.gatewayPort}/v1`)
    expect(up.output()).toContain(`http://127.0.0.1:${place.consolePort}/`)
    expect(up.output()).toMatch(/rehearsal/i)
  })

  it.each(MODELS)('%s answers with text and usage, streamed and not', async (model) => {
    const messages = [{ role: 'user' as const, content: 'What is a penstock?' }]
    const whole = await client().chat.completions.create({ model, messages, max_tokens: 60 })
    expect(whole.usage?.completion_tokens).toBeGreaterThan(0)
    const said = JSON.stringify(whole.choices[0]?.message)
    expect(said.length).toBeGreaterThan(40)
    const stream = await client().chat.completions.create({
      model,
      messages,
      max_tokens: 60,
      stream: true,
      stream_options: { include_usage: true },
    })
    let [chunks, tokens] = [0, 0]
    for await (const chunk of stream) {
      chunks += 1
      tokens = chunk.usage?.completion_tokens ?? tokens
    }
    expect(chunks).toBeGreaterThan(2)
    expect(tokens).toBeGreaterThan(0)
  })

  it('shows both models as ready, ranks and all', async () => {
    const { code, output } = await verb(place, 'status')
    expect(code).toBe(0)
    expect(output).toMatch(/deepseek-r1\/0\s+ready/)
    expect(output).toMatch(/qwq-32b\/0\s+ready/)
    expect(output).toMatch(/rank 1\s+running/)
  })

  it('has nothing to do when the same is applied again', async () => {
    expect((await verb(place, 'plan')).code).toBe(0)
    const again = await verb(place, 'apply')
    expect(again.code).toBe(0)
  })

  it('takes a rehearsed load with temporary keys, in simulated time', async () => {
    const words = '--requests 12 --rate 1 --consumers 3 --lengths fixed:60/10'
    const { code, output } = await verb(place, 'rehearse', 'load', ...words.split(' '))
    expect(output).toMatch(/^all +12 +12 /m)
    expect(output).toContain('200 times faster than real')
    expect(code).toBe(0)
    const keys = (await verb(place, 'keys', 'list')).output.split('\n')
    const temporary = keys.filter((line) => line.includes('rehearsal-'))
    expect(temporary).toHaveLength(3)
    expect(temporary.filter((line) => !line.includes('revoked'))).toEqual([])
  })

  it('says in one line that this home, or this port, is taken', async () => {
    const sameHome = await verb(place, 'up')
    expect(sameHome.code).toBe(1)
    expect(sameHome.output.trim().split('\n')).toHaveLength(1)
    expect(sameHome.output).toContain(String(up.pid))
    const other = await newPlace({ PENSTOCK_GATEWAY_PORT: String(place.gatewayPort) })
    const samePort = await verb(other, 'up')
    other.remove()
    expect(samePort.code).toBe(1)
    expect(samePort.output.trim().split('\n')).toHaveLength(1)
    expect(samePort.output).toContain(String(place.gatewayPort))
  })

  it('adopts what runs after kill -9, restarting nothing', async () => {
    const before = rankPids(place)
    expect(Object.keys(before)).toHaveLength(3)
    up.signal('SIGKILL')
    await up.ended()
    up = penstock(place, ['up'])
    await up.says(/Ctrl-C stops everything/)
    expect(rankPids(place)).toEqual(before)
    await client().chat.completions.create({
      model: 'qwq-32b',
      messages: [{ role: 'user', content: 'Still there?' }],
      max_tokens: 5,
    })
  })

  it('stops everything on Ctrl-C, and starts clean again', async () => {
    const pids = Object.values(rankPids(place))
    up.signal('SIGINT')
    expect(await up.ended()).toBe(0)
    expect(up.output()).toContain('nothing is left running')
    expect(pids.filter(alive)).toEqual([])
    up = penstock(place, ['up'])
    await up.says(/Ctrl-C stops everything/)
    expect(Object.values(rankPids(place)).filter(alive)).toHaveLength(3)
    up.signal('SIGINT')
    expect(await up.ended()).toBe(0)
    expect(Object.values(rankPids(place)).filter(alive)).toEqual([])
  })

  it('stops everything on Ctrl-C in a real terminal', async () => {
    const program = `exec ${process.execPath} src/main.ts up`
    const terminal = spawn('script', ['-qec', program, '/dev/null'], {
      env: { PATH: process.env.PATH ?? '', TERM: 'xterm', ...place.environment },
    })
    let screen = ''
    terminal.stdout.on('data', (chunk: Buffer) => {
      screen += chunk.toString()
    })
    const ended = new Promise<number | null>((resolve) => terminal.once('close', resolve))
    await until(() => (screen.includes('Ctrl-C stops everything') ? true : null), 'the welcome')
    const pids = Object.values(rankPids(place))
    expect(pids.filter(alive)).toHaveLength(3)
    terminal.stdin.write('\x03')
    expect(await ended).toBe(0)
    expect(screen).toContain('nothing is left running')
    expect(pids.filter(alive)).toEqual([])
  })

  it('is not confused by a free port that nobody listens on', async () => {
    const nowhere = await newPlace({ PENSTOCK_CONSOLE_PORT: String(await freePort()) })
    const { code, output } = await verb(nowhere, 'status')
    nowhere.remove()
    expect(code).toBe(1)
    expect(output).toContain('no admin key')
  })
})
