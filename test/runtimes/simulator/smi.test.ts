import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { hasProgram, requirePart } from '../../support/parts.ts'
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
  WRITTEN_BY_SIMULATORS,
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

/** Puts a reading where simulators put theirs; it counts for five seconds. */
const publish = (node: string, gpu: number, reading: object): void => {
  const directory = join(WRITTEN_BY_SIMULATORS, encodeURIComponent(node))
  mkdirSync(directory, { recursive: true })
  const text = JSON.stringify({ at: Date.now() + 60_000, ...reading })
  writeFileSync(join(directory, `gpu-${gpu}.json`), text)
}

test('NVML lost: one line and 255, whatever is asked; a running loop ends with it', async () => {
  const node = r1Rehearsal('nvml')
  const loop = new Simulated('nvidia-smi', ['--query-gpu=index', CSV, '-lms', '100'], node)
  await loop.says('7\n')
  publish('nvml', 3, { failure: 'nvml' })
  const said = 'Failed to initialize NVML: Unknown Error\n'
  for (const argv of [['-L'], ['-q', '-x'], [], ['-i', '0', '--query-gpu=uuid', CSV]]) {
    expect(await smi(argv, node)).toEqual({ code: 255, output: said })
  }
  expect(await loop.ended()).toBe(255)
  expect(loop.output.endsWith(said)).toBe(true)
})

test('a GPU off the bus: 15 and its bus id; the others can still be asked alone', async () => {
  const node = r1Rehearsal('lost')
  publish('lost', 1, { failure: 'lost' })
  const all = await smi([`--query-gpu=${FIELDS}`, CSV], node)
  expect(all.code).toBe(15)
  expect(all.output).toMatch(
    /^Unable to determine the device handle for GPU0000:1F:00\.0: GPU is lost\. {2}Reboot/,
  )
  expect(await smi(['-i', '0', '--query-gpu=index', CSV], node)).toEqual({ code: 0, output: '0\n' })
})

test("ECC errors show in every form; XIDs are the kernel log's, no field has them", async () => {
  const node = r1Rehearsal('ecc')
  publish('ecc', 0, { eccCorrected: 7, eccUncorrected: 2 })
  const fields = [
    ...['ecc.mode.current', 'ecc.errors.corrected.volatile.total'],
    ...['ecc.errors.uncorrected.aggregate.dram', 'remapped_rows.pending'],
  ]
  const query = `--query-gpu=${fields.join(',')}`
  const rows = (await smi([query, CSV], node)).output.split('\n')
  expect(rows.slice(0, 2)).toEqual(['Enabled, 7, 2, Yes', 'Enabled, 0, 0, No'])
  expect((await smi(['-q'], node)).output).toMatch(/DRAM Uncorrectable +: 2\n/)
  expect((await smi(['--query-gpu=xid', CSV], node)).code).toBe(2)
})

test.skipIf(!requirePart('python3', hasProgram('python3')))(
  '-q -x is XML with what exporters read: ids, memory, load, power, ECC, processes',
  async () => {
    const node = r1Rehearsal('xml')
    const memoryBytes = 90_000 * 2 ** 20
    publish('xml', 2, { pid: 4711, processName: 'a<b>&c', memoryBytes, utilizationRatio: 0.5 })
    const { output } = await smi(['-q', '-x'], node)
    const script =
      'import sys, json, xml.etree.ElementTree as E\n' +
      'root = E.fromstring(sys.stdin.read())\n' +
      'text = lambda gpu, path: gpu.findtext(path)\n' +
      'paths = sys.argv[1].split(",")\n' +
      'print(json.dumps([[gpu.get("id")] + [text(gpu, p) for p in paths] for gpu in root.iter("gpu")]))'
    const paths = [
      ...['fb_memory_usage/total', 'fb_memory_usage/used', 'utilization/gpu_util'],
      ...['gpu_power_readings/current_power_limit', 'ecc_mode/current_ecc'],
      ...['ecc_errors/volatile/dram_uncorrectable', 'temperature/gpu_temp'],
      ...['processes/process_info/pid', 'processes/process_info/process_name'],
      'processes/process_info/used_memory',
    ]
    const ran = spawnSync('python3', ['-c', script, paths.join(',')], { input: output })
    const gpus: unknown = JSON.parse(String(ran.stdout))
    const figures = ['97871 MiB', '90000 MiB', '50 %', '500.00 W', 'Enabled', '0', '33 C']
    const busy = ['00000000:2F:00.0', ...figures, '4711', 'a<b>&c', '90000 MiB']
    expect(gpus).toHaveLength(8)
    expect(gpus).toHaveProperty('2', busy)
    expect(gpus).toHaveProperty('0.8', null)
  },
)
