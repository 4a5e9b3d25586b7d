import { expect, test } from 'vitest'
import { createHistory } from '../../src/telemetry/history.ts'
import { deployment, fleet, gpu, node, replica } from '../support/fleet.ts'

const START_MS = 1_790_000_000_000

const view = (nowMs: number, running: number | null, id = 'qwq-32b/0') =>
  fleet(nowMs, {
    nodes: [],
    deployments: [
      deployment('qwq-32b', {
        replicas: [
          replica(id, {
            signals: running === null ? {} : { requestsRunning: { value: running, ageMs: 100 } },
            promptTokensPerSecond: null,
            generationTokensPerSecond: null,
          }),
        ],
      }),
    ],
  })

test('one point a slot, the mean of what was seen in it; a gap stays a gap', () => {
  const history = createHistory()
  for (const [seconds, running] of [
    [0, 2],
    [1, 4],
    [5, 10],
    [12, null],
    [16, 0],
  ] as const) {
    history.record(view(START_MS + seconds * 1000, running))
  }
  expect(history.since(0)).toEqual([
    {
      name: 'requestsRunning',
      labels: { deployment: 'qwq-32b', replica: 'qwq-32b/0' },
      points: [
        [START_MS, 3],
        [START_MS + 5000, 10],
        [START_MS + 15_000, 0],
      ],
    },
  ])
  expect(history.since(START_MS + 1)[0]?.points.length).toBe(2)
  expect(history.since(START_MS + 15_000)[0]?.points).toEqual([[START_MS + 15_000, 0]])
  expect(history.since(START_MS + 15_001)).toEqual([])
})

test('a whole fleet: each replica five series, each node one, in a steady order', () => {
  const history = createHistory()
  history.record(fleet(START_MS))
  history.record(fleet(START_MS + 5000))
  const series = history.since(0)
  expect(series.map(({ name, labels }) => `${name} ${labels.replica ?? labels.node}`)).toEqual([
    'generationTokensPerSecond deepseek-r1/0',
    'generationTokensPerSecond qwq-32b/0',
    'gpuUtilizationRatio h20-1',
    'gpuUtilizationRatio h20-8a',
    'gpuUtilizationRatio h20-8b',
    'kvCacheUsageRatio deepseek-r1/0',
    'kvCacheUsageRatio qwq-32b/0',
    'promptTokensPerSecond deepseek-r1/0',
    'promptTokensPerSecond qwq-32b/0',
    'requestsRunning deepseek-r1/0',
    'requestsRunning qwq-32b/0',
    'requestsWaiting deepseek-r1/0',
    'requestsWaiting qwq-32b/0',
  ])
  for (const { points } of series) expect(points.length).toBe(2)
})

test('utilisation of a node is the mean of the GPUs that said something lately', () => {
  const history = createHistory()
  const gpus = [
    gpu(0, { utilizationRatio: 0.5 }),
    gpu(1, { utilizationRatio: 0 }),
    gpu(2, { utilizationRatio: null }),
    gpu(3, { utilizationRatio: 1, ageMs: 60_000 }),
  ]
  history.record(
    fleet(START_MS, { nodes: [node('a', { gpus }), node('b', { gpus: [] })], deployments: [] }),
  )
  expect(history.since(0).map(({ labels, points }) => [labels.node, points])).toEqual([
    ['a', [[START_MS, 0.25]]],
  ])
})

test('an hour is kept and no more, also of who fell silent', () => {
  const history = createHistory({ slots: 10 })
  for (let slot = 0; slot < 25; slot += 1) history.record(view(START_MS + slot * 5000, slot))
  expect(history.since(0)[0]?.points).toEqual(
    Array.from({ length: 10 }, (_, index) => [START_MS + (15 + index) * 5000, 15 + index]),
  )
  history.record(view(START_MS + 30 * 5000, 1, 'other/0'))
  expect(history.since(0).map(({ labels, points }) => [labels.replica, points.length])).toEqual([
    ['other/0', 1],
    ['qwq-32b/0', 4],
  ])
  history.record(view(START_MS + 60 * 5000, 1, 'other/0'))
  expect(history.since(0).map(({ labels }) => labels.replica)).toEqual(['other/0'])
})

test('series are bounded: the longest silent makes room, one in use never does', () => {
  const history = createHistory({ seriesMax: 3 })
  for (const id of ['a', 'b', 'c']) history.record(view(START_MS, 1, id))
  history.record(view(START_MS, 1, 'd'))
  expect(history.since(0).map(({ labels }) => labels.replica)).toEqual(['a', 'b', 'c'])
  history.record(view(START_MS + 5000, 1, 'a'))
  history.record(view(START_MS + 5000, 1, 'e'))
  expect(history.since(0).map(({ labels }) => labels.replica)).toEqual(['a', 'c', 'e'])
})
