/** A running gateway for tests: real worker threads, a snapshot made by hand, reports collected. */
import { hash } from 'node:crypto'
import type {
  FinishedRequest,
  GatewayRoute,
  GatewaySnapshot,
  RoutePolicy,
  Target,
} from '../../src/core/snapshot.ts'
import { type GatewayHandle, type GatewayStart, startGateway } from '../../src/gateway/threads.ts'
import { type Engine, type Script, type Seen, startEngine } from './engine.ts'

export const KEY = 'sk-ps-test-0123456789abcdef'
export const QWQ_ONLY_KEY = 'sk-ps-qwq-0123456789abcdef'

export const targetOf = (url: string, more: Partial<Target> = {}): Target => ({
  id: 'qwq-32b-0',
  url,
  slot: 0,
  state: 'ready',
  requestsRunning: null,
  requestsWaiting: null,
  kvCacheUsageRatio: null,
  ...more,
})

export const routeOf = (targets: readonly Target[], more: Partial<GatewayRoute> = {}) => ({
  model: 'qwq-32b',
  deployment: 'qwq-32b',
  engine: 'vllm',
  servedModel: 'qwq-32b',
  context: 32_768,
  firstTokenTimeoutMs: 60_000,
  stallTimeoutMs: 60_000,
  targets,
  why: '',
  ...more,
})

/** A route's policy, as plain as it may be. */
export const policyOf = (more: Partial<RoutePolicy> = {}): RoutePolicy => ({
  balance: 'power-of-two',
  slowStart: 0,
  retry: { attempts: 0, on: [], budget: 0 },
  queue: { ceiling: 'auto', depth: 1000, wait: 60_000 },
  continueStreams: true,
  firstTokenTargetMs: null,
  perTokenTargetMs: null,
  parameters: null,
  ...more,
})

let version = 0

export const snapshotOf = (
  routes: readonly GatewayRoute[],
  more: Partial<GatewaySnapshot> = {},
): GatewaySnapshot => {
  version += 1
  return {
    version,
    routes,
    keys: [
      { hash: hash('sha256', KEY), id: 'key-1', consumer: 'alice', models: null },
      { hash: hash('sha256', QWQ_ONLY_KEY), id: 'key-2', consumer: 'bob', models: ['qwq-32b'] },
    ],
    maxBodyBytes: 1_000_000,
    keepAliveMs: 15_000,
    rehearsal: false,
    ...more,
  }
}

export type TestGateway = {
  readonly handle: GatewayHandle
  readonly url: string
  readonly finished: readonly FinishedRequest[]
  readonly lines: readonly string[]
}

export const startTestGateway = async (
  snapshot: GatewaySnapshot,
  threads = 1,
  more: Pick<GatewayStart, 'redis'> = {},
): Promise<TestGateway> => {
  const finished: FinishedRequest[] = []
  const lines: string[] = []
  const handle = await startGateway({
    host: '127.0.0.1',
    port: 0,
    threads,
    snapshot,
    ...more,
    log: { info: (line) => lines.push(line), error: (line) => lines.push(line) },
    onFinished: (requests) => finished.push(...requests),
  })
  return { handle, url: `http://127.0.0.1:${handle.port}`, finished, lines }
}

/** Waits for a condition with a generous deadline; throws with its name. */
export const until = async (name: string, met: () => boolean, deadlineMs = 20_000) => {
  const endAtMs = performance.now() + deadlineMs
  while (!met()) {
    if (performance.now() > endAtMs) throw new Error(`never happened: ${name}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Who asks for a stream asks for all of its usage: then the gateway has nothing to take out. */
const ALL_USAGE = { stream_options: { include_usage: true, continuous_usage_stats: true } }

export const chatBody = (more: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({
    model: 'qwq-32b',
    messages: [{ role: 'user', content: 'hello' }],
    ...(more.stream === true ? ALL_USAGE : {}),
    ...more,
  })

export const post = (
  url: string,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> =>
  fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json', ...headers },
    body: Buffer.from(body),
  })

export type World = TestGateway & { readonly engine: Engine }
export type WorldSettings = {
  readonly route?: Partial<GatewayRoute>
  readonly snapshot?: Partial<GatewaySnapshot>
  readonly threads?: number
}

const started: { close(): Promise<void> }[] = []

/** Closed by `closeAll`, newest first. */
export const closeLater = <Closable extends { close(): Promise<void> }>(
  one: Closable,
): Closable => {
  started.push(one)
  return one
}

export const closeAll = async (): Promise<void> => {
  for (const one of started.splice(0).reverse()) await one.close()
}

/** One fake engine and a gateway in front of it. */
export const startWorld = async (
  script: (seen: Seen) => Script,
  { route, snapshot, threads }: WorldSettings = {},
): Promise<World> => {
  const engine = closeLater(await startEngine(script))
  const routes = [routeOf([targetOf(engine.url)], route)]
  const gateway = await startTestGateway(snapshotOf(routes, snapshot), threads)
  closeLater(gateway.handle)
  return { ...gateway, engine }
}
