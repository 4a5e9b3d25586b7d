import { afterAll, afterEach, expect, test } from 'vitest'
import {
  cleanUp,
  freePort,
  H20,
  isReady,
  post,
  r1Rehearsal,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterEach(stopAll)
afterAll(cleanUp)

const FIELDS = 'index,uuid,name,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu'
const CSV = '--format=csv,noheader,nounits'

const smi = async (argv: readonly string[], on = rehearsal()) => {
  const one = new Simulated('nvidia-smi', argv, on)
  const code = await one.ended()
  return { code, output: one.output }
}

test('idle GPUs: eight rows, uuids that stay, units and header when asked for', async () => {
  const node = r1Rehearsal('quiet')
  const first = await smi([`--query-gpu=${FIELDS}`, CSV], node)
  const rows = first.output
    .trim()
    .split('\n')
    .map((row) => row.split(', '))
  expect(rows.map(([index]) => index)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7'])
  expect(new Set(rows.map(([, uuid]) => uuid)).size).toBe(8)
  expect(rows[0]?.slice(2, 6)).toEqual(['NVIDIA H20', '0', '4', '97871'])
  expect((await smi([`--query-gpu=${FIELDS}`, CSV], node)).output).toBe(first.output)
  const two = await smi(['--query-gpu=index,memory.total', '--format=csv', '-i', '2,5'], node)
  expect(two.output).toBe('index, memory.total [MiB]\n2, 97871 MiB\n5, 97871 MiB\n')
  expect((await smi(['-L'], node)).output).toMatch(/^GPU 0: NVIDIA H20 \(UUID: GPU-[0-9a-f-]{36}\)/)
  expect((await smi(['-q', '-x'], node)).output).toContain('<attached_gpus>8</attached_gpus>')
  expect((await smi([], node)).output).toContain('NVIDIA-SMI')
})

test('what is wrong is said as nvidia-smi says it', async () => {
  const wrong = await smi(['--query-gpu=foo', CSV])
  expect(wrong).toEqual({ code: 2, output: 'Field "foo" is not a valid field to query.\n' })
  expect((await smi(['-i', '9', '--query-gpu=index', CSV])).output).toBe('No devices were found\n')
  expect((await smi(['--no-such-option'])).code).toBe(2)
  expect((await smi(['-l', 'x'])).code).toBe(2)
  const none = await smi([], { ...rehearsal(), gpus: [] })
  expect(none).toEqual({ code: 6, output: 'No devices were found\n' })
})

test('a running engine shows: memory, load, power; gone again when it ends', async () => {
  const port = await freePort()
  const node = rehearsal({ node: 'busy', speed: 20 })
  const line = `serve q --served-model-name q --max-model-len 32768 --host 127.0.0.1 --port ${port}`
  const engine = new Simulated('vllm', line.split(' '), node)
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => engine.output)
  const body = { model: 'q', prompt: 'x', max_tokens: 30_000, ignore_eos: true, stream: true }
  const response = await post(url, '/v1/completions', body)
  const watch = new Simulated('nvidia-smi', [`--query-gpu=${FIELDS}`, CSV, '-lms', '200'], node)
  const latest = () => watch.output.trimEnd().split('\n').at(-1)?.split(', ').map(Number) ?? []
  await until(
    () => (latest()[3] ?? 0) > 50,
    'a busy GPU',
    () => watch.output,
  )
  const [, , , , used = 0, total = 0, power = 0] = latest()
  expect(used).toBeGreaterThan(80_000)
  expect(used).toBeLessThan(total)
  expect(power).toBeGreaterThan(H20.powerLimitWatts / 2)
  const apps = await smi(['--query-compute-apps=pid,process_name', CSV], node)
  expect(apps.output).toBe(`${engine.child.pid}, VLLM::Worker\n`)
  await response.body?.cancel()
  engine.kill('SIGTERM')
  await engine.ended()
  await until(
    () => latest()[4] === 4,
    'free memory',
    () => watch.output,
  )
})
