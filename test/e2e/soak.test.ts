import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KEEP_ALIVE } from '../../src/core/protocol.ts'
import { KEY } from '../support/gateway.ts'

const STREAMS = 500
const SECONDS = 60
/** Memory may still settle until here; from then on it has to be flat. */
const SETTLED_SECONDS = 20

/** Between events only: one inside an event is a fault, and stays to be seen. */
const KEEP_ALIVES = new RegExp(`(?:^|(?<=\\n\\n))(?:${KEEP_ALIVE})+`, 'g')

type Part = { readonly pid: number; readonly port: number; stop(): void }

const startPart = (file: string, words: readonly string[]): Promise<Part> =>
  new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL(`../support/${file}`, import.meta.url)), words)
    child.once('error', reject)
    child.once('message', (port) =>
      resolve({ pid: child.pid ?? 0, port: Number(port), stop: () => child.kill('SIGKILL') }),
    )
  })

type Answer = { readonly hash: string; readonly bytes: number; readonly status: number }

/** One stream, read to its end. The seed decides every byte that the engine sends. */
const stream = (port: number, seed: number, paced: boolean): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const body = JSON.stringify({ model: 'qwq-32b', stream: true, seed, paced, messages: [] })
    const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
    const ask = { host: '127.0.0.1', port, path: '/v1/chat/completions', method: 'POST', headers }
    const sent = request({ ...ask, agent: false }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.once('end', () => {
        // A machine that stalls for seconds makes the gateway say that it is still there.
        const text = Buffer.concat(chunks).toString('latin1').replaceAll(KEEP_ALIVES, '')
        const hash = createHash('sha256').update(text, 'latin1').digest('hex')
        resolve({ hash, bytes: text.length, status: answer.statusCode ?? 0 })
      })
      answer.once('error', reject)
    })
    sent.once('error', reject)
    sent.end(body)
  })

const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024

describe(`${STREAMS} streams at once for ${SECONDS} s`, { timeout: 240_000 }, () => {
  let engine: Part
  let gateway: Part

  beforeAll(async () => {
    engine = await startPart('soak-engine.ts', [])
    gateway = await startPart('soak-gateway.ts', [`http://127.0.0.1:${engine.port}`])
  })

  afterAll(() => {
    gateway?.stop()
    engine?.stop()
  })

  it('no error, every byte in order, memory flat once it has settled', async () => {
    const startedAtMs = Date.now()
    const seconds = (): number => (Date.now() - startedAtMs) / 1000
    const memory: { readonly at: number; readonly mib: number }[] = []
    const meter = setInterval(() => {
      memory.push({ at: seconds(), mib: residentMiB(gateway.pid) })
    }, 500)
    const answers = new Map<number, Answer>()
    const caller = async (first: number): Promise<void> => {
      for (let seed = first; seconds() < SECONDS; seed += STREAMS) {
        answers.set(seed, await stream(gateway.port, seed, true))
      }
    }
    await Promise.all(Array.from({ length: STREAMS }, (_, index) => caller(index)))
    clearInterval(meter)

    expect([...answers.values()].filter(({ status }) => status !== 200)).toEqual([])
    const seeds = [...answers.keys()]
    expect(seeds.length).toBeGreaterThanOrEqual(STREAMS)
    for (let at = 0; at < seeds.length; at += STREAMS) {
      const some = seeds.slice(at, at + STREAMS)
      const direct = await Promise.all(some.map((seed) => stream(engine.port, seed, false)))
      expect(some.map((seed) => answers.get(seed))).toEqual(direct)
    }
    const highest = (from: number, to: number): number =>
      Math.max(...memory.filter(({ at }) => at >= from && at < to).map(({ mib }) => mib))
    const half = (SETTLED_SECONDS + SECONDS) / 2
    const [before, after] = [highest(SETTLED_SECONDS, half), highest(half, SECONDS)]
    const total = [...answers.values()].reduce((sum, { bytes }) => sum + bytes, 0)
    process.stderr.write(
      `soak: ${seeds.length} streams, ${Math.round(total / 1e6)} MB, resident ` +
        `${Math.round(before)} MiB up to ${half} s, ${Math.round(after)} MiB after\n`,
    )
    expect(after).toBeLessThan(before * 1.1)
  })
})
