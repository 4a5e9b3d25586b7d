/**
 * What a request costs in the gateway: CPU microseconds of its process (both user and system, all
 * threads), beside a bare node:http + undici proxy that checks, counts and watches nothing, and
 * beside no proxy at all. Everything runs on this machine, rounds are interleaved, medians are
 * shown: absolute figures drift with the machine, so read the ratios.
 *
 *   node test/bench/gateway.ts [seconds per measurement] [rounds]
 */
import { type ChildProcess, fork } from 'node:child_process'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Pool } from 'undici'
import {
  KEY,
  policyOf,
  routeOf,
  snapshotOf,
  startTestGateway,
  targetOf,
} from '../support/gateway.ts'

const CHUNKS = 64
const PACE_MS = 20
const EVENT = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"qwq-32b",\
"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n`
const LAST = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":\
{"prompt_tokens":400,"completion_tokens":64,"total_tokens":464}}\n\ndata: [DONE]\n\n`
const ANSWER = JSON.stringify({
  id: 'chatcmpl-1',
  object: 'chat.completion',
  choices: [
    { index: 0, message: { role: 'assistant', content: 'x'.repeat(800) }, finish_reason: 'stop' },
  ],
  usage: { prompt_tokens: 400, completion_tokens: 200, total_tokens: 600 },
})
const PROMPT = 'Explain how a penstock feeds a turbine, in the words of an engineer. '.repeat(28)
const bodyOf = (more: object): string =>
  JSON.stringify({ model: 'qwq-32b', messages: [{ role: 'user', content: PROMPT }], ...more })

type Load = { readonly name: string; readonly connections: number; readonly body: string }
const LOADS: readonly Load[] = [
  { name: 'json', connections: 32, body: bodyOf({ stream: false }) },
  { name: 'sse', connections: 16, body: bodyOf({ stream: true }) },
  { name: 'paced', connections: 100, body: bodyOf({ stream: true, paced: true }) },
]

const listen = (server: ReturnType<typeof createServer>): void => {
  server.listen(0, '127.0.0.1', () => {
    const address: AddressInfo | string | null = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    process.send?.({ url: `http://127.0.0.1:${port}` })
  })
}

/** Answers as fast as it can, or at a pace. */
const engine = (): void => {
  const server = createServer((req, res) => {
    let size = 0
    let [stream, paced] = [false, false]
    req.on('data', (piece: Buffer) => {
      size += piece.length
      stream ||= piece.includes('"stream":true')
      paced ||= piece.includes('"paced":true')
    })
    req.on('end', () => {
      if (size === 0) res.statusCode = 400
      if (stream) streamTo(res, paced)
      else {
        res.writeHead(200, { 'content-type': 'application/json', 'content-length': ANSWER.length })
        res.end(ANSWER)
      }
    })
  })
  listen(server)
}

const streamTo = (res: ServerResponse, paced: boolean): void => {
  res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  let sent = 0
  const next = (): void => {
    if (sent === CHUNKS) {
      res.end(LAST)
      return
    }
    sent += 1
    res.write(EVENT)
    if (paced) setTimeout(next, PACE_MS)
    else setImmediate(next)
  }
  next()
}

/** The least that a proxy in Node can do with the same libraries. */
const bare = (upstream: string): void => {
  const pool = new Pool(upstream, { connections: null, headersTimeout: 0, bodyTimeout: 0 })
  const server = createServer((req, res) => {
    const pieces: Buffer[] = []
    req.on('data', (piece: Buffer) => pieces.push(piece))
    req.on('end', () => {
      const headers = ['content-type', 'application/json']
      const body = Buffer.concat(pieces)
      pool.dispatch(
        { path: req.url ?? '/', method: 'POST', headers, body },
        {
          onRequestStart() {},
          onResponseStart(_, status, { 'content-type': type, 'content-length': length }) {
            const headers: Record<string, string> = { 'content-type': String(type) }
            if (length !== undefined) headers['content-length'] = String(length)
            res.writeHead(status, headers)
          },
          onResponseData(_, piece) {
            res.write(piece)
          },
          onResponseEnd() {
            res.end()
          },
          onResponseError() {
            res.destroy()
          },
        },
      )
    })
  })
  listen(server)
}

/** What the gateway costs, not how it fills an engine: counted as ever, but nobody waits. */
const NO_CEILING = policyOf({ queue: { ceiling: 'none', depth: 1000, wait: 60_000 } })

const gateway = async (upstream: string): Promise<void> => {
  const route = routeOf([targetOf(upstream)], { policy: NO_CEILING })
  const { url } = await startTestGateway(snapshotOf([route]), 1)
  process.send?.({ url })
}

type Part = { readonly child: ChildProcess; readonly url: string }

const start = (role: string, upstream = ''): Promise<Part> =>
  new Promise((resolve) => {
    const child = fork(new URL(import.meta.url), [role, upstream])
    child.on('message', (message: { url?: string }) => {
      if (message.url !== undefined) resolve({ child, url: message.url })
    })
  })

/** CPU microseconds that the process has used so far. */
const cpuOf = ({ child }: Part): Promise<number> =>
  new Promise((resolve) => {
    const take = (message: { cpu?: number }): void => {
      if (message.cpu === undefined) return
      child.off('message', take)
      resolve(message.cpu)
    }
    child.on('message', take)
    child.send('cpu')
  })

type Run = { readonly requests: number; readonly p50Ms: number; readonly p99Ms: number }

/** Closed loop: each connection asks again as soon as it has its answer. */
const drive = async (url: string, load: Load, ms: number): Promise<Run> => {
  const pool = new Pool(url, { connections: load.connections, headersTimeout: 0, bodyTimeout: 0 })
  const headers = ['authorization', `Bearer ${KEY}`, 'content-type', 'application/json']
  const endAtMs = performance.now() + ms
  const times: number[] = []
  const body = Buffer.from(load.body)
  const once = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const beganAtMs = performance.now()
      pool.dispatch(
        { path: '/v1/chat/completions', method: 'POST', headers, body },
        {
          onRequestStart() {},
          onResponseStart(_, status) {
            if (status !== 200) reject(new Error(`status ${status}`))
          },
          onResponseData() {},
          onResponseEnd() {
            times.push(performance.now() - beganAtMs)
            resolve()
          },
          onResponseError: (_, error) => reject(error),
        },
      )
    })
  const loop = async (): Promise<void> => {
    while (performance.now() < endAtMs) await once()
  }
  await Promise.all(Array.from({ length: load.connections }, loop))
  await pool.close()
  times.sort((a, b) => a - b)
  const at = (ratio: number): number => times[Math.floor(times.length * ratio)] ?? 0
  return { requests: times.length, p50Ms: at(0.5), p99Ms: at(0.99) }
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

const compare = async (seconds: number, rounds: number): Promise<void> => {
  const upstream = await start('engine')
  const proxies = {
    direct: upstream,
    bare: await start('bare', upstream.url),
    penstock: await start('gateway', upstream.url),
  }
  console.log('load    through     req/s   p50 ms   p99 ms   CPU us/request   us/chunk   vs bare')
  for (const load of LOADS) {
    const cost = new Map<string, number[]>()
    const runs = new Map<string, Run>()
    for (let round = 0; round <= rounds; round += 1) {
      for (const [name, part] of Object.entries(proxies)) {
        const before = await cpuOf(part)
        const run = await drive(part.url, load, seconds * 1000)
        const perRequest = ((await cpuOf(part)) - before) / run.requests
        // The first round warms up.
        if (round > 0) cost.set(name, [...(cost.get(name) ?? []), perRequest])
        runs.set(name, run)
      }
    }
    const base = median(cost.get('bare') ?? [])
    for (const [name, run] of runs) {
      const perRequest = median(cost.get(name) ?? [])
      const chunks = load.name === 'json' ? '' : (perRequest / (CHUNKS + 1)).toFixed(1)
      const direct = name === 'direct'
      const cells = [
        Math.round(run.requests / seconds)
          .toString()
          .padStart(7),
        run.p50Ms.toFixed(2).padStart(8),
        run.p99Ms.toFixed(2).padStart(8),
        (direct ? '' : perRequest.toFixed(0)).padStart(16),
        (direct ? '' : chunks).padStart(10),
        (direct ? '' : (perRequest / base).toFixed(2)).padStart(9),
      ]
      console.log(`${load.name.padEnd(8)}${name.padEnd(10)}${cells.join(' ')}`)
    }
  }
  for (const { child } of Object.values(proxies)) child.kill()
}

const [role = '', upstream = ''] = process.argv.slice(2)
if (process.send !== undefined) {
  process.on('message', () => {
    const { user, system } = process.cpuUsage()
    process.send?.({ cpu: user + system })
  })
  process.on('disconnect', () => process.exit(0))
  if (role === 'engine') engine()
  else if (role === 'bare') bare(upstream)
  else await gateway(upstream)
} else {
  await compare(Number(role || 3), Number(upstream || 3))
}
