import { createServer, type RequestListener, type Server } from 'node:http'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { EngineSignal, MetricAlias } from '../../src/core/runtime.ts'
import type { MetricTable } from '../../src/core/signals.ts'
import {
  createScraper,
  type Scraped,
  type ScrapeFailure,
  type ScraperOptions,
  type ScrapeTarget,
} from '../../src/telemetry/scrape.ts'

const alias = (metric: string): readonly MetricAlias[] => [{ metric, combine: 'sum' }]

const METRICS = {
  requestsRunning: alias('e:running'),
  requestsWaiting: alias('e:waiting'),
  kvCacheUsageRatio: alias('e:kv'),
  kvCapacityTokens: [],
  promptTokensTotal: alias('e:prompt_tokens_total'),
  generationTokensTotal: alias('e:generation_tokens_total'),
  preemptionsTotal: [],
  prefixCacheHitTokensTotal: [],
  prefixCacheQueryTokensTotal: [],
  stepsTotal: [],
} as const satisfies MetricTable satisfies Record<EngineSignal, unknown>

const PATIENCE = { timeout: 20_000, interval: 5 }

const serve = async (listener: RequestListener): Promise<{ server: Server; url: string }> => {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return { server, url: `http://127.0.0.1:${address.port}` }
}

const start = (targets: () => readonly ScrapeTarget[], over: Partial<ScraperOptions> = {}) => {
  const samples: Scraped[] = []
  const failures: ScrapeFailure[] = []
  const scraper = createScraper({
    targets,
    runtimes: { vllm: { metrics: METRICS } },
    clock: systemClock,
    onSample: (sample) => samples.push(sample),
    onError: (failure) => failures.push(failure),
    intervalMs: 20,
    timeoutMs: 10_000,
    ...over,
  })
  onTestFinished(() => scraper.stop())
  return { samples, failures, scraper }
}

const replica = (url: string, name = 'qwq-32b/0'): ScrapeTarget => {
  return { replica: name, url, engine: 'vllm' }
}

test('signals come back by our names, with the time of the answer', async () => {
  let asked: string | undefined
  const { url } = await serve((request, response) => {
    asked = `${request.method} ${request.url} ${request.headers.accept}`
    response.end('e:running 3\ne:kv{engine="0"} 0.25\nnonsense\ne:waiting oops\nother 1\n')
  })
  const before = Date.now()
  const { samples } = start(() => [replica(url)])
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(2)
  expect(asked).toBe('GET /metrics text/plain;version=0.0.4')
  expect(samples[0]).toMatchObject({
    replica: 'qwq-32b/0',
    signals: { requestsRunning: 3, kvCacheUsageRatio: 0.25 },
    rates: { promptTokensPerSecond: null, generationTokensPerSecond: null },
    malformed: 1,
  })
  expect(samples[0]?.readAtMs).toBeGreaterThanOrEqual(before)
})

test('token rates come from counters and outlive a restart of the engine', async () => {
  let tokens = 1_000_000
  const { url } = await serve((_, response) => {
    tokens += 100
    response.end(`e:prompt_tokens_total ${tokens}\ne:generation_tokens_total ${tokens * 2}\n`)
  })
  const { samples } = start(() => [replica(url)])
  await expect
    .poll(() => samples.at(-1)?.rates.promptTokensPerSecond ?? 0, PATIENCE)
    .toBeGreaterThan(0)
  tokens = 0
  const seen = samples.length
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(seen + 5)
  for (const { rates } of samples.slice(1)) {
    const [prompt, generation] = [rates.promptTokensPerSecond, rates.generationTokensPerSecond]
    // 100 tokens a scrape, at most one scrape in 4 ms: a restart read as a fall or as a jump of a
    // million would be far outside.
    expect(prompt).toBeGreaterThan(0)
    expect(prompt).toBeLessThan(100_000)
    expect(generation).toBeCloseTo((prompt ?? 0) * 2, 3)
  }
})

test('an engine that is slow is asked once at a time', async () => {
  let [now, most, served] = [0, 0, 0]
  const { url } = await serve((_, response) => {
    now += 1
    most = Math.max(most, now)
    setTimeout(() => {
      now -= 1
      served += 1
      response.end('e:running 1\n')
    }, 60)
  })
  const { samples } = start(() => [replica(url)], { intervalMs: 5 })
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(4)
  expect([most, served >= 4]).toEqual([1, true])
})

test('a hundred and fifty replicas are all read, a bounded number at once', async () => {
  let [now, most] = [0, 0]
  const { url } = await serve((_, response) => {
    now += 1
    most = Math.max(most, now)
    setTimeout(() => {
      now -= 1
      response.end('e:running 1\n')
    }, 5)
  })
  const targets = Array.from({ length: 150 }, (_, index) => {
    return replica(url, `r/${index}`)
  })
  const { samples, failures } = start(() => targets, { concurrency: 8 })
  await expect.poll(() => new Set(samples.map((sample) => sample.replica)).size, PATIENCE).toBe(150)
  expect(most).toBeLessThanOrEqual(8)
  expect(failures).toEqual([])
})

test('replicas that hang do not keep others from being read', async () => {
  const hung = await serve(() => undefined)
  const well = await serve((_, response) => response.end('e:running 1\n'))
  const targets = [
    ...Array.from({ length: 40 }, (_, index) => replica(hung.url, `hung/${index}`)),
    replica(well.url, 'well/0'),
  ]
  const { samples, failures } = start(() => targets, { concurrency: 4, timeoutMs: 200 })
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(0)
  const [failed, read] = [failures.length, samples.length]
  await expect.poll(() => failures.length, PATIENCE).toBeGreaterThan(failed + 4)
  expect(samples.length).toBeGreaterThan(read + 2)
  expect(failures[0]?.message).toBe('no metrics within 200 ms')
})

test.each<[string, RequestListener, string]>([
  ['404', (_, response) => response.writeHead(404).end('{}'), 'the engine has no /metrics (404)'],
  ['500', (_, response) => response.writeHead(500).end('e:running 1\n'), 'status 500'],
  [
    'a redirect, which is not followed',
    (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:9/' }).end(),
    'status 302',
  ],
  ['a page', (_, response) => response.end('<html>\n<p>hello\n</html>\n'), 'no metric of this'],
  ['nothing', (_, response) => response.end(), 'no metric of this engine'],
  [
    'a connection cut in the middle',
    (_, response) => {
      response.write('e:running 1')
      setTimeout(() => response.destroy(), 10)
    },
    'broke off',
  ],
  [
    'more than fits',
    (_, response) => {
      const chunk = Buffer.from('e:running 1\n'.repeat(10_000))
      const more = (): void => {
        while (response.write(chunk));
        response.once('drain', more)
      }
      more()
    },
    'larger than 8 MiB',
  ],
])('%s is a readable failure', async (_, listener, message) => {
  const { url } = await serve(listener)
  const { failures, samples } = start(() => [replica(url)])
  await expect.poll(() => failures.length, PATIENCE).toBeGreaterThan(1)
  expect(failures[0]?.message).toContain(message)
  expect(failures.slice(0, 2).map((failure) => failure.failures)).toEqual([1, 2])
  expect(samples).toEqual([])
})

test('a port where nothing listens, and an engine nobody knows', async () => {
  const { server, url } = await serve(() => undefined)
  server.close()
  const { failures } = start(() => [replica(url), { replica: 'x/0', url, engine: 'unheard-of' }])
  const of = (name: string) => failures.find((failure) => failure.replica === name)?.message
  await expect.poll(() => of('qwq-32b/0'), PATIENCE).toBe('nothing listens on its port')
  await expect
    .poll(() => of('x/0'), PATIENCE)
    .toBe('no metric names are known for engine unheard-of')
})

test('a replica that fails is asked less and less often, until it is back', async () => {
  let asked = 0
  let well = false
  const { url } = await serve((_, response) => {
    asked += 1
    response.writeHead(well ? 200 : 503).end('e:running 1\n')
  })
  const { samples, failures } = start(() => [replica(url)])
  await expect.poll(() => failures.at(-1)?.failures ?? 0, PATIENCE).toBe(5)
  expect(asked).toBeLessThanOrEqual(6)
  well = true
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(3)
})

test('who is gone is forgotten, its request aborted; who moved is a new engine', async () => {
  let closed = 0
  const hung = await serve((request) => request.socket.once('close', () => (closed += 1)))
  const first = await serve((_, response) => response.end('e:prompt_tokens_total 5\n'))
  const second = await serve((_, response) => response.end('e:prompt_tokens_total 900000\n'))
  let targets = [replica(hung.url, 'gone/0'), replica(first.url, 'moved/0')]
  const { samples, failures } = start(() => targets)
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(2)
  targets = [replica(second.url, 'moved/0')]
  await expect.poll(() => closed, PATIENCE).toBe(1)
  const moved = () => samples.filter(({ signals }) => signals.promptTokensTotal === 900_000)
  await expect.poll(() => moved().length, PATIENCE).toBeGreaterThan(3)
  expect(moved()[0]?.rates.promptTokensPerSecond).toBeNull()
  expect(moved().at(-1)?.rates.promptTokensPerSecond).toBe(0)
  expect(failures).toEqual([])
})

test('stop is quiet at once and leaves no socket', async () => {
  const hung = await serve(() => undefined)
  const well = await serve((_, response) => response.end('e:running 1\n'))
  const { samples, failures, scraper } = start(() => [
    replica(hung.url, 'hung/0'),
    replica(well.url, 'well/0'),
  ])
  await expect.poll(() => samples.length, PATIENCE).toBeGreaterThan(1)
  await scraper.stop()
  const [read, failed] = [samples.length, failures.length]
  const open = (server: Server) =>
    new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)))
  await expect.poll(() => open(hung.server), PATIENCE).toBe(0)
  await expect.poll(() => open(well.server), PATIENCE).toBe(0)
  expect([samples.length, failures.length]).toEqual([read, failed])
})
