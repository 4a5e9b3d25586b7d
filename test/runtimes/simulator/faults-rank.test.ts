/** The symptom of each fault of a rank, with real processes. */
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import {
  answers,
  cleanUp,
  freePort,
  isReady,
  metric,
  post,
  r1Rehearsal,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterEach(stopAll)
afterAll(cleanUp)

type Engine = 'vllm' | 'sglang'

const one = async (engine: Engine, node: string, faults: readonly unknown[], speed = 100) => {
  const port = await freePort()
  const line =
    engine === 'vllm'
      ? `serve q --served-model-name q --max-model-len 32768 --host 127.0.0.1 --port ${port}`
      : `-m sglang.launch_server --model-path q --served-model-name q --context-length 32768 ` +
        `--host 127.0.0.1 --port ${port} --enable-metrics`
  const process = new Simulated(
    engine === 'vllm' ? 'vllm' : 'python3',
    line.split(' '),
    rehearsal({ node, speed }),
    { PENSTOCK_FAULTS: JSON.stringify(faults) },
  )
  return { process, base: `http://127.0.0.1:${port}` }
}

const ready = async (engine: Engine, node: string, faults: readonly unknown[], speed = 100) => {
  const { process, base } = await one(engine, node, faults, speed)
  await until(isReady(base), 'the engine', () => process.output)
  return { process, base }
}

const body = { model: 'q', messages: [{ role: 'user', content: 'Hello' }], max_tokens: 8 }
const chat = (base: string) => post(base, '/v1/chat/completions', body)
const smi = async (node: string, ...argv: string[]) => {
  const run = new Simulated('nvidia-smi', argv, rehearsal({ node }))
  return { code: await run.ended(), output: run.output }
}
const USED = ['--query-gpu=memory.used', '--format=csv,noheader,nounits']

/** Simulated ms after the start at which every engine here is ready, at speed 100. */
const LATER = 300_000

test('exit: at once with its code, while loading too', async () => {
  const early = await one('vllm', 'exit', [{ kind: 'exit', startMs: 8000, code: 3 }])
  expect(await early.process.ended()).toBe(3)
  const late = await ready('sglang', 'exit', [{ kind: 'exit', startMs: LATER, code: 137 }])
  expect(await late.process.ended()).toBe(137)
})

test('a hang that ends before the watchdog: the request is answered after all', async () => {
  const { process, base } = await ready('vllm', 'hang', [
    { kind: 'hang', startMs: LATER, durationMs: 200_000 },
  ])
  await until(async () => {
    const text = chat(base).then((response) => response.json())
    const late = new Promise((wake) => setTimeout(() => wake('late'), 400))
    if ((await Promise.race([text, late])) !== 'late') return false
    expect(await answers(`${base}/health`)).toBe(200)
    await process.says('No available shared memory broadcast block found in 60 seconds')
    expect(await text).toMatchObject({ usage: { completion_tokens: 8 } })
    return true
  }, 'a hang')
  expect(await (await chat(base)).json()).toMatchObject({ usage: { completion_tokens: 8 } })
  expect(process.exit).toBe(null)
})

describe.each(['vllm', 'sglang'] as const)('%s', (engine) => {
  test('a hang without end: the watchdog ends the engine', async () => {
    const { process, base } = await ready(engine, `dead-${engine}`, [
      { kind: 'hang', startMs: LATER },
    ])
    await until(async () => {
      chat(base).then(
        (response) => response.text().catch(() => ''),
        () => '',
      )
      const status = await answers(`${base}/health`)
      return status !== 200 || process.exit !== null
    }, 'an unwell engine')
    expect(await process.ended()).toBe(engine === 'vllm' ? 0 : 137)
    expect(process.output).toContain(engine === 'vllm' ? 'EngineDeadError' : 'Watchdog timeout')
  })

  test('xid: the engine dies of a CUDA error and the GPU stays lost', async () => {
    const node = `xid-${engine}`
    const { process } = await ready(engine, node, [{ kind: 'xid', startMs: LATER }], 50)
    expect(await process.ended()).toBe(engine === 'vllm' ? 0 : 137)
    expect(process.output).toContain('CUDA error: unspecified launch failure')
    const lost = await smi(node, ...USED)
    expect(lost.output).toContain('GPU is lost.  Reboot the system to recover this GPU')
    expect(lost.code).toBe(15)
    const again = await one(engine, node, [])
    expect(await again.process.ended()).toBe(1)
    await until(async () => (await smi(node, ...USED)).code === 0, 'the reboot')
  })
})

test('freeze-counters: /metrics repeats itself while requests are answered', async () => {
  const { base } = await ready('vllm', 'counters', [{ kind: 'freeze-counters' }])
  const text = async () => (await fetch(`${base}/metrics`)).text()
  const before = await text()
  expect((await chat(base)).status).toBe(200)
  expect(await text()).toBe(before)
  expect(metric(before, 'vllm:generation_tokens_total')).toBe(0)
})

test('slow-shards: progress goes on, ten times as slow', async () => {
  const slow = await one('vllm', 'slow', [{ kind: 'slow-shards', factor: 10 }])
  await slow.process.says(/Loading weights took (\d+\.\d+) seconds/)
  const seconds = Number(/took (\d+\.\d+) seconds/.exec(slow.process.output)?.[1])
  // 65.5 GB at 6.15 GB/s are 10.7 s.
  expect(seconds).toBeGreaterThan(100)
  expect(slow.process.output).toContain('7% Completed | 1/14')
})

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'keep-memory: after %s nobody owns it',
  async (signal) => {
    const node = `keep-${signal}`
    const { process } = await ready('vllm', node, [{ kind: 'keep-memory', durationMs: 1_500_000 }])
    const full = async () => Number((await smi(node, ...USED)).output) > 80_000
    await until(full, 'the engine in the readings')
    process.kill(signal)
    await process.ended()
    const apps = () => smi(node, '--query-compute-apps=pid', '--format=csv,noheader')
    await until(async () => (await apps()).output === '', 'no owner')
    expect(await full()).toBe(true)
    const next = await one('vllm', node, [])
    expect(await next.process.ended()).toBe(1)
    expect(next.process.output).toContain('Free memory on device cuda:0')
    await until(async () => !(await full()), 'the memory to be freed')
  },
)

test('nvml-lost: a new nvidia-smi fails, and one that runs already', async () => {
  const { base } = await ready('vllm', 'nvml', [{ kind: 'nvml-lost', startMs: LATER }])
  const loop = new Simulated('nvidia-smi', [...USED, '-l', '1'], rehearsal({ node: 'nvml' }))
  await loop.says('Failed to initialize NVML: Unknown Error')
  expect(await loop.ended()).toBe(255)
  expect((await smi('nvml', ...USED)).code).toBe(255)
  expect((await chat(base)).status).toBe(200)
})

test.each([0, 1])('partition of rank %i: both wait, no close is seen, it heals', async (index) => {
  const [http, meet] = [await freePort('127.0.0.23'), await freePort('127.0.0.23')]
  const rank = (at: number) => {
    const line =
      `serve r1 --served-model-name q --max-model-len 16384 --tensor-parallel-size 16 --nnodes 2 ` +
      `--node-rank ${at} --master-addr 127.0.0.23 --master-port ${meet} ` +
      (at === 0 ? `--host 127.0.0.23 --port ${http}` : '--headless')
    const faults = [{ kind: 'partition', rank: index, startMs: 600_000, durationMs: 250_000 }]
    return new Simulated('vllm', line.split(' '), r1Rehearsal(`part-${index}-${at}`), {
      PENSTOCK_FAULTS: JSON.stringify(faults),
    })
  }
  const [head, other] = [rank(0), rank(1)]
  const base = `http://127.0.0.23:${http}`
  await until(isReady(base), 'the group', () => head.output + other.output)
  await until(async () => {
    await (await chat(base)).json()
    return head.output.includes('No available shared memory broadcast block')
  }, 'a request that waited for the partition to heal')
  expect(await answers(`${base}/health`)).toBe(200)
  expect(await (await chat(base)).json()).toMatchObject({ usage: { completion_tokens: 8 } })
  expect([head.exit, other.exit]).toEqual([null, null])
  expect(other.output).not.toContain('TCPStore')
})
