import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { parseExposition } from '../../src/core/prometheus.ts'
import { createMetrics, type Metrics } from '../../src/telemetry/metrics.ts'
import { deployment, fleet, gpu, node, replica, request, requests } from '../support/fleet.ts'
import { hasProgram, requirePart } from '../support/parts.ts'

const NOW_MS = 1_790_000_000_000

const full = (): Metrics => {
  const metrics = createMetrics({ version: '0.1.0' })
  for (const one of requests(NOW_MS, 60)) metrics.observeRequest(one)
  metrics.observeFleet(fleet(NOW_MS))
  metrics.scrapeFailed('qwq-32b/0')
  metrics.gatewayThreadRestarted()
  return metrics
}

const read = async (metrics: Metrics) => {
  const { samples, malformed } = parseExposition(await metrics.metricsText())
  expect(malformed).toBe(0)
  return (name: string, labels: Record<string, string> = {}): number[] =>
    samples
      .filter((sample) => sample.name === name)
      .filter((sample) =>
        Object.entries(labels).every(([key, value]) => sample.labels.get(key) === value),
      )
      .map(({ value }) => value)
}

test.skipIf(!requirePart('promtool (Debian: prometheus)', hasProgram('promtool')))(
  'promtool has nothing to say about any metric',
  async () => {
    const input = await full().metricsText()
    const ran = spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' })
    expect([ran.status, ran.stdout, ran.stderr]).toEqual([0, '', ''])
  },
)

test('each metric is ours by name, declared once and described', async () => {
  const text = await full().metricsText()
  const { types } = parseExposition(text)
  expect(types.size).toBeGreaterThan(40)
  for (const name of types.keys()) {
    expect(name).toMatch(/^penstock_/)
    expect(text.split(`# TYPE ${name} `).length, name).toBe(2)
    expect(text).toMatch(new RegExp(`^# HELP ${name} .{5,}`, 'm'))
  }
})

test('requests are counted by route, status and outcome, times in seconds', async () => {
  const metrics = createMetrics({ version: '0.1.0' })
  metrics.observeRequest(request('a', NOW_MS))
  metrics.observeRequest(request('b', NOW_MS, { reasoningTokens: null, cachedTokens: 0 }))
  metrics.observeRequest(request('c', NOW_MS, { status: 429, outcome: 'refused', ttftMs: null }))
  const value = await read(metrics)
  const ok = { route: 'qwq-32b', status: '2xx', outcome: 'ok' }
  expect(value('penstock_requests_total', ok)).toEqual([2])
  expect(value('penstock_requests_total', { ...ok, status: '4xx', outcome: 'refused' })).toEqual([
    1,
  ])
  expect(value('penstock_tokens_total', { kind: 'prompt' })).toEqual([3 * 812])
  expect(value('penstock_tokens_total', { kind: 'reasoning' })).toEqual([2 * 1500])
  expect(value('penstock_consumer_tokens_total', { kind: 'cached' })).toEqual([2 * 256])
  expect(value('penstock_time_to_first_token_seconds_count')).toEqual([2])
  expect(value('penstock_time_to_first_token_seconds_sum')[0]).toBeCloseTo(0.862)
  // An answer in one piece has no pace that anybody saw.
  metrics.observeRequest(request('d', NOW_MS, { stream: false }))
  const { durationMs, completionTokens } = request('a', NOW_MS)
  const eachMs = (durationMs - 431) / ((completionTokens ?? 0) - 1)
  const paces = await read(metrics)
  expect(paces('penstock_time_per_output_token_seconds_count')).toEqual([2])
  expect(paces('penstock_time_per_output_token_seconds_sum')[0]).toBeCloseTo((2 * eachMs) / 1000)
  expect(value('penstock_request_duration_seconds_sum')[0]).toBeCloseTo(183.75)
})

test('what a client sends cannot make series without end', async () => {
  const metrics = createMetrics({ version: '0.1.0' })
  for (let index = 0; index < 2000; index += 1) {
    metrics.observeRequest(
      request(`r${index}`, NOW_MS, {
        modelAsked: `invented-${index}`,
        deployment: null,
        consumer: `consumer-${index}`,
        status: 404,
        outcome: 'refused',
      }),
    )
  }
  const value = await read(metrics)
  expect(value('penstock_requests_total')).toEqual([2000])
  expect(value('penstock_requests_total', { route: 'none' })).toEqual([2000])
  expect(value('penstock_consumer_requests_total').length).toBe(501)
  expect(value('penstock_consumer_requests_total', { consumer: 'other' })).toEqual([1500])
  for (const modelAsked of ['gpt-5', 'gpt-5-mini', 'gpt-6']) {
    metrics.observeRequest(request(modelAsked, NOW_MS, { modelAsked, route: 'gpt-*' }))
  }
  const byPattern = await read(metrics)
  expect(byPattern('penstock_requests_total', { route: 'gpt-*' })).toEqual([3])
  metrics.observeRequest(request('more', NOW_MS, { consumer: 'consumer-7' }))
  const later = await read(metrics)
  expect(later('penstock_consumer_requests_total', { consumer: 'consumer-7' })).toEqual([2])
})

test('figures that are no numbers are left out, the request is counted', async () => {
  const metrics = createMetrics({ version: '0.1.0' })
  const odd = { promptTokens: Number.NaN, completionTokens: -5, ttftMs: Number.NaN }
  metrics.observeRequest(request('a', NOW_MS, { ...odd, durationMs: Number.POSITIVE_INFINITY }))
  const value = await read(metrics)
  expect(value('penstock_requests_total')).toEqual([1])
  expect(value('penstock_tokens_total', { kind: 'prompt' })).toEqual([])
  expect(value('penstock_request_duration_seconds_count')).toEqual([])
})

test('the fleet is exported as the view has it', async () => {
  const value = await read(full())
  const r1 = { deployment: 'deepseek-r1', replica: 'deepseek-r1/0' }
  expect(value('penstock_replica_kv_cache_usage_ratio', r1)).toEqual([0.91])
  expect(value('penstock_replica_requests_running', r1)).toEqual([48])
  expect(value('penstock_replica_requests_waiting', r1)).toEqual([13])
  expect(
    value('penstock_replica_signal_age_seconds', { ...r1, signal: 'requestsRunning' }),
  ).toEqual([1.2])
  expect(value('penstock_replica_state', { ...r1, state: 'ready' })).toEqual([1])
  expect(value('penstock_replica_state', { ...r1, state: 'failed' })).toEqual([0])
  expect(value('penstock_replica_restarts_total', r1)).toEqual([1])
  expect(value('penstock_scrape_failures_total').sort()).toEqual([0, 1])
  expect(value('penstock_rank_state', { ...r1, rank: '1', state: 'running' })).toEqual([1])
  expect(value('penstock_gpu_utilization_ratio').length).toBe(17)
  expect(value('penstock_gpu_power_watts', { node: 'h20-8a', gpu: '2' })).toEqual([389])
  expect(value('penstock_node_reachable', { node: 'h20-8b' })).toEqual([1])
  expect(value('penstock_requests_in_flight')).toEqual([99])
  expect(value('penstock_gateway_thread_restarts_total')).toEqual([1])
  expect(value('penstock_build_info', { version: '0.1.0', node: process.versions.node })).toEqual([
    1,
  ])
})

test('scraping twice changes nothing, and what has vanished has no series', async () => {
  const metrics = full()
  const names = async () => {
    const { samples } = parseExposition(await metrics.metricsText())
    return samples
      .filter(({ name }) => !/^penstock_(process|nodejs)_/.test(name))
      .map(({ name, labels, value }) => `${name} ${[...labels].join(' ')} ${value}`)
  }
  expect(await names()).toEqual(await names())
  metrics.observeFleet(
    fleet(NOW_MS, { nodes: [node('h20-1')], deployments: [deployment('qwq-32b')] }),
  )
  const left = (await names()).join('\n')
  expect(left).toContain('penstock_replica_state deployment,qwq-32b')
  expect(left).not.toMatch(/replica,deepseek-r1|h20-8a/)
  metrics.observeFleet(fleet(NOW_MS, { nodes: [], deployments: [] }))
  metrics.observeFleet(fleet(NOW_MS))
  await metrics.metricsText()
})

test('unknown and stale are gaps, never zeros; ages are always there', async () => {
  const metrics = createMetrics({ version: '0.1.0' })
  const old = { value: 7, ageMs: 5001 }
  const one = replica('qwq-32b/0', {
    signals: { requestsRunning: old, kvCacheUsageRatio: { value: 0, ageMs: 5000 } },
    promptTokensPerSecond: null,
    generationTokensPerSecond: 0,
  })
  metrics.observeFleet(
    fleet(NOW_MS, {
      nodes: [node('a', { gpus: [gpu(0, { utilizationRatio: null }), gpu(1, { ageMs: 9000 })] })],
      deployments: [deployment('qwq-32b', { replicas: [one] })],
    }),
  )
  const value = await read(metrics)
  expect(value('penstock_replica_requests_running')).toEqual([])
  expect(value('penstock_replica_requests_waiting')).toEqual([])
  expect(value('penstock_replica_kv_cache_usage_ratio')).toEqual([0])
  expect(value('penstock_replica_signal_age_seconds', { signal: 'requestsRunning' })).toEqual([
    5.001,
  ])
  expect(value('penstock_replica_prompt_tokens_per_second')).toEqual([])
  expect(value('penstock_replica_generation_tokens_per_second')).toEqual([0])
  expect(value('penstock_gpu_utilization_ratio')).toEqual([])
  expect(value('penstock_gpu_memory_used_bytes').length).toBe(1)
  expect(value('penstock_gpu_reading_age_seconds')).toEqual([0.8, 9])
})

test('before the first view there are the metrics of the process', async () => {
  const value = await read(createMetrics({ version: '0.1.0' }))
  expect(value('penstock_process_resident_memory_bytes')[0]).toBeGreaterThan(1e6)
  expect(value('penstock_replica_state')).toEqual([])
})
