/** The simulator as older engines: names of metrics, flags and routes, and our alias tables on it. */
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { runtimes } from '../../../runtimes/index.ts'
import { atLeast, playedVersion, VERSIONS } from '../../../runtimes/simulator/flags/versions.ts'
import { parseExposition } from '../../../src/core/prometheus.ts'
import { readSignals, SIGNALS } from '../../../src/core/signals.ts'
import { command, type Name, Played, settingsOf } from './played.ts'
import {
  answers,
  cleanUp,
  freePort,
  isReady,
  metric,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterEach(stopAll)
afterAll(cleanUp)

const ALL = (['vllm', 'sglang'] as const).flatMap((engine) =>
  VERSIONS[engine].map((version) => ({ engine, version })),
)

const families = (text: string): readonly string[] =>
  [...text.matchAll(/^# TYPE ([\w:]+) /gm)]
    .map(([, name = '']) => name.replace(/^(vllm|sglang):/, ''))
    .filter((name) => !name.endsWith('_created'))

describe('which version', () => {
  test('a series means its newest, v may stand before, nothing means the newest known', () => {
    const version = (engine: Name, asked: string | null) => {
      const played = playedVersion(engine, asked)
      return played.ok ? played.version : played.message
    }
    expect(version('vllm', '0.11')).toBe('0.11.2')
    expect(version('vllm', 'v0.8.5')).toBe('0.8.5')
    expect(version('sglang', '0.5')).toBe('0.5.23')
    expect(version('vllm', null)).toBe('0.32.0')
    expect(version('vllm', '0.1')).toMatch(/is not played; known are 0\.8\.5, /)
    expect(version('vllm', '')).toMatch(/--as-version ""/)
    expect(version('vllm', '0.11.2.post1')).not.toMatch(/\n/)
  })

  test('the own flag is taken out and outdoes the rehearsal; an unknown version ends with 2', () => {
    expect(settingsOf('vllm', '0.30', '--as-version 0.11 --port 1').version).toBe('0.11.2')
    expect(settingsOf('sglang', null, '--as-version=0.5.6').version).toBe('0.5.6')
    const refused = command('sglang', null, '--as-version 9.9')
    expect(refused).toMatchObject({ ok: false, code: 2 })
    expect(refused.ok ? '' : refused.message).toContain('known are 0.4.4, ')
  })

  test('flags of later versions are unrecognized before, abbreviations included', () => {
    const line = '--max-num-queued-reqs 5'
    expect(settingsOf('vllm', '0.29', line).queuedMax).toBe(5)
    for (const said of [line, '--max-num-queued-r 5']) {
      const refused = command('vllm', '0.28', said)
      expect(refused.ok ? '' : refused.message).toMatch(/error: unrecognized arguments: --max-num-/)
      expect(refused).toMatchObject({ code: 2 })
    }
    expect(command('vllm', '0.10.2', '--nnodes 1').ok).toBe(false)
    expect(command('vllm', '0.11.2', '--nnodes 1 -n 1').ok).toBe(true)
    expect(command('sglang', '0.4.6', '--max-queued-requests 1').ok).toBe(false)
    expect(settingsOf('sglang', '0.5.3', '--max-queued-requests 1').queuedMax).toBe(1)
  })

  test.each(ALL)('$engine $version takes its minimal line', ({ engine, version }) => {
    expect(settingsOf(engine, version).version).toBe(version)
  })
})

describe('our alias tables on every version', () => {
  /** Signals that the real engine of that version does not export under any name. */
  const missing = (engine: Name, version: string): readonly string[] =>
    engine === 'vllm'
      ? []
      : [...(atLeast(version, '0.5.6') ? [] : ['kvCapacityTokens', 'preemptionsTotal'])]

  test.each(ALL)('$engine $version: every signal reads what happened', ({ engine, version }) => {
    // SGLang as it is keeps room for the answer: only then do two outgrow the pool.
    const rash = engine === 'sglang' ? '--schedule-conservativeness 0' : ''
    const played = new Played(engine, version, rash, 1024)
    played.add(256, 10)
    played.run(100)
    // The same prompt again: its prefix is cached. Then two that outgrow the pool together.
    played.add(256, 10)
    played.run(100)
    played.add(300, 400, 1)
    played.run(1)
    played.add(300, 400, 2)
    played.run(5000)
    const { signals } = played
    const absent = SIGNALS.filter((signal) => signals[signal] === undefined)
    expect(absent).toEqual(missing(engine, version))
    const { totals } = played.engine
    expect(totals.preemptions).toBeGreaterThan(0)
    expect(totals.cachedTokens).toBeGreaterThan(200)
    expect(signals.promptTokensTotal).toBe(256 + 256 + 300 + 300)
    expect(signals.generationTokensTotal).toBe(10 + 10 + 400 + 400)
    if (signals.preemptionsTotal !== undefined) {
      expect(signals.preemptionsTotal).toBe(totals.preemptions)
    }
    expect(signals.prefixCacheHitTokensTotal).toBeGreaterThan(200)
    expect(signals.prefixCacheQueryTokensTotal).toBeGreaterThan(1000)
    if (signals.kvCapacityTokens !== undefined) expect(signals.kvCapacityTokens).toBe(1024)
    expect(signals.stepsTotal).toBeGreaterThan(400)
  })

  test.each(ALL)('$engine $version: running, waiting and fill while it is busy', (one) => {
    const played = new Played(one.engine, one.version, '', 1024)
    for (let salt = 1; salt <= 3; salt += 1) played.add(500, 300, salt)
    played.run(90)
    const { signals } = played
    expect(signals.requestsRunning).toBe(1)
    expect(signals.requestsWaiting).toBe(2)
    expect(signals.kvCacheUsageRatio).toBeGreaterThan(0.45)
    expect(signals.kvCacheUsageRatio).toBeLessThanOrEqual(1)
  })
})

test('SGLang: new_token_ratio falls with decode steps, and is whole again when idle', () => {
  const played = new Played('sglang', '0.5.23', '--decode-log-interval 1')
  const ratio = () => Number(/^sglang:new_token_ratio\{\S* (\S+)$/m.exec(played.text)?.[1])
  played.add(64, 300)
  played.run(151)
  // The prefill and 150 decode steps of 600 from 0.7 to 0.098.
  expect(ratio()).toBeCloseTo(0.7 - (150 * (0.7 - 0.098)) / 600, 3)
  played.run(1000)
  played.add(64, 2)
  played.run(1)
  expect(ratio()).toBeCloseTo(0.7, 3)
})

test('SGLang: cached tokens of all sources add up; `total` is one of them, not their sum', () => {
  const text =
    'sglang:cached_tokens_total{cache_source="device"} 100.0\n' +
    'sglang:cached_tokens_total{cache_source="host"} 20.0\n' +
    'sglang:cached_tokens_total{cache_source="total"} 3.0\n'
  const { samples } = parseExposition(text)
  expect(readSignals(samples, runtimes.sglang.metrics).prefixCacheHitTokensTotal).toBe(123)
})

describe('vLLM names', () => {
  const names = (version: string, more = '') =>
    new Set(families(new Played('vllm', version, more).text))

  test('the renames of 0.9 to 0.15: both names, hidden, gone', () => {
    const old = ['gpu_cache_usage_perc', 'gpu_prefix_cache_hits_total']
    const table = ['0.8.5', '0.9.2', '0.10.2', '0.11.2', '0.12.0', '0.14.1', '0.15.1'].map(
      (version) => {
        const all = names(version)
        const has = (name: string) => (all.has(name) ? 'x' : '.')
        return [
          version,
          ...old.map(has),
          has('kv_cache_usage_perc'),
          has('prefix_cache_hits_total'),
          has('time_per_output_token_seconds'),
          has('inter_token_latency_seconds'),
        ].join(' ')
      },
    )
    expect(table).toEqual([
      '0.8.5 x x . . x .',
      '0.9.2 x x x x x .',
      '0.10.2 x x x x x x',
      '0.11.2 . . x x x x',
      '0.12.0 . . x x . x',
      '0.14.1 . . x x . x',
      '0.15.1 . . x x . x',
    ])
  })

  test('--show-hidden-metrics-for-version works for exactly the minor version before', () => {
    const shown = (version: string, flag: string, name: string) =>
      names(version, `--show-hidden-metrics-for-version ${flag}`).has(name)
    expect(shown('0.11.2', '0.10', 'gpu_cache_usage_perc')).toBe(true)
    expect(shown('0.11.2', '0.9', 'gpu_cache_usage_perc')).toBe(false)
    expect(shown('0.12.0', '0.11', 'gpu_cache_usage_perc')).toBe(false)
    expect(shown('0.14.1', '0.13', 'time_per_output_token_seconds')).toBe(true)
    expect(shown('0.15.1', '0.14', 'time_per_output_token_seconds')).toBe(false)
  })

  test('what is newer is absent on older ones', () => {
    expect(names('0.31').has('admission_rejections_total')).toBe(false)
    expect(names('0.32').has('admission_rejections_total')).toBe(true)
    expect(names('0.19.1').has('num_requests_waiting_by_reason')).toBe(false)
    expect(names('0.10.2').has('engine_sleep_state')).toBe(false)
    const reasons = (version: string) =>
      [
        ...new Played('vllm', version).text.matchAll(
          /request_success_total\{.*?finished_reason="(\w+)"/g,
        ),
      ].map(([, reason]) => reason)
    expect(reasons('0.12')).toEqual(['stop', 'length', 'abort'])
    expect(reasons('0.15.1')).toEqual(['stop', 'length', 'abort', 'error'])
    expect(new Played('vllm', '0.23').text).not.toContain('kv_cache_size_tokens')
  })
})

describe('SGLang names and lag', () => {
  const names = (version: string) => new Set(families(new Played('sglang', version).text))

  test('the renames: time per output token, queue latency, retractions', () => {
    expect(names('0.4.4').has('time_per_output_token_seconds')).toBe(true)
    expect(names('0.4.6').has('time_per_output_token_seconds')).toBe(false)
    expect(names('0.4.6').has('avg_request_queue_latency')).toBe(true)
    expect(names('0.5.3').has('avg_request_queue_latency')).toBe(false)
    expect(names('0.4.6').has('queue_time_seconds')).toBe(false)
    expect(names('0.5.3').has('queue_time_seconds')).toBe(true)
    expect(names('0.5.6').has('num_retractions')).toBe(true)
    expect(names('0.5.23').has('num_retractions')).toBe(false)
  })

  test('labels grow: ranks from 0.5.3, experts from 0.5.10, streaming from 0.5.20', () => {
    const line = (version: string, name: string, more = '') =>
      new Played('sglang', version, more).text
        .split('\n')
        .filter((one) => one.startsWith(`sglang:${name}{`))
    expect(line('0.4.6', 'num_running_reqs')).toEqual([
      'sglang:num_running_reqs{engine_type="unified",model_name="m"} 0.0',
    ])
    expect(line('0.5.6', 'num_running_reqs')[0]).toContain('pp_rank="0",tp_rank="0"')
    expect(line('0.5.23', 'num_running_reqs')[0]).toContain('moe_ep_rank="0"')
    expect(line('0.5.23', 'num_running_reqs', '--enable-priority-scheduling')[0]).toContain(
      'priority=""',
    )
    expect(line('0.5.15', 'prompt_tokens_total')).toHaveLength(1)
    expect(line('0.5.20', 'prompt_tokens_total').join()).toMatch(/"true".*"false"/)
    expect(line('0.5.3', 'cached_tokens_total')[0]).not.toContain('cache_source')
    expect(line('0.5.23', 'cached_tokens_total')[0]).toContain('cache_source="device"')
  })

  test('edges of a histogram can be set, as on the real command line', () => {
    const edges = '--bucket-time-to-first-token 0.01 0.05'
    const { text } = new Played('sglang', '0.5.23', edges)
    const found = [...text.matchAll(/time_to_first_token_seconds_bucket\{.*?le="([^"]+)"/g)]
    expect(found.slice(0, 3).map(([, edge]) => edge)).toEqual(['0.01', '0.05', '+Inf'])
    const unsorted = command('sglang', null, '--bucket-time-to-first-token 2 1')
    expect(unsorted).toMatchObject({ code: 1, message: 'ValueError: Buckets not in sorted order' })
  })

  const gauge = (played: Played, name: string) => metric(played.text, `sglang:${name}`)

  test('gauges move with prefills and every 40 decode steps, not in between', () => {
    const played = new Played('sglang', '0.5.23')
    played.add(100, 200)
    played.run(1)
    // The prefill report counts what ran before it.
    expect(gauge(played, 'num_running_reqs')).toBe(0)
    const used = gauge(played, 'num_used_tokens')
    expect(used).toBeGreaterThan(0)
    played.run(39)
    expect([gauge(played, 'num_running_reqs'), gauge(played, 'num_used_tokens')]).toEqual([0, used])
    expect(gauge(played, 'gen_throughput')).toBe(0)
    played.run(1)
    expect(gauge(played, 'num_running_reqs')).toBe(1)
    expect(gauge(played, 'num_used_tokens')).toBeGreaterThan(used ?? 0)
    // 40 tokens in 410 ms: the prefill counts as time, not as tokens.
    expect(gauge(played, 'gen_throughput')).toBeCloseTo(40 / 0.41, 6)
    played.add(100, 5, 1)
    played.run(1)
    expect(gauge(played, 'num_running_reqs')).toBe(1)
    expect(gauge(played, 'gen_throughput')).toBeCloseTo(40 / 0.41, 6)
  })

  test('--decode-log-interval sets the lag', () => {
    const played = new Played('sglang', '0.5.23', '--decode-log-interval 5')
    played.add(100, 200)
    played.run(5)
    expect(gauge(played, 'num_running_reqs')).toBe(0)
    played.run(1)
    expect(gauge(played, 'num_running_reqs')).toBe(1)
  })

  test('an idle scheduler: at once since 0.5.20, before that after 30 s', () => {
    for (const { version, atOnce } of [
      { version: '0.5.15', atOnce: 1 },
      { version: '0.5.23', atOnce: 0 },
    ]) {
      const played = new Played('sglang', version)
      played.add(100, 60)
      played.run(1000)
      expect([version, gauge(played, 'num_running_reqs')]).toEqual([version, atOnce])
      played.clock.ms += 29_000
      expect([version, gauge(played, 'num_running_reqs')]).toEqual([version, atOnce])
      played.clock.ms += 1500
      expect([version, gauge(played, 'num_running_reqs')]).toEqual([version, 0])
      expect(gauge(played, 'gen_throughput')).toBe(0)
    }
  })
})

describe('as a process', () => {
  test('vLLM 0.11 by the rehearsal: banner, /version, metrics', async () => {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const line = `serve q --max-model-len 4096 --host 127.0.0.1 --port ${port}`
    const one = new Simulated('vllm', line.split(' '), rehearsal({ speed: 500, asVersion: '0.11' }))
    await until(isReady(url), 'the engine', () => one.output)
    expect(one.output).toContain('vLLM API server version 0.11.2')
    const Version = z.object({ version: z.string() })
    expect(Version.parse(await (await fetch(`${url}/version`)).json()).version).toBe('0.11.2')
    const body = { model: 'q', prompt: 'x', max_tokens: 20, ignore_eos: true }
    expect((await post(url, '/v1/completions', body)).status).toBe(200)
    const text = await (await fetch(`${url}/metrics`)).text()
    expect(metric(text, 'vllm:generation_tokens_total')).toBe(20)
    expect(text).toContain('vllm:time_per_output_token_seconds_bucket')
    expect(text).not.toContain('admission_rejections')
    expect(await answers(`${url}/v1/messages`)).not.toBe(null)
  })

  test('SGLang 0.5.3 by its own flag: old paths only; an unknown version is one line', async () => {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const start = (version: string) =>
      new Simulated(
        'python3',
        `-m sglang.launch_server --model-path q --port ${port} --as-version ${version}`.split(' '),
        rehearsal({ speed: 500 }),
      )
    const one = start('0.5.3')
    await until(isReady(url), 'the engine', () => one.output)
    const paths = ['get_server_info', 'get_load', 'server_info', 'model_info', 'v1/loads']
    const found = await Promise.all(paths.map((path) => answers(`${url}/${path}`)))
    expect(found).toEqual([200, 200, 404, 404, 404])
    expect(await (await fetch(`${url}/get_server_info`)).text()).toContain('"version":"0.5.3"')
    const unknown = start('0.3.1')
    expect(await unknown.ended()).toBe(2)
    expect(unknown.output.trim().split('\n')).toHaveLength(1)
    expect(unknown.output).toMatch(/"0\.3\.1".*known are 0\.4\.4, /)
  })
})
