/** Two ranks over real TCP on two loopback addresses, as R1 on two nodes. */
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import {
  answers,
  cleanUp,
  events,
  freePort,
  isReady,
  metric,
  post,
  r1Rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterEach(stopAll)
afterAll(cleanUp)

const HEAD = '127.0.0.21'
const OTHER = '127.0.0.22'

type Ports = { readonly http: number; readonly meet: number }
type Engine = 'vllm' | 'sglang'

const ports = async (): Promise<Ports> => ({
  http: await freePort(HEAD),
  meet: await freePort(HEAD),
})

const rank = (engine: Engine, index: number, { http, meet }: Ports, more = '', speed = 200) => {
  const host = index === 0 ? HEAD : OTHER
  const vllm =
    `serve r1 --served-model-name r1 --max-model-len 16384 --tensor-parallel-size 16 --nnodes 2 ` +
    `--node-rank ${index} --master-addr ${HEAD} --master-port ${meet} ` +
    (index === 0 ? `--host ${host} --port ${http}` : '--headless')
  const sglang =
    `-m sglang.launch_server --model-path r1 --context-length 16384 --tp 16 --nnodes 2 ` +
    `--node-rank ${index} --dist-init-addr ${HEAD}:${meet} --host ${host} --port ${http} --enable-metrics`
  const line = `${engine === 'vllm' ? vllm : sglang} ${more}`.trim()
  const program = engine === 'vllm' ? 'vllm' : 'python3'
  return new Simulated(program, line.split(/\s+/), r1Rehearsal(`node-${index}`, { speed }))
}

const url = (host: string, { http }: Ports) => `http://${host}:${http}`

const pair = async (engine: Engine, more = '', speed = 200) => {
  const at = await ports()
  const [head, other] = [rank(engine, 0, at, more, speed), rank(engine, 1, at, more, speed)]
  await until(isReady(url(HEAD, at)), 'the group', () => head.output + other.output)
  return { at, head, other, base: url(HEAD, at) }
}

const body = { model: 'r1', messages: [{ role: 'user', content: 'Hello' }], max_tokens: 8 }
const endless = { ...body, stream: true, ignore_eos: true, max_tokens: 15_000 }

describe.each(['vllm', 'sglang'] as const)('%s', (engine) => {
  test('the port opens only when both ranks are ready; the follower may come first or late', async () => {
    const at = await ports()
    const other = rank(engine, 1, at)
    const head = rank(engine, 0, at)
    await until(isReady(url(HEAD, at)), 'the group', () => head.output + other.output)
    const answer = await post(url(HEAD, at), '/v1/chat/completions', body)
    expect(await answer.json()).toMatchObject({ usage: { completion_tokens: 8 } })
    if (engine === 'vllm') expect(await answers(`${url(OTHER, at)}/health`)).toBe(null)
    else {
      const dummy = async () => (await answers(`${url(OTHER, at)}/health`)) === 200
      await until(dummy, 'the dummy server', () => other.output)
      expect(await answers(`${url(OTHER, at)}/v1/models`)).toBe(404)
    }
  })

  test('one rank missing: refused for as long as it takes, then the real time-out', async () => {
    const at = await ports()
    const patience = engine === 'vllm' ? '--distributed-timeout-seconds 200' : '--dist-timeout 200'
    const head = rank(engine, 0, at, patience)
    await head.says(
      engine === 'vllm' ? 'distributed_init_method=tcp://' : 'Init torch distributed begin',
    )
    expect(await answers(`${url(HEAD, at)}/health`)).toBe(null)
    expect(await head.ended()).toBe(1)
    expect(head.output).toContain('1 of 2 ranks did not join')
    const lonely = rank(engine, 1, at, patience)
    expect(await lonely.ended()).toBe(1)
    expect(lonely.output).toContain('the leader cannot be reached')
  })

  test('differing flags are refused with both command lines in the log', async () => {
    const at = await ports()
    const head = rank(engine, 0, at)
    const flag = engine === 'vllm' ? '--kv-cache-dtype fp8' : '--kv-cache-dtype fp8_e4m3'
    const other = rank(engine, 1, at, flag)
    expect(await other.ended()).toBe(1)
    expect(other.output).toContain('the leader refused this rank')
    await head.says('rendezvous refused: rank 1 was launched as')
    const right = rank(engine, 1, at)
    await until(isReady(url(HEAD, at)), 'the group', () => head.output + right.output)
  })
})

test('vLLM: a remote rank dies and the head is not told', async () => {
  const { head, other, base } = await pair('vllm', '', 100)
  const response = await post(base, '/v1/chat/completions', endless)
  const text = response.text()
  other.kill()
  await other.ended()
  const steps = async () =>
    metric(await (await fetch(`${base}/metrics`)).text(), 'vllm:iteration_tokens_total_count')
  await new Promise((wake) => setTimeout(wake, 100))
  const before = await steps()
  await head.says('No available shared memory broadcast block found in 60 seconds')
  expect(await answers(`${base}/health`)).toBe(200)
  expect(await steps()).toBe(before)
  await head.says('EngineDeadError')
  const all = events(await text)
  expect(all.at(-2)).toContain('{"error": {"message": "EngineCore encountered an issue')
  expect(all.at(-1)).toBe('[DONE]')
  expect(await head.ended()).toBe(0)
})

test('SGLang: a remote rank dies, /health turns 503, the watchdog ends rank 0', async () => {
  const { head, other, base } = await pair('sglang', '', 100)
  const response = await post(base, '/v1/chat/completions', endless)
  const broken = response.text().then(
    () => false,
    () => true,
  )
  other.kill()
  await other.ended()
  await until(async () => (await answers(`${base}/health`)) === 503, 'an unwell head')
  expect(await head.ended()).toBe(137)
  expect(head.output).toContain('Watchdog timeout')
  expect(await broken).toBe(true)
})

test('the head dies: the SGLang follower ends, the vLLM follower complains for ever', async () => {
  const sglang = await pair('sglang')
  sglang.head.kill()
  expect(await sglang.other.ended()).toBe(1)
  const vllm = await pair('vllm')
  vllm.head.kill()
  await vllm.other.says(/(TCPStore[\s\S]*){3}/)
  expect(vllm.other.exit).toBe(null)
})

test('a rank that dies while loading ends the start of the head', async () => {
  const at = await ports()
  const head = rank('vllm', 0, at, '', 40)
  const other = rank('vllm', 1, at, '', 40)
  await head.says('Starting to load model')
  other.kill()
  expect(await head.ended()).toBe(1)
  expect(head.output).toContain('rank 1 closed its connection during start')
})

test('a taken rendezvous port is said', async () => {
  const at = await ports()
  const first = rank('vllm', 0, at)
  await first.says('distributed_init_method')
  const second = rank('vllm', 0, { ...at, http: await freePort(HEAD) })
  expect(await second.ended()).toBe(1)
  expect(second.output).toContain('The server socket has failed to listen')
})
