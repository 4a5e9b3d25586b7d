import { expect, test } from 'vitest'
import { parseExposition } from '../../src/core/prometheus.ts'
import type { EngineSignal, MetricAlias } from '../../src/core/runtime.ts'
import { type MetricTable, metricNames, readSignals, SIGNALS } from '../../src/core/signals.ts'

const table = (rows: Partial<Record<EngineSignal, readonly MetricAlias[]>>): MetricTable => ({
  requestsRunning: [],
  requestsWaiting: [],
  kvCacheUsageRatio: [],
  kvCapacityTokens: [],
  promptTokensTotal: [],
  generationTokensTotal: [],
  preemptionsTotal: [],
  prefixCacheHitTokensTotal: [],
  prefixCacheQueryTokensTotal: [],
  stepsTotal: [],
  ...rows,
})

const read = (text: string, rows: Partial<Record<EngineSignal, readonly MetricAlias[]>>) =>
  readSignals(parseExposition(text).samples, table(rows))

test('the first alias that is there counts, even when it says zero', () => {
  const rows = {
    kvCacheUsageRatio: [
      { metric: 'vllm:kv_cache_usage_perc', combine: 'max' },
      { metric: 'vllm:gpu_cache_usage_perc', combine: 'max' },
    ],
  } as const
  expect(read('vllm:gpu_cache_usage_perc 0.5\n', rows)).toEqual({ kvCacheUsageRatio: 0.5 })
  expect(read('vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0\n', rows)).toEqual({
    kvCacheUsageRatio: 0,
  })
  expect(read('vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc NaN\n', rows)).toEqual({
    kvCacheUsageRatio: 0.5,
  })
})

test('series of data-parallel engines are summed or the fullest counts', () => {
  const text =
    'running{engine="0"} 3\nrunning{engine="1"} 4\nkv{engine="0"} .2\nkv{engine="1"} .9\n'
  expect(
    read(text, {
      requestsRunning: [{ metric: 'running', combine: 'sum' }],
      kvCacheUsageRatio: [{ metric: 'kv', combine: 'max' }],
    }),
  ).toEqual({ requestsRunning: 7, kvCacheUsageRatio: 0.9 })
})

test('only series whose labels match; an absent label equals an empty one', () => {
  const text = 'q{priority=""} 5\nq{priority="1"} 3\nr 2\nr{priority="1"} 9\n'
  const where = { priority: '' }
  expect(
    read(text, {
      requestsWaiting: [{ metric: 'q', combine: 'sum', where }],
      requestsRunning: [{ metric: 'r', combine: 'sum', where }],
      preemptionsTotal: [{ metric: 'q', combine: 'sum', where: { tp_rank: '0' } }],
    }),
  ).toEqual({ requestsWaiting: 5, requestsRunning: 2 })
})

test('capacity from the labels of an info metric, each engine by itself', () => {
  const rows = {
    kvCapacityTokens: [
      { metric: 'vllm:cache_config_info', label: 'kv_cache_size_tokens', combine: 'sum' },
      {
        metric: 'vllm:cache_config_info',
        product: ['num_gpu_blocks', 'block_size'],
        combine: 'sum',
      },
    ],
  } as const
  const info = (labels: string) => `vllm:cache_config_info{${labels}} 1.0\n`
  expect(read(info('block_size="16",num_gpu_blocks="6250"'), rows)).toEqual({
    kvCapacityTokens: 100_000,
  })
  expect(
    read(
      info('engine="0",block_size="16",num_gpu_blocks="10",kv_cache_size_tokens="159"') +
        info('engine="1",block_size="16",num_gpu_blocks="10",kv_cache_size_tokens="161"'),
      rows,
    ),
  ).toEqual({ kvCapacityTokens: 320 })
  expect(read(info('block_size="16",num_gpu_blocks="None"'), rows)).toEqual({})
  expect(read(info('block_size="16",num_gpu_blocks="1e400"'), rows)).toEqual({})
})

test('what cannot be is unknown: percent for a ratio, negative, infinite', () => {
  const rows = {
    kvCacheUsageRatio: [{ metric: 'kv', combine: 'max' }],
    requestsRunning: [{ metric: 'running', combine: 'sum' }],
    stepsTotal: [{ metric: 'steps', combine: 'sum' }],
  } as const
  expect(read('kv 37.5\nrunning -1\nsteps +Inf\n', rows)).toEqual({})
  expect(read('kv 1.004\n', rows)).toEqual({ kvCacheUsageRatio: 1 })
  expect(read('', rows)).toEqual({})
})

test('every signal is read and the names to keep are those of the table', () => {
  const rows = Object.fromEntries(
    SIGNALS.map((signal) => [signal, [{ metric: `m:${signal}`, combine: 'sum' as const }]]),
  )
  const text = SIGNALS.map((signal) => `m:${signal} 1\n`).join('')
  expect(Object.keys(read(text, rows)).length).toBe(SIGNALS.length)
  expect([...metricNames(table(rows))]).toEqual(SIGNALS.map((signal) => `m:${signal}`))
})
